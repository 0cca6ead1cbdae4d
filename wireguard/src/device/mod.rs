//! A WireGuard interface without its interface: peers, handshakes, timers and staged packets, for one owner.
//!
//! Every call takes the time and may leave [`Output`]s: drain [`Device::poll_output`] after each, and call
//! [`Device::handle_timeout`] when [`Device::next_timeout`] has come.

mod change;
mod handshake;
mod incoming;
mod sending;
mod status;
mod stickiness;
mod timeouts;
mod work;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use chacha20::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};
pub use change::{AllowedIpAction, ApplyError, DeviceChange, PeerChange, PrivateKeyChange};
pub use status::PeerStatus;
use zeroize::Zeroizing;

use crate::{
    PeerId,
    activity::Activity,
    admission::Admission,
    constants::{MTU_DEFAULT, REKEY_TIMEOUT_JITTER},
    curve_work::{CurveWork, EphemeralSeed},
    endpoint::Endpoint,
    identity::Identity,
    index::IndexPermutation,
    index_table::IndexTable,
    keypairs::Retired,
    keys::{PrivateKey, PublicKey},
    output::{AllowedIpChange, HandshakeCounters, Output, SessionEvent},
    peer_table::PeerTable,
    prefix_table::AllowedIps,
    time::{Now, Time},
    timers::Timers,
};

/// What a receiver index stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IndexUse {
    /// Our initiation waits for a response.
    Initiation(PeerId),
    /// A session of the peer, in any of its three places.
    Session(PeerId),
}

impl IndexUse {
    fn peer(self) -> PeerId {
        match self {
            Self::Initiation(peer) | Self::Session(peer) => peer,
        }
    }
}

/// All state of one WireGuard interface that is not on the packet path.
pub struct Device {
    rng: ChaCha20Rng,
    identity: Option<Arc<Identity>>,
    up: bool,
    /// Counts changes of `identity` and `up`: what was begun in an earlier epoch is void.
    epoch: u64,
    admission: Arc<Admission>,
    mtu: usize,
    peers: PeerTable,
    indices: IndexTable<IndexUse>,
    allowed_ips: AllowedIps<PeerId>,
    /// Changes since `AllowedIpsChanged` was last put out.
    allowed_ip_changes: Vec<AllowedIpChange>,
    timers: Timers,
    /// Curve arithmetic that handshakes wait for.
    work: VecDeque<CurveWork>,
    /// Peers whose agreement of static keys is computed when there is nothing else to do.
    agreements_wanted: VecDeque<PeerId>,
    /// How many of these are being computed.
    agreements_ahead: usize,
    outputs: VecDeque<Output>,
    counters: HandshakeCounters,
}

impl Device {
    /// A device without key or peers, down.
    ///
    /// `seed` is the only source of randomness: ephemeral keys, indices and jitter follow from it. It must come
    /// from the operating system, except in tests.
    pub fn new(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let mut rng = ChaCha20Rng::from_seed(*seed);
        let index_key = rng.next_u64();
        let admission = Arc::new(Admission::new(ChaCha20Rng::from_rng(&mut rng)));
        Self {
            rng,
            identity: None,
            up: false,
            epoch: 0,
            admission,
            mtu: MTU_DEFAULT,
            peers: PeerTable::default(),
            indices: IndexTable::new(index_key),
            allowed_ips: AllowedIps::new(),
            allowed_ip_changes: Vec::new(),
            timers: Timers::default(),
            work: VecDeque::new(),
            agreements_wanted: VecDeque::new(),
            agreements_ahead: 0,
            outputs: VecDeque::new(),
            counters: HandshakeCounters::default(),
        }
    }

    /// Our private key, for `wg show private-key`.
    pub fn private_key(&self) -> Option<&PrivateKey> {
        self.identity.as_ref().map(|identity| &identity.private_key)
    }

