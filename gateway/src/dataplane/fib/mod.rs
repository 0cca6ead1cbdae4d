//! The forwarding table of the fast path: the kernel's routes and neighbours folded into one longest-prefix
//! match. What it cannot answer exactly as the kernel would, it leaves to the kernel.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use wireguard::PrefixTable;

use super::network::{Mac, Network, Route, RouteKind, TABLE_LOCAL, TABLE_MAIN};

/// Where a destination is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Through the tunnel: the peer whose allowed IPs hold the destination.
    Tunnel,
    /// Out of a link with an AF_XDP socket, to a resolved neighbour.
    Link(LinkHop),
    /// This host, an unresolved neighbour, a link without an AF_XDP socket, no route: the kernel's to decide.
    Kernel,
}

/// A neighbour on a link, with all an Ethernet header needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkHop {
    /// The link's interface index.
    pub interface_index: u32,
    /// The neighbour's address.
    pub destination_mac: Mac,
    /// The link's own address.
    pub source_mac: Mac,
    /// The link's MTU or the route's, whichever is smaller, in bytes of IP packet.
    pub mtu: u32,
    /// The address packets of this host leave with on this route, where the kernel names one.
    pub source: Option<IpAddr>,
}

impl LinkHop {
    /// With the MTU of a route where that is smaller than the link's.
    fn within(self, route_mtu: Option<u32>) -> Self {
        Self { mtu: route_mtu.map_or(self.mtu, |mtu| mtu.min(self.mtu)), ..self }
    }
}

/// A route that may need its neighbour resolved, for the upkeep of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The link it is on.
    pub interface_index: u32,
    /// Its network address.
    pub address: IpAddr,
}

/// What a leaf of the trie holds: a route's answer, before or after its neighbour is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Resolved(NextHop),
    /// Into the tunnel, in packets of at most this many bytes where the route says so.
    Tunnel {
        mtu: Option<u32>,
    },
    /// On-link and the destination has no entry of its own: its neighbour is not resolved.
    OnLink {
        interface_index: u32,
        /// The route's own MTU.
        mtu: Option<u32>,
    },
    /// Behind a gateway that is not resolved.
    Unresolved(Neighbour),
    /// Out of a link without an AF_XDP socket.
    Elsewhere {
        interface_index: u32,
    },
}

/// An immutable table, rebuilt by control on each change of the [`Network`] and read by every worker.
#[derive(Clone, Debug, Default)]
pub struct Fib {
    leaves: PrefixTable<Leaf>,
    /// Some route into the tunnel has an MTU of its own: else none need be looked up.
    has_tunnel_mtu: bool,
}

impl Fib {
    /// Folds `network` into a table. Only links in `fast_links` (those with AF_XDP sockets) and the tunnel
    /// are ever answered with something other than [`NextHop::Kernel`].
    pub fn build(network: &Network, fast_links: &BTreeSet<u32>, tunnel_index: u32) -> Self {
        let mut fib = Self::default();
        if !network.plain_rules {
            return fib;
        }
        for route in best_routes(&network.routes) {
            let leaf = leaf_of(route, network, fast_links, tunnel_index);
            fib.has_tunnel_mtu |= matches!(leaf, Leaf::Tunnel { mtu: Some(_) });
            fib.leaves.insert(route.destination, leaf);
        }
        fib.insert_resolved_neighbours(network);
        fib
    }

    /// The next hop for `destination`.
    pub fn lookup(&self, destination: IpAddr) -> NextHop {
        *self.next_hop(destination)
    }

    fn next_hop(&self, destination: IpAddr) -> &NextHop {
        match self.leaf(destination) {
            Some(Leaf::Resolved(next_hop)) => next_hop,
            Some(Leaf::Tunnel { .. }) => &NextHop::Tunnel,
            _ => &NextHop::Kernel,
        }
    }

    /// The MTU that the route to `destination` into the tunnel has of its own, in bytes of inner packet.
    pub fn tunnel_mtu_towards(&self, destination: IpAddr) -> Option<usize> {
        match self.has_tunnel_mtu.then(|| self.leaf(destination))?? {
            Leaf::Tunnel { mtu } => mtu.map(|mtu| mtu as usize),
            _ => None,
        }
    }

    /// The neighbour that packets to `destination` wait for, if the route is known and only the neighbour is
    /// missing: the one to ask the kernel to resolve.
    pub fn unresolved(&self, destination: IpAddr) -> Option<Neighbour> {
        match self.leaf(destination) {
            Some(Leaf::OnLink { interface_index, .. }) => {
                Some(Neighbour { interface_index: *interface_index, address: destination })
            }
            Some(Leaf::Unresolved(neighbour)) => Some(*neighbour),
            _ => None,
        }
    }

    /// The prefixes whose own entry differs between this table and `former`: only destinations in them can be
    /// answered otherwise than before.
    pub fn changes_since(&self, former: &Self) -> Vec<IpNet> {
        differences(self.leaves.iter(), former.leaves.iter()).collect()
    }

    /// The link packets to `destination` leave by, where that is known: not for this host's own addresses, for the
    /// tunnel, or with policy rules.
    pub fn interface_towards(&self, destination: IpAddr) -> Option<u32> {
        match self.leaf(destination)? {
            Leaf::Resolved(NextHop::Link(hop)) => Some(hop.interface_index),
            Leaf::OnLink { interface_index, .. } | Leaf::Elsewhere { interface_index } => {
                Some(*interface_index)
            }
            Leaf::Unresolved(neighbour) => Some(neighbour.interface_index),
            Leaf::Resolved(_) | Leaf::Tunnel { .. } => None,
        }
    }

