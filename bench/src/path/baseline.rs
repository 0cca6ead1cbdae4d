//! Instructions per packet as they were when somebody last looked at them, and what to say of new ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Passed, Profile};

/// Change of a scenario's instructions, as a share, that is let pass. Equal sources give equal counts; inlining that
/// falls out differently because of a change elsewhere moves them by less.
pub const TOLERANCE: f64 = 0.03;

/// Smallest change of a source's instructions per packet that is worth telling.
const TOLD_MIN: f64 = 0.5;

const HEADING: &str = "\
# Instructions per packet of the engine, without cipher and ports, as callgrind counts them, and where in the sources
# they come from. `cargo xtask test` fails when a scenario takes 3 % more. Written by
# `cargo xtask bench path --accept`: say in the commit what the instructions are spent on.

";

/// Instructions per packet of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// All of the engine's, without cipher and ports.
    pub instructions: f64,
    /// Those of Rust, by source.
    pub by_source: BTreeMap<String, f64>,
}

impl Count {
    /// The count of what `passed` while `profile` was collected.
    pub fn new(profile: &Profile, passed: &Passed) -> Self {
        let per_packet = |cost: u64| (cost as f64 / passed.packets as f64 * 100.0).round() / 100.0;
        Self {
            instructions: per_packet(profile.engine),
            by_source: profile
                .by_source
                .iter()
                .map(|(source, cost)| (source.clone(), per_packet(*cost)))
                .filter(|(_, cost)| *cost >= TOLD_MIN)
                .collect(),
        }
    }

    /// Sources whose instructions changed most against `former`, with by how many, at most `count` of them.
    pub fn changes_since(&self, former: &Self, count: usize) -> Vec<(String, f64)> {
        let mut changes: BTreeMap<&String, f64> = BTreeMap::new();
        for (source, cost) in &self.by_source {
            *changes.entry(source).or_default() += cost;
        }
        for (source, cost) in &former.by_source {
            *changes.entry(source).or_default() -= cost;
        }
        let mut changes: Vec<_> = changes
            .into_iter()
            .filter(|(_, change)| change.abs() >= TOLD_MIN)
            .map(|(source, change)| (source.clone(), change))
            .collect();
        changes.sort_by(|(_, one), (_, other)| other.abs().total_cmp(&one.abs()));
        changes.truncate(count);
        changes
    }
}

/// What is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// What compiled it, as `rustc --version` says: another compiler makes other instructions.
    pub rustc: String,
    /// Scenarios by name.
    pub scenarios: BTreeMap<String, Count>,
}

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
#[error("the baseline of instructions is damaged, `cargo xtask bench path --accept` writes a new one: {0}")]
pub struct BaselineError(#[from] toml::de::Error);

/// What is to be said of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within [`TOLERANCE`].
    Same,
    /// More instructions than [`TOLERANCE`] lets pass.
    More,
    /// Fewer: the baseline is out of date, and would let the gain be lost unseen.
    Fewer,
    /// Not in the baseline.
    New,
}

/// One scenario held against the baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The scenario's name.
    pub scenario: String,
    /// Instructions per packet then; `None` for a scenario that is new.
    pub former: Option<f64>,
    /// Instructions per packet now.
    pub instructions: f64,
    /// What to say.
    pub verdict: Verdict,
    /// Sources that changed most, with by how many instructions per packet.
    pub changes: Vec<(String, f64)>,
}

impl Baseline {
    /// The baseline in the committed file's `text`.
    ///
    /// # Errors
    /// `text` is not what [`Baseline::to_text`] writes.
    pub fn parse(text: &str) -> Result<Self, BaselineError> {
        Ok(toml::from_str(text)?)
    }

    /// The file to commit.
    ///
    /// # Panics
    /// Never: maps of numbers have a form in TOML.
    pub fn to_text(&self) -> String {
        let values = toml::to_string(self).expect("maps of numbers have a form in TOML");
        format!("{HEADING}{values}")
    }

    /// Holds `scenarios` against this baseline.
    pub fn judge(&self, scenarios: &BTreeMap<String, Count>) -> Vec<Judgement> {
        scenarios.iter().map(|(name, count)| self.judge_one(name, count)).collect()
    }

    fn judge_one(&self, scenario: &str, count: &Count) -> Judgement {
        let former = self.scenarios.get(scenario);
        let verdict = match former {
            None => Verdict::New,
            Some(former) if count.instructions > former.instructions * (1.0 + TOLERANCE) => Verdict::More,
            Some(former) if count.instructions < former.instructions * (1.0 - TOLERANCE) => Verdict::Fewer,
            Some(_) => Verdict::Same,
        };
        Judgement {
            scenario: scenario.to_owned(),
            former: former.map(|former| former.instructions),
            instructions: count.instructions,
            verdict,
            changes: former.map_or_else(Vec::new, |former| count.changes_since(former, 4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(instructions: f64, by_source: &[(&str, f64)]) -> Count {
        let by_source = by_source.iter().map(|(source, cost)| ((*source).to_owned(), *cost)).collect();
        Count { instructions, by_source }
    }

    fn baseline() -> Baseline {
        let scenarios = [("decrypt".to_owned(), count(1000.0, &[("a.rs", 600.0), ("b.rs", 400.0)]))];
        Baseline { rustc: "rustc 1.95.0".into(), scenarios: scenarios.into() }
    }

    fn verdict(instructions: f64) -> Verdict {
        baseline().judge_one("decrypt", &count(instructions, &[])).verdict
    }

    #[test]
    fn three_percent_are_let_pass_and_no_more() {
        assert_eq!([970.0, 1000.0, 1030.0].map(verdict), [Verdict::Same; 3]);
        assert_eq!(verdict(1030.1), Verdict::More);
        assert_eq!(verdict(969.9), Verdict::Fewer);
        assert_eq!(baseline().judge_one("encrypt", &count(5.0, &[])).verdict, Verdict::New);
    }

    #[test]
    fn the_sources_that_changed_most_are_named_first() {
        let now = count(1100.0, &[("a.rs", 590.0), ("c.rs", 510.0)]);
        let judged = baseline().judge_one("decrypt", &now);
        let expected = [("c.rs", 510.0), ("b.rs", -400.0), ("a.rs", -10.0)];
        assert_eq!(judged.changes, expected.map(|(source, change)| (source.to_owned(), change)));
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        assert_eq!(Baseline::parse(&baseline().to_text()).unwrap(), baseline());
        assert!(Baseline::parse("scenarios = 5").is_err());
    }
}
