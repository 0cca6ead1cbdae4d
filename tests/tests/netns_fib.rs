//! Routes, neighbours and queues that change under running traffic: VPP's `TestWgFIB`, its handoff between workers,
//! and mistakes known of peers.

use std::{thread, time::Duration};

use anyhow::{Result, anyhow, ensure};
use tests::{
    Implementation, Io, Lab, World,
    iperf::{self, Direction},
    on_both_rungs, ping,
    site::{Family, GATEWAY_HOST, SERVER_HOST, inner, outer, server_side},
    traffic, wait_until,
};

on_both_rungs! {
    vpp_all_four_mixes_of_families_carry_several_peers,
    vpp_fib_tracking_follows_a_neighbour_and_a_route_that_change,
    vpp_replace_peer_goes_on_with_the_new_endpoint,
    vpp_large_packets_up_to_the_mtu_cross_whole,
    vpp_packets_on_a_queue_of_another_worker_are_opened,
    alternating_ipv4_and_ipv6_endpoints_lose_nothing,
}

const SETTLE: Duration = Duration::from_secs(15);

fn vpp_all_four_mixes_of_families_carry_several_peers(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    // Outer IPv4 and IPv6 by client, inner IPv4 and IPv6, both ways; then the clients change families.
    traffic::ping_crosses(&world)?;
    for (client, family) in world.clients.iter().zip([Family::V6, Family::V4]) {
        client.move_to(&world.gateway, world.gateway.endpoint(family))?;
        ping::wait_for_reply(&client.namespace, inner(GATEWAY_HOST).v4.into(), SETTLE)?;
    }
    traffic::ping_crosses(&world)
}

fn vpp_fib_tracking_follows_a_neighbour_and_a_route_that_change(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, [client, other]) = (&world.gateway, &world.clients[..]) else {
        anyhow::bail!("two clients")
    };
    let server = server_side(SERVER_HOST).v4.into();
    // Another network card at the client, and at the server.
    for (namespace, mac) in
        [(&client.namespace, "02:00:00:00:00:77"), (&world.site.server, "02:00:00:00:00:78")]
    {
        namespace.ip("link set eth0 down")?;
        namespace.ip(&format!("link set eth0 address {mac}"))?;
        namespace.ip("link set eth0 up")?;
    }
    for (network, via) in ["10.10.0.0/24", "fd10:10::/64"].iter().zip(server_side(GATEWAY_HOST).both()) {
        // Routes and IPv6 addresses went with the link.
        if via.is_ipv6() {
            world.site.server.add_address("eth0", server_side(SERVER_HOST).v6.into(), 64)?;
        }
        world.site.server.ip(&format!("route replace {network} via {via}"))?;
    }
    client.namespace.add_address("eth0", outer(11).v6.into(), 64)?;
    ping::wait_for_reply(&client.namespace, server, SETTLE)?;
    ping::wait_for_reply(&world.site.server, client.inner.v6.into(), SETTLE)?;
    ping::all_answered(&client.namespace, server, 10)?;

    // The first client is behind the second now: another next hop, and another link-layer address.
    other.namespace.sysctl("net/ipv4/ip_forward", "1")?;
    for interface in ["all", "eth0"] {
        other.namespace.sysctl(&format!("net/ipv4/conf/{interface}/send_redirects"), "0")?;
    }
    let before = forwarded(&world)?;
    gateway.namespace.ip(&format!("route add {}/32 via {}", outer(11).v4, outer(12).v4))?;
    // Until the gateway has heard of it, pings are answered by the old way.
    wait_until("pings take the new route", SETTLE, || {
        Ok(ping::once(&world.site.server, client.inner.v4.into())? && forwarded(&world)? > before)
    })?;
    let before = forwarded(&world)?;
    ping::all_answered(&world.site.server, client.inner.v4.into(), 20)?;
    ensure!(forwarded(&world)? >= before + 20, "not sent by the new route");
    // No route at all, and back.
    gateway.namespace.ip(&format!("route replace unreachable {}/32 metric 0", outer(11).v4))?;
    gateway.namespace.ip(&format!("route del {}/32 via {}", outer(11).v4, outer(12).v4)).ok();
    wait_until("nothing is sent without a route", SETTLE, || {
        Ok(!ping::once(&world.site.server, client.inner.v4.into())?)
    })?;
    gateway.namespace.ip(&format!("route del unreachable {}/32", outer(11).v4))?;
    ping::wait_for_reply(&world.site.server, client.inner.v4.into(), SETTLE)?;
    ping::all_answered(&world.site.server, client.inner.v6.into(), 10)
}

/// Datagrams the second client's kernel forwarded.
fn forwarded(world: &World) -> Result<u64> {
    let text = world.clients[1].namespace.run("cat /proc/net/snmp")?;
    let field = text.lines().filter(|line| line.starts_with("Ip: ")).nth(1).and_then(|line| {
        // Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams
        line.split_whitespace().nth(6)?.parse().ok()
    });
    field.ok_or_else(|| anyhow!("no ForwDatagrams in {text}"))
}

