//! `cargo xtask bench`: what wgx is worth, measured in network namespaces on this machine.

mod candidate;
mod gateway;
mod handshake;
mod latency;
mod scale;
mod session;
mod stand;
mod trial;

use anyhow::{Result, bail};
use clap::Subcommand;
use tests::scenario;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// How much wgx carries without loss and in overload, beside other implementations and plain forwarding.
    Gateway(session::Args),
    /// How late packets are at steady loads.
    Latency(session::Args),
    /// Speed and memory against clients, peers and prefixes.
    Scale(session::Args),
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
        Bench::Gateway(args) => gateway::run(args),
        Bench::Latency(args) => latency::run(args),
        Bench::Scale(args) => scale::run(args),
        Bench::Handshake(args) => handshake::run(args),
        Bench::Trial(args) => trial::run(args),
    }
}
