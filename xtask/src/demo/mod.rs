//! `cargo xtask demo`: the gateway at work in network namespaces.
//!
//! Two clients run Debian's `wireguard-go`; the gateway is `wgx` with AF_XDP on both sides; a server stands behind
//! it. Nothing of this is on the host's own network, and nothing stays, unless `--keep` says so.

pub mod console;
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
    kept::clean_if_any()?;
    let mut lab = if args.keep { Lab::kept(kept::PREFIX) } else { Lab::new() }?;
    let mut world = None;
    let outcome = bring_up(&mut lab, args.setting(), &console).and_then(|up| {
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

/// Who plays which part.
#[derive(Clone, Copy)]
pub struct Setting {
    /// What runs as the gateway.
    pub implementation: Implementation,
    /// What the clients run.
    pub client: Implementation,
    /// Queues of each of the gateway's interfaces.
    pub queue_count: u32,
}

impl Args {
    /// Under load the clients are `wgx` on sockets where the gateway is `wgx` too: Debian's wireguard-go keeps the
    /// kernel's default receive buffer, which overflows while client, load and gateway wait for the same cores.
    fn setting(&self) -> Setting {
        let implementation =
            if self.reference { Implementation::WireguardGo } else { Implementation::Wgx(Io::AfXdp) };
        let client = match implementation {
            Implementation::Wgx(_) if self.load.is_some() => Implementation::Wgx(Io::Udp),
            _ => Implementation::WireguardGo,
        };
        Setting { implementation, client, queue_count: self.queues }
    }
}

/// Builds what is to run, then namespaces, gateway and clients, up to the first answered pings.
pub fn bring_up(lab: &mut Lab, setting: Setting, console: &Console) -> Result<World> {
    let parts = [setting.implementation, setting.client];
    let is_ours = parts.iter().any(|part| matches!(part, Implementation::Wgx(_)));
    let program = if is_ours { Some(build(console)?) } else { None };
    console.say("network", "client1, client2 -- switch -- gateway -- server, each in a network namespace");
    let site = Site::build(lab, setting.queue_count).context("the namespaces cannot be built")?;
    let mut gateway = Gateway::new(lab, &site, setting.implementation)?;
    let mut clients = vec![Client::new(lab, &site, 1)?, Client::new(lab, &site, 2)?];
    for client in &clients {
        gateway.expect(client);
    }
    if let Some(program) = program {
        gateway.use_program(program);
    }
    match setting.implementation {
        Implementation::Wgx(io) => {
            let line = program::shown(&gateway.run_command(io)?);
            let typed = line.find("wgx run").map_or(line.as_str(), |start| &line[start..]);
            console.say("gateway", &format!("{typed}, configured by wg setconf"));
        }
        Implementation::WireguardGo => console.say("gateway", "wireguard-go, for comparison"),
    }
    gateway.start(lab).context("the gateway does not start")?;
    console.say(
        "clients",
        &format!("{}: client1 reaches the gateway over IPv4, client2 over IPv6", setting.client),
    );
    for (client, family) in clients.iter_mut().zip(Family::BOTH) {
        client.implementation = setting.client;
        client.start(lab, &gateway, gateway.endpoint(family)).context("a client does not start")?;
        client.namespace.ip(&format!("link set {} txqueuelen {CLIENT_QUEUE_LEN}", client.interface))?;
    }
    let world = World { clients, gateway, site };
    world.settle(world::SETTLE_TIMEOUT)?;
    console.say("handshake", "both clients reach the server, IPv4 and IPv6 inside each tunnel");
    Ok(world)
}
