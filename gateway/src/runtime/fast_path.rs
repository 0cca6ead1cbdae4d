//! The AF_XDP rung: memory, sockets and the XDP program, opened together or not at all.

use std::sync::Arc;

use anyhow::{Context, Result};

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
}

/// What the worker of one queue owns.
pub(super) struct QueueLinks {
    pub(super) pool: FramePool,
    pub(super) links: Vec<(AfXdpLink, Roles)>,
}

impl FastPath {
    /// Nothing: the UDP rung.
    pub(super) fn none() -> Self {
        Self { steering: None, attached: Vec::new(), links: Vec::new() }
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
        Ok(Self { steering: Some(steering), attached, links })
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
                    Ok((AfXdpLink::open(&mut pool, &link.name, link.index, queue, copy)?, roles))
                })
                .collect::<Result<_>>()?;
            Ok(QueueLinks { pool, links })
        })
        .collect()
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
