//! `cargo xtask bench`: what wgx is worth, measured in network namespaces on this machine.

mod handshake;
mod trial;

use anyhow::{Result, bail};
use clap::Subcommand;
use tests::scenario;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// Latency of media while strangers send handshake initiations.
    Handshake(handshake::Args),
    /// One gateway, some trials of load by hand.
    Trial(trial::Args),
}

/// Measures.
pub fn run(bench: &Bench) -> Result<()> {
    if let Some(why) = scenario::obstacle() {
        bail!("the benchmark {why}");
    }
    match bench {
        Bench::Handshake(args) => handshake::run(args),
        Bench::Trial(args) => trial::run(args),
    }
}