fn vpp_replace_peer_goes_on_with_the_new_endpoint(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, [client, other]) = (&world.gateway, &world.clients[..]) else {
        anyhow::bail!("two clients")
    };
    let pings = thread::scope(|scope| {
        let pings =
            scope.spawn(|| ping::run(&other.namespace, server_side(SERVER_HOST).v4.into(), 100, 20, 56));
        let key = &client.keys.public;
        for address in outer(11).both() {
            let port = client.show("listen-port")?;
            let endpoint = std::net::SocketAddr::new(address, port.trim().parse()?);
            gateway.wg().set(&format!("peer {key} remove"))?;
            gateway.wg().set(&format!(
                "peer {key} endpoint {endpoint} allowed-ips {}/32,{}/128",
                client.inner.v4, client.inner.v6
            ))?;
            ping::wait_for_reply(&world.site.server, client.inner.v4.into(), SETTLE)?;
            ensure!(gateway.wg().endpoint(key)? == endpoint.to_string(), "{}", gateway.wg().endpoint(key)?);
            ping::all_answered(&client.namespace, server_side(SERVER_HOST).v6.into(), 5)?;
        }
        pings.join().map_err(|_| anyhow!("ping panicked"))?
    })?;
    ensure!(pings.lost() == 0, "the other peer lost {}", pings.lost());
    Ok(())
}

fn vpp_large_packets_up_to_the_mtu_cross_whole(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    for client in &world.clients {
        for family in Family::BOTH {
            let header_len = if family == Family::V4 { 28 } else { 48 };
            for packet_len in [1280, 1405, 1409, 1420] {
                for (from, to) in [
                    (&client.namespace, server_side(SERVER_HOST).of(family)),
                    (&world.site.server, client.inner.of(family)),
                    (&world.gateway.namespace, client.inner.of(family)),
                ] {
                    let options = format!("-M do -s {}", packet_len - header_len);
                    let pings = ping::run_with(from, to, 2, 10, &options)?;
                    ensure!(pings.lost() == 0, "{options} from {} to {to}: {pings:?}", from.name());
                }
            }
        }
    }
    Ok(())
}

/// The kernel spreads flows over queues: by changing ports a session's packets come to other workers.
fn vpp_packets_on_a_queue_of_another_worker_are_opened(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build_with_queues(lab, Implementation::Wgx(io), 2)?;
    let (gateway, client) = (&world.gateway, &world.clients[0]);
    let handshake = gateway.wg().latest_handshake(&client.keys.public)?;
    for port in 41_000..41_012 {
        client.wg().set(&format!("listen-port {port}"))?;
        ping::wait_for_reply(&client.namespace, server_side(SERVER_HOST).v4.into(), SETTLE)?;
        ping::all_answered(&client.namespace, server_side(SERVER_HOST).v6.into(), 5)?;
    }
    let same = gateway.wg().latest_handshake(&client.keys.public)?;
    ensure!(same == handshake, "another session: nothing was handed over");
    if io == Io::AfXdp {
        wait_until("two workers have opened packets", SETTLE, || {
            let status = gateway.status()?;
            let workers = status.value()["workers"].as_array().into_iter().flatten();
            Ok(workers.filter(|worker| worker.to_string().contains("opened_to_link")).count() >= 2)
        })?;
    }
    Ok(())
}

fn alternating_ipv4_and_ipv6_endpoints_lose_nothing(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let server = &world.site.server;
    traffic::ping_crosses(&world)?;
    // One client is reached over IPv4 and the other over IPv6, at the same time, packet by packet.
    let lost = thread::scope(|scope| {
        let runs: Vec<_> = world
            .clients
            .iter()
            .flat_map(|client| [(server, client), (&world.gateway.namespace, client)])
            .map(|(from, client)| scope.spawn(|| ping::run(from, client.inner.v4.into(), 150, 5, 600)))
            .collect();
        runs.into_iter()
            .map(|run| Ok(run.join().map_err(|_| anyhow!("ping panicked"))??.lost()))
            .sum::<Result<u32>>()
    })?;
    ensure!(lost == 0, "{lost} of 600 pings were lost");
    // And from client to client: opened from one family, sealed for the other.
    let [first, second] = &world.clients[..] else { anyhow::bail!("two clients") };
    let _server = world.site.start_iperf_in(lab, &second.namespace)?;
    ping::wait_for_reply(&first.namespace, second.inner.v4.into(), SETTLE)?;
    for direction in Direction::BOTH {
        let udp = iperf::udp_lossless(lab, &first.namespace, second.inner.v4.into(), direction, 4, 1000)?;
        ensure!(udp.packets > 100, "{direction:?}: {udp:?}");
    }
    Ok(())
}
