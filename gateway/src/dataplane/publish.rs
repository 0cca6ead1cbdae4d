//! From control to workers: the one writer of [`Shared`]. Workers only ever drop references; what is replaced
//! here is kept until nobody else holds it and freed by [`Publisher::collect`], on control's time.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use wireguard::{Activity, AllowedIpChange, AllowedIps, Endpoint, LocalAddress, PeerId, Session};

use super::encap::OuterHeader;
use super::fib::{Fib, Neighbour, NextHop};
use super::network::Network;
use super::session_table::SessionTable;
use super::tables::{DataSession, LinkPath, Path, PeerEntry, SealingSession, Shared, Tables};

/// Control's handle on what workers see.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    /// Links with AF_XDP sockets.
    fast_links: BTreeSet<u32>,
    peers: BTreeMap<PeerId, Peer>,
    /// Peers by the address of their endpoint: a change of one route concerns those within it.
    by_address: BTreeSet<(IpAddr, PeerId)>,
    /// Unresolved neighbours, and how many peers are behind each.
    awaited: BTreeMap<Neighbour, usize>,
    sessions: SessionTable,
    allowed_ips: AllowedIps<Arc<PeerEntry>>,
    allowed_ips_version: u64,
    network: Arc<Network>,
    own_addresses: Arc<BTreeSet<IpAddr>>,
    fib: Arc<Fib>,
    tunnel_index: u32,
    tunnel_mtu: usize,
    listen_port: u16,
    path_resolutions: u64,
    /// Snapshots that a worker may be in the middle of a batch with.
    retired: Vec<Arc<Tables>>,
}

#[derive(Debug)]
struct Peer {
    entry: Arc<PeerEntry>,
    /// Local index of the session that was made to send last.
    sending: Option<u32>,
    endpoint: Option<Endpoint>,
    awaits: Option<Neighbour>,
}

impl Publisher {
    /// A publisher for `shared`; `fast_links` are the interface indices of links with AF_XDP sockets.
    pub fn new(shared: Arc<Shared>, fast_links: BTreeSet<u32>) -> Self {
        let sessions = shared.tables.load().sessions.clone();
        Self {
            shared,
            fast_links,
            peers: BTreeMap::new(),
            by_address: BTreeSet::new(),
            awaited: BTreeMap::new(),
            sessions,
            allowed_ips: AllowedIps::new(),
            allowed_ips_version: 0,
            network: Arc::default(),
            own_addresses: Arc::default(),
            fib: Arc::default(),
            tunnel_index: 0,
            tunnel_mtu: 0,
            listen_port: 0,
            path_resolutions: 0,
            retired: Vec::new(),
        }
    }

    /// Makes a peer known. It takes part in routing once [`Publisher::change_allowed_ips`] names it.
    pub fn add_peer(&mut self, id: PeerId, activity: Arc<Activity>) {
        let entry = Arc::new(PeerEntry::new(id, activity));
        let replaced = self.peers.insert(id, Peer { entry, sending: None, endpoint: None, awaits: None });
        debug_assert!(replaced.is_none(), "a slot is removed before it is used again");
    }

    /// Forgets a peer. Its sessions and allowed IPs are removed by calls of their own.
    pub fn remove_peer(&mut self, id: PeerId) {
        self.set_endpoint(id, None);
        if let Some(peer) = self.peers.remove(&id) {
            peer.entry.set_current(None);
            peer.entry.set_path(None);
        }
    }

    /// Lets workers receive under `session`'s local index, and send once it is the current one.
    pub fn add_session(&mut self, session: Arc<Session>) {
        let Some(peer) = self.peers.get(&session.peer()) else { return };
        let sending = Arc::new(SealingSession::new(Arc::clone(&session)));
        let receiving = Arc::new(DataSession::new(session, Arc::clone(&peer.entry)));
        self.sessions.insert(receiving, Some(sending));
        self.publish_tables();
    }

    /// Makes workers forget the session of `local_index`.
    pub fn remove_session(&mut self, local_index: u32) {
        let Some(removed) = self.sessions.remove(local_index) else { return };
        self.publish_tables();
        let peer = &removed.receiving.peer;
        // Unless a worker has just put the next one there.
        peer.replace_current(local_index, None);
        // A worker that saw the peer roam under it may have changed the path without being heard any more.
        self.resolve_path(peer.id);
    }

