//! The loop: waits for anything to happen and does a bounded amount of work for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};
use wireguard::Time;

use super::netlink::NetworkWatch;
use super::readable::Readable;
use super::uapi::connection;
use super::uapi::format::format_chunk;
use super::{Control, TUNNEL_MTU_DEFAULT, Tunnel, status};
use crate::control::uapi::Command;
use crate::dataplane::mailbox::{HandshakeEvent, WorkerEvent};
use crate::dataplane::network::Network;

/// How long one turn may spend on what workers told, so that a flood of it leaves the loop free for timers and
/// operators after this.
const MAILBOX_TURN: Duration = Duration::from_millis(2);
/// How often memory is collected and neighbours are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// The timer is set anew at least this often, so that none can be missed for long.
const TIMEOUT_MAX: Duration = Duration::from_mins(1);

impl Control {
    /// Runs until SIGTERM or SIGINT, or until the TUN device or the control socket is removed, which is how
    /// `wg-quick down` and wireguard-go's users end a tunnel. Then the control sockets are removed.
    /// `ready` is called before the first turn.
    ///
    /// # Errors
    /// The kernel does not tell about routes (any more), the process is out of descriptors, or `ready` fails.
    pub async fn run(mut self, ready: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let mut network = NetworkWatch::start().await?;
        let (commands, mut requests) = mpsc::channel(1);
        let (status_commands, mut status_requests) = mpsc::channel(1);
        let mut servers = tokio::task::JoinSet::new();
        let socket_watch = self.uapi_socket.watch()?;
        servers.spawn(connection::serve(self.uapi_socket.listen()?, commands));
        servers.spawn(status::serve::serve(self.status_socket.listen()?, status_commands));
        let mailbox = Readable::new(self.mailbox.eventfd().try_clone_to_owned()?)?;
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_backlog = false;
        if !self.network_changed(network.current()) {
            info!("the TUN device is gone: stopping");
            return Ok(());
        }
        info!(name = self.name, "ready");
        ready()?;
        loop {
            self.device.handle_timeout(self.clock.now());
            self.flush_outputs();
            let timeout = self.timeout();
            tokio::select! {
                _ = terminate.recv() => { info!("SIGTERM: stopping"); return Ok(()) }
                _ = interrupt.recv() => { info!("SIGINT: stopping"); return Ok(()) }
                gone = socket_watch.gone() => {
                    gone?;
                    info!(path = %self.uapi_socket.path().display(), "the control socket was removed: stopping");
                    return Ok(());
                }
                changed = network.changed() => {
                    if !self.network_changed(changed?) {
                        info!("the TUN device is gone: stopping");
                        return Ok(());
                    }
                }
                ready = mailbox.drain(|_| ()), if !has_backlog => {
                    ready?;
                    has_backlog = self.take_mail();
                }
                // Yielding lets sockets and timers be looked at between two turns of a long queue.
                () = tokio::task::yield_now(), if has_backlog => has_backlog = self.take_mail(),
                Some(command) = requests.recv() => self.command(command),
                Some(reply) = status_requests.recv() => { let _ = reply.send(self.status()); }
                _ = housekeeping.tick() => self.housekeep(&mut network),
                () = tokio::time::sleep(timeout) => {}
            }
        }
    }

    /// Time to the device's next timeout.
    fn timeout(&self) -> Duration {
        let now = self.clock.monotonic();
        self.device.next_timeout().map_or(TIMEOUT_MAX, |at| at.saturating_since(now)).min(TIMEOUT_MAX)
    }

