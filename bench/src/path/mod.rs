//! What `wgx-path` measures of the packet path, as plain data, and how its instructions are counted and judged.

mod baseline;
mod callgrind;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::load::Direction;

pub use baseline::{Baseline, BaselineError, Count, Judgement, TOLERANCE, Verdict};
pub use callgrind::{Profile, ProfileError};

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
