//! What workers look up: sessions by receiver index, peers by allowed IPs, next hops by destination. Written
//! by the [`Publisher`](super::publish::Publisher) alone, read by every worker without locks.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aead::Key;
use arc_swap::ArcSwap;
use crossbeam::atomic::AtomicCell;
use wireguard::{Activity, AllowedIps, Endpoint, IndexPermutation, PeerId, Session};

use super::encap::OuterHeader;
use super::fib::Fib;
use super::mailbox::Mailbox;
use super::session_table::SessionTable;

/// Everything workers and control share.
#[derive(Debug)]
pub struct Shared {
    /// The snapshot that counts from now on. Workers load it once per batch.
    pub tables: ArcSwap<Tables>,
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
            tables: ArcSwap::from_pointee(Tables::new(permutation)),
            mailbox: Arc::new(Mailbox::new()?),
        })
    }
}

/// One immutable snapshot.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Sessions by receiver index.
    pub sessions: SessionTable,
    /// Cryptokey routing, device-wide and for both directions.
    pub allowed_ips: AllowedIps<Arc<PeerEntry>>,
    /// How often `allowed_ips` changed so far: what was looked up under another number may no longer hold.
    pub allowed_ips_version: u64,
    /// The kernel's routes, as far as the fast path may follow them.
    pub fib: Arc<Fib>,
    /// The tunnel's MTU, in bytes of inner packet.
    pub tunnel_mtu: usize,
    /// The UDP port peers send to.
    pub listen_port: u16,
    /// This host's addresses, whatever link they are on.
    pub own_addresses: Arc<BTreeSet<IpAddr>>,
}

impl Tables {
    /// No sessions, peers or routes.
    pub fn new(permutation: IndexPermutation) -> Self {
        Self {
            sessions: SessionTable::new(permutation),
            allowed_ips: AllowedIps::new(),
            allowed_ips_version: 0,
            fib: Arc::default(),
            tunnel_mtu: 0,
            listen_port: 0,
            own_addresses: Arc::default(),
        }
    }
}

/// No session to send with.
const NO_SESSION: u64 = u64::MAX;

/// What workers know of a peer. It lives as long as the peer: what changes with each handshake or roaming is read
/// without a lock or a reference count.
#[derive(Debug)]
#[repr(C)]
pub struct PeerEntry {
    /// The peer's slot in the device.
    pub id: PeerId,
    /// Marks that timers and `wg show` read.
    pub activity: Arc<Activity>,
    /// Local index of the session to seal with, or [`NO_SESSION`].
    current: AtomicU64,
    path: AtomicCell<Option<Path>>,
}

impl PeerEntry {
    /// A peer without a session whose endpoint is not known.
    pub fn new(id: PeerId, activity: Arc<Activity>) -> Self {
        Self { id, activity, current: AtomicU64::new(NO_SESSION), path: AtomicCell::new(None) }
    }

    /// Local index of the session to seal with; `None` until a handshake completes. The session is in the newest
    /// tables, if not in those that were loaded before.
    pub fn current(&self) -> Option<u32> {
        u32::try_from(self.current.load(Ordering::Acquire)).ok()
    }

    /// Seals with the session of `local_index` from now on.
    pub(super) fn set_current(&self, local_index: Option<u32>) {
        self.current.store(local_index.map_or(NO_SESSION, u64::from), Ordering::Release);
    }

    /// Seals with `new` instead of `old`; `false` when it was another by now.
    pub(super) fn replace_current(&self, old: u32, new: Option<u32>) -> bool {
        let new = new.map_or(NO_SESSION, u64::from);
        self.current.compare_exchange(old.into(), new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// How the peer's endpoint is reached; `None` while it is unknown.
    pub fn path(&self) -> Option<Path> {
        self.path.load()
    }

    pub(super) fn set_path(&self, path: Option<Path>) {
        self.path.store(path);
    }

    /// Goes by `new` instead of `old`; `false` when it was another by now.
    pub(super) fn replace_path(&self, old: Option<Path>, new: Option<Path>) -> bool {
        self.path.compare_exchange(old, new).is_ok()
    }
}

/// How a peer's endpoint is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where the peer was heard last, and at which local address: what roaming is told by.
    pub endpoint: Endpoint,
    /// Whether replies may still come from the endpoint's local address.
    pub keeps_local: bool,
    /// Through which AF_XDP socket; `None` leaves route and neighbour to the kernel's UDP socket.
    pub link: Option<LinkPath>,
}

impl Path {
    /// Where to send, and from which address if not the one that the kernel would choose.
    pub fn outgoing(&self) -> Endpoint {
        let Endpoint { remote, local } = self.endpoint;
        Endpoint { remote, local: local.filter(|_| self.keeps_local) }
    }
}

/// A path that bypasses the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPath {
    /// The link's interface index.
    pub interface_index: u32,
    /// Its MTU, in bytes of outer IP packet; longer packets are the kernel's, which fragments them.
    pub mtu: u32,
    /// The headers to prepend.
    pub header: OuterHeader,
}

