//! What the device wants done, in its order.

use tracing::{Level, debug, enabled, error, info};
use wireguard::{AllowedIpChange, Output, PeerId};

use super::Control;
use super::log::ShortKey;

impl Control {
    /// Carries out all that the device has to say.
    pub(super) fn flush_outputs(&mut self) {
        while let Some(output) = self.device.poll_output() {
            self.carry_out(output);
        }
        while let Some(work) = self.device.poll_work() {
            self.handshakes.perform(work);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Transmit { to, datagram, tos, .. } => {
                let to = self.publisher.outgoing(&to);
                if let Err(error) = self.sockets.send(&to, &datagram, tos) {
                    // The protocol sends again by itself; without a route this is as common as a lost packet.
                    self.transmit_errors += 1;
                    debug!(%error, to = %to.remote, "cannot send");
                }
            }
            Output::SessionAdded(session) => self.publisher.add_session(session),
            Output::SessionRemoved { local_index } => self.publisher.remove_session(local_index),
            Output::CurrentSession { peer, session } => {
                self.publisher.set_current_session(peer, session.as_deref());
                if session.is_some() {
                    self.log_peer(peer, "handshake completed");
                }
            }
            Output::PeerAdded { peer, activity } => {
                self.publisher.add_peer(peer, activity);
                self.log_peer(peer, "peer added");
            }
            Output::PeerRemoved { peer } => {
                self.publisher.remove_peer(peer);
            }
            Output::EndpointChanged { peer, endpoint } => {
                self.publisher.set_endpoint(peer, endpoint);
                if enabled!(Level::DEBUG)
                    && let Some(public_key) = self.device.public_key_of(peer)
                {
                    let endpoint = endpoint.map(|endpoint| endpoint.remote);
                    debug!(peer = %ShortKey(public_key), ?endpoint, "endpoint changed");
                }
            }
            Output::AllowedIpsChanged { changes } => self.publish_allowed_ips(&changes),
        }
    }

    fn publish_allowed_ips(&mut self, changes: &[AllowedIpChange]) {
        // Workers before the XDP program: what it steers to them they know.
        self.publisher.change_allowed_ips(changes);
        let Some(steering) = &mut self.steering else { return };
        let former = steering.unsteered_count();
        let steered = changes.iter().map(|change| (change.prefix, change.owner.is_some()));
        let outcome = steering.change_allowed_ips(steered);
        // Packets that are not steered take the kernel's way into the tunnel: slower, and none is lost.
        match (outcome, steering.unsteered_count()) {
            (Err(error), 1..) if former > 0 => debug!(%error, "more allowed IPs are not steered"),
            (Err(error), prefixes) => {
                error!(%error, prefixes, "allowed IPs are not steered: their packets take the slow path");
            }
            (Ok(()), 0) if former > 0 => info!("all allowed IPs are steered again"),
            (Ok(()), _) => {}
        }
    }

    fn log_peer(&mut self, id: PeerId, what: &'static str) {
        if !enabled!(Level::INFO) {
            return;
        }
        let Some(suppressed) = self.peer_lines.admit(self.clock.monotonic()) else { return };
        if let Some(public_key) = self.device.public_key_of(id) {
            let peer = ShortKey(public_key);
            if suppressed == 0 {
                info!(%peer, "{what}");
            } else {
                info!(%peer, suppressed, "{what}");
            }
        }
    }
}
