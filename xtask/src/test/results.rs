//! Counting what `cargo test` reports while its output passes by.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::command::shown;

/// Numbers of tests, summed over test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    /// Marked `#[ignore]`; `tidy` forbids it, a dependency's documentation may still have some.
    pub ignored: usize,
    /// `cargo test` itself said that something failed: a test, or a program that did not even start.
    pub cargo_failed: bool,
}

impl Tally {
    /// Adds another tally; an error if it has failures, so that the step that ran the tests fails.
    pub fn add(&mut self, other: Self) -> Result<()> {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        if other.failed > 0 {
            bail!("{} tests failed", other.failed);
        }
        if other.cargo_failed {
            bail!("a test program did not build or broke off");
        }
        Ok(())
    }
}

/// Runs `cargo test`, shows what it prints and counts.
pub fn watch(command: &mut Command) -> Result<Tally> {
    let line = shown(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("`{line}` did not start"))?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("stdout is piped")?).lines() {
        let line = line?;
        println!("{line}");
        tally.count(&line);
    }
    tally.cargo_failed = !child.wait()?.success();
    Ok(tally)
}

impl Tally {
    /// What a whole output says.
    pub fn of(output: &str) -> Self {
        let mut tally = Self::default();
        output.lines().for_each(|line| tally.count(line));
        tally
    }

    /// Reads libtest's `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn count(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let numbers = result.split_once(". ").map_or("", |(_, numbers)| numbers);
        for part in numbers.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let number = number.parse::<usize>().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_programs_are_summed() {
        let mut tally = Tally::default();
        tally.count("running 3 tests");
        tally.count(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.1s",
        );
        tally.count(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        assert_eq!(tally, Tally { passed: 4, failed: 2, ignored: 1, cargo_failed: false });
    }

    #[test]
    fn a_failure_fails_the_step_but_counts() {
        let mut total = Tally { passed: 1, ..Tally::default() };
        assert!(total.add(Tally { passed: 2, failed: 1, ..Tally::default() }).is_err());
        assert!(total.add(Tally { cargo_failed: true, ..Tally::default() }).is_err());
        assert!(total.add(Tally { passed: 3, ..Tally::default() }).is_ok());
        assert_eq!((total.passed, total.failed), (6, 1));
    }
}
