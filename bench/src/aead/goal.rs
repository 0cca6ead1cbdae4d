//! What the project promises of its AEAD, and whether a run kept it.

use std::fmt;

use super::{Cell, Direction, Figure, Measurements, load::PACKET_COUNT};

/// One promise and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// What was promised.
    pub what: String,
    /// Times as fast as the reference.
    pub reached: f64,
    /// The least that keeps the promise.
    pub wanted: f64,
    /// Nice to have, not promised.
    pub is_stretch: bool,
}

/// Packets as long as these so many times as fast as ring's, sealing and opening; and whether that is a stretch.
const AGAINST_RING: [(&str, f64, f64, bool); 4] = [
    ("208", 2.7, 2.7, false),
    ("1424", 2.25, 2.0, false),
    ("1424", 2.5, 2.5, true),
    ("mix", 2.0, 2.0, false),
];

/// Many keys may take so much of the speed with one before it is more than the noise of measuring.
const KEYS_TOLERANCE: f64 = 0.97;

/// All goals whose figures were measured, by the best figures of one run.
pub fn goals(measurements: &Measurements) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (load, seal, open, is_stretch) in AGAINST_RING {
        for (direction, wanted) in [(Direction::Seal, seal), (Direction::Open, open)] {
            let best = |name: &str, batch_len| {
                best(measurements, "sizes", load, name, batch_len, PACKET_COUNT, direction)
            };
            let (ours, ring) = (best(&measurements.ours, PACKET_COUNT), best("ring", 1));
            if let (Some(ours), Some(ring)) = (ours, ring) {
                let what = format!("{} {load}: {wanted} times ring", direction.verb());
                goals.push(Goal { what, reached: ring / ours, wanted, is_stretch });
            }
        }
    }
    for load in ["64", "208", "1424"] {
        for direction in Direction::ALL {
            let best =
                |keys| best(measurements, "keys", load, &measurements.ours, PACKET_COUNT, keys, direction);
            if let (Some(one), Some(many)) = (best(1), best(PACKET_COUNT)) {
                let what = format!("{} {load}: {PACKET_COUNT} keys no dearer than one", direction.verb());
                let (reached, wanted) = (one / many, KEYS_TOLERANCE);
                goals.push(Goal { what, reached, wanted, is_stretch: false });
            }
        }
    }
    goals
}

fn best(
    measurements: &Measurements,
    table: &str,
    load: &str,
    implementation: &str,
    batch_len: usize,
    key_count: usize,
    direction: Direction,
) -> Option<f64> {
    let (table, load, implementation) = (table.to_owned(), load.to_owned(), implementation.to_owned());
    let figure = Figure::default();
    let wanted = Cell { table, load, batch_len, key_count, implementation, direction, figure };
    measurements.figure(&wanted).map(|figure| figure.best)
}

impl Goal {
    /// Whether the promise was kept.
    pub fn is_met(&self) -> bool {
        self.reached >= self.wanted
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.is_met() { "met" } else { "missed" };
        let kind = if self.is_stretch { "stretch " } else { "" };
        write!(f, "{kind}goal {outcome}: {}: {:.2}", self.what, self.reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(implementation: &str, batch_len: usize, best: f64) -> Cell {
        Cell {
            table: "sizes".into(),
            load: "208".into(),
            batch_len,
            key_count: PACKET_COUNT,
            implementation: implementation.into(),
            direction: Direction::Seal,
            figure: Figure { best, ..Figure::default() },
        }
    }

    #[test]
    fn goal_is_met_by_as_much_as_was_promised_and_missed_by_less() {
        for (ours, is_met) in [(100.0, true), (101.0, false)] {
            let cells = vec![cell("wide", PACKET_COUNT, ours), cell("ring", 1, 270.0)];
            let measurements = Measurements { ours: "wide".into(), cells, ..Measurements::default() };
            let goals = goals(&measurements);
            assert_eq!(goals.len(), 1, "only what was measured");
            assert_eq!(goals[0].is_met(), is_met, "{}", goals[0]);
        }
    }
}
