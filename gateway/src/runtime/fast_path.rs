//! The AF_XDP rung: memory, sockets and the XDP program, opened together or not at all.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::deferral::Deferral;
use crate::config::Link;
use crate::config::Plan;
use crate::control::status::InterfaceInfo;
use crate::dataplane::classify::Roles;
use crate::io::af_xdp::{AfXdpLink, BindError, CopyMode};
use crate::io::{Backing, FramePool, LinkPort, Umem};
use crate::xdp::{AttachMode, Role, Steering};

/// What is open. Dropping it detaches the program and closes the sockets.
pub(super) struct FastPath {
    /// The attached program; taken by control.
    pub(super) steering: Option<Steering>,
    /// The interfaces it is attached to, by index.
    pub(super) attached: Vec<(u32, InterfaceInfo)>,
    links: Vec<QueueLinks>,
    /// Kept for its end.
    _deferral: Deferral,
}

/// What the worker of one queue owns.
pub(super) struct QueueLinks {
    pub(super) pool: FramePool,
    pub(super) links: Vec<(AfXdpLink, Roles)>,
}

impl FastPath {
    /// Nothing: the UDP rung.
    pub(super) fn none() -> Self {
        Self { steering: None, attached: Vec::new(), links: Vec::new(), _deferral: Deferral::default() }
    }

    /// Opens the sockets of all queues, in zero-copy mode where every driver has it, and attaches the program.
    pub(super) fn open(plan: &Plan) -> Result<Self> {
        let mut steering = Steering::load()?;
        let links = match open_links(plan, CopyMode::WhereNeeded) {
            // Sockets on one UMEM share a mode: with drivers that differ only copying is left.
            Err(error) if matches!(error.downcast_ref(), Some(BindError::Refused { .. })) => {
                tracing::info!("not all interfaces take zero-copy sockets, copying: {error:#}");
                open_links(plan, CopyMode::Always)?
            }
            outcome => outcome?,
        };
        let attached =
            plan.links.iter().map(|link| attach(&mut steering, link)).collect::<Result<Vec<_>>>()?;
        for (link, _) in links.iter().flat_map(|queue| &queue.links) {
            let monitor = link.monitor();
            steering.register_socket(link.interface_index(), monitor.queue(), monitor.socket())?;
        }
        let deferral = if plan.napi_busy_poll { defer(plan, &links) } else { Deferral::default() };
        Ok(Self { steering: Some(steering), attached, links, _deferral: deferral })
    }

    pub(super) fn is_open(&self) -> bool {
        self.steering.is_some()
    }

    /// Hands the sockets over to the workers.
    pub(super) fn take_links(&mut self) -> Vec<QueueLinks> {
        std::mem::take(&mut self.links)
    }
}

/// Worker q owns queue q of every interface that has one: a socket receives from its own queue only.
fn open_links(plan: &Plan, copy: CopyMode) -> Result<Vec<QueueLinks>> {
    let worker_count = plan.worker_cpus.len() as u32;
    let (umem, mut frames) = Umem::new(plan.frame_len, plan.frame_count * worker_count, Backing::Registered)?;
    (0..worker_count)
        .map(|queue| {
            let own = frames.split_off(frames.len() - plan.frame_count as usize);
            let mut pool = FramePool::new(Arc::clone(&umem), own);
            let with_queue = plan.links.iter().filter(|link| queue < link.queue_count);
            let links = with_queue
                .map(|link| {
                    let roles = Roles { uplink: link.uplink, downlink: link.downlink };
                    let mut port = AfXdpLink::open(&mut pool, &link.name, link.index, queue, copy)?;
                    if plan.napi_busy_poll {
                        port.poll_napi()?;
                    }
                    Ok((port, roles))
                })
                .collect::<Result<_>>()?;
            Ok(QueueLinks { pool, links })
        })
        .collect()
}

/// Puts off the interrupts of the interfaces whose queues workers can poll, and of no others: their packets would
/// wait for the kernel's timer.
fn defer(plan: &Plan, queues: &[QueueLinks]) -> Deferral {
    let (mut polled, mut unknown) = (Vec::new(), Vec::new());
    for link in &plan.links {
        let mut sockets = queues.iter().flat_map(|queue| &queue.links).map(|(port, _)| port.monitor());
        let is_known = sockets.all(|socket| socket.interface() != link.name || socket.napi_id().is_some());
        if is_known { polled.push(link) } else { unknown.push(link.name.as_str()) }
    }
    if !unknown.is_empty() {
        tracing::warn!(
            interfaces = unknown.join(","),
            "the kernel cannot poll these for a socket, so their interrupts go on and --napi-busy-poll brings \
             nothing there: it takes a driver with zero-copy"
        );
    }
    let deferral = Deferral::apply(polled);
    deferral.undo_on_panic();
    deferral
}

fn attach(steering: &mut Steering, link: &Link) -> Result<(u32, InterfaceInfo)> {
    let role = Role { uplink: link.uplink, downlink: link.downlink, mac: link.mac, mtu: link.mtu };
    let mode = steering
        .attach(link.index, &link.name, role)
        .with_context(|| format!("cannot steer packets of {}", link.name))?;
    if mode == AttachMode::Generic {
        tracing::warn!(
            interface = link.name,
            "the driver does not run XDP programs: generic mode is slower; see `wgx check {}`",
            link.name
        );
    }
    let roles = [("uplink", link.uplink), ("downlink", link.downlink)];
    let info = InterfaceInfo {
        name: link.name.clone(),
        roles: roles.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.into()).collect(),
        attach_mode: Some(match mode {
            AttachMode::Driver => "driver".into(),
            AttachMode::Generic => "generic".into(),
        }),
    };
    Ok((link.index, info))
}
