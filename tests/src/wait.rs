//! Waiting for a condition instead of sleeping for a guess.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long to wait between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks again and again until `ready` says true; an error of `ready` ends the wait at once.
pub fn wait_until(what: &str, timeout: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    loop {
        if ready()? {
            return Ok(());
        }
        if start.elapsed() >= timeout {
            bail!("waited {:.1} s in vain until {what}", timeout.as_secs_f64());
        }
        thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_fails_says_for_what() {
        let error = wait_until("pigs fly", Duration::from_millis(1), || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("until pigs fly"), "{error}");
    }

    #[test]
    fn a_wait_ends_as_soon_as_the_condition_holds() {
        let mut looks = 0;
        let wait = wait_until("the third look", Duration::from_mins(1), || {
            looks += 1;
            Ok(looks == 3)
        });
        assert!(wait.is_ok());
        assert_eq!(looks, 3);
    }
}
