//! From a plan to a running gateway and back: what is opened, in which order, and how all of it is undone.
//!
//! Everything is tied to the process: sockets, the TUN device, the XDP links. So whatever ends the process
//! leaves the host's network as it was.

mod fast_path;
mod workers;

use std::collections::BTreeSet;
use std::sync::Arc;

use aead::Aead;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use wireguard::Device;

use crate::clock::Clock;
use crate::config::{AEAD_AUTO, IoMode, Plan};
use crate::control::sockets::PublishedSockets;
use crate::control::status::{StatusSources, statistics};
use crate::control::{Control, ControlParts, config_file};
use crate::dataplane::publish::Publisher;
use crate::dataplane::tables::Shared;
use crate::io::tun::Tun;
use crate::io::udp::{UdpCounters, UdpSockets};

use fast_path::FastPath;
use workers::{KernelPorts, Workers};

/// Called once everything is open and packets move; an error ends the gateway again.
pub type Ready = Box<dyn FnOnce() -> Result<()>>;

/// Runs a gateway by `plan` until it is told to stop, and undoes everything.
///
/// # Errors
/// What could not be opened, with what to do about it. Nothing is left behind.
pub fn start(plan: &Plan, ready: Ready) -> Result<()> {
    protect_process()?;
    let initial = plan.peers.as_deref().map(config_file::read).transpose()?;
    let aead = match plan.aead.as_str() {
        AEAD_AUTO => Aead::detect(),
        name => Aead::by_name(name)?,
    };
    let clock = Clock::start();
    let device = Device::new(seed()?);
    let shared =
        Arc::new(Shared::new(device.index_permutation()).context("cannot make the control mailbox")?);
    let sockets = Arc::new(ArcSwap::from_pointee(UdpSockets::bind(0, 0)?));
    let tun = Tun::create(&plan.name, plan.mtu)?;
    let mut fast_path = open_fast_path(plan)?;

    let kernel =
        KernelPorts { tun: Arc::clone(&tun), sockets: Arc::clone(&sockets), counters: Arc::default() };
    let mut status = status_sources(plan, aead, &fast_path, &tun, &kernel.counters);
    let workers = Workers::prepare(plan, aead, &shared, &kernel, fast_path.take_links(), &mut status)?;
    let fast_links: BTreeSet<u32> = fast_path.attached.iter().map(|(index, _)| *index).collect();
    let control = Control::new(ControlParts {
        name: plan.name.clone(),
        clock,
        device,
        publisher: Publisher::new(Arc::clone(&shared), fast_links.clone()),
        mailbox: Arc::clone(&shared.mailbox),
        sockets: Box::new(PublishedSockets::new(sockets, 0)),
        steering: fast_path.steering.take(),
        steered: fast_links.into_iter().collect(),
        tunnel_index: Some(tun.index()),
        status,
        initial,
    })?;
    let running = workers.run(clock, plan.busy_poll)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let outcome = runtime.block_on(control.run(ready));
    running.stop();
    outcome
}

/// Keeps keys out of core dumps, and makes a panic of any thread the end of all: a gateway that has lost a
/// worker would drop one queue's packets in silence.
fn protect_process() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot switch off core dumps")?;
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    Ok(())
}

fn seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("the kernel gives no randomness: {error}"))?;
    Ok(seed)
}

/// The highest rung of the ladder that the plan asks for and the machine has.
fn open_fast_path(plan: &Plan) -> Result<FastPath> {
    match plan.io {
        IoMode::Udp => Ok(FastPath::none()),
        IoMode::AfXdp => FastPath::open(plan),
        IoMode::Auto => FastPath::open(plan).or_else(|error| {
            tracing::warn!("no AF_XDP, going on with UDP sockets: {error:#}");
            Ok(FastPath::none())
        }),
    }
}

fn status_sources(
    plan: &Plan,
    aead: Aead,
    fast_path: &FastPath,
    tun: &Arc<Tun>,
    counters: &Arc<UdpCounters>,
) -> StatusSources {
    let rung = if fast_path.is_open() { "af-xdp" } else { "udp" };
    tracing::info!(name = plan.name, rung, aead = aead.name(), workers = plan.worker_cpus.len(), "opened");
    let (tun, counters) = (Arc::clone(tun), Arc::clone(counters));
    StatusSources {
        rung: rung.into(),
        aead: aead.name().into(),
        interfaces: fast_path.attached.clone(),
        sockets: Some(statistics(move || counters.read())),
        tunnel: Some(statistics(move || tun.statistics())),
        ..StatusSources::default()
    }
}
