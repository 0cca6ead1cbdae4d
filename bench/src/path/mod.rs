//! What `wgx-path` measures of the packet path, as plain data, and how its instructions are counted and judged.

mod baseline;
mod callgrind;
mod lookup;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::load::Direction;

pub use baseline::{Baseline, BaselineError, Count, Judgement, TOLERANCE, Verdict};
pub use callgrind::{Profile, ProfileError};
pub use lookup::Lookup;

/// One kind of traffic through the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scenario {
    /// Which way packets cross the gateway.
    pub direction: Direction,
    /// Clients that packets belong to in turn.
    pub clients: u32,
    /// Bytes of inner IP packet.
    pub len: u16,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Decrypt => "decrypt",
            Direction::Encrypt => "encrypt",
            Direction::Hairpin => "hairpin",
            Direction::Bidirectional => "bidirectional",
        };
        let clients = if self.clients == 1 { "client" } else { "clients" };
        write!(f, "{direction} {} B, {} {clients}", self.len, self.clients)
    }
}

/// A scenario that passed through a worker while callgrind collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// What passed.
    pub scenario: Scenario,
    /// How many packets.
    pub packets: u64,
}

/// What one stage costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Nanoseconds per packet.
    pub ns: f64,
}

/// What the stages of a scenario cost, and the engine as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stages {
    /// What passed.
    pub scenario: Scenario,
    /// In the order of a packet's way.
    pub stages: Vec<Stage>,
    /// Nanoseconds per packet of the engine, all stages together and what joins them.
    pub engine_ns: f64,
}

impl Stages {
    /// Nanoseconds per packet that are no stage's: runs, verdicts, counters, marks for timers, and what stages lose
    /// when they share caches and registers. Negative where they gain.
    pub fn rest_ns(&self) -> f64 {
        self.engine_ns - self.stages.iter().map(|stage| stage.ns).sum::<f64>()
    }
}