/// A session that may receive, with its key expanded for the batch AEAD. What every packet needs comes first.
#[derive(Debug)]
#[repr(C)]
pub struct DataSession {
    /// Counters, replay window and age.
    pub session: Arc<Session>,
    /// The peer it belongs to.
    pub peer: Arc<PeerEntry>,
    /// The inner source that was found to be the peer's last, of IPv4 and of IPv6.
    verified: [AtomicCell<Option<Verified>>; 2],
    /// Opens what is received.
    pub opening: Key,
}

/// An inner source that belonged to the peer under some state of the allowed IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verified {
    source: IpAddr,
    allowed_ips_version: u64,
}

/// A session that sends, or is the next to. Expanded keys are large (about 0.7 KB), and of the up to three sessions of
/// a peer only these need two.
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
        let verified = [const { AtomicCell::new(None) }; 2];
        Self { opening: Key::new(session.receiving_key()), session, peer, verified }
    }

    /// Brings what every packet needs into the cache. The result means nothing.
    pub fn touch(&self) -> u64 {
        let pointers = Arc::as_ptr(&self.session).addr() ^ Arc::as_ptr(&self.peer).addr();
        let version = self.verified[0].load().map_or(0, |verified| verified.allowed_ips_version);
        pointers as u64 ^ version ^ self.opening.touch()
    }

    /// Whether `source` belongs to the peer by a device-wide longest-prefix match: a prefix of its own is not enough
    /// where another peer has a longer one. A peer's packets have few sources, so the last one is remembered.
    pub fn is_source_allowed(&self, source: IpAddr, tables: &Tables) -> bool {
        let verified = Some(Verified { source, allowed_ips_version: tables.allowed_ips_version });
        let last = &self.verified[usize::from(source.is_ipv6())];
        if last.load() == verified {
            return true;
        }
        let owner = tables.allowed_ips.lookup(source);
        let is_allowed = owner.is_some_and(|owner| Arc::ptr_eq(owner, &self.peer));
        if is_allowed {
            last.store(verified);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use wireguard::{SessionParameters, Time};

    use super::*;

    fn peer(id: u32) -> Arc<PeerEntry> {
        Arc::new(PeerEntry::new(PeerId(id), Arc::default()))
    }

    fn session(peer: &Arc<PeerEntry>) -> DataSession {
        let session = Session::new(SessionParameters {
            peer: peer.id,
            activity: Arc::clone(&peer.activity),
            local_index: 1,
            remote_index: 2,
            created_at: Time(1),
            initiator: true,
            sending_key: [1; 32].into(),
            receiving_key: [2; 32].into(),
        });
        DataSession::new(Arc::new(session), Arc::clone(peer))
    }

    #[test]
    fn a_source_is_allowed_only_as_long_as_the_prefix_is_the_peers() {
        let (ours, other) = (peer(0), peer(1));
        let data = session(&ours);
        let mut tables = Tables::new(IndexPermutation::new(1));
        let source = "10.8.0.2".parse().unwrap();
        let foreign = "10.8.0.3".parse().unwrap();
        assert!(!data.is_source_allowed(source, &tables));
        tables.allowed_ips.insert("10.8.0.0/24".parse().unwrap(), Arc::clone(&ours));
        tables.allowed_ips.insert("10.8.0.3/32".parse().unwrap(), Arc::clone(&other));
        tables.allowed_ips_version += 1;
        for _ in 0..2 {
            assert!(data.is_source_allowed(source, &tables), "also from memory");
            assert!(!data.is_source_allowed(foreign, &tables), "another peer's longer prefix");
        }
        tables.allowed_ips.insert("10.8.0.2/32".parse().unwrap(), other);
        tables.allowed_ips_version += 1;
        assert!(!data.is_source_allowed(source, &tables), "what is remembered is of another version");
    }

    #[test]
    fn a_session_or_path_gives_way_only_to_who_knew_it() {
        let entry = peer(0);
        assert_eq!(entry.current(), None);
        entry.set_current(Some(u32::MAX));
        assert_eq!(entry.current(), Some(u32::MAX));
        assert!(!entry.replace_current(7, Some(8)));
        assert!(entry.replace_current(u32::MAX, Some(8)));
        assert_eq!(entry.current(), Some(8));
        assert!(entry.replace_current(8, None));
        assert_eq!(entry.current(), None);

        let path = |port| {
            let endpoint = Endpoint { remote: ([192, 0, 2, 1], port).into(), local: None };
            Some(Path { endpoint, keeps_local: true, link: None })
        };
        assert!(entry.replace_path(None, path(1)));
        assert!(!entry.replace_path(None, path(2)));
        assert!(!entry.replace_path(path(2), path(3)));
        assert_eq!(entry.path(), path(1));
    }
}
