//! What the kernel tells of the network, byte by byte, and what becomes of it: a forwarding table, against a list
//! of routes that is searched from end to end.

use std::{collections::BTreeSet, net::IpAddr};

use gateway::{
    control::netlink::decode,
    dataplane::{
        fib::{Fib, NextHop},
        network::{Mac, Network, Route, RouteKind, TABLE_LOCAL, TABLE_MAIN},
    },
};
use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{RouteNetlinkMessage, rule::RuleMessage},
};

use crate::input::Input;

/// `RTM_NEWLINK`, `RTM_NEWADDR`, `RTM_NEWROUTE`, `RTM_NEWNEIGH` and `RTM_NEWRULE` of `linux/rtnetlink.h`.
const KINDS: [u16; 5] = [16, 20, 24, 28, 32];
const TUNNEL: u32 = 3;
const FAST_LINKS: [u32; 2] = [1, 2];
/// Hosts of the two subnets that all messages are about.
const ADDRESS_COUNT: u8 = 4;

/// A network made of messages; then it is asked the way to some destinations.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut network = Network::default();
    let mut rules = Vec::new();
    while input.has_step() {
        let bytes = message(&mut input);
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes) else { continue };
        if let NetlinkPayload::InnerMessage(message) = message.payload {
            take(&message, &mut network, &mut rules);
        }
    }
    network.plain_rules = decode::are_plain(&rules);
    assert!(network.plain_rules || !rules.is_empty());
    let fast_links = BTreeSet::from(FAST_LINKS);
    let fib = Fib::build(&network, &fast_links, TUNNEL);
    for last in 0..=ADDRESS_COUNT {
        for destination in [IpAddr::from([10, 0, 0, last]), v6(last)] {
            let hop = match fib.lookup(destination) {
                NextHop::Kernel => None,
                NextHop::Tunnel => Some((TUNNEL, None)),
                NextHop::Link(hop) => Some((hop.interface_index, Some(hop.destination_mac))),
            };
            assert_eq!(hop, next_hop(&network, destination), "{destination} in {network:?}");
        }
    }
}

fn v6(last: u8) -> IpAddr {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last].into()
}

/// What control does with a message of a dump.
fn take(message: &RouteNetlinkMessage, network: &mut Network, rules: &mut Vec<RuleMessage>) {
    match message {
        RouteNetlinkMessage::NewLink(message) => {
            if let Some(link) = decode::link(message) {
                network.links.insert(link.index, link);
            }
        }
        RouteNetlinkMessage::NewAddress(message) => network.addresses.extend(decode::address(message)),
        RouteNetlinkMessage::NewRoute(message) => {
            let route = decode::route(message);
            if let Some(route) = &route {
                let header = &message.header;
                assert_eq!(route.destination.prefix_len(), header.destination_prefix_length);
                let is_for_all = header.tos == 0 && header.source_prefix_length == 0;
                assert!(is_for_all || route.kind != RouteKind::Unicast, "only for some: {message:?}");
            }
            network.routes.extend(route);
        }
        RouteNetlinkMessage::NewNeighbour(message) => {
            if let Some((key, Some(mac))) = decode::neighbour(message) {
                assert_eq!(key.0, message.header.ifindex);
                network.neighbours.insert(key, mac);
            }
        }
        RouteNetlinkMessage::NewRule(message) => rules.push(message.clone()),
        _ => {}
    }
}

/// The way to a destination: the interface, and the MAC on a link; `None` for the kernel.
fn next_hop(network: &Network, destination: IpAddr) -> Option<(u32, Option<Mac>)> {
    let rank = |route: &Route| (route.destination.prefix_len(), route.table == TABLE_LOCAL, !route.metric);
    let mut best: Option<&Route> = None;
    for route in &network.routes {
        let is_looked_at = [TABLE_LOCAL, TABLE_MAIN].contains(&route.table);
        if is_looked_at
            && route.destination.contains(&destination)
            && best.is_none_or(|best| rank(route) > rank(best))
        {
            best = Some(route);
        }
    }
    let route =
        best.filter(|route| network.plain_rules && route.kind == RouteKind::Unicast && !route.multipath)?;
    let interface_index = route.interface_index?;
    if interface_index == TUNNEL {
        return Some((TUNNEL, None));
    }
    let link = network.links.get(&interface_index).filter(|link| link.up && link.mac.is_some())?;
    let neighbour = route.gateway.unwrap_or(destination);
    let mac =
        network.neighbours.get(&(link.index, neighbour)).filter(|mac| mac[0] & 1 == 0 && **mac != [0; 6])?;
    FAST_LINKS.contains(&link.index).then_some((link.index, Some(*mac)))
}

