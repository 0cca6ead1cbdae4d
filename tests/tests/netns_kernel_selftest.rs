//! What the kernel's own WireGuard test (tools/testing/selftests/wireguard/netns.sh) asks of traffic: counters, pings,
//! bulk, large packets and padding. N1 to N34 number its scenarios in the order of that script.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use tests::{
    Capture, Client, Gateway, Implementation, Io, Lab, Namespace, World,
    iperf::{self, Direction},
    on_both_rungs, ping,
    site::{Family, GATEWAY_HOST, SERVER_HOST, inner, server_side},
    wait_until,
    wg::Transfer,
};

on_both_rungs! {
    n01_ten_flood_pings_are_counted_to_the_byte_with_their_handshake,
    n02_n05_n07_floods_of_pings_are_answered_in_all_mixes_of_families,
    n03_n04_tcp_udp_and_parallel_streams_flow_in_both_families,
    n06_a_tunnel_mtu_beyond_the_frames_loses_only_what_does_not_fit,
    n08_padding_stays_within_the_mtu_of_a_route,
    n08_padding_stays_within_the_tunnel_mtu,
}

/// An initiation, a response and ten echo messages of 84 bytes, padded to 96, in messages of 128.
const INITIATOR_TX: u64 = 148 + 1280;
const RESPONDER_TX: u64 = 92 + 1280;
const KEEPALIVE: u64 = 32;

/// For what happens at once; the machine may be busy.
const SOON: Duration = Duration::from_secs(20);

/// Changes the tunnel's MTU and waits until the gateway knows, which hears of it by a message.
fn set_tunnel_mtu(gateway: &Gateway, mtu: u16) -> Result<()> {
    gateway.namespace.ip(&format!("link set {} mtu {mtu}", gateway.interface))?;
    wait_until("the gateway knows the MTU", SOON, || {
        Ok(gateway.status()?.value()["mtu"].as_u64() == Some(mtu.into()))
    })
}

/// Exactly ten, however long the last reply takes.
fn ten_pings(from: &Namespace, to: IpAddr) -> Result<()> {
    let line = format!("ping -n -f -c 10 -W 5 {to}");
    let outcome = from.attempt(&line, Duration::from_secs(20))?;
    ensure!(
        outcome.stdout.contains("10 packets transmitted"),
        "{line}: {}{}",
        outcome.stdout,
        outcome.stderr
    );
    Ok(())
}

fn n01_ten_flood_pings_are_counted_to_the_byte_with_their_handshake(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::start(lab, Implementation::Wgx(io), 1)?;
    let (gateway, [first, second]) = (&world.gateway, &world.clients[..]) else {
        anyhow::bail!("two clients")
    };

    // The first client calls the gateway.
    ten_pings(&first.namespace, inner(GATEWAY_HOST).v4.into())?;
    let of = |client: &Client| gateway.wg().transfer(&client.keys.public);
    wait_until("ten pings are counted", Duration::from_secs(20), || {
        Ok(of(first)?.tx >= RESPONDER_TX && first.wg().transfer(&gateway.keys.public)?.rx >= RESPONDER_TX)
    })?;
    let responder = of(first)?;
    ensure!(responder.tx == RESPONDER_TX, "{responder:?}");
    ensure!([INITIATOR_TX, INITIATOR_TX + KEEPALIVE].contains(&responder.rx), "{responder:?}");
    let reference = first.wg().transfer(&gateway.keys.public)?;
    ensure!(reference == Transfer { rx: responder.tx, tx: responder.rx }, "{reference:?} {responder:?}");

    // The gateway calls the second, over IPv6.
    let endpoint = format!("[2001:db8:1::{:x}]:{}", 12, second.show("listen-port")?.trim());
    gateway.wg().set(&format!("peer {} endpoint {endpoint}", second.keys.public))?;
    ten_pings(&gateway.namespace, second.inner.v4.into())?;
    wait_until("ten pings are counted", Duration::from_secs(20), || Ok(of(second)?.rx >= RESPONDER_TX))?;
    let initiator = of(second)?;
    ensure!(initiator.rx == RESPONDER_TX, "{initiator:?}");
    ensure!([INITIATOR_TX, INITIATOR_TX + KEEPALIVE].contains(&initiator.tx), "{initiator:?}");
    for client in [first, second] {
        ensure!(gateway.wg().latest_handshake(&client.keys.public)? > 0, "no handshake is shown");
    }
    Ok(())
}

fn n02_n05_n07_floods_of_pings_are_answered_in_all_mixes_of_families(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    // The first client's packets travel in IPv4, the second's in IPv6.
    for client in &world.clients {
        for family in Family::BOTH {
            ping::flood(&client.namespace, inner(GATEWAY_HOST).of(family), 100)?;
            ping::flood(&world.gateway.namespace, client.inner.of(family), 100)?;
            ping::flood(&client.namespace, server_side(SERVER_HOST).of(family), 100)?;
            ping::flood(&world.site.server, client.inner.of(family), 100)?;
        }
    }
    Ok(())
}

