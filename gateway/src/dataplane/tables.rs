//! What workers look up: sessions by receiver index, peers by allowed IPs, next hops by destination. Written
//! by the [`Publisher`](super::publish::Publisher) alone, read by every worker without locks.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use aead::Key;
use arc_swap::{ArcSwap, ArcSwapOption};
use wireguard::{Activity, AllowedIps, Endpoint, IndexPermutation, PeerId, Session};

use super::encap::OuterHeader;
use super::fib::Fib;
use super::mailbox::Mailbox;

/// Everything workers and control share.
#[derive(Debug)]
pub struct Shared {
    /// The routing snapshot; an `Arc` of its own so that each worker keeps a cache of it.
    pub tables: Arc<ArcSwap<Tables>>,
    /// Sessions by receiver index.
    pub sessions: SessionTable,
    /// From workers to control.
    pub mailbox: Arc<Mailbox>,
}

impl Shared {
    /// Empty tables. `permutation` is that of the device that makes the receiver indices.
    ///
    /// # Errors
    /// No file descriptor is left for the mailbox.
    pub fn new(permutation: IndexPermutation) -> std::io::Result<Self> {
        Ok(Self {
            tables: Arc::new(ArcSwap::from_pointee(Tables::default())),
            sessions: SessionTable::new(permutation),
            mailbox: Arc::new(Mailbox::new()?),
        })
    }
}

/// One immutable routing snapshot.
#[derive(Debug)]
pub struct Tables {
    /// Cryptokey routing, device-wide and for both directions.
    pub allowed_ips: AllowedIps<Arc<PeerEntry>>,
    /// The kernel's routes, as far as the fast path may follow them.
    pub fib: Arc<Fib>,
    /// The tunnel's MTU, in bytes of inner packet.
    pub tunnel_mtu: usize,
    /// The UDP port peers send to.
    pub listen_port: u16,
    /// This host's addresses, whatever link they are on.
    pub own_addresses: Arc<BTreeSet<IpAddr>>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            allowed_ips: AllowedIps::new(),
            fib: Arc::default(),
            tunnel_mtu: 0,
            listen_port: 0,
            own_addresses: Arc::default(),
        }
    }
}

/// What workers know of a peer.
#[derive(Debug)]
pub struct PeerEntry {
    /// The peer's slot in the device.
    pub id: PeerId,
    /// Marks that timers and `wg show` read.
    pub activity: Arc<Activity>,
    /// The session to seal with; `None` until a handshake completes.
    pub current: ArcSwapOption<SealingSession>,
    /// How the peer's endpoint is reached; `None` while it is unknown.
    pub path: ArcSwapOption<Path>,
}

/// How a peer's endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where the peer was heard last, and at which local address: what roaming is told by.
    pub endpoint: Endpoint,
    /// The same without a local address that replies may no longer come from.
    pub outgoing: Endpoint,
    /// Through which AF_XDP socket; `None` leaves route and neighbour to the kernel's UDP socket.
    pub link: Option<LinkPath>,
}

/// A path that bypasses the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPath {
    /// The link's interface index.
    pub interface_index: u32,
    /// Its MTU, in bytes of outer IP packet; longer packets are the kernel's, which fragments them.
    pub mtu: u32,
    /// The headers to prepend.
    pub header: OuterHeader,
}

/// A session that may receive, with its key expanded for the batch AEAD.
#[derive(Debug)]
pub struct DataSession {
    /// Counters, replay window and age.
    pub session: Arc<Session>,
    /// The peer it belongs to.
    pub peer: Arc<PeerEntry>,
    /// Opens what is received.
    pub opening: Key,
}

/// The one session of a peer that sends. Expanded keys are large (about 0.7 KB), and of the up to three sessions of
/// a peer only this one needs two.
#[derive(Debug)]
pub struct SealingSession {
    /// Counters and age.
    pub session: Arc<Session>,
    /// Seals what is sent.
    pub key: Key,
}

impl SealingSession {
    /// Expands the sending key of `session`.
    pub fn new(session: Arc<Session>) -> Self {
        Self { key: Key::new(session.sending_key()), session }
    }
}

impl DataSession {
    /// Expands the receiving key of `session`.
    pub fn new(session: Arc<Session>, peer: Arc<PeerEntry>) -> Self {
        Self { opening: Key::new(session.receiving_key()), session, peer }
    }
}

const CHUNK_LEN: usize = 4096;
const CHUNK_COUNT: usize = 1024;

type Slot = ArcSwapOption<DataSession>;

/// Sessions by receiver index: the index names a slot through a keyed permutation, so a look-up is two array
/// accesses. Chunks are allocated as slots come into use and stay for the life of the process.
pub struct SessionTable {
    permutation: IndexPermutation,
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
}

impl std::fmt::Debug for SessionTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionTable").finish_non_exhaustive()
    }
}

impl SessionTable {
    fn new(permutation: IndexPermutation) -> Self {
        Self { permutation, chunks: (0..CHUNK_COUNT).map(|_| OnceLock::new()).collect() }
    }

    /// The session that receives under `local_index`.
    pub fn lookup(&self, local_index: u32) -> Option<Arc<DataSession>> {
        let slot = self.permutation.slot_of(local_index).slot as usize;
        let chunk = self.chunks.get(slot / CHUNK_LEN)?.get()?;
        chunk[slot % CHUNK_LEN].load_full().filter(|held| held.session.local_index() == local_index)
    }

    /// Puts `session` in its slot and returns the one that was there; `Err` when the index names a slot
    /// beyond the table, which the device's bound on sessions rules out.
    pub(super) fn insert(
        &self,
        session: Arc<DataSession>,
    ) -> Result<Option<Arc<DataSession>>, SlotOutOfRange> {
        let slot = self.permutation.slot_of(session.session.local_index()).slot as usize;
        let chunk = self.chunks.get(slot / CHUNK_LEN).ok_or(SlotOutOfRange(slot))?;
        let chunk = chunk.get_or_init(|| (0..CHUNK_LEN).map(|_| Slot::empty()).collect());
        Ok(chunk[slot % CHUNK_LEN].swap(Some(session)))
    }

    /// Empties the slot of `local_index` if that session is still there.
    pub(super) fn remove(&self, local_index: u32) -> Option<Arc<DataSession>> {
        let held = self.lookup(local_index)?;
        let slot = self.permutation.slot_of(local_index).slot as usize;
        self.chunks[slot / CHUNK_LEN].get()?[slot % CHUNK_LEN].store(None);
        Some(held)
    }
}

/// A receiver index beyond the table.
#[derive(Debug, thiserror::Error)]
#[error("session slot {0} is beyond the table of {max} slots", max = CHUNK_LEN * CHUNK_COUNT)]
pub struct SlotOutOfRange(usize);
