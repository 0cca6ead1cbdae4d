//! What can be told about a peer: all that `wg show` needs.

use ipnet::IpNet;

use super::Device;
use crate::{
    PeerId,
    endpoint::Endpoint,
    keys::{PresharedKey, PublicKey},
    peer::Peer,
    time::UnixTime,
};

/// A peer's configuration and state at one moment.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its slot.
    pub id: PeerId,
    /// Its static public key.
    pub public_key: PublicKey,
    /// The preshared key, all zeros for none.
    pub preshared_key: PresharedKey,
    /// Where it is reached, as configured or as it was last heard from.
    pub endpoint: Option<Endpoint>,
    /// When the last handshake completed.
    pub last_handshake: Option<UnixTime>,
    /// UDP payload received from it, in bytes, handshakes included.
    pub rx_bytes: u64,
    /// UDP payload sent to it, in bytes, handshakes included.
    pub tx_bytes: u64,
    /// Seconds between persistent keepalives, 0 for off.
    pub persistent_keepalive: u16,
    /// Its prefixes in order.
    pub allowed_ips: Vec<IpNet>,
}

impl From<&Peer> for PeerStatus {
    fn from(peer: &Peer) -> Self {
        Self {
            id: peer.id,
            public_key: peer.public_key,
            preshared_key: peer.preshared_key.clone(),
            endpoint: peer.endpoint,
            last_handshake: peer.last_handshake,
            rx_bytes: peer.activity.rx_bytes(),
            tx_bytes: peer.activity.tx_bytes(),
            persistent_keepalive: peer.persistent_keepalive.map_or(0, Into::into),
            allowed_ips: peer.allowed_ips.iter().copied().collect(),
        }
    }
}

impl Device {
    /// All peers in the order in which they were added.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus> {
        self.peers.iter().map(PeerStatus::from)
    }

    /// Peers with the numbers they were added as, from number `sequence` on: for those who list peers piece by
    /// piece. Numbers only grow; each is given once.
    pub fn peers_from(&self, sequence: u64) -> impl Iterator<Item = (u64, PeerStatus)> {
        self.peers.iter_from(sequence).map(|peer| (peer.sequence, PeerStatus::from(peer)))
    }

    /// One peer.
    pub fn peer(&self, peer: PeerId) -> Option<PeerStatus> {
        self.peers.peer(peer).map(PeerStatus::from)
    }

    /// A peer's public key.
    pub fn public_key_of(&self, peer: PeerId) -> Option<PublicKey> {
        self.peers.peer(peer).map(|peer| peer.public_key)
    }

    /// The peer with a public key.
    pub fn peer_by_key(&self, public_key: &PublicKey) -> Option<PeerId> {
        self.peers.id_of(public_key)
    }
}
