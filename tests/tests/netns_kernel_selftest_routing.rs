//! What the kernel's own WireGuard test asks of routes: tunnels in tunnels and in themselves, NAT, marks, policy rules,
//! and an answer for packets that have no peer. N1 to N34 number the scenarios of netns.sh.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Result, ensure};
use tests::{
    Implementation, Io, Lab, Tunnel, World,
    iperf::{self, Direction},
    lab::LinkEnd,
    on_both_rungs, ping,
    site::{DOWNLINK, Family, GATEWAY_HOST, SERVER_HOST, UPLINK, inner, server_side},
    tunnel::Program,
    wait_until,
};

on_both_rungs! {
    n13_a_tunnel_of_a_second_wgx_runs_through_the_first,
    n14_a_peer_whose_endpoint_is_in_its_own_tunnel_makes_no_storm,
    n15_persistent_keepalives_hold_a_nat_mapping_open,
    n16_n18_marks_and_policy_routing_leave_the_tunnel_working,
    n17_a_peer_behind_another_peer_is_reached_and_a_loop_is_survived,
    n19_packets_without_a_peer_or_an_endpoint_are_answered_host_unreachable,
}

const SETTLE: Duration = Duration::from_secs(15);

/// Two processes, two ports, one host: also VPP's `multi_interface`.
fn n13_a_tunnel_of_a_second_wgx_runs_through_the_first(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let gateway =
        Tunnel::start(lab, &world.gateway.namespace, "inner-gateway", Program::Wgx(&["--io", "udp"]))?;
    for (client, family) in world.clients.iter().zip(Family::BOTH) {
        let number = client.number;
        let tunnel =
            Tunnel::start(lab, &client.namespace, &format!("inner-client{number}"), Program::WireguardGo)?;
        let endpoint = std::net::SocketAddr::new(inner(GATEWAY_HOST).of(family), 51_821);
        tunnel.configure(
            lab,
            1000,
            &format!(
                "peer {} endpoint {endpoint} allowed-ips 192.168.241.1/32,fd24::1/128",
                gateway.keys.public
            ),
            &[&format!("192.168.241.{}/24", 10 + number), &format!("fd24::{}/64", 10 + number)],
        )?;
        gateway.configure(
            lab,
            51_821,
            &format!(
                "peer {} allowed-ips 192.168.241.{n}/32,fd24::{n}/128",
                tunnel.keys.public,
                n = 10 + number
            ),
            if number == 1 { &["192.168.241.1/24", "fd24::1/64"] } else { &[] },
        )?;
        for (namespace, interface) in
            [(&gateway.namespace, &gateway.interface), (&tunnel.namespace, &tunnel.interface)]
        {
            namespace.ip(&format!("link set {interface} mtu 1340"))?;
        }
        for to in ["192.168.241.1", "fd24::1"] {
            let to: IpAddr = to.parse()?;
            ping::wait_for_reply(&client.namespace, to, SETTLE)?;
            ping::flood(&client.namespace, to, 100)?;
        }
        let _iperf = world.site.start_iperf_in(lab, &gateway.namespace)?;
        for direction in Direction::BOTH {
            let tcp = iperf::tcp(&client.namespace, "192.168.241.1".parse()?, direction, 1)?;
            ensure!(tcp.bits_per_second > 1e6, "{tcp:?}");
        }
        ping::all_answered(&client.namespace, server_side(SERVER_HOST).of(family), 5)?;
    }
    Ok(())
}

