//! `cargo xtask bench`: what wgx is worth, measured in network namespaces on this machine.

mod handshake;
mod lookup;
pub mod path;

use anyhow::{Result, bail};
use clap::Subcommand;
use tests::scenario;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// Latency of media while strangers send handshake initiations.
    Handshake(handshake::Args),
    /// Structures for longest-prefix matches.
    Lookup(lookup::Args),
    /// What a packet's way through the engine costs.
    Path(path::Args),
}

/// Measures.
pub fn run(bench: &Bench) -> Result<()> {
    if let Some(why) = scenario::obstacle() {
        bail!("the benchmark {why}");
    }
    match bench {
        Bench::Handshake(args) => handshake::run(args),
        Bench::Lookup(args) => lookup::run(args),
        Bench::Path(args) => path::run(args),
    }
}
