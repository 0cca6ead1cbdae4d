//! `cargo xtask demo`: the gateway at work in network namespaces.
//!
//! Two clients run Debian's `wireguard-go`; the gateway is `wgx` with AF_XDP on both sides; a server stands behind
//! it. Nothing of this is on the host's own network, and nothing stays, unless `--keep` says so.

mod console;
mod kept;
mod media;
mod stage;
mod ways;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use tests::{Client, Gateway, Implementation, Io, Lab, Site, World, program, scenario, site::Family, world};

use crate::command::{cargo, run as run_command, target_dir};
use console::Console;

/// Clients' TUN queues hold a burst of the demo's load while their program waits for a core.
const CLIENT_QUEUE_LEN: u32 = 5000;

/// Options of the demo.
#[derive(clap::Args)]
pub struct Args {
    /// Leave the namespaces up and print how to look around.
    #[arg(long)]
    pub keep: bool,

    /// Remove what a demo with --keep left, and do nothing else.
    #[arg(long)]
    pub clean: bool,

    /// How long the media runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,

    /// Instead of the tour, 20,000 packets/s of 1228 bytes each way for this long.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub load: Option<u32>,

    /// Queues of each of the gateway's interfaces.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub queues: u32,

    /// Run wireguard-go as the gateway instead, to compare.
    #[arg(long)]
    pub reference: bool,
}

/// Runs the demo.
#[expect(clippy::needless_pass_by_value, reason = "the options are consumed by the run")]
pub fn run(args: Args) -> Result<()> {
    if let Some(why) = scenario::obstacle() {
        bail!("the demo {why}");
    }
    if args.clean {
        return kept::clean();
    }
    let console = Console::start();
    let program = if args.reference { None } else { Some(build(&console)?) };
    kept::clean_if_any()?;
    let mut lab = if args.keep { Lab::kept(kept::PREFIX) } else { Lab::new() }?;
    let mut world = None;
    let outcome = bring_up(&mut lab, &args, program, &console).and_then(|up| {
        let world = world.insert(up);
        match args.load {
            Some(seconds) => stage::load(&lab, world, seconds, &console),
            None => stage::tour(&lab, world, args.seconds, &console),
        }
    });
    let outcome = outcome.map_err(|error| anyhow::anyhow!("{error:#}\n{}", lab.tails()));
    match world {
        Some(world) if args.keep => kept::keep(lab, world)?,
        world => {
            drop(world);
            drop(lab);
            console.say("end", "everything is removed again");
        }
    }
    outcome
}

/// Builds the program as it is released.
fn build(console: &Console) -> Result<PathBuf> {
    console.say("build", "wgx, as released");
    run_command(cargo().args(["build", "--quiet", "--release", "--package", "gateway", "--bin", "wgx"]))?;
    let program = target_dir().join("release/wgx");
    ensure!(program.is_file(), "cargo has built no {}", program.display());
    Ok(program)
}

/// What the clients run. Under load it is `wgx` on sockets where it is the gateway too: Debian's wireguard-go keeps the
/// kernel's default receive buffer, which overflows while client, load and gateway wait for the same cores.
fn client_implementation(args: &Args, gateway: Implementation) -> Implementation {
    match gateway {
        Implementation::Wgx(_) if args.load.is_some() => Implementation::Wgx(Io::Udp),
        _ => Implementation::WireguardGo,
    }
}

/// Namespaces, gateway and clients, up to the first answered pings.
fn bring_up(lab: &mut Lab, args: &Args, program: Option<PathBuf>, console: &Console) -> Result<World> {
    console.say("network", "client1, client2 -- switch -- gateway -- server, each in a network namespace");
    let site = Site::build(lab, args.queues).context("the namespaces cannot be built")?;
    let implementation =
        if program.is_some() { Implementation::Wgx(Io::AfXdp) } else { Implementation::WireguardGo };
    let mut gateway = Gateway::new(lab, &site, implementation)?;
    let mut clients = vec![Client::new(lab, &site, 1)?, Client::new(lab, &site, 2)?];
    for client in &clients {
        gateway.expect(client);
    }
    match program {
        Some(program) => {
            gateway.use_program(program);
            let line = program::shown(&gateway.run_command(Io::AfXdp)?);
            let typed = line.find("wgx run").map_or(line.as_str(), |start| &line[start..]);
            console.say("gateway", &format!("{typed}, configured by wg setconf"));
        }
        None => console.say("gateway", "wireguard-go, for comparison"),
    }
    gateway.start(lab).context("the gateway does not start")?;
    let client_implementation = client_implementation(args, implementation);
    console.say(
        "clients",
        &format!("{client_implementation}: client1 reaches the gateway over IPv4, client2 over IPv6"),
    );
    for (client, family) in clients.iter_mut().zip(Family::BOTH) {
        client.implementation = client_implementation;
        client.start(lab, &gateway, gateway.endpoint(family)).context("a client does not start")?;
        client.namespace.ip(&format!("link set {} txqueuelen {CLIENT_QUEUE_LEN}", client.interface))?;
    }
    let world = World { clients, gateway, site };
    world.settle(world::SETTLE_TIMEOUT)?;
    console.say("handshake", "both clients reach the server, IPv4 and IPv6 inside each tunnel");
    Ok(world)
}
