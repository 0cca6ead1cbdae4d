//! What the kernel knows of links, addresses, routes and neighbours, as plain data. Filled by
//! `control::netlink`, read by [`Fib`](super::fib::Fib); nothing here talks to the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// A MAC address, in wire order.
pub type Mac = [u8; 6];

/// `RT_TABLE_MAIN` of `linux/rtnetlink.h`.
pub const TABLE_MAIN: u32 = 254;
/// `RT_TABLE_LOCAL` of `linux/rtnetlink.h`.
pub const TABLE_LOCAL: u32 = 255;

/// One consistent reading of the network namespace the gateway lives in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Every link by its interface index.
    pub links: BTreeMap<u32, Link>,
    /// Every address of every link.
    pub addresses: Vec<Address>,
    /// Every route of every table.
    pub routes: Vec<Route>,
    /// Link-layer addresses of neighbours in a usable state (`REACHABLE`, `STALE`, `DELAY`, `PROBE`,
    /// `PERMANENT`, `NOARP`), by interface index and network address.
    pub neighbours: BTreeMap<(u32, IpAddr), Mac>,
    /// Only the kernel's own policy rules exist (local, main, default). With any other rule a look-up by
    /// destination alone could disagree with the kernel, so the fast path leaves every route to the kernel.
    pub plain_rules: bool,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Ethernet address; `None` for links without one, such as TUN.
    pub mac: Option<Mac>,
    /// Maximum transmission unit, in bytes of IP packet.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
}

/// One address of one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link that has it.
    pub interface_index: u32,
    /// The address with the prefix length of its subnet.
    pub address: IpNet,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination prefix; `0.0.0.0/0` or `::/0` for a default route.
    pub destination: IpNet,
    /// Outgoing link, where the route has one.
    pub interface_index: Option<u32>,
    /// Next hop, where it is not the destination itself.
    pub gateway: Option<IpAddr>,
    /// `RTA_PREFSRC`.
    pub preferred_source: Option<IpAddr>,
    /// `RTA_PRIORITY`: of two routes to one prefix the lower metric wins.
    pub metric: u32,
    /// `RTAX_MTU`: the largest packet to send on this route, in bytes of IP packet, where it is less than the link's.
    pub mtu: Option<u32>,
    /// Routing table.
    pub table: u32,
    /// What the route does with a packet.
    pub kind: RouteKind,
    /// Several next hops, of which the kernel chooses by flow hash: left to the kernel.
    pub multipath: bool,
}

/// `rtm_type` of a route, as far as forwarding tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Forwarded to the next hop.
    Unicast,
    /// Delivered to this host.
    Local,
    /// A broadcast address.
    Broadcast,
    /// A multicast prefix.
    Multicast,
    /// Blackhole, unreachable, prohibit, throw and whatever else only the kernel answers rightly.
    Other,
}