    /// Makes workers seal with `session`, which was added before; with `None` they stage.
    pub fn set_current_session(&mut self, id: PeerId, session: Option<&Session>) {
        let added = session.and_then(|session| self.sessions.lookup(session.local_index()));
        let index = added.map(|entry| entry.session().local_index());
        let unexpanded =
            added.filter(|entry| entry.sending.is_none()).map(|entry| Arc::clone(entry.session()));
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let former = std::mem::replace(&mut peer.sending, index).filter(|former| Some(*former) != index);
        let entry = Arc::clone(&peer.entry);
        if let Some(session) = unexpanded {
            let sending = Arc::new(SealingSession::new(session));
            self.sessions.set_sending(sending.session.local_index(), Some(sending));
            self.publish_tables();
        }
        // The worker that saw the confirmation may have been faster: then this changes nothing.
        entry.set_current(index);
        if let Some(former) = former {
            self.sessions.set_sending(former, None);
            self.publish_tables();
        }
    }

    /// Makes workers send to `endpoint`.
    pub fn set_endpoint(&mut self, id: PeerId, endpoint: Option<Endpoint>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let address = |endpoint: Option<Endpoint>| endpoint.map(|endpoint| endpoint.remote.ip());
        let former = std::mem::replace(&mut peer.endpoint, endpoint);
        if address(former) != address(endpoint) {
            if let Some(address) = address(former) {
                self.by_address.remove(&(address, id));
            }
            if let Some(address) = address(endpoint) {
                self.by_address.insert((address, id));
            }
        }
        self.resolve_path(id);
    }

    /// Replaces cryptokey routing as a whole.
    pub fn set_allowed_ips(&mut self, allowed_ips: &AllowedIps<PeerId>) {
        let mut published = AllowedIps::new();
        for (prefix, id) in allowed_ips.iter() {
            if let Some(peer) = self.peers.get(id) {
                published.insert(prefix, Arc::clone(&peer.entry));
            }
        }
        self.allowed_ips = published;
        self.allowed_ips_version += 1;
        self.publish_tables();
    }

    /// Changes cryptokey routing; workers see all of `changes` at once, or none. Costs what the changes cost, with
    /// however many other prefixes.
    pub fn change_allowed_ips(&mut self, changes: &[AllowedIpChange]) {
        for AllowedIpChange { prefix, owner } in changes {
            match owner.and_then(|id| self.peers.get(&id)) {
                Some(peer) => self.allowed_ips.insert(*prefix, Arc::clone(&peer.entry)),
                None => self.allowed_ips.remove(prefix),
            };
        }
        self.allowed_ips_version += 1;
        self.publish_tables();
    }

    /// Replaces what is known of the kernel's routes. Only the paths that this changes are resolved anew.
    pub fn set_network(&mut self, network: impl Into<Arc<Network>>) {
        self.network = network.into();
        let own = self.network.addresses.iter().map(|address| address.address.addr()).collect();
        let are_addresses_changed = *self.own_addresses != own;
        if are_addresses_changed {
            self.own_addresses = Arc::new(own);
        }
        let changes = self.rebuild_fib();
        if are_addresses_changed {
            self.resolve_all_paths();
        } else {
            self.resolve_paths_in(&changes);
        }
    }

    /// The port that outer headers name as source.
    pub fn set_listen_port(&mut self, port: u16) {
        self.listen_port = port;
        self.publish_tables();
        self.resolve_all_paths();
    }

    /// The tunnel device and its MTU, in bytes of inner packet.
    pub fn set_tunnel(&mut self, interface_index: u32, mtu: u16) {
        self.tunnel_index = interface_index;
        self.tunnel_mtu = mtu.into();
        let changes = self.rebuild_fib();
        self.resolve_paths_in(&changes);
    }