fn n14_a_peer_whose_endpoint_is_in_its_own_tunnel_makes_no_storm(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, [client, other]) = (&world.gateway, &world.clients[..]) else {
        anyhow::bail!("two clients")
    };
    // What a client sends makes the gateway forget the endpoint it is told.
    for namespace in [&client.namespace, &other.namespace] {
        namespace.run("nft add table inet mute")?;
        namespace
            .run("nft add chain inet mute out { type filter hook output priority 0 ; policy drop ; }")?;
    }
    for (family, is_mutual) in [(Family::V4, false), (Family::V6, false), (Family::V4, true)] {
        let behind = if is_mutual { other } else { client };
        let endpoint = std::net::SocketAddr::new(behind.inner.of(family), 7);
        gateway.wg().set(&format!("peer {} endpoint {endpoint}", client.keys.public))?;
        if is_mutual {
            let endpoint = std::net::SocketAddr::new(client.inner.of(family), 9);
            gateway.wg().set(&format!("peer {} endpoint {endpoint}", other.keys.public))?;
        }
        let before = gateway.wg().transfer(&client.keys.public)?;
        let looped = gateway.status()?;
        for from in [&gateway.namespace, &world.site.server] {
            // Large ones are sent in fragments, which loop too.
            for len in [56, 1392] {
                let line = format!("ping -n -c 10 -f -W 1 -s {len} {}", client.inner.of(family));
                let outcome = from.attempt(&line, Duration::from_secs(30))?;
                ensure!(outcome.stdout.contains(" 0 received"), "{}", outcome.stdout);
            }
        }
        thread::sleep(Duration::from_secs(1));
        // What is queued may take its time; what loops never ends.
        wait_until("nothing goes on", SETTLE, || {
            let still = gateway.status()?;
            thread::sleep(Duration::from_millis(200));
            Ok(gateway.status()?.since(&still).verdict("sealed_to_socket") <= 2)
        })?;
        let after = gateway.wg().transfer(&client.keys.public)?;
        ensure!(after.tx - before.tx < 140_000, "{before:?} {after:?}");
        let dropped = gateway.status()?.since(&looped);
        ensure!(dropped.verdict("drop_loop") >= 20, "{:?}", dropped.verdicts());
    }
    // They are served again as soon as they are heard from.
    for namespace in [&client.namespace, &other.namespace] {
        namespace.run("nft delete table inet mute")?;
        ping::wait_for_reply(namespace, server_side(SERVER_HOST).v4.into(), SETTLE)?;
        ping::all_answered(namespace, server_side(SERVER_HOST).v4.into(), 5)?;
    }
    Ok(())
}

fn n15_persistent_keepalives_hold_a_nat_mapping_open(lab: &mut Lab, io: Io) -> Result<()> {
    let (inside, router, outside) =
        (lab.namespace("inside")?, lab.namespace("router")?, lab.namespace("outside")?);
    let ends = |namespace, interface| LinkEnd { namespace, interface };
    lab.link(ends(&inside, "uplink"), ends(&router, "in"), 1)?;
    lab.link(ends(&outside, "eth0"), ends(&router, "out"), 1)?;
    for (namespace, interface, address) in [
        (&inside, "uplink", "192.168.1.100"),
        (&router, "in", "192.168.1.1"),
        (&router, "out", "10.0.0.1"),
        (&outside, "eth0", "10.0.0.100"),
    ] {
        namespace.add_address(interface, address.parse()?, 24)?;
    }
    inside.ip("route add default via 192.168.1.1")?;
    router.sysctl("net/ipv4/ip_forward", "1")?;
    for ruleset in [
        "add table ip nat",
        "add chain ip nat post { type nat hook postrouting priority 100 ; }",
        "add rule ip nat post oifname out masquerade",
    ] {
        router.run(&format!("nft {ruleset}"))?;
    }
    router.sysctl("net/netfilter/nf_conntrack_udp_timeout", "2")?;
    router.sysctl("net/netfilter/nf_conntrack_udp_timeout_stream", "2")?;

    let mode = io.to_string();
    let mut options = vec!["--io", mode.as_str()];
    if io == Io::AfXdp {
        options.extend(["--uplink", "uplink"]);
    }
    let ours = Tunnel::start(lab, &inside, "inside", Program::Wgx(&options))?;
    let theirs = Tunnel::start(lab, &outside, "outside", Program::WireguardGo)?;
    theirs.configure(
        lab,
        2,
        &format!("peer {} allowed-ips 192.168.241.1/32", ours.keys.public),
        &["192.168.241.2/24"],
    )?;
    let peer = &theirs.keys.public;
    ours.configure(
        lab,
        1,
        &format!("peer {peer} endpoint 10.0.0.100:2 allowed-ips 192.168.241.2/32 persistent-keepalive 1"),
        &["192.168.241.1/24"],
    )?;
    ping::wait_for_reply(&inside, "192.168.241.2".parse()?, SETTLE)?;
    let endpoint = theirs.wg().endpoint(&ours.keys.public)?;
    ensure!(endpoint.starts_with("10.0.0.1:"), "not translated: {endpoint}");
    // Twice as long as the router remembers, with nothing but keepalives.
    thread::sleep(Duration::from_secs(4));
    // Where the machine stopped for more than a second, the next keepalive opens it again.
    ping::wait_for_reply(&outside, "192.168.241.1".parse()?, Duration::from_secs(3))?;
    ping::all_answered(&outside, "192.168.241.1".parse()?, 3)?;
    ours.wg().set(&format!("peer {peer} persistent-keepalive 0"))?;
    thread::sleep(Duration::from_millis(3500));
    ensure!(!ping::once(&outside, "192.168.241.1".parse()?)?, "the router never forgets: nothing was tested");
    Ok(())
}

