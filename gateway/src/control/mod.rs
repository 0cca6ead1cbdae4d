//! The control thread: everything that is not a packet. It owns the device and is the only one to change what
//! workers see.
//!
//! One task, [`Control::run`], holds all state and takes one thing at a time; other tasks only read sockets and
//! pass on what they understood. Nothing here is in the way of a packet: a worker that needs control leaves a
//! note in the [`Mailbox`] and goes on.

pub mod config_file;
pub mod log;
pub mod netlink;
mod outputs;
pub mod readable;
mod run;
pub mod settings;
pub mod sockets;
pub mod status;
pub mod uapi;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tracing::info;
use wireguard::{Device, Time};

use crate::clock::Clock;
use crate::dataplane::mailbox::Mailbox;
use crate::dataplane::network::{Mac, Network};
use crate::dataplane::publish::Publisher;
use crate::handshake::HandshakeThreads;
use crate::xdp::Steering;

use log::LineLimit;
use settings::DeviceSettings;
use sockets::OuterSockets;
use status::StatusSources;
use uapi::UapiError;
use uapi::socket::{SocketFile, UAPI_DIR};

/// The tunnel's MTU until the kernel tells another: an Ethernet path less the outer headers.
const TUNNEL_MTU_DEFAULT: u16 = 1420;
/// Lines about peers, per second.
const PEER_LINES_PER_SECOND: u32 = 20;

/// What the control thread is given.
pub struct ControlParts {
    /// Name of the tunnel, which is also that of its TUN device and control sockets.
    pub name: String,
    /// The clock workers read too.
    pub clock: Clock,
    /// The protocol.
    pub device: Device,
    /// What workers see.
    pub publisher: Publisher,
    /// What workers tell.
    pub mailbox: Arc<Mailbox>,
    /// Who does curve arithmetic.
    pub handshakes: HandshakeThreads,
    /// The kernel's UDP sockets.
    pub sockets: Box<dyn OuterSockets>,
    /// The XDP program; none on the socket rung.
    pub steering: Option<Steering>,
    /// Interfaces the XDP program is attached to.
    pub steered: Vec<u32>,
    /// The TUN device's interface index. Without one the tunnel counts as up.
    pub tunnel_index: Option<u32>,
    /// What `wgx status` shows besides peers.
    pub status: StatusSources,
    /// Applied before anything else.
    pub initial: Option<DeviceSettings>,
}

/// The control thread, ready to run.
pub struct Control {
    name: String,
    clock: Clock,
    started: Time,
    device: Device,
    publisher: Publisher,
    mailbox: Arc<Mailbox>,
    handshakes: HandshakeThreads,
    sockets: Box<dyn OuterSockets>,
    fwmark: u32,
    steering: Option<Steering>,
    steered: Vec<(u32, Option<Mac>)>,
    tunnel: Option<Tunnel>,
    network: Arc<Network>,
    upkeep: netlink::Upkeep,
    status: StatusSources,
    uapi_socket: SocketFile,
    status_socket: SocketFile,
    peer_lines: LineLimit,
    transmit_errors: u64,
}

/// The TUN device as last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tunnel {
    index: u32,
    up: bool,
    mtu: u16,
}

impl Control {
    /// Takes the control sockets and applies the initial settings, so that what is wrong with either shows
    /// before a packet moves.
    ///
    /// # Errors
    /// Another process serves this name, the sockets' directories cannot be made, or the initial settings are
    /// refused.
    pub fn new(parts: ControlParts) -> Result<Self> {
        Self::with_dirs(parts, Path::new(UAPI_DIR), Path::new(status::STATUS_DIR))
    }

    fn with_dirs(parts: ControlParts, uapi_dir: &Path, status_dir: &Path) -> Result<Self> {
        let uapi_socket = SocketFile::bind(uapi_dir, 0o755, &parts.name)?;
        let status_socket = SocketFile::bind(status_dir, 0o700, &parts.name)?;
        let mut control = Self {
            name: parts.name,
            clock: parts.clock,
            started: parts.clock.monotonic(),
            device: parts.device,
            publisher: parts.publisher,
            mailbox: parts.mailbox,
            handshakes: parts.handshakes,
            sockets: parts.sockets,
            fwmark: 0,
            steering: parts.steering,
            steered: parts.steered.into_iter().map(|index| (index, None)).collect(),
            tunnel: parts.tunnel_index.map(|index| Tunnel { index, up: false, mtu: 0 }),
            network: Arc::default(),
            upkeep: netlink::Upkeep::default(),
            status: parts.status,
            uapi_socket,
            status_socket,
            peer_lines: LineLimit::new(PEER_LINES_PER_SECOND),
            transmit_errors: 0,
        };
        if control.tunnel.is_none() {
            control.publisher.set_tunnel(0, TUNNEL_MTU_DEFAULT);
            control.device.set_up(true, control.clock.now());
        }
        control.publish_listen_port();
        if let Some(initial) = parts.initial {
            control.apply(initial).context("cannot apply the configuration file")?;
        }
        control.flush_outputs();
        Ok(control)
    }

    /// Applies all of `settings` or nothing.
    fn apply(&mut self, settings: DeviceSettings) -> Result<(), UapiError> {
        let old_port = self.sockets.listen_port();
        let old_fwmark = self.fwmark;
        let refused = |what: &str, value: u32, error: std::io::Error| {
            UapiError::AddressInUse(format!("cannot set {what} {value}: {error}; the old one stays in force"))
        };
        if let Some(port) = settings.listen_port.filter(|port| *port == 0 || *port != old_port) {
            self.sockets.set_listen_port(port).map_err(|error| refused("listen port", port.into(), error))?;
        }
        if let Some(fwmark) = settings.fwmark.filter(|fwmark| *fwmark != old_fwmark) {
            if let Err(error) = self.sockets.set_fwmark(fwmark) {
                self.restore_sockets(old_port, old_fwmark);
                return Err(refused("fwmark", fwmark, error));
            }
            self.fwmark = fwmark;
        }
        if let Err(error) = self.device.apply(settings.change, self.clock.now()) {
            self.restore_sockets(old_port, old_fwmark);
            return Err(UapiError::TooManyPeers(error.to_string()));
        }
        self.sockets.forget_former();
        if self.sockets.listen_port() != old_port {
            self.publish_listen_port();
        }
        if (self.sockets.listen_port(), self.fwmark) != (old_port, old_fwmark) {
            self.device.forget_local_addresses();
        }
        Ok(())
    }

    /// Takes back what [`Control::apply`] did to the sockets before it failed.
    fn restore_sockets(&mut self, port: u16, fwmark: u32) {
        if self.sockets.listen_port() != port
            && let Err(error) = self.sockets.set_listen_port(port)
        {
            tracing::error!(%error, port, "cannot go back to the former listen port");
        }
        if self.fwmark != fwmark && self.sockets.set_fwmark(fwmark).is_ok() {
            self.fwmark = fwmark;
        }
        self.sockets.forget_former();
    }

    fn publish_listen_port(&mut self) {
        let port = self.sockets.listen_port();
        self.publisher.set_listen_port(port);
        if let Some(steering) = &mut self.steering
            && let Err(error) = steering.set_listen_port(port)
        {
            // Datagrams that are not steered come through the kernel's socket: slower, and none is lost.
            tracing::error!(%error, port, "the XDP program does not know of the new listen port");
        }
        info!(port, "listening");
    }
}

#[cfg(test)]
mod tests;
