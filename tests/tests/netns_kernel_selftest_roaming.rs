//! What the kernel's own WireGuard test asks of addresses: roaming, who may send what, and which of several local
//! addresses a reply leaves from. N1 to N34 number the scenarios of netns.sh; VPP's are named.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::{
    Client, Implementation, Io, Lab, World,
    iperf::{self, Direction},
    keys::Keys,
    lab::LinkEnd,
    on_both_rungs, ping,
    site::{Family, GATEWAY_HOST, LISTEN_PORT, SERVER_HOST, UPLINK, client_host, inner, outer, server_side},
    wait_until,
};

on_both_rungs! {
    n09_n10_a_new_source_address_and_port_become_the_endpoint,
    n11_a_packet_with_another_peers_source_is_dropped_but_moves_the_endpoint,
    n12_a_new_private_key_is_used_at_once,
    n20_a_reply_falls_over_when_its_source_address_is_taken_away,
    n21_replies_leave_from_the_address_that_was_dialled,
    n22_replies_leave_from_a_dialled_address_of_another_interface,
    n23_a_route_of_better_metric_takes_over_an_active_flow,
    vpp_roaming_is_followed_on_initiation_response_and_data,
}

const SETTLE: Duration = Duration::from_secs(15);

/// `address` may be taken away without those that were added after it in its network.
fn promote_secondaries(world: &World, client: &Client) -> Result<()> {
    for namespace in [&world.gateway.namespace, &client.namespace] {
        namespace.sysctl("net/ipv4/conf/all/promote_secondaries", "1")?;
    }
    Ok(())
}

/// `wg show endpoints` at the gateway says `endpoint` for the client.
fn wait_for_endpoint(world: &World, client: &Client, endpoint: &str) -> Result<()> {
    let wait = wait_until(&format!("the client is at {endpoint}"), SETTLE, || {
        Ok(world.gateway.wg().endpoint(&client.keys.public)? == endpoint)
    });
    wait.with_context(|| format!("{:?}", world.gateway.wg().endpoint(&client.keys.public)))
}

fn n09_n10_a_new_source_address_and_port_become_the_endpoint(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    for (client, family) in world.clients.iter().zip(Family::BOTH) {
        promote_secondaries(&world, client)?;
        let (new, old) = (outer(99).of(family), outer(client_host(client.number)).of(family));
        let prefix_len = if new.is_ipv4() { 24 } else { 64 };
        client.namespace.add_address("eth0", new, prefix_len)?;
        client.namespace.ip(&format!("address del {old}/{prefix_len} dev eth0"))?;
        client.wg().set("listen-port 9999")?;
        ping::wait_for_reply(&client.namespace, server_side(SERVER_HOST).v4.into(), SETTLE)?;
        wait_for_endpoint(&world, client, &std::net::SocketAddr::new(new, 9999).to_string())?;
        ping::all_answered(&world.site.server, client.inner.v4.into(), 10)?;
        ping::all_answered(&world.gateway.namespace, client.inner.v6.into(), 10)?;
        client.namespace.add_address("eth0", old, prefix_len)?;
        client.namespace.ip(&format!("address del {new}/{prefix_len} dev eth0"))?;
    }
    Ok(())
}

/// Also: the inner source is looked up device-wide, not only among the sender's own prefixes.
fn n11_a_packet_with_another_peers_source_is_dropped_but_moves_the_endpoint(
    lab: &mut Lab,
    io: Io,
) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, [client, other]) = (&world.gateway, &world.clients[..]) else {
        anyhow::bail!("two clients")
    };
    let server = server_side(SERVER_HOST).v4.into();
    // The client keeps the network, another peer gets its address out of the middle.
    gateway.wg().set(&format!(
        "peer {} allowed-ips 10.10.0.8/29,{}/128 peer {} allowed-ips {}/32,{}/32",
        client.keys.public, client.inner.v6, other.keys.public, client.inner.v4, other.inner.v4
    ))?;
    let before = gateway.status()?;
    client.wg().set("listen-port 9997")?;
    ensure!(!ping::once(&client.namespace, server)?, "a source of another peer gets through");
    wait_for_endpoint(&world, client, "192.0.2.11:9997")?;
    wait_until("the drop is counted", SETTLE, || {
        Ok(gateway.status()?.since(&before).verdict("drop_source_not_allowed") >= 1)
    })?;
    // What is the client's own goes on.
    ping::all_answered(&client.namespace, server_side(SERVER_HOST).v6.into(), 5)?;
    gateway.wg().set(&format!("peer {} allowed-ips {}/32", client.keys.public, client.inner.v4))?;
    ping::all_answered(&client.namespace, server, 5)
}