/// A netlink message whose lengths fit, then damaged.
fn message(input: &mut Input) -> Vec<u8> {
    // A rule may leave everything to the kernel: seldom.
    let kind = if input.below(16) == 15 { 32 } else { KINDS[input.below(4)] };
    let is_v6 = input.value();
    let mut body = header(input, kind, if is_v6 { 10 } else { 2 });
    // What the kernel always says of such a thing, mostly; then anything.
    for place in 0..usual_count(kind) {
        if input.below(8) < 7 {
            body.extend(attribute(input, kind, place, is_v6));
        }
    }
    for _ in 0..input.below(3) {
        let place = input.below(8);
        body.extend(attribute(input, kind, place, is_v6));
    }
    let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    if input.below(4) == 3 {
        input.corrupt(&mut bytes);
    }
    bytes
}

/// The fixed part, most of it as the kernel would send it, some of it of any value.
fn header(input: &mut Input, kind: u16, family: u8) -> Vec<u8> {
    let index = (1 + input.below(4) as u32).to_ne_bytes();
    let full_len = if family == 10 { 128 } else { 32 };
    let prefix_len = match input.below(8) {
        0 => input.value(),
        _ => full_len - input.below(4) as u8,
    };
    // 0 unless something else is to be tried.
    let mut odd = || if input.below(8) == 7 { input.value() } else { 0u8 };
    match kind {
        16 => [[odd(), 0, 1, 0], index, [1 ^ odd(), odd(), 0, 0], [0; 4]].concat(),
        20 => [[family, prefix_len, odd(), 0], index].concat(),
        24 | 32 => {
            let (tos, source_len) = (odd(), odd());
            let flags = [odd(), odd(), 0, 0];
            let table = 254 + odd() % 2;
            let route_type = 1 + odd() % 12;
            [[family, prefix_len, source_len, tos], [table, 2, 0, route_type], flags].concat()
        }
        _ => {
            let states = [2, 4, 8, 16, 64, 128, 1, 32];
            let state = states[input.below(8)];
            let flags = if input.below(8) == 7 { input.value() } else { 0 };
            [[family, 0, 0, 0], index, [state, 0, flags, 1]].concat()
        }
    }
}

/// The first places that [`attribute`] knows are what each message of a kind has.
fn usual_count(kind: u16) -> usize {
    match kind {
        16 | 24 => 3,
        _ => 2,
    }
}

fn attribute(input: &mut Input, kind: u16, place: usize, is_v6: bool) -> Vec<u8> {
    // Few addresses, so that what is told of one meets what is told of another.
    let number: u8 = input.value();
    let last = number % ADDRESS_COUNT;
    let address = || if is_v6 { v6_octets(last) } else { vec![10, 0, 0, last] };
    let word = |word: u32| word.to_ne_bytes().to_vec();
    // Numbers are those of `linux/if_link.h`, `if_addr.h`, `rtnetlink.h`, `neighbour.h` and `fib_rules.h`.
    let (attribute, payload) = match (kind, place) {
        (16, 0) | (28, 1) => (if kind == 16 { 1 } else { 2 }, vec![2, 0, 0, 0, 0, number]),
        (16, 1) => (4, word(1500)),
        (16, 2) => (3, b"eth0\0".to_vec()),
        (20, 0 | 1) => (1 + place as u16, address()),
        (20, 2) => (8, word(input.value())),
        (24 | 28, 0) => (1, address()),
        (24, 1) => (4, word(1 + u32::from(number % 4))),
        (24, 2) => (6, word(u32::from(number % 4))),
        (24, 3 | 4) => (5, address()),
        (24, 5) => (15, word(254 + u32::from(number % 2))),
        (24, 6) => (7, address()),
        (32, 0) => (6, word([0, 32766, 32767, 5][usize::from(number % 4)])),
        (32, 1) => (15, word([254, 255, 253, 5][usize::from(number % 4)])),
        _ => (u16::from(number) % 64, input.bytes(40).to_vec()),
    };
    let mut bytes = (4 + payload.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(u16::to_ne_bytes(attribute));
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn v6_octets(last: u8) -> Vec<u8> {
    match v6(last) {
        IpAddr::V6(address) => address.octets().to_vec(),
        IpAddr::V4(_) => unreachable!("it is an IPv6 address"),
    }
}
