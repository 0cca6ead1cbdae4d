//! Configuration while packets flow: nothing that is not touched is disturbed.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    Implementation, Io, Lab, Uapi, World, ping, scenario_with_wgx,
    site::{Family, SERVER_HOST, server_side},
    uapi::key,
};

const AF_XDP: Implementation = Implementation::Wgx(Io::AfXdp);
/// How long configuration and traffic go on together.
const LONG: Duration = Duration::from_secs(3);

/// Peers of a batch: so many that a socket does not hold the answer to a `get`, which is then told in many pieces.
const COUNT: u32 = 1000;

/// Peers that are all there or not at all, so that a state in between would show.
fn batch(count: u32) -> String {
    (1..=count).fold(String::new(), |text, number| {
        text + &format!("public_key={}\nallowed_ip=fd77:{number:x}::/64\n", key(number))
    })
}

fn unbatch(count: u32) -> String {
    (1..=count)
        .fold(String::new(), |text, number| text + &format!("public_key={}\nremove=true\n", key(number)))
}

/// Adds and removes a batch of peers, refused requests in between, until told to stop.
fn change(interface: &str, is_done: &AtomicBool) -> Result<u32> {
    let mut rounds = 0;
    while !is_done.load(Ordering::Relaxed) {
        let mut uapi = Uapi::connect(interface)?;
        ensure!(uapi.set(&batch(COUNT))? == 0, "refused");
        ensure!(uapi.set(&format!("{}nonsense=1\n", unbatch(COUNT)))? == -22, "not refused");
        ensure!(uapi.set(&unbatch(COUNT))? == 0, "refused");
        rounds += 1;
    }
    Ok(rounds)
}

/// Asks until told to stop; each answer is of a state that was set.
fn watch(interface: &str, is_done: &AtomicBool) -> Result<u32> {
    let mut rounds = 0;
    while !is_done.load(Ordering::Relaxed) {
        let get = Uapi::connect(interface)?.get()?;
        let count = get.matches("allowed_ip=fd77:").count();
        ensure!(count == 0 || count == COUNT as usize, "{count} peers of {COUNT} are there");
        ensure!(get.matches("public_key=").count() == count + 2, "other peers: {get}");
        rounds += 1;
    }
    Ok(rounds)
}

/// What the gateway has done with packets, for the case that one is missing.
fn verdicts(world: &World) -> String {
    world.gateway.status().map_or_else(
        |error| error.to_string(),
        |status| format!("{:?}\n{}", status.verdicts(), status.value()["interfaces"]),
    )
}

/// Changes, questions and pings at the same time.
fn check_concurrent(lab: &mut Lab, implementation: Implementation) -> Result<()> {
    let world = World::build(lab, implementation)?;
    let interface = world.gateway.interface.as_str();
    let handshakes = world.gateway.show("latest-handshakes")?;
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let changer = scope.spawn(|| change(interface, &is_done));
        let watchers: Vec<_> = (0..3).map(|_| scope.spawn(|| watch(interface, &is_done))).collect();
        let start = Instant::now();
        let mut pings = Ok(());
        while pings.is_ok() && start.elapsed() < LONG {
            pings = world.clients.iter().zip(Family::BOTH).try_for_each(|(client, family)| {
                ping::all_answered(&client.namespace, server_side(SERVER_HOST).of(family), 20)
            });
        }
        is_done.store(true, Ordering::Relaxed);
        pings.with_context(|| verdicts(&world))?;
        for task in watchers.into_iter().chain([changer]) {
            let rounds = task.join().map_err(|_| anyhow::anyhow!("panicked"))??;
            ensure!(rounds > 0, "nobody was answered");
        }
        Ok(())
    })?;
    ensure!(world.gateway.show("latest-handshakes")? == handshakes, "a session was disturbed");
    Ok(())
}

#[test]
fn concurrent_get_and_set_tell_whole_states_and_lose_no_packet_on_af_xdp() {
    let name = "concurrent_get_and_set_tell_whole_states_and_lose_no_packet_on_af_xdp";
    scenario_with_wgx(name, |lab| check_concurrent(lab, AF_XDP));
}

#[test]
fn concurrent_get_and_set_tell_whole_states_and_lose_no_packet_on_udp() {
    let name = "concurrent_get_and_set_tell_whole_states_and_lose_no_packet_on_udp";
    scenario_with_wgx(name, |lab| check_concurrent(lab, Implementation::Wgx(Io::Udp)));
}

#[test]
fn modifying_a_peer_keeps_its_session() {
    scenario_with_wgx("modifying_a_peer_keeps_its_session", |lab| {
        let world = World::build(lab, AF_XDP)?;
        let (gateway, client) = (&world.gateway, &world.clients[0]);
        let before = gateway.show("latest-handshakes")?;
        let server = server_side(SERVER_HOST).v4.into();
        let peer = format!("wg set {} peer {}", gateway.interface, client.keys.public);
        for change in [
            "persistent-keepalive 20".to_owned(),
            "persistent-keepalive off".to_owned(),
            format!("allowed-ips {}/32,{}/128,10.66.0.0/16", client.inner.v4, client.inner.v6),
            format!("allowed-ips {}/32,{}/128", client.inner.v4, client.inner.v6),
        ] {
            gateway.namespace.run(&format!("{peer} {change}"))?;
            ping::all_answered(&client.namespace, server, 5)?;
        }
        let file = lab.write_secret("sync.conf", &gateway.configuration())?;
        gateway.namespace.run(&format!("wg syncconf {} {}", gateway.interface, file.display()))?;
        ping::all_answered(&client.namespace, server, 5)?;
        ensure!(gateway.show("latest-handshakes")? == before, "there was another handshake");
        Ok(())
    });
}