fn n12_a_new_private_key_is_used_at_once(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, client) = (&world.gateway, &world.clients[0]);
    let new = Keys::generate()?;
    let file = lab.write_secret("new.key", new.private.reveal())?;
    gateway.wg().set(&format!("private-key {}", file.display()))?;
    client.wg().set(&format!(
        "peer {} remove peer {} allowed-ips 10.10.0.0/24,fd10:10::/64",
        gateway.keys.public, new.public
    ))?;
    // The client does not know where the gateway is: only the gateway can begin, and it has one initiation.
    let outcome = gateway
        .namespace
        .attempt(&format!("ping -n -c 1 -W 4 {}", client.inner.v4), Duration::from_secs(20))?;
    ensure!(outcome.status.success(), "no handshake followed the change of the key: {}", outcome.stdout);
    ping::all_answered(&client.namespace, inner(GATEWAY_HOST).v6.into(), 5)
}

fn n20_a_reply_falls_over_when_its_source_address_is_taken_away(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let gateway = &world.gateway;
    for (client, family) in world.clients.iter().zip(Family::BOTH) {
        promote_secondaries(&world, client)?;
        let (old, new) = (outer(GATEWAY_HOST).of(family), outer(3).of(family));
        let prefix_len = if new.is_ipv4() { 24 } else { 64 };
        gateway.namespace.add_address(UPLINK, new, prefix_len)?;
        gateway.namespace.ip(&format!("address del {old}/{prefix_len} dev {UPLINK}"))?;
        // Through the TUN device and from behind the downlink.
        ping::wait_for_reply(&gateway.namespace, client.inner.v4.into(), SETTLE)?;
        ping::wait_for_reply(&world.site.server, client.inner.v6.into(), SETTLE)?;
        // Netlink tells of the change a moment later: until then the old address works on, in both directions.
        let expected = std::net::SocketAddr::new(new, LISTEN_PORT).to_string();
        wait_until(&format!("replies come from {expected}"), SETTLE, || {
            ping::once(&world.site.server, client.inner.v6.into())?;
            Ok(client.wg().endpoint(&gateway.keys.public)? == expected)
        })?;
        ping::all_answered(&client.namespace, server_side(SERVER_HOST).v4.into(), 10)?;
    }
    Ok(())
}

/// Dials `address`, and whatever is sent then has to come from there; with `bulk`, in trains too, which peers have
/// got wrong (wireguard-go with UDP GRO).
fn check_dialled(world: &World, client: &Client, address: IpAddr, bulk: bool) -> Result<()> {
    let endpoint = std::net::SocketAddr::new(address, LISTEN_PORT);
    client.move_to(&world.gateway, endpoint)?;
    ping::wait_for_reply(&client.namespace, inner(GATEWAY_HOST).v4.into(), SETTLE)?;
    ping::wait_for_reply(&client.namespace, server_side(SERVER_HOST).v4.into(), SETTLE)?;
    ping::all_answered(&client.namespace, server_side(SERVER_HOST).v6.into(), 5)?;
    if bulk {
        let tcp = iperf::tcp(&client.namespace, server_side(SERVER_HOST).v4.into(), Direction::Reverse, 1)?;
        ensure!(tcp.bits_per_second > 1e6, "{tcp:?}");
    }
    // What fills the queues has to drain first.
    ping::wait_for_reply(&world.site.server, client.inner.v4.into(), SETTLE)?;
    ping::all_answered(&world.site.server, client.inner.v4.into(), 5)?;
    ping::all_answered(&world.gateway.namespace, client.inner.v6.into(), 5)?;
    // The client roams to wherever it hears the gateway from.
    let seen = client.wg().endpoint(&world.gateway.keys.public)?;
    ensure!(seen == endpoint.to_string(), "dialled {endpoint}, answered from {seen}");
    Ok(())
}

fn n21_replies_leave_from_the_address_that_was_dialled(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let _iperf = world.site.start_iperf(lab)?;
    for host in [3, 4] {
        world.gateway.namespace.add_address(UPLINK, outer(host).v4.into(), 24)?;
        world.gateway.namespace.add_address(UPLINK, outer(host).v6.into(), 64)?;
    }
    for (client, family) in world.clients.iter().zip(Family::BOTH) {
        for host in [3, GATEWAY_HOST, 4] {
            check_dialled(&world, client, outer(host).of(family), host == 3)?;
        }
    }
    // And one client from family to family.
    check_dialled(&world, &world.clients[0], outer(4).v6.into(), false)?;
    check_dialled(&world, &world.clients[0], outer(3).v4.into(), true)
}

fn n22_replies_leave_from_a_dialled_address_of_another_interface(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let _iperf = world.site.start_iperf(lab)?;
    let gateway = &world.gateway.namespace;
    for (address, via, client, prefix_len) in [
        ("10.50.0.1", outer(GATEWAY_HOST).v4.to_string(), &world.clients[0], 32),
        ("fd50::1", outer(GATEWAY_HOST).v6.to_string(), &world.clients[1], 128),
    ] {
        gateway.add_address("lo", address.parse()?, prefix_len)?;
        client.namespace.ip(&format!("route add {address}/{prefix_len} via {via}"))?;
        check_dialled(&world, client, address.parse()?, false)?;
    }
    // The downlink's address is one of another interface too.
    let address = server_side(GATEWAY_HOST).v4;
    let client = &world.clients[0];
    client.namespace.ip(&format!("route add {address}/32 via {}", outer(GATEWAY_HOST).v4))?;
    check_dialled(&world, client, address.into(), true)
}

