//! The table against small networks whose answers are known.

use super::super::network::{Address, Link};
use super::*;

const UPLINK: u32 = 2;
const DOWNLINK: u32 = 3;
const OTHER: u32 = 4;
const TUNNEL: u32 = 9;
const GATEWAY_MAC: Mac = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: Mac = [2, 0, 0, 0, 0, 2];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn route(destination: &str, interface_index: u32, gateway: Option<&str>) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        interface_index: Some(interface_index),
        gateway: gateway.map(ip),
        preferred_source: None,
        metric: 0,
        table: TABLE_MAIN,
        kind: RouteKind::Unicast,
        mtu: None,
        multipath: false,
    }
}

fn network() -> Network {
    let link = |index: u32, name: &str| Link {
        index,
        name: name.into(),
        mac: Some([2, 0, 0, 0, 1, index as u8]),
        mtu: 1500,
        up: true,
    };
    let address =
        |interface_index, address: &str| Address { interface_index, address: address.parse().unwrap() };
    Network {
        links: [link(UPLINK, "up0"), link(DOWNLINK, "down0"), link(OTHER, "mgmt0")]
            .map(|link| (link.index, link))
            .into(),
        addresses: vec![
            address(UPLINK, "192.0.2.1/24"),
            address(DOWNLINK, "10.9.0.1/16"),
            address(DOWNLINK, "2001:db8:9::1/64"),
        ],
        routes: vec![
            route("0.0.0.0/0", UPLINK, Some("192.0.2.254")),
            route("192.0.2.0/24", UPLINK, None),
            route("10.9.0.0/16", DOWNLINK, None),
            route("2001:db8:9::/64", DOWNLINK, None),
            route("10.8.0.0/24", TUNNEL, None),
            route("172.16.0.0/12", OTHER, Some("192.168.0.1")),
            Route { table: TABLE_LOCAL, kind: RouteKind::Local, ..route("10.9.0.1/32", DOWNLINK, None) },
        ],
        neighbours: [((UPLINK, ip("192.0.2.254")), GATEWAY_MAC), ((DOWNLINK, ip("10.9.0.5")), SERVER_MAC)]
            .into(),
        plain_rules: true,
    }
}

fn build(network: &Network) -> Fib {
    Fib::build(network, &[UPLINK, DOWNLINK].into(), TUNNEL)
}

/// A table with one host, which is in the tunnel.
fn with_host(host: IpAddr) -> Fib {
    let mut fib = Fib::default();
    fib.leaves.insert(host.into(), Leaf::Tunnel { mtu: None });
    fib
}

#[test]
fn a_repeated_look_up_mistakes_no_address_for_another() {
    let (v4, v6) =
        (std::net::Ipv4Addr::new(10, 9, 0, 5), "2001:db8:9::5".parse::<std::net::Ipv6Addr>().unwrap());
    let v4_bits = u128::from(v4.to_bits());
    let of_the_other_family = [v4.to_ipv6_mapped().to_bits(), v4_bits, v4_bits << 96];
    let near_v4 = (0..32).map(|bit| IpAddr::from((v4.to_bits() ^ 1 << bit).to_be_bytes()));
    let near_v4 = near_v4.chain(of_the_other_family.map(|bits| bits.to_be_bytes().into()));
    let near_v6 = (0..128).map(|bit| IpAddr::from((v6.to_bits() ^ 1 << bit).to_be_bytes()));
    let pairs = near_v4.map(|near| (IpAddr::from(v4), near)).chain(near_v6.map(|near| (v6.into(), near)));
    for (host, near) in pairs {
        let fib = with_host(host);
        let mut repeated = RepeatedLookup::new(&fib);
        for (destination, next_hop) in [
            (host, NextHop::Tunnel),
            (near, NextHop::Kernel),
            (near, NextHop::Kernel),
            (host, NextHop::Tunnel),
        ] {
            assert_eq!(*repeated.next_hop(destination), next_hop, "{destination}, with {host} in the tunnel");
        }
    }
}

#[test]
fn what_was_looked_up_last_is_not_looked_up_again() {
    let (fib, host) = (with_host(ip("10.9.0.5")), ip("10.9.0.5"));
    let mut repeated = RepeatedLookup::new(&fib);
    repeated.next_hop(host);
    // What the table does not say can only come from memory.
    repeated.last = repeated.last.map(|(last, _)| (last, &NextHop::Kernel));
    assert_eq!(*repeated.next_hop(host), NextHop::Kernel);
    assert_eq!(*repeated.next_hop(ip("10.9.0.6")), NextHop::Kernel);
    assert_eq!(*repeated.next_hop(host), NextHop::Tunnel);
}

#[test]
fn a_resolved_neighbour_is_reached_by_its_mac_with_the_subnet_s_source() {
    let hop = LinkHop {
        interface_index: DOWNLINK,
        destination_mac: SERVER_MAC,
        source_mac: [2, 0, 0, 0, 1, DOWNLINK as u8],
        mtu: 1500,
        source: Some(ip("10.9.0.1")),
    };
    assert_eq!(build(&network()).lookup(ip("10.9.0.5")), NextHop::Link(hop));
}

#[test]
fn a_gateway_serves_all_behind_it() {
    let NextHop::Link(hop) = build(&network()).lookup(ip("203.0.113.7")) else { panic!("no fast hop") };
    assert_eq!((hop.interface_index, hop.destination_mac), (UPLINK, GATEWAY_MAC));
    assert_eq!(hop.source, Some(ip("192.0.2.1")));
}

