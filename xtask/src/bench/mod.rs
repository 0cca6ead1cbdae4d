//! `cargo xtask bench`: what wgx is worth, measured in network namespaces on this machine.

mod aead;
mod all;
mod candidate;
mod docs;
mod gateway;
mod handshake;
mod latency;
mod lookup;
pub mod path;
mod priority;
mod profile;
mod scale;
mod session;
mod stand;
mod trial;

use ::tests::scenario;
use anyhow::{Result, bail};
use clap::Subcommand;

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// Sealing and opening of packets, beside other libraries; needs no network.
    Aead(aead::Args),
    /// What a packet's way through the engine costs.
    Path(path::Args),
    /// How much wgx carries without loss and in overload, beside other implementations and plain forwarding.
    Gateway(session::Args),
    /// How late packets are at steady loads.
    Latency(session::Args),
    /// Speed and memory against clients, peers and prefixes.
    Scale(session::Args),
    /// Handshakes per second and core, and latency of media while strangers send initiations.
    Handshake(handshake::Args),
    /// Where the time of a packet goes, and who keeps the gateway from running.
    Profile(profile::Args),
    /// All of them, then the goals.
    All(all::Args),
    /// Put what the last runs found into the book.
    Docs,
    /// One gateway, some trials of load by hand.
    Trial(trial::Args),
    /// Structures for longest-prefix matches.
    Lookup(lookup::Args),
}

/// Measures.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Aead(args) => return aead::run(args),
        Bench::Path(args) => return path::run(args),
        Bench::Lookup(args) => return lookup::run(args),
        Bench::Docs => return docs::write(),
        _ => {}
    }
    if let Some(why) = scenario::obstacle() {
        bail!("the benchmark {why}");
    }
    match bench {
        Bench::Gateway(args) => gateway::run(args),
        Bench::Latency(args) => latency::run(args),
        Bench::Scale(args) => scale::run(args),
        Bench::Handshake(args) => handshake::run(args),
        Bench::Profile(args) => profile::run(args),
        Bench::All(args) => all::run_all(args, &names()),
        Bench::Trial(args) => trial::run(args),
        Bench::Aead(_) | Bench::Path(_) | Bench::Lookup(_) | Bench::Docs => Ok(()),
    }
}

/// The benchmarks there are.
fn names() -> Vec<String> {
    let command = Bench::augment_subcommands(clap::Command::new("bench"));
    command.get_subcommands().map(|subcommand| subcommand.get_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benchmarks_are_known_by_name() {
        let names = names();
        assert!(
            ["gateway", "latency", "scale", "handshake"]
                .iter()
                .all(|name| names.iter().any(|own| own == name))
        );
    }
}
