//! What workers look up: sessions by receiver index, peers by allowed IPs, next hops by destination. Written
//! by the [`Publisher`](super::publish::Publisher) alone, read by every worker without locks.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aead::Key;
use arc_swap::ArcSwap;
use crossbeam::atomic::AtomicCell;
use wireguard::{Activity, AllowedIps, Endpoint, IndexPermutation, PeerId, Session};

use super::encap::OuterHeader;
use super::fib::Fib;
use super::heard::{Heard, HeardCell};
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

/// Bytes.
const CACHE_LINE: usize = 64;

/// No session to send with.
const NO_SESSION: u64 = u64::MAX;

/// What workers know of a peer. It lives as long as the peer: what changes with each handshake or roaming is read
/// without a lock or a reference count.
///
/// Receiving a packet reads the first cache line, sending one all three.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PeerEntry {
    heard: HeardCell,
    /// Marks that timers and `wg show` read.
    pub activity: Arc<Activity>,
    /// The peer's slot in the device.
    pub id: PeerId,
    /// Written by control alone.
    link: AtomicCell<Option<NumberedLink>>,
    /// Local index of the session to seal with, or [`NO_SESSION`].
    current: AtomicU64,
}

const _: () = assert!(size_of::<PeerEntry>() == 3 * CACHE_LINE);

/// The link part of a path. It is not written at one go with [`Heard`]: where a reader finds another number than that
/// names, control is about to change the path, and until then packets leave through the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NumberedLink {
    /// From 1; no two links in a row have the same.
    number: u32,
    link: LinkPath,
}

impl PeerEntry {
    /// A peer without a session whose endpoint is not known.
    pub fn new(id: PeerId, activity: Arc<Activity>) -> Self {
        Self {
            heard: HeardCell::default(),
            link: AtomicCell::new(None),
            current: AtomicU64::new(NO_SESSION),
            activity,
            id,
        }
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

    /// Brings what every packet sent needs into the cache. The result means nothing.
    pub fn touch(&self) -> u64 {
        let activity = Arc::as_ptr(&self.activity).addr() as u64;
        self.touch_heard() ^ activity ^ self.current.load(Ordering::Relaxed)
    }

    /// Brings what every packet received needs into the cache. The result means nothing.
    pub fn touch_heard(&self) -> u64 {
        self.heard.touch()
    }

    /// How the peer's endpoint is reached; `None` while it is unknown.
    pub fn path(&self) -> Option<Path> {
        let heard = self.heard.load();
        let endpoint = heard.endpoint()?;
        let numbered = if heard.link_number() == 0 { None } else { self.link.load() };
        let link =
            numbered.filter(|numbered| numbered.number == heard.link_number()).map(|numbered| numbered.link);
        Some(Path { endpoint, keeps_local: heard.keeps_local(), link })
    }

    /// For control alone.
    pub(super) fn set_path(&self, path: Option<Path>) {
        // The link before the number that names it.
        let heard = path.map(|Path { endpoint, keeps_local, link }| {
            let link_number = link.map_or(0, |link| self.number_of(link));
            Heard::new(&endpoint, keeps_local, link_number)
        });
        self.heard.store(heard.unwrap_or_default());
    }

    /// Makes `link` the peer's, if it is not by now, and returns its number.
    fn number_of(&self, link: LinkPath) -> u32 {
        let held = self.link.load();
        if let Some(held) = held.filter(|held| held.link == link) {
            return held.number;
        }
        let number = held.map_or(1, |held| held.number.wrapping_add(1).max(1));
        self.link.store(Some(NumberedLink { number, link }));
        number
    }

    /// Where the peer was heard last.
    pub(super) fn heard(&self) -> Heard {
        self.heard.load()
    }

    /// Goes by `new` instead of `old`; `false` when it was another by now.
    pub(super) fn replace_heard(&self, old: Heard, new: Heard) -> bool {
        self.heard.replace(old, new)
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

/// A session that may receive, with its key expanded for the batch AEAD. What every packet needs fills the first cache
/// line, and leads to the rest in one step.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct DataSession {
    /// Counters, replay window and age.
    pub session: Arc<Session>,
    /// The peer it belongs to.
    pub peer: Arc<PeerEntry>,
    /// The peer's marks.
    pub activity: Arc<Activity>,
    /// The inner IPv4 source that was found to be the peer's last: see [`verified_v4`].
    verified_v4: AtomicU64,
    /// Opens what is received.
    pub opening: Key,
    /// The inner IPv6 source that was found to be the peer's last.
    verified_v6: AtomicCell<Option<Verified>>,
}

/// No source was found yet.
const NONE_VERIFIED: u64 = u64::MAX;

/// An IPv4 source that belonged to the peer under some state of the allowed IPs, as one word; `None` for the states
/// that are too many to be told apart in it.
fn verified_v4(source: Ipv4Addr, allowed_ips_version: u64) -> Option<u64> {
    let version = u32::try_from(allowed_ips_version).ok().filter(|version| *version != u32::MAX)?;
    Some(u64::from(version) << 32 | u64::from(source.to_bits()))
}

/// An inner source that belonged to the peer under some state of the allowed IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verified {
    source: Ipv6Addr,
    allowed_ips_version: u64,
}

/// A session that sends, or is the next to. Expanded keys are large (about 0.7 KB), and of the up to three sessions of
/// a peer only these need two.
#[derive(Debug)]
#[repr(align(64))]
pub struct SealingSession {
    /// Counters and age.
    pub session: Arc<Session>,
    /// Seals what is sent.
    pub key: Key,
}

impl SealingSession {
    /// Brings what leads to the rest into the cache. The result means nothing.
    pub fn touch(&self) -> u64 {
        Arc::as_ptr(&self.session).addr() as u64
    }