    /// Does what workers asked for, for one turn. True if there is more.
    fn take_mail(&mut self) -> bool {
        let mailbox = Arc::clone(&self.mailbox);
        mailbox.rearm();
        let end = Time(self.clock.monotonic().0 + MAILBOX_TURN.as_nanos() as u64);
        while let Some(event) = mailbox.pop() {
            let now = self.clock.now();
            match event {
                // The device counts what it refuses; strangers write no log lines.
                WorkerEvent::Handshake(event) => {
                    let _ = match *event {
                        HandshakeEvent::Incoming(incoming) => self.device.receive(incoming, now),
                        HandshakeEvent::WorkDone(result) => self.device.work_done(result, now),
                    };
                }
                WorkerEvent::Session(event) => self.device.session_event(event, now),
                WorkerEvent::Stage { peer, inner } => self.device.stage(peer, inner, now),
            }
            // Sessions must be with the workers before the packets come that are sealed with them.
            self.flush_outputs();
            if now.monotonic >= end {
                return true;
            }
        }
        false
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Get(from, reply) => {
                let _ = reply.send(format_chunk(&self.device, self.sockets.listen_port(), self.fwmark, from));
            }
            Command::Set(settings, reply) => {
                let result = self.apply(*settings);
                // Carried out before the answer: a client that is told "done" may rely on it.
                self.flush_outputs();
                let _ = reply.send(result);
            }
        }
    }

    fn housekeep(&mut self, watch: &mut NetworkWatch) {
        self.publisher.collect();
        let in_use = self.publisher.next_hops_in_use();
        let network = Arc::clone(&self.network);
        let is_resolved = |hop: &(u32, IpAddr)| network.neighbours.contains_key(hop);
        for (interface_index, address) in self.upkeep.due(&in_use, is_resolved, self.clock.monotonic()) {
            watch.neighbours().mark_used(interface_index, address);
        }
    }

    /// Takes over what the kernel knows now. False if the TUN device is gone.
    fn network_changed(&mut self, network: Arc<Network>) -> bool {
        if !self.tunnel_changed(&network) {
            return false;
        }
        if let Err(error) = self.steer_network(&network) {
            // Frames that are not steered go through the kernel: slower, and none is lost.
            error!(%error, "the XDP program does not know of the host's new addresses");
        }
        if self.network.plain_rules && !network.plain_rules {
            warn!("policy routing rules were added: all packets are routed by the kernel, on the slow path");
        }
        self.publisher.set_network(Arc::clone(&network));
        self.network = network;
        true
    }

    fn steer_network(&mut self, network: &Network) -> crate::xdp::Result<()> {
        let Some(steering) = &mut self.steering else { return Ok(()) };
        let addresses: Vec<IpAddr> = network
            .addresses
            .iter()
            .map(|address| address.address.addr())
            .filter(|address| !address.is_loopback())
            .collect();
        steering.set_local_addresses(&addresses)?;
        for (index, known) in &mut self.steered {
            let mac = network.links.get(index).and_then(|link| link.mac);
            if mac != *known {
                steering.set_mac(*index, mac.unwrap_or_default())?;
                *known = mac;
            }
        }
        Ok(())
    }

    fn tunnel_changed(&mut self, network: &Network) -> bool {
        let Some(known) = self.tunnel else { return true };
        let Some(link) = network.links.get(&known.index) else { return false };
        let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        let tunnel =
            Tunnel { index: known.index, up: link.up, mtu: if mtu == 0 { TUNNEL_MTU_DEFAULT } else { mtu } };
        if tunnel.mtu != known.mtu {
            self.publisher.set_tunnel(tunnel.index, tunnel.mtu);
            self.device.set_mtu(tunnel.mtu.into());
        }
        // While the tunnel is down nothing fits it: the kernel answers those who send, as it does for any link.
        let steered_mtu = |tunnel: Tunnel| if tunnel.up { tunnel.mtu } else { 0 };
        if steered_mtu(tunnel) != steered_mtu(known)
            && let Some(steering) = &mut self.steering
            && let Err(error) = steering.set_tunnel_mtu(steered_mtu(tunnel))
        {
            error!(%error, mtu = tunnel.mtu, "the XDP program does not know of the tunnel's change");
        }
        if tunnel.up != known.up {
            info!(up = tunnel.up, mtu = tunnel.mtu, "the tunnel changed");
            self.device.set_up(tunnel.up, self.clock.now());
        }
        self.tunnel = Some(tunnel);
        true
    }
}