    /// Our public key.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.identity.as_ref().map(|identity| identity.public_key)
    }

    /// Whether the interface is up: only then are there handshakes and timers.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// The tunnel's MTU in bytes, which bounds the padding of staged packets. 1420 until set.
    pub fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    /// How receiver indices map to slots: workers find a session by [`IndexPermutation::slot_of`].
    pub fn index_permutation(&self) -> IndexPermutation {
        self.indices.permutation()
    }

    /// Which peer each inner prefix belongs to.
    pub fn allowed_ips(&self) -> &AllowedIps<PeerId> {
        &self.allowed_ips
    }

    /// A peer's traffic marks.
    pub fn activity(&self, peer: PeerId) -> Option<Arc<Activity>> {
        self.peers.peer(peer).map(|peer| Arc::clone(&peer.activity))
    }

    /// Where handshake messages are looked at before they come here, by any thread.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// What was done and dropped so far.
    pub fn counters(&self) -> HandshakeCounters {
        let mut counters = self.counters.clone();
        self.admission.counters().add_to(&mut counters);
        counters
    }

    /// The next thing to do, oldest first.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] next; may be past.
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.next_deadline()
    }

    /// Takes note of what a worker saw. An event of a session that is gone is ignored.
    pub fn session_event(&mut self, event: SessionEvent, now: Now) {
        match event {
            SessionEvent::Activity { peer } => self.activity_noted(peer, now),
            SessionEvent::Confirmed { local_index } => self.session_confirmed(local_index, now),
            SessionEvent::Roamed { local_index, endpoint } => {
                if let Some(peer) = self.session_peer(local_index) {
                    self.set_endpoint(peer, Some(endpoint));
                }
            }
            SessionEvent::RekeyOnSend { local_index } => self.rekey_on_send(local_index, now),
            SessionEvent::RekeyOnReceive { local_index } => self.rekey_on_receive(local_index, now),
        }
    }

    /// Whose session `local_index` is.
    fn session_peer(&self, local_index: u32) -> Option<PeerId> {
        match self.indices.lookup(local_index)? {
            IndexUse::Session(peer) => Some(*peer),
            IndexUse::Initiation(_) => None,
        }
    }

    fn set_endpoint(&mut self, id: PeerId, endpoint: Option<Endpoint>) {
        if let Some(peer) = self.peers.peer_mut(id)
            && peer.endpoint != endpoint
        {
            peer.endpoint = endpoint;
            self.outputs.push_back(Output::EndpointChanged { peer: id, endpoint });
        }
    }

    /// Forgets which of our addresses the peer answered to: handshakes go unanswered, so it may be wrong (P10).
    fn forget_local_address(&mut self, id: PeerId) {
        let endpoint = self.peers.peer(id).and_then(|peer| peer.endpoint);
        self.set_endpoint(id, endpoint.map(|endpoint| Endpoint { local: None, ..endpoint }));
    }

    fn retire(&mut self, sessions: Retired) {
        for session in sessions {
            self.indices.remove(session.local_index());
            self.outputs.push_back(Output::SessionRemoved { local_index: session.local_index() });
        }
    }

    fn drop_pending_initiation(&mut self, id: PeerId) {
        if let Some(pending) = self.peers.peer_mut(id).and_then(|peer| peer.pending.take()) {
            self.indices.remove(pending.local_index);
        }
    }

    fn drop_response_in_the_making(&mut self, id: PeerId) {
        if let Some(local_index) = self.peers.peer_mut(id).and_then(|peer| peer.responding.take()) {
            self.indices.remove(*local_index);
        }
    }

    /// Erases all key material of a peer.
    fn zero_keys(&mut self, id: PeerId) {
        self.drop_pending_initiation(id);
        self.drop_response_in_the_making(id);
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        let had_current = peer.keypairs.current.is_some();
        let retired = peer.keypairs.clear();
        if had_current {
            self.outputs.push_back(Output::CurrentSession { peer: id, session: None });
        }
        self.retire(retired);
    }

    fn random_ephemeral(&mut self) -> EphemeralSeed {
        let mut bytes = EphemeralSeed::default();
        self.rng.fill_bytes(bytes.as_mut_slice());
        bytes
    }

    /// Up to a third of a second, so that peers who lost each other do not retry in step.
    fn jitter(&mut self) -> Duration {
        let bound = REKEY_TIMEOUT_JITTER.as_nanos() as u64;
        Duration::from_nanos(self.rng.next_u64() % bound)
    }
}