    /// Brings what every packet needs beyond that into the cache. The result means nothing.
    pub fn touch_rest(&self) -> u64 {
        self.key.touch() ^ self.session.touch_sending()
    }

    /// Expands the sending key of `session`.
    pub fn new(session: Arc<Session>) -> Self {
        Self { key: Key::new(session.sending_key()), session }
    }
}

impl DataSession {
    /// Expands the receiving key of `session`.
    pub fn new(session: Arc<Session>, peer: Arc<PeerEntry>) -> Self {
        Self {
            opening: Key::new(session.receiving_key()),
            session,
            activity: Arc::clone(&peer.activity),
            peer,
            verified_v4: AtomicU64::new(NONE_VERIFIED),
            verified_v6: AtomicCell::new(None),
        }
    }

    /// Brings what leads to the rest into the cache. The result means nothing.
    pub fn touch(&self) -> u64 {
        self.verified_v4.load(Ordering::Relaxed)
    }

    /// Brings what a packet with this counter needs beyond that into the cache. The result means nothing.
    pub fn touch_rest(&self, counter: u64) -> u64 {
        let marks = self.activity.last_received().unwrap_or_default().0;
        self.opening.touch() ^ self.session.touch_receiving(counter) ^ self.peer.touch_heard() ^ marks
    }

    /// Whether `source` belongs to the peer by a device-wide longest-prefix match: a prefix of its own is not enough
    /// where another peer has a longer one. A peer's packets have few sources, so the last one is remembered.
    pub fn is_source_allowed(&self, source: IpAddr, tables: &Tables) -> bool {
        match source {
            IpAddr::V4(address) => {
                let verified = verified_v4(address, tables.allowed_ips_version);
                if verified == Some(self.verified_v4.load(Ordering::Relaxed)) {
                    return true;
                }
                let is_allowed = self.owns(source, tables);
                if let (true, Some(verified)) = (is_allowed, verified) {
                    self.verified_v4.store(verified, Ordering::Relaxed);
                }
                is_allowed
            }
            IpAddr::V6(address) => {
                let verified =
                    Some(Verified { source: address, allowed_ips_version: tables.allowed_ips_version });
                if self.verified_v6.load() == verified {
                    return true;
                }
                let is_allowed = self.owns(source, tables);
                if is_allowed {
                    self.verified_v6.store(verified);
                }
                is_allowed
            }
        }
    }

    fn owns(&self, source: IpAddr, tables: &Tables) -> bool {
        tables.allowed_ips.lookup(source).is_some_and(|owner| Arc::ptr_eq(owner, &self.peer))
    }
}

#[cfg(test)]
mod tests {
    use wireguard::{SessionParameters, Time};

    use super::super::fib::LinkHop;
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

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { remote: ([192, 0, 2, 1], port).into(), local: None }
    }

    fn linked(port: u16, mtu: u32) -> Path {
        let endpoint = endpoint(port);
        let hop =
            LinkHop { interface_index: 2, destination_mac: [2; 6], source_mac: [4; 6], mtu, source: None };
        let header = OuterHeader::new(&hop, ([192, 0, 2, 9], 51820).into(), endpoint.remote).unwrap();
        Path { endpoint, keeps_local: false, link: Some(LinkPath { interface_index: 2, mtu, header }) }
    }

    #[test]
    fn a_path_is_read_as_it_was_set() {
        let entry = peer(0);
        for path in
            [Some(linked(1, 1500)), Some(linked(1, 1400)), Some(linked(2, 1400)), None, Some(linked(3, 9000))]
        {
            entry.set_path(path);
            assert_eq!(entry.path(), path);
        }
    }

    #[test]
    fn a_link_is_not_mistaken_for_that_of_another_endpoint() {
        let entry = peer(0);
        entry.set_path(Some(linked(1, 1500)));
        let before = entry.heard();
        let roamed = Heard::at(&endpoint(2));
        assert!(entry.replace_heard(before, roamed));
        assert_eq!(entry.path().unwrap().link, None, "the link led to the endpoint before");
        entry.set_path(Some(linked(2, 1500)));
        assert!(entry.replace_heard(entry.heard(), before));
        assert_eq!(entry.path().unwrap().link, None, "the link leads to the endpoint after");
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

        let heard = |port| Heard::at(&endpoint(port));
        assert!(entry.replace_heard(Heard::default(), heard(1)));
        assert!(!entry.replace_heard(Heard::default(), heard(2)));
        assert!(!entry.replace_heard(heard(2), heard(3)));
        assert_eq!(entry.path(), Some(Path { endpoint: endpoint(1), keeps_local: true, link: None }));
    }
}
