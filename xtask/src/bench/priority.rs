//! A measurement comes before what else the machine does.

use std::fs;

/// The scheduler's group of this session (sched(7), autogroup): niceness counts within it only.
const AUTOGROUP: &str = "/proc/self/autogroup";
/// As the programs' own niceness.
const NICENESS: &str = "-15";

/// Raises this session above others, as far as the kernel lets us, until it is dropped.
pub struct Priority {
    before: Option<String>,
}

impl Priority {
    /// Where the kernel has no such groups nothing happens, and niceness alone decides.
    pub fn raise() -> Self {
        let before = fs::read_to_string(AUTOGROUP).ok().and_then(|text| niceness(&text));
        let is_raised = before.is_some() && fs::write(AUTOGROUP, NICENESS).is_ok();
        Self { before: before.filter(|_| is_raised) }
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // The session goes on as it may.
            let _ = fs::write(AUTOGROUP, before);
        }
    }
}

/// The number in `/autogroup-339 nice 0`.
fn niceness(text: &str) -> Option<String> {
    Some(text.trim().rsplit_once(" nice ")?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn niceness_of_the_group_is_its_last_word() {
        assert_eq!(niceness("/autogroup-339 nice -5\n"), Some("-5".to_owned()));
        assert_eq!(niceness("something else"), None);
    }
}