fn n16_n18_marks_and_policy_routing_leave_the_tunnel_working(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, client) = (&world.gateway, &world.clients[0]);
    let namespace = &gateway.namespace;
    // N16: packets bound to the tunnel, and packets that a mark makes the kernel route again.
    for ruleset in [
        "",
        "add table inet mangle",
        "add chain inet mangle out { type route hook output priority -150 ; }",
        "add rule inet mangle out meta mark set 1",
    ] {
        if !ruleset.is_empty() {
            namespace.run(&format!("nft {ruleset}"))?;
        }
        ping::all_answered(namespace, client.inner.v4.into(), 2)?;
    }
    let bound =
        ping::run_with(namespace, client.inner.v4.into(), 3, 50, &format!("-I {}", gateway.interface))?;
    ensure!(bound.lost() == 0, "{bound:?}");
    namespace.run("nft delete table inet mangle")?;

    // N18: all but what is marked as ours goes into the tunnel, as wg-quick has it.
    gateway.wg().set(&format!(
        "fwmark 51820 peer {} allowed-ips 10.10.0.11/32,fd10:10::b/128,192.168.99.7/32,abab::1111/128",
        client.keys.public
    ))?;
    client.namespace.add_address(&client.interface, "192.168.99.7".parse()?, 32)?;
    client.namespace.add_address(&client.interface, "abab::1111".parse()?, 128)?;
    for family in ["-4", "-6"] {
        namespace.ip(&format!("{family} route add default dev {} table 51820", gateway.interface))?;
        namespace.ip(&format!("{family} rule add not fwmark 51820 table 51820"))?;
        namespace.ip(&format!("{family} rule add table main suppress_prefixlength 0"))?;
    }
    for interface in ["all", UPLINK] {
        namespace.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0")?;
    }
    for to in ["192.168.99.7", "abab::1111"] {
        let to: IpAddr = to.parse()?;
        ping::wait_for_reply(namespace, to, SETTLE)?;
        ping::flood(namespace, to, 100)?;
    }
    // It would be preferred as the source of what goes to the server, which has no route back to it.
    client.namespace.ip(&format!("address del abab::1111/128 dev {}", client.interface))?;
    for family in Family::BOTH {
        for client in &world.clients {
            ping::wait_for_reply(&client.namespace, server_side(SERVER_HOST).of(family), SETTLE)?;
            ping::flood(&client.namespace, server_side(SERVER_HOST).of(family), 50)?;
            ping::flood(&world.site.server, client.inner.of(family), 50)?;
        }
    }
    Ok(())
}

fn n17_a_peer_behind_another_peer_is_reached_and_a_loop_is_survived(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, client) = (&world.gateway, &world.clients[0]);
    let onion = Tunnel::start(lab, &client.namespace, "onion", Program::WireguardGo)?;
    onion.configure(
        lab,
        5,
        &format!("peer {} allowed-ips 192.168.242.1/32", gateway.keys.public),
        &["192.168.242.2/24"],
    )?;
    gateway.namespace.add_address(&gateway.interface, "192.168.242.1".parse()?, 24)?;
    // Sealed for the inner peer, sent into the tunnel, and sealed again for the outer one.
    let key = &onion.keys.public;
    gateway.wg().set(&format!("peer {key} allowed-ips 192.168.242.2/32 endpoint {}:5", client.inner.v4))?;
    let to: IpAddr = "192.168.242.2".parse()?;
    ping::wait_for_reply(&gateway.namespace, to, SETTLE)?;
    ping::flood(&gateway.namespace, to, 50)?;
    // Larger than what fits twice: the outer packets are fragments.
    let pings = ping::run(&gateway.namespace, to, 3, 50, 1380)?;
    ensure!(pings.lost() == 0, "{pings:?}");

    gateway.wg().set(&format!("peer {key} endpoint {to}:5"))?;
    ensure!(!ping::once(&gateway.namespace, to)?, "a loop answers");
    gateway.wg().set(&format!("peer {key} remove"))?;
    tests::traffic::ping_crosses(&world)
}

