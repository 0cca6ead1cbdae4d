//! What a device sends besides handshakes: keepalives and staged packets.

use super::Device;
use crate::{
    PeerId, constants::STAGED_PACKETS_MAX, inner::InnerHeader, output::Output, padding::padded_len, time::Now,
};

impl Device {
    /// Takes a packet that a worker could not send for want of a usable session, and starts a handshake.
    ///
    /// 128 packets wait per peer, the oldest makes place. Refused and counted is what has nowhere to go: the
    /// device is down, the peer has no endpoint, or the packet's destination is not the peer's (a worker may have
    /// routed by an older snapshot, and the slot may have got another peer since).
    pub fn stage(&mut self, peer: PeerId, inner: Vec<u8>, now: Now) {
        let belongs = InnerHeader::parse(&inner)
            .is_some_and(|header| self.allowed_ips.lookup(header.destination) == Some(&peer));
        let up = self.up;
        let Some(owner) = self.peers.peer_mut(peer).filter(|owner| up && belongs && owner.endpoint.is_some())
        else {
            self.counters.stage_refused += 1;
            return;
        };
        if owner.staged.len() >= STAGED_PACKETS_MAX {
            owner.staged.pop_front();
            self.counters.staged_dropped += 1;
        }
        owner.staged.push_back(inner);
        self.send_staged(peer, now);
        self.review(peer, now);
    }

    /// Sends what is staged, or else a keepalive; without a usable session a handshake comes first.
    pub(super) fn send_keepalive(&mut self, id: PeerId, now: Now) {
        if let Some(peer) = self.peers.peer_mut(id)
            && peer.staged.is_empty()
        {
            peer.staged.push_back(Vec::new());
        }
        self.send_staged(id, now);
    }

    pub(super) fn send_staged(&mut self, id: PeerId, now: Now) {
        if !self.up {
            return;
        }
        while let Some(peer) = self.peers.peer_mut(id)
            && let Some(inner) = peer.staged.front()
        {
            let padded_len = padded_len(inner.len(), self.mtu);
            let current = peer.keypairs.current.as_ref();
            let Some(datagram) = current.and_then(|session| session.seal(inner, padded_len, now.monotonic))
            else {
                self.initiate(id, false, now);
                return;
            };
            // DSCP stays inside, ECN is copied out (RFC 6040).
            let tos = InnerHeader::parse(inner).map_or(0, |header| header.ecn);
            let is_data = !inner.is_empty();
            peer.staged.pop_front();
            if !is_data {
                self.counters.keepalives_sent += 1;
            }
            self.transmit(id, datagram, tos, is_data, now);
        }
        let current = self.peers.peer(id).and_then(|peer| peer.keypairs.current.as_ref());
        if current.is_some_and(|session| session.is_due_on_send(now.monotonic)) {
            self.initiate(id, false, now);
        }
    }

    /// Queues a datagram to the peer's endpoint and makes the marks that go with it.
    pub(super) fn transmit(&mut self, id: PeerId, datagram: Vec<u8>, tos: u8, is_data: bool, now: Now) {
        if let Some(peer) = self.peers.peer(id)
            && let Some(to) = peer.endpoint
        {
            peer.activity.sent(now.monotonic, datagram.len() as u64, is_data);
            self.outputs.push_back(Output::Transmit { peer: id, to, datagram, tos });
        }
    }

    pub(super) fn purge_staged(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.peer_mut(id) {
            let packets = peer.staged.drain(..).filter(|inner| !inner.is_empty()).count();
            self.counters.staged_dropped += packets as u64;
        }
    }
}