    fn leaf(&self, destination: IpAddr) -> Option<&Leaf> {
        self.leaves.lookup(destination)
    }

    /// Gives every resolved on-link neighbour a host route, so that one look-up yields route and MAC.
    fn insert_resolved_neighbours(&mut self, network: &Network) {
        for ((interface_index, address), mac) in &network.neighbours {
            let route_mtu = match self.leaf(*address) {
                Some(Leaf::OnLink { interface_index: on, mtu }) if on == interface_index => *mtu,
                _ => continue,
            };
            if let Some(hop) = link_hop(network, *interface_index, *mac, None, *address) {
                self.leaves
                    .insert(IpNet::from(*address), Leaf::Resolved(NextHop::Link(hop.within(route_mtu))));
            }
        }
    }
}

/// Look-ups in one table of destinations that often repeat: what many clients send goes to few servers.
#[derive(Debug)]
pub struct RepeatedLookup<'t> {
    fib: &'t Fib,
    last: Option<(IpAddr, &'t NextHop)>,
}

impl<'t> RepeatedLookup<'t> {
    /// For as long as the table is not replaced.
    pub fn new(fib: &'t Fib) -> Self {
        Self { fib, last: None }
    }

    /// As [`Fib::lookup`].
    pub fn next_hop(&mut self, destination: IpAddr) -> &'t NextHop {
        match self.last {
            Some((last, next_hop)) if last == destination => next_hop,
            _ => self.last.insert((destination, self.fib.next_hop(destination))).1,
        }
    }
}

/// What is not the same in two lists in the order of their prefixes.
fn differences<'a>(
    ours: impl Iterator<Item = (IpNet, &'a Leaf)>,
    theirs: impl Iterator<Item = (IpNet, &'a Leaf)>,
) -> impl Iterator<Item = IpNet> {
    let (mut ours, mut theirs) = (ours.peekable(), theirs.peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (Some((ours, _)), Some((theirs, _))) => ours.cmp(theirs),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            match order {
                Ordering::Less => return ours.next().map(|(prefix, _)| prefix),
                Ordering::Greater => return theirs.next().map(|(prefix, _)| prefix),
                Ordering::Equal => {
                    let ((prefix, ours), (_, theirs)) = (ours.next()?, theirs.next()?);
                    if ours != theirs {
                        return Some(prefix);
                    }
                }
            }
        }
    })
}

/// One route per prefix, as the kernel with its three default rules would take it: the local table before
/// main, then the lowest metric.
fn best_routes(routes: &[Route]) -> impl Iterator<Item = &Route> {
    let mut best: BTreeMap<IpNet, &Route> = BTreeMap::new();
    let rank = |route: &Route| (route.table != TABLE_LOCAL, route.metric);
    for route in routes.iter().filter(|route| matches!(route.table, TABLE_LOCAL | TABLE_MAIN)) {
        best.entry(route.destination.trunc())
            .and_modify(|held| {
                if rank(route) < rank(held) {
                    *held = route;
                }
            })
            .or_insert(route);
    }
    best.into_values()
}

fn leaf_of(route: &Route, network: &Network, fast_links: &BTreeSet<u32>, tunnel_index: u32) -> Leaf {
    let kernel = Leaf::Resolved(NextHop::Kernel);
    let Some(interface_index) = route.interface_index else { return kernel };
    if route.kind != RouteKind::Unicast || route.multipath {
        return kernel;
    }
    if interface_index == tunnel_index {
        return Leaf::Tunnel { mtu: route.mtu };
    }
    if !fast_links.contains(&interface_index) {
        return Leaf::Elsewhere { interface_index };
    }
    let Some(gateway) = route.gateway else { return Leaf::OnLink { interface_index, mtu: route.mtu } };
    match network.neighbours.get(&(interface_index, gateway)) {
        Some(mac) => {
            let hop = link_hop(network, interface_index, *mac, route.preferred_source, gateway);
            hop.map_or(kernel, |hop| Leaf::Resolved(NextHop::Link(hop.within(route.mtu))))
        }
        None => Leaf::Unresolved(Neighbour { interface_index, address: gateway }),
    }
}

/// The hop to `neighbour`; `None` when the link is down or has no MAC, or the neighbour's is not unicast.
fn link_hop(
    network: &Network,
    interface_index: u32,
    destination_mac: Mac,
    preferred_source: Option<IpAddr>,
    neighbour: IpAddr,
) -> Option<LinkHop> {
    let link = network.links.get(&interface_index).filter(|link| link.up)?;
    let is_unicast = destination_mac[0] & 1 == 0 && destination_mac != [0; 6];
    if !is_unicast {
        return None;
    }
    let source = preferred_source.or_else(|| source_towards(network, interface_index, neighbour));
    Some(LinkHop { interface_index, destination_mac, source_mac: link.mac?, mtu: link.mtu, source })
}

/// The source the kernel would choose on this link towards `neighbour`: an address of the subnet it is in,
/// else any of its family that is not link-local.
fn source_towards(network: &Network, interface_index: u32, neighbour: IpAddr) -> Option<IpAddr> {
    let own = || {
        network
            .addresses
            .iter()
            .filter(move |address| address.interface_index == interface_index)
            .map(|address| address.address)
            .filter(move |own| own.addr().is_ipv4() == neighbour.is_ipv4())
    };
    own()
        .find(|own| own.contains(&neighbour))
        .or_else(|| own().find(|own| !is_link_local(own.addr())))
        .map(|own| own.addr())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
