//! One rtnetlink message into one part of a [`Network`](crate::dataplane::network::Network). What is not
//! understood becomes something the fast path leaves to the kernel, never a guess.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::dataplane::network::{Address, Link, Mac, Route, RouteKind, TABLE_LOCAL, TABLE_MAIN};

/// `RT_TABLE_DEFAULT` of `linux/rtnetlink.h`.
const TABLE_DEFAULT: u32 = 253;

/// A link; `None` for messages of bridge ports and other families that describe no link of their own.
pub fn link(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(address) => link.mac = Mac::try_from(address.as_slice()).ok(),
            _ => {}
        }
    }
    Some(link)
}

/// An address that this host answers to; `None` while duplicate address detection runs or has failed.
pub fn address(message: &AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the other side, and IFA_LOCAL is us.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let is_usable = !flags.contains(AddressFlags::Dadfailed)
        && (!flags.contains(AddressFlags::Tentative) || flags.contains(AddressFlags::Optimistic));
    let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    is_usable.then_some(Address { interface_index: message.header.index, address })
}

/// A route; `None` for cached and dead ones, and for families other than IP.
pub fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.flags.intersects(RouteFlags::Cloned | RouteFlags::Dead) {
        return None;
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut destination = any;
    let mut route = Route {
        destination: any.into(),
        interface_index: None,
        gateway: None,
        preferred_source: None,
        metric: 0,
        mtu: None,
        table: u32::from(header.table),
        kind: kind(header.kind),
        multipath: false,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Oif(index) => route.interface_index = Some(*index),
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => route.gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => route.gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => route.preferred_source = ip(address),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Metrics(metrics) => route.mtu = metrics.iter().find_map(mtu),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::MultiPath(_) => route.multipath = true,
            // Another header is pushed, or the next hop is of another family: only the kernel can do that.
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) | RouteAttribute::Via(_) => {
                route.kind = RouteKind::Other;
            }
            _ => {}
        }
    }
    // A route for some types of service or some sources only: which packets take it, only the kernel knows.
    if (header.tos != 0 || header.source_prefix_length != 0) && route.kind == RouteKind::Unicast {
        route.kind = RouteKind::Other;
    }
    route.destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some(route)
}

fn mtu(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}

fn kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local | RouteType::Anycast => RouteKind::Local,
        RouteType::Broadcast => RouteKind::Broadcast,
        RouteType::Multicast => RouteKind::Multicast,
        _ => RouteKind::Other,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// A neighbour: where it is and, in a usable state, its link-layer address. `None` for entries that are no
/// neighbours of ours, such as proxies and bridge forwarding entries.
pub fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), Option<Mac>)> {
    if message
        .header
        .flags
        .intersects(NeighbourFlags::Proxy | NeighbourFlags::Own | NeighbourFlags::Controller)
    {
        return None;
    }
    let mut destination = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                destination = Some(IpAddr::V4(*address));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                destination = Some(IpAddr::V6(*address));
            }
            NeighbourAttribute::LinkLayerAddress(address) => mac = Mac::try_from(address.as_slice()).ok(),
            _ => {}
        }
    }
    let is_usable = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    Some(((message.header.ifindex, destination?), mac.filter(|_| is_usable)))
}

/// Whether the rules of one family are the ones the kernel makes itself. A family without any is switched off.
pub fn are_plain(rules: &[RuleMessage]) -> bool {
    let has = |table| rules.iter().any(|rule| table_of_plain(rule) == Some(table));
    rules.is_empty()
        || (has(TABLE_LOCAL) && has(TABLE_MAIN) && rules.iter().all(|rule| table_of_plain(rule).is_some()))
}

/// The table of a rule the kernel makes itself: (0, local), (32766, main) or (32767, default).
fn table_of_plain(rule: &RuleMessage) -> Option<u32> {
    let header = &rule.header;
    let is_unconditional = header.action == RuleAction::ToTable
        && header.src_len == 0
        && header.dst_len == 0
        && header.tos == 0
        && header.flags.is_empty();
    let mut priority = 0;
    let mut table = u32::from(header.table);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::Table(value) => table = *value,
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::Protocol(_) => {}
            _ => return None,
        }
    }
    let is_own = matches!((priority, table), (0, TABLE_LOCAL) | (32766, TABLE_MAIN) | (32767, TABLE_DEFAULT));
    (is_unconditional && is_own).then_some(table)
}
