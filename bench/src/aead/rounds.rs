//! Turns, and what is made of their times.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    Direction,
    implementation::Implementation,
    load::{Frames, Load, PACKET_COUNT},
};

/// One implementation in one setting.
pub struct Entrant<'a> {
    /// Its name in the tables.
    pub name: String,
    /// Packets it is given at a time.
    pub batch_len: usize,
    /// What it works on.
    pub load: &'a Load,
    /// It.
    pub implementation: Box<dyn Implementation>,
}

/// ns per packet, over all repetitions of all rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The least: what it costs when nothing else happens.
    pub best: f64,
    /// As many were above as below.
    pub median: f64,
    /// A quarter was below.
    pub lower_quartile: f64,
    /// A quarter was above.
    pub upper_quartile: f64,
    /// How many times it was measured.
    pub count: usize,
}

impl Figure {
    fn of(times: &mut [Duration]) -> Self {
        times.sort_unstable();
        let at = |part: f64| {
            let index = ((times.len() as f64 - 1.0) * part).round();
            times.get(index as usize).map_or(f64::NAN, |time| time.as_nanos() as f64 / PACKET_COUNT as f64)
        };
        Self {
            best: at(0.0),
            median: at(0.5),
            lower_quartile: at(0.25),
            upper_quartile: at(0.75),
            count: times.len(),
        }
    }
}

/// Lets all entrants take turns, in every second round in the opposite order. One figure each, in their order. If their
/// packets come from memory, their loads must be the same.
pub fn compare(
    entrants: &mut [Entrant<'_>],
    frames: &mut Frames,
    direction: Direction,
    round_count: usize,
) -> Result<Vec<Figure>> {
    let mut times = vec![Vec::new(); entrants.len()];
    if let Some(first) = entrants.first() {
        frames.start(first.load, direction);
    }
    for round in 0..round_count {
        for turn in 0..entrants.len() {
            let index = if round % 2 == 0 { turn } else { entrants.len() - 1 - turn };
            let Entrant { name, load, implementation, .. } = &mut entrants[index];
            let taken = implementation
                .turn(load, frames, direction)
                .with_context(|| format!("{name} cannot {}", direction.verb()))?;
            times[index].extend(taken);
        }
    }
    Ok(times.iter_mut().map(|times| Figure::of(times)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figure_is_per_packet() {
        let mut times: Vec<Duration> =
            (1..=101).rev().map(|ns| Duration::from_nanos(ns * PACKET_COUNT as u64)).collect();
        let figure = Figure::of(&mut times);
        let expected =
            Figure { best: 1.0, median: 51.0, lower_quartile: 26.0, upper_quartile: 76.0, count: 101 };
        assert_eq!(figure, expected);
    }
}
