//! `cargo xtask bench`: what wgx is worth, measured in network namespaces on this machine.

mod aead;
mod handshake;
mod lookup;
pub mod path;
mod priority;
mod trial;

use anyhow::{Result, bail};
use clap::Subcommand;
use tests::scenario;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// Sealing and opening of packets, beside other libraries; needs no network.
    Aead(aead::Args),
    /// Latency of media while strangers send handshake initiations.
    Handshake(handshake::Args),
    /// One gateway, some trials of load by hand.
    Trial(trial::Args),
    /// Structures for longest-prefix matches.
    Lookup(lookup::Args),
    /// What a packet's way through the engine costs.
    Path(path::Args),
}

/// Measures.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Aead(args) => aead::run(args),
        Bench::Lookup(args) => lookup::run(args),
        Bench::Path(args) => path::run(args),
        Bench::Handshake(args) => in_namespaces().and_then(|()| handshake::run(args)),
        Bench::Trial(args) => in_namespaces().and_then(|()| trial::run(args)),
    }
}

/// Whether there can be namespaces here.
fn in_namespaces() -> Result<()> {
    if let Some(why) = scenario::obstacle() {
        bail!("the benchmark {why}");
    }
    Ok(())
}
