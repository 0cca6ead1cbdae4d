//! What strangers can send: every kind of bad packet is counted, and the others' traffic goes on.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tests::{
    Implementation, Io, Lab, World,
    pcap::udp_payloads,
    ping, scenario, scenario_with_wgx,
    site::{Family, SERVER_HOST, UPLINK, server_side},
    wait_until,
};

/// The type byte of a data message, with its three reserved bytes.
const DATA: [u8; 4] = [4, 0, 0, 0];

/// Datagrams sent in one go: fewer than a veth's ring holds, for what overflows there is not the gateway's loss.
const BURST_LEN: usize = 32;

/// Datagrams that are no message of anybody: wrong types, wrong lengths, right lengths with wrong contents.
fn garbage() -> Vec<Vec<u8>> {
    let mut datagrams = vec![Vec::new()];
    for kind in 0..=255 {
        for len in [1, 4, 31, 32, 33, 64, 92, 148, 149, 1400] {
            let mut datagram = vec![0; len];
            // Contents that differ, without a source of randomness a failure could not be repeated with.
            datagram.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 31 + len) as u8 ^ kind);
            datagram[0] = kind;
            datagram[1..len.min(4)].fill(0);
            datagrams.push(datagram);
        }
    }
    for len in [65_507, 9000, 1500] {
        let mut datagram = vec![0xa5; len];
        datagram[..4].copy_from_slice(&DATA);
        datagrams.push(datagram);
    }
    datagrams
}

fn send(world: &World, to: SocketAddr, datagrams: &[Vec<u8>]) -> Result<()> {
    world.clients[1].namespace.enter(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        for burst in datagrams.chunks(BURST_LEN) {
            for datagram in burst {
                socket.send_to(datagram, to).with_context(|| format!("{} bytes to {to}", datagram.len()))?;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })?
}

fn garbage_is_counted_and_harmless(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let before = world.gateway.status()?;
    let server = server_side(SERVER_HOST).v4.into();
    let garbage = garbage();
    for family in Family::BOTH {
        let client = &world.clients[0].namespace;
        let pings = thread::scope(|scope| {
            let pings = scope.spawn(|| ping::run(client, server, 60, 20, 56));
            for _ in 0..3 {
                send(&world, world.gateway.endpoint(family), &garbage)?;
            }
            pings.join().map_err(|_| anyhow::anyhow!("ping panicked"))?
        })?;
        ensure!(pings.sent == 60 && pings.lost() == 0, "{family:?}: {pings:?}");
    }
    wait_until("garbage is counted", Duration::from_secs(20), || {
        let delta = world.gateway.status()?.since(&before);
        // Data messages of a plausible length are looked up; shorter ones are not even that.
        Ok(delta.verdict("drop_unknown_index") >= 6 && delta.dropped() >= 12)
    })
    .with_context(|| {
        format!("{:?}", world.gateway.status().map(|status| status.since(&before).verdicts().clone()))
    })?;
    tests::traffic::ping_crosses(&world)
}

#[test]
fn garbage_is_counted_and_harmless_on_af_xdp() {
    scenario_with_wgx("garbage_is_counted_and_harmless_on_af_xdp", |lab| {
        garbage_is_counted_and_harmless(lab, Io::AfXdp)
    });
}

#[test]
fn garbage_is_counted_and_harmless_on_udp() {
    scenario_with_wgx("garbage_is_counted_and_harmless_on_udp", |lab| {
        garbage_is_counted_and_harmless(lab, Io::Udp)
    });
}

#[test]
fn recorder_sees_every_data_message() {
    scenario("recorder_sees_every_data_message", |lab| {
        let world = World::build(lab, Implementation::WireguardGo)?;
        let server = server_side(SERVER_HOST).v4.into();
        let recorded = record(lab, &world, || ping::all_answered(&world.clients[0].namespace, server, 20))?;
        let count = recorded.iter().filter(|datagram| datagram.starts_with(&DATA)).count();
        ensure!(count >= 20, "{count} of 20 data messages");
        Ok(())
    });
}

fn replayed_and_forged_packets_are_dropped(lab: &mut Lab, io: Io) -> Result<()> {
    let world = World::build(lab, Implementation::Wgx(io))?;
    let gateway = &world.gateway;
    let endpoint = gateway.endpoint(Family::V4);
    let server = server_side(SERVER_HOST).v4.into();

    let recorded = record(lab, &world, || ping::all_answered(&world.clients[0].namespace, server, 20))?;
    let data: Vec<_> = recorded.into_iter().filter(|datagram| datagram.starts_with(&DATA)).collect();
    ensure!(data.len() >= 20, "only {} data messages were recorded", data.len());
    // As the attacker lacks the key, any changed bit makes the tag wrong.
    let forged: Vec<_> = data
        .iter()
        .map(|datagram| {
            let mut forged = datagram.clone();
            forged[8] ^= 0x40; // A counter that was not used yet.
            forged
        })
        .collect();

    let before = gateway.status()?;
    let endpoints = gateway.show("endpoints")?;
    send(&world, endpoint, &data)?;
    send(&world, endpoint, &forged)?;
    wait_until("replays and forgeries are counted", Duration::from_secs(20), || {
        let delta = gateway.status()?.since(&before);
        Ok(delta.verdict("drop_replayed") >= 20 && delta.verdict("drop_not_authentic") >= 20)
    })
    .with_context(|| {
        format!("{:?}", gateway.status().map(|status| status.since(&before).verdicts().clone()))
    })?;
    ensure!(gateway.show("endpoints")? == endpoints, "a replay moved the client's endpoint");
    tests::traffic::ping_crosses(&world)
}

/// The UDP payloads the gateway's uplink received from the first client during `work`.
fn record(lab: &Lab, world: &World, work: impl FnOnce() -> Result<()>) -> Result<Vec<Vec<u8>>> {
    let file = lab.folder().join("recorded.pcap");
    // At the switch's port: what XDP takes away at the gateway is not seen there.
    let mut command = world.site.wan.command("tcpdump");
    command.args(["-Z", "root", "-U", "-n", "-i", "to-client1", "-Q", "in", "-w"]).arg(&file).arg("udp");
    let mut tcpdump = lab.spawn("tcpdump", &mut command)?;
    wait_until("tcpdump listens", Duration::from_secs(10), || {
        tcpdump.check_running()?;
        Ok(tcpdump.output().contains("listening on"))
    })?;
    work()?;
    wait_until("the packets are recorded", Duration::from_secs(20), || {
        let bytes = fs::read(&file).unwrap_or_default();
        Ok(udp_payloads(&bytes).iter().filter(|datagram| datagram.starts_with(&DATA)).count() >= 20)
    })?;
    tcpdump.terminate(Duration::from_secs(20))?;
    Ok(udp_payloads(&fs::read(&file).with_context(|| format!("{UPLINK} was not recorded"))?))
}

#[test]
fn replayed_and_forged_packets_are_dropped_on_af_xdp() {
    scenario_with_wgx("replayed_and_forged_packets_are_dropped_on_af_xdp", |lab| {
        replayed_and_forged_packets_are_dropped(lab, Io::AfXdp)
    });
}

#[test]
fn replayed_and_forged_packets_are_dropped_on_udp() {
    scenario_with_wgx("replayed_and_forged_packets_are_dropped_on_udp", |lab| {
        replayed_and_forged_packets_are_dropped(lab, Io::Udp)
    });
}