    /// Neighbours that paths and routes depend on: (interface index, address). Control keeps them resolved,
    /// since traffic that bypasses the kernel does not.
    pub fn next_hops_in_use(&self) -> Vec<(u32, IpAddr)> {
        let unresolved = self.awaited.keys().map(|neighbour| (neighbour.interface_index, neighbour.address));
        let resolved = self
            .network
            .neighbours
            .keys()
            .filter(|(link, address)| self.fast_links.contains(link) && !address.is_multicast())
            .copied();
        unresolved.chain(resolved).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// `endpoint` without its local address where packets to an IPv4 peer leave by another link than its own arrive
    /// on: that route has a source of its own (drivers/net/wireguard/socket.c, `send4`; `send6` does not ask).
    pub fn outgoing(&self, endpoint: &Endpoint) -> Endpoint {
        let Endpoint { remote, local } = *endpoint;
        let is_kept = |local: &LocalAddress| {
            let leaves_by = self.fib.interface_towards(remote.ip());
            remote.is_ipv6() || leaves_by.is_none_or(|index| index == local.interface_index)
        };
        Endpoint { remote, local: local.filter(is_kept) }
    }

    /// Whether datagrams to `id` bypass the kernel: what `wgx status` calls the fast path.
    pub fn is_fast(&self, id: PeerId) -> bool {
        let path = self.peers.get(&id).and_then(|peer| peer.entry.path());
        path.is_some_and(|path| path.link.is_some())
    }

    /// How often a path was looked up so far, and how many replaced things wait for their last reader: what shows
    /// whether a change costs more than it should.
    pub fn effort(&self) -> (u64, usize) {
        (self.path_resolutions, self.retired.len())
    }

    /// Frees what was replaced and no worker holds any more. To be called about once a second.
    pub fn collect(&mut self) {
        self.retired.retain(|retired| Arc::strong_count(retired) > 1);
    }

    /// Returns the prefixes whose destinations may be reached otherwise than before.
    fn rebuild_fib(&mut self) -> Vec<IpNet> {
        let fib = Fib::build(&self.network, &self.fast_links, self.tunnel_index);
        let former = std::mem::replace(&mut self.fib, Arc::new(fib));
        self.publish_tables();
        self.fib.changes_since(&former)
    }

    fn publish_tables(&mut self) {
        let tables = Tables {
            sessions: self.sessions.clone(),
            allowed_ips: self.allowed_ips.clone(),
            allowed_ips_version: self.allowed_ips_version,
            fib: Arc::clone(&self.fib),
            tunnel_mtu: self.tunnel_mtu,
            listen_port: self.listen_port,
            own_addresses: Arc::clone(&self.own_addresses),
        };
        let replaced = self.shared.tables.swap(Arc::new(tables));
        if Arc::strong_count(&replaced) > 1 {
            self.retired.push(replaced);
        }
    }

    fn resolve_all_paths(&mut self) {
        let ids: Vec<PeerId> = self.by_address.iter().map(|(_, id)| *id).collect();
        for id in ids {
            self.resolve_path(id);
        }
    }

    /// Resolves the paths of peers whose endpoint is within one of these prefixes.
    fn resolve_paths_in(&mut self, prefixes: &[IpNet]) {
        let mut ids = BTreeSet::new();
        for prefix in prefixes {
            let range = (prefix.network(), PeerId(0))..=(prefix.broadcast(), PeerId(u32::MAX));
            ids.extend(self.by_address.range(range).map(|(_, id)| *id));
        }
        for id in ids {
            self.resolve_path(id);
        }
    }

    fn resolve_path(&mut self, id: PeerId) {
        self.path_resolutions += 1;
        let Some(peer) = self.peers.get(&id) else { return };
        let awaits = peer.endpoint.and_then(|endpoint| self.fib.unresolved(endpoint.remote.ip()));
        if awaits != peer.awaits {
            self.set_awaited(id, awaits);
        }
        let peer = &self.peers[&id];
        let path = peer.endpoint.map(|endpoint| {
            let outgoing = self.outgoing(&endpoint);
            let keeps_local = outgoing.local.is_some();
            Path { endpoint, keeps_local, link: self.link_path(&outgoing) }
        });
        if peer.entry.path() != path {
            peer.entry.set_path(path);
        }
    }

    /// The way to `endpoint` that bypasses the kernel, if there is one. Link-local endpoints are left to the
    /// kernel, which knows their scope.
    fn link_path(&self, endpoint: &Endpoint) -> Option<LinkPath> {
        if let IpAddr::V6(address) = endpoint.remote.ip()
            && address.is_unicast_link_local()
        {
            return None;
        }
        let NextHop::Link(hop) = self.fib.lookup(endpoint.remote.ip()) else { return None };
        let sticky = endpoint.local.map(|local| local.ip).filter(|ip| self.is_own(*ip));
        let source = SocketAddr::new(sticky.or(hop.source)?, self.listen_port);
        let header = OuterHeader::new(&hop, source, endpoint.remote)?;
        Some(LinkPath { interface_index: hop.interface_index, mtu: hop.mtu, header })
    }

    fn set_awaited(&mut self, id: PeerId, awaits: Option<Neighbour>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(former) = std::mem::replace(&mut peer.awaits, awaits)
            && let Entry::Occupied(mut count) = self.awaited.entry(former)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if let Some(neighbour) = awaits {
            *self.awaited.entry(neighbour).or_default() += 1;
        }
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.own_addresses.contains(&ip)
    }
}
