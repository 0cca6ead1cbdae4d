//! What the device wants done, in its order.

use tracing::{Level, debug, enabled, error, info};
use wireguard::{Output, PeerId};

use super::Control;
use super::log::ShortKey;

impl Control {
    /// Carries out all that the device has to say.
    ///
    /// Cryptokey routing is published once, after the last of it: a change of a thousand peers announces it a
    /// thousand times, and each publication walks all prefixes.
    pub(super) fn flush_outputs(&mut self) {
        let mut are_allowed_ips_changed = false;
        while let Some(output) = self.device.poll_output() {
            are_allowed_ips_changed |= matches!(output, Output::AllowedIpsChanged);
            self.carry_out(output);
        }
        if are_allowed_ips_changed {
            self.publish_allowed_ips();
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
                    && let Some(status) = self.device.peer(peer)
                {
                    let endpoint = endpoint.map(|endpoint| endpoint.remote);
                    debug!(peer = %ShortKey(status.public_key), ?endpoint, "endpoint changed");
                }
            }
            Output::AllowedIpsChanged => {}
        }
    }

    fn publish_allowed_ips(&mut self) {
        let allowed_ips = self.device.allowed_ips();
        if let Some(steering) = &mut self.steering {
            let prefixes: Vec<_> = allowed_ips.iter().map(|(prefix, _)| prefix).collect();
            if let Err(error) = steering.set_allowed_ips(&prefixes) {
                // Packets that are not steered take the kernel's way into the tunnel: slower, and none is lost.
                error!(%error, "allowed IPs are not steered: their packets take the slow path");
            }
        }
        self.publisher.set_allowed_ips(allowed_ips);
    }

    fn log_peer(&mut self, id: PeerId, what: &'static str) {
        if !enabled!(Level::INFO) {
            return;
        }
        let Some(suppressed) = self.peer_lines.admit(self.clock.monotonic()) else { return };
        if let Some(status) = self.device.peer(id) {
            let peer = ShortKey(status.public_key);
            if suppressed == 0 {
                info!(%peer, "{what}");
            } else {
                info!(%peer, suppressed, "{what}");
            }
        }
    }
}
