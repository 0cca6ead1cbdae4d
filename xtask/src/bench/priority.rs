//! Ahead of what else a machine does, while something is measured on it.

use std::fs;

/// The session's group of tasks: with `sched_autogroup_enabled`, niceness counts among a session's tasks only, and
/// sessions share the processors by this (sched(7)).
const AUTOGROUP: &str = "/proc/self/autogroup";
const HIGHEST: &str = "-20";

/// This session, and so all that we start, comes before others until this is dropped.
pub struct Ahead {
    before: Option<String>,
}

impl Ahead {
    /// Where sessions are not grouped, or without the right, nothing changes: a trial that was held up says so itself.
    pub fn of_other_sessions() -> Self {
        // `/autogroup-336 nice 0`
        let text = fs::read_to_string(AUTOGROUP).unwrap_or_default();
        let before = text.trim().rsplit(' ').next().filter(|nice| nice.parse::<i32>().is_ok());
        let before = before.filter(|_| fs::write(AUTOGROUP, HIGHEST).is_ok()).map(str::to_owned);
        Self { before }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(AUTOGROUP, before);
        }
    }
}
