//! Endpoint stickiness (P10): which of our addresses each peer is answered from, and when that is forgotten.

use super::Device;

impl Device {
    /// Forgets which of our addresses every peer answered to. To be called when the listen port or the mark of
    /// outer packets changes (drivers/net/wireguard/socket.c, `wg_socket_clear_peer_endpoint_src`): routes may
    /// differ for the new mark, and with them the right source address.
    pub fn forget_local_addresses(&mut self) {
        for id in self.peers.ids() {
            self.forget_local_address(id);
        }
    }
}