#[test]
fn a_route_s_own_mtu_counts_where_it_is_smaller_than_the_link_s() {
    let mtu_of = |index: usize, mtu: u32, destination: &str| {
        let mut network = network();
        network.routes[index].mtu = Some(mtu);
        let NextHop::Link(hop) = build(&network).lookup(ip(destination)) else { panic!("no fast hop") };
        hop.mtu
    };
    let [behind_a_gateway, on_link] = [(0, "203.0.113.7"), (2, "10.9.0.5")];
    for (index, destination) in [behind_a_gateway, on_link] {
        assert_eq!(mtu_of(index, 1300, destination), 1300, "{destination}");
        assert_eq!(mtu_of(index, 9000, destination), 1500, "{destination}");
    }
}

#[test]
fn unresolved_neighbours_are_the_kernel_s_and_are_named() {
    let fib = build(&network());
    for (destination, interface_index) in [("10.9.0.6", DOWNLINK), ("2001:db8:9::6", DOWNLINK)] {
        assert_eq!(fib.lookup(ip(destination)), NextHop::Kernel);
        assert_eq!(
            fib.unresolved(ip(destination)),
            Some(Neighbour { interface_index, address: ip(destination) })
        );
    }
    assert_eq!(fib.unresolved(ip("10.9.0.5")), None);
}

#[test]
fn own_addresses_slow_links_and_missing_routes_are_the_kernel_s() {
    let mut network = network();
    network.routes.remove(0);
    let fib = build(&network);
    for destination in ["10.9.0.1", "172.16.1.1", "203.0.113.7", "2001:db8::1"] {
        assert_eq!(fib.lookup(ip(destination)), NextHop::Kernel, "{destination}");
    }
}

#[test]
fn the_tunnel_s_routes_lead_into_the_tunnel() {
    assert_eq!(build(&network()).lookup(ip("10.8.0.77")), NextHop::Tunnel);
}

#[test]
fn the_longest_route_into_the_tunnel_tells_its_mtu() {
    let mut network = network();
    assert_eq!(build(&network).tunnel_mtu_towards(ip("10.8.0.77")), None);
    let [wide, narrow] = ["10.8.0.0/25", "10.8.0.64/28"].map(|prefix| route(prefix, TUNNEL, None));
    network.routes.extend([Route { mtu: Some(1299), ..wide }, narrow]);
    let fib = build(&network);
    let mtu = |destination| fib.tunnel_mtu_towards(ip(destination));
    assert_eq!(["10.8.0.5", "10.8.0.65", "10.8.0.200", "10.9.0.9"].map(mtu), [Some(1299), None, None, None]);
    assert_eq!(fib.lookup(ip("10.8.0.5")), NextHop::Tunnel);
}

#[test]
fn the_lower_metric_wins() {
    let mut network = network();
    network.routes.push(Route { metric: 50, ..route("10.8.0.0/24", OTHER, None) });
    assert_eq!(build(&network).lookup(ip("10.8.0.1")), NextHop::Tunnel);
}

#[test]
fn policy_rules_multipath_and_blackholes_are_the_kernel_s() {
    let mut with_rules = network();
    with_rules.plain_rules = false;
    assert_eq!(build(&with_rules).lookup(ip("10.8.0.77")), NextHop::Kernel);

    let mut multipath = network();
    multipath.routes[0].multipath = true;
    assert_eq!(build(&multipath).lookup(ip("203.0.113.7")), NextHop::Kernel);

    let mut blackhole = network();
    blackhole.routes.push(Route { kind: RouteKind::Other, ..route("203.0.113.0/24", UPLINK, None) });
    assert_eq!(build(&blackhole).lookup(ip("203.0.113.7")), NextHop::Kernel);
}

#[test]
fn a_link_that_is_down_is_the_kernel_s() {
    let mut network = network();
    network.links.get_mut(&DOWNLINK).unwrap().up = false;
    assert_eq!(build(&network).lookup(ip("10.9.0.5")), NextHop::Kernel);
}

#[test]
fn what_is_answered_otherwise_is_within_what_changed() {
    let build = |network: &Network| Fib::build(network, &BTreeSet::from([UPLINK, DOWNLINK]), TUNNEL);
    let changes = |change: &dyn Fn(&mut Network)| {
        let (former, mut changed) = (build(&network()), network());
        change(&mut changed);
        let fib = build(&changed);
        let (forth, back) = (fib.changes_since(&former), former.changes_since(&fib));
        assert_eq!(forth, back, "a change and its reverse concern the same");
        forth.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let nothing: [&str; 0] = [];
    assert_eq!(changes(&|_| ()), nothing);
    assert_eq!(changes(&|network| network.routes.push(route("10.9.4.0/24", UPLINK, None))), ["10.9.4.0/24"]);
    let without_v6 =
        |network: &mut Network| network.routes.retain(|route| route.destination.addr().is_ipv4());
    assert_eq!(changes(&without_v6), ["2001:db8:9::/64"]);
    // The router of the default route has a host route of its own.
    let router_moved = |network: &mut Network| {
        network.neighbours.insert((UPLINK, ip("192.0.2.254")), SERVER_MAC);
    };
    assert_eq!(changes(&router_moved), ["0.0.0.0/0", "192.0.2.254/32"]);
    assert_eq!(
        changes(&|network| network.plain_rules = false).len(),
        build(&network()).changes_since(&Fib::default()).len()
    );
}