fn n23_a_route_of_better_metric_takes_over_an_active_flow(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, client) = (&world.gateway, &world.clients[0]);
    let second = LinkEnd { namespace: &gateway.namespace, interface: "uplink2" };
    lab.link(second, LinkEnd { namespace: &world.site.wan, interface: "to-gateway2" }, 1)?;
    world.site.wan.ip("link set to-gateway2 master br0")?;
    gateway.namespace.add_address("uplink2", outer(3).v4.into(), 32)?;
    for interface in ["all", UPLINK, "uplink2"] {
        gateway.namespace.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0")?;
    }
    gateway.namespace.ip("route add 192.0.2.0/24 dev uplink src 192.0.2.1 metric 2")?;
    gateway.namespace.ip("route del 192.0.2.0/24 dev uplink metric 0")?;
    ping::wait_for_reply(&world.site.server, client.inner.v4.into(), SETTLE)?;
    ping::all_answered(&gateway.namespace, client.inner.v4.into(), 5)?;
    let seen = || client.wg().endpoint(&gateway.keys.public);
    ensure!(seen()? == "192.0.2.1:51820", "{}", seen()?);
    gateway.namespace.ip("route add 192.0.2.0/24 dev uplink2 src 192.0.2.3 metric 1")?;
    ping::wait_for_reply(&gateway.namespace, client.inner.v4.into(), SETTLE)?;
    ping::wait_for_reply(&world.site.server, client.inner.v4.into(), SETTLE)?;
    wait_until("the flow has moved", SETTLE, || {
        ping::once(&world.site.server, client.inner.v6.into())?;
        Ok(seen()? == "192.0.2.3:51820")
    })
    .with_context(|| format!("{:?}", seen()))?;
    ping::all_answered(&client.namespace, server_side(SERVER_HOST).v4.into(), 10)?;
    // And back.
    gateway.namespace.ip("route del 192.0.2.0/24 dev uplink2 metric 1")?;
    ping::wait_for_reply(&world.site.server, client.inner.v4.into(), SETTLE)?;
    ping::all_answered(&client.namespace, server_side(SERVER_HOST).v4.into(), 10)
}

/// Makes the client's datagrams come from another port than it sends them from, and back.
fn shift_port(client: &Client, from: u16, to: u16) -> Result<()> {
    for ruleset in [
        "add table inet shift".to_owned(),
        "add chain inet shift out { type filter hook postrouting priority 0 ; }".to_owned(),
        format!("add rule inet shift out udp sport {from} udp sport set {to}"),
        "add chain inet shift in { type filter hook prerouting priority -150 ; }".to_owned(),
        format!("add rule inet shift in udp dport {to} udp dport set {from}"),
    ] {
        client.namespace.run(&format!("nft {ruleset}"))?;
    }
    Ok(())
}

fn vpp_roaming_is_followed_on_initiation_response_and_data(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let gateway = &world.gateway;
    let address = |client: &Client, family| outer(client_host(client.number)).of(family);
    for (client, family) in world.clients.iter().zip(Family::BOTH) {
        let at = |port: u16| std::net::SocketAddr::new(address(client, family), port).to_string();
        // Data, under a session there is.
        client.wg().set("listen-port 40001")?;
        ping::wait_for_reply(&client.namespace, inner(GATEWAY_HOST).v4.into(), SETTLE)?;
        wait_for_endpoint(&world, client, &at(40_001))?;
        // An initiation: taking the interface down forgets the session.
        client.namespace.ip(&format!("link set {} down", client.interface))?;
        client.wg().set("listen-port 40002")?;
        client.namespace.ip(&format!("link set {} up", client.interface))?;
        ping::wait_for_reply(&client.namespace, inner(GATEWAY_HOST).v4.into(), SETTLE)?;
        wait_for_endpoint(&world, client, &at(40_002))?;
    }
    // A response: the gateway forgets its sessions and calls, and the answer comes from another port.
    gateway.namespace.ip(&format!("link set {} down", gateway.interface))?;
    for client in &world.clients {
        shift_port(client, 40_002, 40_003)?;
    }
    gateway.namespace.ip(&format!("link set {} up", gateway.interface))?;
    for (client, family) in world.clients.iter().zip(Family::BOTH) {
        ping::wait_for_reply(&gateway.namespace, client.inner.v4.into(), SETTLE)?;
        let endpoint = std::net::SocketAddr::new(address(client, family), 40_003);
        wait_for_endpoint(&world, client, &endpoint.to_string())?;
        ping::all_answered(&client.namespace, inner(GATEWAY_HOST).v4.into(), 5)?;
    }
    Ok(())
}