fn n03_n04_tcp_udp_and_parallel_streams_flow_in_both_families(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let _server = world.site.start_iperf(lab)?;
    for (client, family) in world.clients.iter().zip([Family::V6, Family::V4]) {
        let to = server_side(SERVER_HOST).of(family);
        for direction in Direction::BOTH {
            let tcp = iperf::tcp(&client.namespace, to, direction, 1)?;
            ensure!(tcp.bits_per_second > 1e6, "TCP to {to}, {direction:?}: {tcp:?}");
        }
        let parallel = iperf::tcp_parallel(&client.namespace, to, 1, 4)?;
        ensure!(parallel.bits_per_second > 1e6, "4 streams to {to}: {parallel:?}");
        // As much as the sender can: most of it is lost before the tunnel, some has to arrive.
        let udp = iperf::udp(&client.namespace, to, Direction::Forward, 1, 0, 1000)?;
        ensure!(udp.packets > udp.lost + 100, "UDP to {to}: {udp:?}");
        ping::flood(&client.namespace, to, 50)?;
    }
    Ok(())
}

/// As the script's second round, with an MTU of many frames. The kernel fragments the outer packets; a frame of ours
/// holds two thousand bytes, so what is longer is dropped and counted, and the rest goes on.
fn n06_a_tunnel_mtu_beyond_the_frames_loses_only_what_does_not_fit(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let gateway = &world.gateway;
    set_tunnel_mtu(gateway, 33316)?;
    for client in &world.clients {
        client.namespace.ip(&format!("link set {} mtu 33316", client.interface))?;
        // The client hears of it by a message too.
        wait_until("what fits is answered", SOON, || {
            let pings = ping::run_with(&gateway.namespace, client.inner.v4.into(), 1, 50, "-M do -s 1600")?;
            Ok(pings.lost() == 0)
        })?;
        let before = gateway.status()?;
        // Longer than the uplink's MTU, but not than a frame: fragments outside.
        let fits = ping::run_with(&gateway.namespace, client.inner.v4.into(), 5, 50, "-M do -s 1600")?;
        ensure!(fits.lost() == 0, "{fits:?}");
        let too_long = format!("ping -n -c 3 -i 0.1 -W 1 -s 20000 {}", client.inner.v4);
        let outcome = gateway.namespace.attempt(&too_long, Duration::from_secs(20))?;
        ensure!(outcome.stdout.contains(" 0 received"), "{too_long}: {}", outcome.stdout);
        wait_until("the drops are counted", SOON, || Ok(gateway.status()?.since(&before).dropped() >= 3))?;
        ping::all_answered(&client.namespace, inner(GATEWAY_HOST).v6.into(), 5)?;
    }
    Ok(())
}

/// A router on the way drops what the padding would have made too long.
fn n08_padding_stays_within_the_mtu_of_a_route(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, client) = (&world.gateway, &world.clients[0]);
    set_tunnel_mtu(gateway, 1300)?;
    let (to, interface) = (client.inner.v4, &gateway.interface);
    for rule in [
        "add table inet wire",
        "add chain inet wire in { type filter hook input priority 0; }",
        "add rule inet wire in meta length 1360 drop",
    ] {
        client.namespace.run(&format!("nft {rule}"))?;
    }
    let lost = |from| -> Result<u32> { Ok(ping::run_with(from, to.into(), 3, 50, "-s 1269")?.lost()) };
    ensure!(lost(&gateway.namespace)? == 3, "1297 bytes are not padded to 1300: this test shows nothing");
    gateway.namespace.ip(&format!("route add {to}/32 dev {interface} mtu 1299"))?;
    wait_until("the route's MTU is known", SOON, || Ok(lost(&gateway.namespace)? == 0))?;
    ensure!(lost(&world.site.server)? == 0, "packets through the gateway are padded beyond the route's MTU");
    Ok(())
}

fn n08_padding_stays_within_the_tunnel_mtu(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let (gateway, client) = (&world.gateway, &world.clients[0]);
    client.namespace.ip(&format!("link set {} mtu 1299", client.interface))?;
    set_tunnel_mtu(gateway, 1299)?;
    let capture = Capture::start(lab, &client.namespace, "eth0", "udp and src host 192.0.2.1")?;
    for from in [&gateway.namespace, &world.site.server] {
        // 1297 bytes: the next multiple of 16 is beyond the MTU.
        let pings = ping::run_with(from, client.inner.v4.into(), 3, 50, "-M do -s 1269")?;
        ensure!(pings.lost() == 0, "{pings:?}");
    }
    let count_long = |data: &[Vec<u8>]| data.iter().filter(|message| message.len() > 1000).count();
    capture.wait_for("all long ones are recorded", |data| count_long(data) >= 6)?;
    let lengths: Vec<usize> = capture.stop()?.iter().map(Vec::len).filter(|len| *len > 1000).collect();
    ensure!(lengths.len() >= 6, "{lengths:?}");
    ensure!(lengths.iter().all(|len| *len == 1299 + 32), "{lengths:?}");
    // Smaller ones are padded to 16.
    let capture = Capture::start(lab, &client.namespace, "eth0", "udp and src host 192.0.2.1")?;
    for len in [16, 57, 600] {
        let to: IpAddr = client.inner.v4.into();
        let pings = ping::run(&world.site.server, to, 2, 50, len)?;
        ensure!(pings.lost() == 0, "{len} bytes: {pings:?}");
    }
    capture.wait_for("all are recorded", |data| data.len() >= 6)?;
    let data = capture.stop()?;
    ensure!(data.len() >= 6 && data.iter().all(|message| message.len() % 16 == 0), "not padded");
    Ok(())
}
