//! From a plan to a running gateway and back: what is opened, in which order, and how all of it is undone.
//!
//! Everything is tied to the process: sockets, the TUN device, the XDP links. So whatever ends the process
//! leaves the host's network as it was.

mod arrivals;
mod deferral;
mod fast_path;
mod pm_qos;
mod protect;
mod sysfs;
mod workers;

use std::collections::BTreeSet;
use std::sync::Arc;

use aead::Aead;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use wireguard::{Device, Endpoint};

use crate::clock::Clock;
use crate::config::{AEAD_AUTO, IoMode, Plan};
use crate::control::sockets::PublishedSockets;
use crate::control::status::{StatusSources, statistics};
use crate::control::{Control, ControlParts, config_file};
use crate::dataplane::publish::Publisher;
use crate::dataplane::tables::Shared;
use crate::handshake::HandshakeThreads;
use crate::io::af_xdp::BindError;
use crate::io::tun::Tun;
use crate::io::udp::{UdpCounters, UdpSockets};

use fast_path::FastPath;
use pm_qos::IdleBounds;
use workers::{KernelPorts, Workers};

/// Called once everything is open and packets move; an error ends the gateway again.
pub type Ready = Box<dyn FnOnce() -> Result<()>>;

/// Runs a gateway by `plan` until it is told to stop, and undoes everything.
///
/// # Errors
/// What could not be opened, with what to do about it. Nothing is left behind.
pub fn start(plan: &Plan, ready: Ready) -> Result<()> {
    protect::protect_process()?;
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
    let idle_bounds = plan.pm_qos.then(|| IdleBounds::new(workers.link_workers()));
    status.pm_qos_held = idle_bounds.as_ref().map(IdleBounds::held);
    let fast_links: BTreeSet<u32> = fast_path.attached.iter().map(|(index, _)| *index).collect();
    let handshakes = {
        let sockets = Arc::clone(&sockets);
        // A reply that cannot be sent is as good as lost on the way: the peer asks again.
        let reply = move |to: &Endpoint, datagram: &[u8]| drop(sockets.load().send(to, datagram, 0));
        HandshakeThreads::start(Arc::clone(device.admission()), Arc::clone(&shared.mailbox), clock, reply)?
    };
    let control = Control::new(ControlParts {
        name: plan.name.clone(),
        clock,
        device,
        publisher: Publisher::new(Arc::clone(&shared), fast_links.clone()),
        mailbox: Arc::clone(&shared.mailbox),
        handshakes,
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
    if let Some(bounds) = idle_bounds {
        // Ends with the runtime, and every bound with it.
        runtime.spawn(bounds.follow(clock));
    }
    let outcome = runtime.block_on(control.run(ready));
    running.stop();
    outcome
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
            // Who asks for polled NICs asks for AF_XDP: sockets in their place would be a surprise.
            if matches!(error.downcast_ref(), Some(BindError::BusyPoll { .. })) {
                return Err(error);
            }
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
