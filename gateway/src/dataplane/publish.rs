//! From control to workers: the one writer of [`Shared`]. Workers only ever drop references; what is replaced
//! here is kept until nobody else holds it and freed by [`Publisher::collect`], on control's time.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use wireguard::{Activity, AllowedIps, Endpoint, LocalAddress, PeerId, Session};

use super::encap::OuterHeader;
use super::fib::{Fib, NextHop};
use super::network::Network;
use super::tables::{DataSession, LinkPath, Path, PeerEntry, Shared, Tables};

/// Control's handle on what workers see.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    /// Links with AF_XDP sockets.
    fast_links: BTreeSet<u32>,
    peers: BTreeMap<PeerId, Peer>,
    allowed_ips: AllowedIps<Arc<PeerEntry>>,
    network: Network,
    fib: Fib,
    tunnel_index: u32,
    tunnel_mtu: usize,
    listen_port: u16,
    retired: Vec<Retired>,
}

#[derive(Debug)]
struct Peer {
    entry: Arc<PeerEntry>,
    endpoint: Option<Endpoint>,
}

/// Something workers may still hold.
#[derive(Debug)]
struct Retired(Arc<dyn Any + Send + Sync>);

impl Publisher {
    /// A publisher for `shared`; `fast_links` are the interface indices of links with AF_XDP sockets.
    pub fn new(shared: Arc<Shared>, fast_links: BTreeSet<u32>) -> Self {
        Self {
            shared,
            fast_links,
            peers: BTreeMap::new(),
            allowed_ips: AllowedIps::new(),
            network: Network::default(),
            fib: Fib::default(),
            tunnel_index: 0,
            tunnel_mtu: 0,
            listen_port: 0,
            retired: Vec::new(),
        }
    }

    /// Makes a peer known. It takes part in routing once [`Publisher::set_allowed_ips`] names it.
    pub fn add_peer(&mut self, id: PeerId, activity: Arc<Activity>) {
        let entry = PeerEntry { id, activity, current: ArcSwapOption::empty(), path: ArcSwapOption::empty() };
        let replaced = self.peers.insert(id, Peer { entry: Arc::new(entry), endpoint: None });
        debug_assert!(replaced.is_none(), "a slot is removed before it is used again");
    }

    /// Forgets a peer. Its sessions and allowed IPs are removed by calls of their own.
    pub fn remove_peer(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.remove(&id) {
            self.retire_option(peer.entry.current.swap(None));
            self.retire_option(peer.entry.path.swap(None));
            self.retire(peer.entry);
        }
    }

    /// Lets workers receive under `session`'s local index.
    pub fn add_session(&mut self, session: Arc<Session>) {
        let Some(peer) = self.peers.get(&session.peer()) else { return };
        let session = Arc::new(DataSession::new(session, Arc::clone(&peer.entry)));
        match self.shared.sessions.insert(session) {
            Ok(replaced) => self.retire_option(replaced),
            Err(error) => tracing::error!(%error, "a session cannot be used"),
        }
    }

    /// Makes workers forget the session of `local_index`.
    pub fn remove_session(&mut self, local_index: u32) {
        let Some(session) = self.shared.sessions.remove(local_index) else { return };
        let is_current =
            session.peer.current.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, &session));
        if is_current {
            session.peer.current.store(None);
        }
        self.retire(session);
    }

    /// Makes workers seal with `session`, which was added before; with `None` they stage.
    pub fn set_current_session(&mut self, id: PeerId, session: Option<&Session>) {
        let Some(peer) = self.peers.get(&id) else { return };
        let current = session.and_then(|session| self.shared.sessions.lookup(session.local_index()));
        let replaced = peer.entry.current.swap(current);
        self.retire_option(replaced);
    }

    /// Makes workers send to `endpoint`.
    pub fn set_endpoint(&mut self, id: PeerId, endpoint: Option<Endpoint>) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.endpoint = endpoint;
            self.resolve_path(id);
        }
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
        self.publish_tables();
    }

    /// Replaces what is known of the kernel's routes; paths are resolved anew.
    pub fn set_network(&mut self, network: Network) {
        self.network = network;
        self.rebuild_fib();
    }

    /// The port that outer headers name as source.
    pub fn set_listen_port(&mut self, port: u16) {
        self.listen_port = port;
        self.publish_tables();
        self.resolve_paths();
    }

    /// The tunnel device and its MTU, in bytes of inner packet.
    pub fn set_tunnel(&mut self, interface_index: u32, mtu: u16) {
        self.tunnel_index = interface_index;
        self.tunnel_mtu = mtu.into();
        self.rebuild_fib();
    }

    /// Neighbours that paths and routes depend on: (interface index, address). Control keeps them resolved,
    /// since traffic that bypasses the kernel does not.
    pub fn next_hops_in_use(&self) -> Vec<(u32, IpAddr)> {
        let unresolved = self
            .peers
            .values()
            .filter_map(|peer| peer.endpoint.as_ref())
            .filter_map(|endpoint| self.fib.unresolved(endpoint.remote.ip()))
            .map(|neighbour| (neighbour.interface_index, neighbour.address));
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
        let path = self.peers.get(&id).and_then(|peer| peer.entry.path.load_full());
        path.is_some_and(|path| path.link.is_some())
    }

    /// Frees what was replaced and no worker holds any more. To be called about once a second.
    pub fn collect(&mut self) {
        self.retired.retain(|retired| Arc::strong_count(&retired.0) > 1);
    }

    fn rebuild_fib(&mut self) {
        self.fib = Fib::build(&self.network, &self.fast_links, self.tunnel_index);
        self.publish_tables();
        self.resolve_paths();
    }

    fn publish_tables(&mut self) {
        let tables = Tables {
            allowed_ips: self.allowed_ips.clone(),
            fib: self.fib.clone(),
            tunnel_mtu: self.tunnel_mtu,
            listen_port: self.listen_port,
        };
        let replaced = self.shared.tables.swap(Arc::new(tables));
        self.retire(replaced);
    }

    fn resolve_paths(&mut self) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.resolve_path(id);
        }
    }

    fn resolve_path(&mut self, id: PeerId) {
        let peer = &self.peers[&id];
        let path = peer.endpoint.map(|endpoint| {
            let outgoing = self.outgoing(&endpoint);
            Path { endpoint, outgoing, link: self.link_path(&outgoing) }
        });
        let held = peer.entry.path.load_full();
        if held.as_deref() != path.as_ref() {
            peer.entry.path.store(path.map(Arc::new));
            self.retire_option(held);
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

    fn is_own(&self, ip: IpAddr) -> bool {
        self.network.addresses.iter().any(|address| address.address.addr() == ip)
    }

    fn retire<T: Any + Send + Sync>(&mut self, replaced: Arc<T>) {
        self.retired.push(Retired(replaced));
    }

    fn retire_option<T: Any + Send + Sync>(&mut self, replaced: Option<Arc<T>>) {
        if let Some(replaced) = replaced {
            self.retire(replaced);
        }
    }
}

impl Drop for Publisher {
    /// Cuts the cycles between peers and their sessions, so that all keys are wiped.
    fn drop(&mut self) {
        for peer in self.peers.values() {
            peer.entry.current.store(None);
        }
    }
}
