//! What every gateway has to carry, whichever program and data path it is: one function per promise.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{
    Namespace, World,
    iperf::{self, Direction},
    ping,
    site::{self, Family, GATEWAY_HOST, SERVER_HOST, server_side},
    wait_until,
};

/// Pings of every pair of families, in both directions: the clients differ in the outer family.
pub fn ping_crosses(world: &World) -> Result<()> {
    for client in &world.clients {
        for inner in Family::BOTH {
            let context = || format!("client{} with inner {inner:?}", client.number);
            ping::all_answered(&client.namespace, server_side(SERVER_HOST).of(inner), 20)
                .with_context(context)?;
            ping::all_answered(&world.site.server, client.inner.of(inner), 20).with_context(context)?;
        }
    }
    Ok(())
}

/// Bulk TCP and gentle UDP, both ways, in both families.
pub fn tcp_and_udp_flow(world: &World, lab: &crate::Lab) -> Result<()> {
    let _server = world.site.start_iperf(lab)?;
    for (client, family) in world.clients.iter().zip(Family::BOTH) {
        let to = server_side(SERVER_HOST).of(family);
        for direction in Direction::BOTH {
            let tcp = iperf::tcp(&client.namespace, to, direction, 1)?;
            ensure!(tcp.bits_per_second > 1e6, "TCP to {to}, {direction:?}: {tcp:?}");
            let udp = iperf::udp_lossless(lab, &client.namespace, to, direction, 4, 1000)?;
            ensure!(udp.packets > 100, "UDP to {to}, {direction:?}: {udp:?}");
        }
    }
    Ok(())
}

/// From client to client: in by one peer and out by another.
pub fn clients_reach_each_other(world: &World, lab: &crate::Lab) -> Result<()> {
    let [first, second] = &world.clients[..] else { anyhow::bail!("two clients") };
    for family in Family::BOTH {
        ping::wait_for_reply(&first.namespace, second.inner.of(family), Duration::from_secs(10))?;
        ping::all_answered(&first.namespace, second.inner.of(family), 20)?;
        ping::all_answered(&second.namespace, first.inner.of(family), 20)?;
    }
    let _server = world.site.start_iperf_in(lab, &second.namespace)?;
    let udp =
        iperf::udp_lossless(lab, &first.namespace, second.inner.v4.into(), Direction::Forward, 4, 1000)?;
    ensure!(udp.packets > 100, "client to client: {udp:?}");
    Ok(())
}

/// The gateway is a host in the tunnel too: its kernel answers, and reaches the clients.
pub fn gateway_is_a_host(world: &World) -> Result<()> {
    for client in &world.clients {
        for family in Family::BOTH {
            ping::all_answered(&client.namespace, site::inner(GATEWAY_HOST).of(family), 10)?;
            ping::all_answered(&world.gateway.namespace, client.inner.of(family), 10)?;
        }
    }
    Ok(())
}

/// Echo requests and replies of three fragments each.
pub fn fragments_cross(world: &World) -> Result<()> {
    let server: std::net::IpAddr = server_side(SERVER_HOST).v4.into();
    for client in &world.clients {
        for (from, to) in [(&client.namespace, server), (&world.site.server, client.inner.v4.into())] {
            let line = format!("ping -n -M dont -c 5 -i 0.05 -W 2 -s 3000 {to}");
            let outcome = from.attempt(&line, Duration::from_secs(20))?;
            ensure!(
                outcome.stdout.contains(" 5 received"),
                "`{line}` from {}: {}",
                from.name(),
                outcome.stdout
            );
        }
    }
    Ok(())
}

/// A packet that does not fit into the tunnel is answered by the gateway, as by any router.
pub fn too_big_is_answered(world: &World) -> Result<()> {
    for family in Family::BOTH {
        let to = world.clients[0].inner.of(family);
        let answer = first_answer(&world.site.server, &format!("ping -n -M do -c 1 -W 2 -s 1440 {to}"))?;
        // iputils writes `mtu = 1420` for IPv4 and `mtu=1420` for IPv6.
        ensure!(answer.replace(' ', "").contains("mtu=1420"), "no ICMP too big for {to}: {answer}");
    }
    Ok(())
}

/// A packet whose hops are used up is answered by the gateway, from both sides.
pub fn expired_ttl_is_answered(world: &World) -> Result<()> {
    let client = &world.clients[0];
    for family in Family::BOTH {
        let ways = [
            (&client.namespace, server_side(SERVER_HOST).of(family)),
            (&world.site.server, client.inner.of(family)),
        ];
        for (from, to) in ways {
            let answer = first_answer(from, &format!("ping -n -t 1 -c 1 -W 2 {to}"))?;
            ensure!(
                answer.contains("Time") && answer.contains("exceeded"),
                "no time exceeded for {to}: {answer}"
            );
        }
    }
    Ok(())
}

/// A client that sends from another port is answered there.
pub fn roaming_client_is_followed(world: &World) -> Result<()> {
    let client = &world.clients[0];
    let server = server_side(SERVER_HOST).v4.into();
    for port in [40_001, 40_002] {
        client.namespace.run(&format!("wg set {} listen-port {port}", client.interface))?;
        ping::wait_for_reply(&client.namespace, server, Duration::from_secs(10))?;
        ping::all_answered(&client.namespace, server, 10)?;
        wait_until(&format!("`wg show` at the gateway names port {port}"), Duration::from_secs(20), || {
            Ok(world.gateway.show("endpoints")?.contains(&format!(":{port}\n")))
        })?;
    }
    Ok(())
}

/// What a ping that cannot succeed says. Routers limit the rate of ICMP errors, so it may take a few.
fn first_answer(from: &Namespace, line: &str) -> Result<String> {
    let mut text = String::new();
    for _ in 0..3 {
        let outcome = from.attempt(line, Duration::from_secs(20))?;
        ensure!(!outcome.status.success(), "`{line}` was answered as if nothing were wrong");
        text = outcome.stdout + &outcome.stderr;
        if text.contains("From ") || text.contains("local error") {
            break;
        }
    }
    Ok(text)
}