/// The kernel names the tunnel's address to programs of the host, and to others the one their route leads back from.
fn n19_packets_without_a_peer_or_an_endpoint_are_answered_host_unreachable(
    lab: &mut Lab,
    io: Io,
) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, [client, other]) = (&world.gateway, &world.clients[..]) else {
        anyhow::bail!("two clients")
    };
    let check = |what: &str| -> Result<()> {
        let here = inner(GATEWAY_HOST);
        let downlink = server_side(GATEWAY_HOST);
        for (from, addresses) in [(&gateway.namespace, here), (&world.site.server, downlink)] {
            let v4 = format!("From {} icmp_seq=1 Destination Host Unreachable", addresses.v4);
            let v6 = format!("From {} icmp_seq=1 Destination unreachable: Address unreachable", addresses.v6);
            for (to, expected) in [(client.inner.v4.into(), v4), (client.inner.v6.into(), v6)] {
                wait_until(&format!("{what}: {expected}"), SETTLE, || {
                    Ok(ping::refusal(from, to)?.contains(&expected))
                })?;
            }
        }
        // A peer that sends to the peer that is not there.
        wait_until(&format!("{what}: a peer is told"), SETTLE, || {
            let answer = ping::refusal(&other.namespace, client.inner.v4.into())?;
            Ok(answer.contains("Destination Host Unreachable"))
        })
    };
    gateway.wg().set(&format!("peer {} remove", client.keys.public))?;
    let before = gateway.status()?;
    check("no peer")?;
    gateway.wg().set(&format!(
        "peer {} allowed-ips {}/32,{}/128",
        client.keys.public, client.inner.v4, client.inner.v6
    ))?;
    // The client's own packets would tell where it is.
    client.namespace.ip(&format!("link set {} down", client.interface))?;
    gateway.wg().set(&format!("peer {} remove", client.keys.public))?;
    gateway.wg().set(&format!(
        "peer {} allowed-ips {}/32,{}/128",
        client.keys.public, client.inner.v4, client.inner.v6
    ))?;
    check("no endpoint")?;
    wait_until("the drops are counted", SETTLE, || {
        let dropped = gateway.status()?.since(&before);
        Ok(["drop_no_peer", "drop_no_endpoint"].iter().all(|reason| dropped.verdict(reason) >= 5))
    })?;

    // A broadcast address is no host: nobody is told.
    let line = format!("ping -n -b -c 2 -i 0.2 -W 1 10.10.0.255 -I {}", gateway.interface);
    let answer = gateway.namespace.attempt(&line, Duration::from_secs(10))?.stdout;
    ensure!(!answer.contains("Unreachable"), "{answer}");
    // Behind a translated address the error finds the way back (the script's own check).
    for ruleset in [
        "add table ip nat",
        "add chain ip nat post { type nat hook postrouting priority 100 ; }",
        &format!("add rule ip nat post oifname {} masquerade", gateway.interface),
    ] {
        gateway.namespace.run(&format!("nft {ruleset}"))?;
    }
    gateway.wg().set(&format!("peer {} remove", client.keys.public))?;
    wait_until("who is behind NAT is told", SETTLE, || {
        let answer = ping::refusal(&world.site.server, "10.10.0.77".parse()?)?;
        Ok(answer.contains("Destination Host Unreachable"))
    })?;
    let attached = gateway.xdp_interfaces()?;
    ensure!(attached.contains(&DOWNLINK.to_owned()) == (io == Io::AfXdp), "{attached:?}");
    Ok(())
}
