//! Plain forwarding between two interfaces over AF_XDP, without cryptography: what a gateway is compared with.

use std::sync::{Arc, atomic::AtomicBool};

use anyhow::{Context as _, Result};
use bench::load::{Forward, Mac, claim_core};
use clap::Parser;

/// Forwards IPv4 UDP packets between two interfaces over AF_XDP, whatever they are, until SIGTERM.
#[derive(Parser)]
#[command(name = "wgx-forward")]
struct Arguments {
    /// An interface, and the MAC address of what is on its other end.
    #[arg(value_name = "NAME=MAC", value_parser = interface)]
    first: (String, Mac),
    /// The other one.
    #[arg(value_name = "NAME=MAC", value_parser = interface)]
    second: (String, Mac),
    /// Run on this CPU, by the kernel's number.
    #[arg(long, value_name = "CPU")]
    core: Option<u32>,
}

fn main() -> Result<()> {
    let Arguments { first, second, core } = Arguments::parse();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot handle signals")?;
    }
    if let Some(core) = core {
        claim_core(core)?;
    }
    let mut forward = Forward::open([(&first.0, first.1), (&second.0, second.1)])?;
    println!("forwarding between {} and {}", first.0, second.0);
    forward.run(&stop);
    Ok(())
}

fn interface(argument: &str) -> Result<(String, Mac)> {
    let (name, mac) = argument.split_once('=').context("write NAME=MAC, such as eth0=02:00:00:00:00:01")?;
    Ok((name.to_owned(), mac.parse()?))
}
