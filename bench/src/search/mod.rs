//! How much a gateway carries: a search over trials for the highest rates that lose no more than so much.
//!
//! The no drop rate (NDR) and the partial drop rate (PDR) of FD.io CSIT, found in the way of `MLRsearch`
//! (draft-ietf-bmwg-mlrsearch): one trial serves all loss goals, the first guess is what came through at full speed,
//! from there the search widens by doubling steps until it has a bound on either side, and then halves what is between.

mod bounds;
mod ledger;
pub mod model;

use anyhow::Result;

pub use bounds::{End, Found, Searched, search};
pub use ledger::Votes;

use crate::load::{Direction, Load, Outcome, Sizes, Trial};

/// Lost packets as a share of those intended that the partial drop rate allows: CSIT's 0.5 %.
pub const PDR_LOSS_RATIO: f64 = 0.005;
/// The no drop rate allows none.
pub const NDR_LOSS_RATIO: f64 = 0.0;

/// What runs trials (RFC 2544's tester): the load generator with a gateway before it, or a model of both.
pub trait Tester {
    /// Runs one trial to its end.
    ///
    /// # Errors
    /// The trial cannot be run.
    fn trial(&mut self, trial: &Trial) -> Result<Outcome>;
}

impl Tester for Load {
    fn trial(&mut self, trial: &Trial) -> Result<Outcome> {
        Load::trial(self, trial)
    }
}

/// What to search for, and how thoroughly.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Which way packets go.
    pub direction: Direction,
    /// How long they are.
    pub sizes: Sizes,
    /// Whose they are.
    pub clients: u32,
    /// Seconds of sending in a trial.
    pub seconds: f64,
    /// Loss ratios to find the highest rate for.
    pub loss_ratios: Vec<f64>,
    /// The search ends when the bounds are this close: upper / lower - 1.
    pub width: f64,
    /// No rate below this is tried, in packets per second.
    pub min_pps: u64,
    /// No rate above this is tried.
    pub max_pps: u64,
    /// How many trials settle a rate.
    pub votes: Votes,
    /// The search ends unfinished after so many trials.
    pub trials_max: u32,
}

impl Plan {
    /// The trial at a rate; `None` is as fast as the generator can.
    pub fn trial(&self, rate_pps: Option<u64>) -> Trial {
        Trial {
            direction: self.direction,
            sizes: self.sizes.clone(),
            clients: self.clients,
            rate_pps,
            seconds: self.seconds,
            is_watched: false,
        }
    }
}
