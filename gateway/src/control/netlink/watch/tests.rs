//! Against the kernel, each test in a network namespace of its own.

use super::*;
use crate::control::netlink::test_netns::{self, ip};
use crate::dataplane::network::{RouteKind, TABLE_MAIN};
use crate::report;

/// Runs `test` on a thread in a new network namespace, which ends with the thread.
fn in_netns<T: Future<Output = ()>>(name: &str, test: impl FnOnce() -> T + Send) {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            if let Err(error) = test_netns::enter() {
                return report::skip(name, &format!("cannot make a network namespace: {error}"));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test());
        });
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Waits until the network is as `is_right` wants it. A second is what the operator would wait for.
async fn until(watch: &mut NetworkWatch, what: &str, is_right: impl Fn(&Network) -> bool) -> Arc<Network> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let mut network = watch.current();
    while !is_right(&network) {
        network = tokio::time::timeout_at(deadline, watch.changed())
            .await
            .unwrap_or_else(|_| panic!("{what}: {network:?}"))
            .unwrap();
    }
    network
}

fn index(network: &Network, name: &str) -> u32 {
    network.links.values().find(|link| link.name == name).unwrap().index
}

fn make_veth() {
    ip("link set lo up");
    ip("link add va address 02:00:00:00:00:0a mtu 1400 type veth peer name vb");
    ip("link set va up");
    ip("link set vb up");
}

#[test]
fn what_is_there_at_the_start_is_read() {
    in_netns("what_is_there_at_the_start_is_read", || async {
        make_veth();
        ip("address add 192.0.2.1/24 dev va");
        ip("route add 198.51.100.0/24 via 192.0.2.9 metric 7");
        ip("neighbour add 192.0.2.9 lladdr 02:00:00:00:00:99 dev va");
        let network = NetworkWatch::start().await.unwrap().current();
        let a = index(&network, "va");
        let link = &network.links[&a];
        assert_eq!((link.mac, link.mtu, link.up), (Some([2, 0, 0, 0, 0, 0x0a]), 1400, true));
        let address = crate::dataplane::network::Address {
            interface_index: a,
            address: "192.0.2.1/24".parse().unwrap(),
        };
        assert!(network.addresses.contains(&address), "{:?}", network.addresses);
        let route = network
            .routes
            .iter()
            .find(|route| route.destination == "198.51.100.0/24".parse().unwrap())
            .unwrap();
        assert_eq!((route.kind, route.table, route.metric), (RouteKind::Unicast, TABLE_MAIN, 7));
        assert_eq!((route.interface_index, route.gateway), (Some(a), Some("192.0.2.9".parse().unwrap())));
        let local =
            network.routes.iter().find(|route| route.destination == "192.0.2.1/32".parse().unwrap()).unwrap();
        assert_eq!(local.kind, RouteKind::Local);
        assert_eq!(network.neighbours[&(a, "192.0.2.9".parse().unwrap())], [2, 0, 0, 0, 0, 0x99]);
        assert!(network.plain_rules);
    });
}

#[test]
fn changes_are_followed() {
    in_netns("changes_are_followed", || async {
        make_veth();
        let mut watch = NetworkWatch::start().await.unwrap();
        let a = index(&watch.current(), "va");
        let prefix: ipnet::IpNet = "2001:db8:1::/48".parse().unwrap();
        let gateway: IpAddr = "2001:db8::9".parse().unwrap();

        ip("address add 2001:db8::1/64 dev va nodad");
        ip("route add 2001:db8:1::/48 via 2001:db8::9");
        ip("neighbour add 2001:db8::9 lladdr 02:00:00:00:00:99 dev va");
        let has_route = |network: &Network| network.routes.iter().any(|route| route.destination == prefix);
        until(&mut watch, "a route and a neighbour added", |network| {
            has_route(network) && network.neighbours.contains_key(&(a, gateway))
        })
        .await;

        ip("neighbour del 2001:db8::9 dev va");
        until(&mut watch, "a neighbour removed", |network| !network.neighbours.contains_key(&(a, gateway)))
            .await;
        ip("link set va mtu 1300");
        until(&mut watch, "an MTU changed", |network| network.links[&a].mtu == 1300).await;
        // The kernel tells of the link, not of each route that goes with it.
        ip("link set va down");
        until(&mut watch, "a link down", |network| !network.links[&a].up && !has_route(network)).await;
        ip("rule add from 192.0.2.0/24 table 100");
        until(&mut watch, "a rule added", |network| !network.plain_rules).await;
        ip("rule del from 192.0.2.0/24 table 100");
        until(&mut watch, "a rule removed", |network| network.plain_rules).await;
        ip("link del va");
        until(&mut watch, "a link removed", |network| !network.links.contains_key(&a)).await;
    });
}

#[test]
fn several_next_hops_and_odd_routes_are_left_to_the_kernel() {
    in_netns("several_next_hops_and_odd_routes_are_left_to_the_kernel", || async {
        make_veth();
        ip("address add 192.0.2.1/24 dev va");
        ip("address add 2001:db8::1/64 dev va nodad");
        ip("route add 198.51.100.0/24 nexthop via 192.0.2.8 nexthop via 192.0.2.9");
        ip("route add 2001:db8:1::/48 nexthop via 2001:db8::8 nexthop via 2001:db8::9");
        ip("route add blackhole 203.0.113.0/24");
        ip("route add 192.0.2.128/25 tos 0x10 dev va");
        let network = NetworkWatch::start().await.unwrap().current();
        let find = |prefix: &str| {
            let prefix = prefix.parse().unwrap();
            network.routes.iter().find(|route| route.destination == prefix).unwrap()
        };
        assert!(find("198.51.100.0/24").multipath);
        assert!(find("2001:db8:1::/48").multipath);
        assert_eq!(find("203.0.113.0/24").kind, RouteKind::Other);
        assert_eq!(find("192.0.2.128/25").kind, RouteKind::Other);
        assert!(!find("192.0.2.0/24").multipath);
    });
}

#[test]
fn marking_a_neighbour_as_used_makes_the_kernel_resolve_it() {
    in_netns("marking_a_neighbour_as_used_makes_the_kernel_resolve_it", || async {
        make_veth();
        ip("address add 192.0.2.1/24 dev va");
        // The other end answers ARP for any address of a link in this namespace, whichever link has it.
        ip("address add 192.0.2.2/32 dev vb");
        std::fs::write("/proc/sys/net/ipv4/conf/vb/accept_local", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/vb/rp_filter", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
        let mut watch = NetworkWatch::start().await.unwrap();
        let a = index(&watch.current(), "va");
        // Out of the local table, so that ARP for it is sent at all.
        ip("route add 192.0.2.2/32 dev va table 100");
        watch.neighbours().mark_used(a, "192.0.2.2".parse().unwrap());
        until(&mut watch, "a neighbour resolved", |network| {
            network.neighbours.contains_key(&(a, "192.0.2.2".parse().unwrap()))
        })
        .await;
    });
}
