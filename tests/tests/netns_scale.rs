//! A hundred thousand peers through the real UAPI, on a gateway that passes packets meanwhile.
//!
//! `cargo test -p tests --test netns_scale -- --nocapture` prints what each step took as `note:` lines. Only what the
//! issue bounds is asserted: ten seconds for the configuration, and memory.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tests::{
    Client, Gateway, Implementation, Io, Lab, Site, World,
    iperf::{self, Direction},
    losses::Losses,
    note, ping, scenario_with_wgx,
    site::{self, Family, GATEWAY_HOST, LISTEN_PORT, SERVER_HOST, UPLINK, server_side},
    traffic, wait_until,
};

const PEER_COUNT: u32 = 100_000;
/// Where among them the two clients are that really exist.
const CLIENT_POSITIONS: [u32; 2] = [31_337, 77_777];
const CONFIGURE_MAX: Duration = Duration::from_secs(10);
const MEMORY_MAX: u64 = 1 << 30;
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
const SINGLE_CHANGES: u32 = 1000;

fn hex(base64: &str) -> Result<String> {
    let bytes = STANDARD.decode(base64).context("a key in base64")?;
    Ok(bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

/// A key that belongs to nobody.
fn bulk_key(number: u32) -> String {
    format!("{:08x}{}", number.wrapping_mul(0x9e37_79b1), "5a".repeat(28))
}

fn bulk_prefixes(number: u32) -> [String; 2] {
    let v4 = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + number);
    let v6 = Ipv6Addr::from_bits((0xfd64 << 112) | u128::from(number));
    [format!("{v4}/32"), format!("{v6}/128")]
}

/// What `get` has to tell of each peer, in order: key, preshared key, endpoint where configured, allowed IPs.
fn peers(clients: &[Client]) -> Result<String> {
    let mut text = String::new();
    for number in 0..PEER_COUNT {
        if let Some(client) = CLIENT_POSITIONS.iter().position(|position| *position == number) {
            let client = &clients[client];
            let preshared = client.preshared_key.as_ref().map(|key| hex(key.reveal())).transpose()?;
            let preshared = preshared.unwrap_or_else(|| "0".repeat(64));
            write!(text, "public_key={}\npreshared_key={preshared}\n", hex(&client.keys.public)?)?;
            writeln!(text, "allowed_ip={}/32\nallowed_ip={}/128", client.inner.v4, client.inner.v6)?;
        } else {
            let [v4, v6] = bulk_prefixes(number);
            write!(text, "public_key={}\npreshared_key={}\n", bulk_key(number), "0".repeat(64))?;
            let (host, port) = (1 + number % 250, 1024 + number % 60_000);
            writeln!(text, "endpoint=203.0.113.{host}:{port}\nallowed_ip={v4}\nallowed_ip={v6}")?;
        }
    }
    Ok(text)
}

/// One request on a connection of its own, and its answer.
fn uapi(gateway: &Gateway, request: &str) -> Result<String> {
    let mut stream = UnixStream::connect(format!("/var/run/wireguard/{}.sock", gateway.interface))?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    stream.write_all(request.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn set(gateway: &Gateway, lines: &str) -> Result<()> {
    let answer = uapi(gateway, &format!("set=1\n{lines}\n"))?;
    ensure!(answer == "errno=0\n\n", "a set was answered by {answer:?}");
    Ok(())
}

/// Memory of the gateway in bytes: now, and at its highest.
fn memory(gateway: &mut Gateway) -> Result<[u64; 2]> {
    let pid = gateway.process()?.pid();
    let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
    ensure!(name.trim() == "wgx", "process {pid} is {name:?}");
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = |field: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("a line of memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()?)
    };
    Ok([kilobytes("VmRSS:")? * 1024, kilobytes("VmHWM:")? * 1024])
}

fn timed<T>(test: &str, what: &str, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    let result = work().with_context(|| what.to_owned())?;
    let took = start.elapsed();
    note(test, &format!("{what}: {:.1} ms", took.as_secs_f64() * 1e3));
    Ok((result, took))
}

/// A gateway with all peers, and both clients connected to it.
fn large_world(lab: &mut Lab, test: &str) -> Result<World> {
    let site = Site::build(lab, 1)?;
    let mut gateway = Gateway::new(lab, &site, Implementation::Wgx(Io::AfXdp))?;
    let mut clients = vec![Client::new(lab, &site, 1)?, Client::new(lab, &site, 2)?];
    for client in &mut clients {
        client.implementation = Implementation::Wgx(Io::Udp);
    }
    gateway.launch(lab)?;
    // All those who do not exist are behind a router, so they have paths that a change of its route changes.
    gateway.namespace.ip("route add default via 192.0.2.254")?;
    gateway
        .namespace
        .ip(&format!("neigh add 192.0.2.254 lladdr 02:00:00:00:fe:fe dev {UPLINK} nud permanent"))?;
    let key = hex(gateway.keys.private.reveal())?;
    let lines =
        format!("private_key={key}\nlisten_port={LISTEN_PORT}\nreplace_peers=true\n{}", peers(&clients)?);
    let ((), took) =
        timed(test, "100,000 peers with 200,000 allowed IPs by one set", || set(&gateway, &lines))?;
    ensure!(took < CONFIGURE_MAX, "the configuration took {took:?}");

    gateway.namespace.ip(&format!("link set {} mtu 1420 up", gateway.interface))?;
    let inner = site::inner(GATEWAY_HOST);
    gateway.namespace.add_address(&gateway.interface, inner.v4.into(), 24)?;
    gateway.namespace.add_address(&gateway.interface, inner.v6.into(), 64)?;
    for (client, family) in clients.iter_mut().zip(Family::BOTH) {
        client.start(lab, &gateway, gateway.endpoint(family))?;
    }
    let world = World { clients, gateway, site };
    world.settle(SETTLE_TIMEOUT)?;
    Ok(world)
}

/// Every line that tells of configuration is what was set, in order.
fn check_read_back(world: &World, test: &str) -> Result<()> {
    let (answer, _) = timed(test, "get", || uapi(&world.gateway, "get=1\n\n"))?;
    ensure!(
        answer.ends_with("errno=0\n\n"),
        "get ends with {:?}",
        &answer[answer.len().saturating_sub(40)..]
    );
    let configured = ["public_key", "preshared_key", "endpoint", "allowed_ip"];
    let expected = peers(&world.clients)?;
    let mut expected = expected.lines();
    let (mut peer, mut count) = ("", 0);
    for line in answer.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        if key == "public_key" {
            peer = value;
        }
        // Where a client is reached was learnt.
        let is_learnt = key == "endpoint" && !value.starts_with("203.0.113.");
        if configured.contains(&key) && !is_learnt {
            let wanted = expected.next();
            // The lines may be secrets: only their peer is told.
            ensure!(wanted == Some(line), "{key} of peer {peer} is not what was set");
            count += 1;
        }
    }
    ensure!(expected.next().is_none(), "get tells {count} lines, and more were set");
    Ok(())
}

#[test]
fn a_hundred_thousand_peers_are_configured_in_time_and_memory() {
    const NAME: &str = "a_hundred_thousand_peers_are_configured_in_time_and_memory";
    scenario_with_wgx(NAME, |lab| {
        let mut world = large_world(lab, NAME)?;
        check_read_back(&world, NAME)?;
        traffic::ping_crosses(&world)?;
        let gateway = &world.gateway;
        timed(NAME, "wg show dump", || gateway.show("dump"))?;
        timed(NAME, "wgx status", || gateway.status())?;
        timed(NAME, "1000 single changes of allowed IPs", || {
            (0..SINGLE_CHANGES).try_for_each(|number| {
                let [v4, _] = bulk_prefixes(PEER_COUNT + number);
                set(gateway, &format!("public_key={}\nallowed_ip={v4}\n", bulk_key(number)))
            })
        })?;
        timed(NAME, "1000 removals", || {
            (0..SINGLE_CHANGES).try_for_each(|number| {
                set(gateway, &format!("public_key={}\nremove=true\n", bulk_key(number)))
            })
        })?;
        let count =
            uapi(gateway, "get=1\n\n")?.lines().filter(|line| line.starts_with("public_key=")).count();
        ensure!(count == (PEER_COUNT - SINGLE_CHANGES) as usize, "{count} peers are left");

        let [now, highest] = memory(&mut world.gateway)?;
        note(NAME, &format!("memory: {} MiB, {} MiB at its highest", now >> 20, highest >> 20));
        ensure!(highest < MEMORY_MAX, "{} MiB were in use", highest >> 20);
        traffic::ping_crosses(&world)
    });
}

/// Changes peers, allowed IPs and routes until told to stop; returns how often.
fn keep_changing(world: &World, stop: &AtomicBool) -> Result<u32> {
    let (gateway, client) = (&world.gateway, &world.clients[0]);
    let (v4, v6) = (client.inner.v4, client.inner.v6);
    let client_key = hex(&client.keys.public)?;
    let mut round = 0;
    while !stop.load(Ordering::Acquire) {
        let visitor = bulk_key(PEER_COUNT + round % 500);
        // A prefix moves between two peers, one peer comes and another goes, the client's own list is replaced by
        // the same list, and the server's side is given to somebody who is not asked.
        let [moving, _] = bulk_prefixes(round % 1000);
        let (from, to) = (bulk_key(round % 1000), bulk_key(1000 + round % 1000));
        set(
            gateway,
            &format!(
                "public_key={}\nallowed_ip={moving}\npublic_key={visitor}\nreplace_allowed_ips=true\n\
                 allowed_ip=10.10.0.0/25\npublic_key={client_key}\nreplace_allowed_ips=true\n\
                 allowed_ip={v4}/32\nallowed_ip={v6}/128\n",
                if round.is_multiple_of(2) { to } else { from }
            ),
        )?;
        if round % 3 == 2 {
            set(gateway, &format!("public_key={visitor}\nremove=true\n"))?;
        }
        if round % 8 == 0 {
            let verb = if round % 16 == 0 { "replace" } else { "del" };
            gateway
                .namespace
                .ip(&format!("route {verb} 203.0.113.128/25 via 192.0.2.253 dev {UPLINK} onlink"))?;
        }
        round += 1;
    }
    Ok(round)
}

/// Packets that found a queue full, in the kernel anywhere or at the gateway's rings.
fn overflows(world: &World, lab: &Lab) -> Result<u64> {
    let losses = Losses::read(lab.namespaces())?;
    let in_kernel: u64 = lab.namespaces().iter().map(|namespace| losses.in_namespace(namespace)).sum();
    let status = world.gateway.status()?;
    let links = status.value()["links"].as_array().into_iter().flatten();
    let at_rings: u64 = links
        .map(|link| &link["statistics"])
        .flat_map(|link| [&link["tx_full"], &link["kernel"]["rx_dropped"], &link["kernel"]["rx_ring_full"]])
        .filter_map(serde_json::Value::as_u64)
        .sum();
    Ok(in_kernel + at_rings)
}

/// Three seconds of packets from client to server or back, while everything else changes. `None` when packets were
/// lost to full queues: the machine is too slow for this rate, and the gateway is not to blame. An error when any was
/// lost otherwise.
fn load_meanwhile_changing(
    world: &World,
    lab: &Lab,
    direction: Direction,
    megabits: u32,
) -> Result<Option<()>> {
    const NAME: &str = "changes_under_load_lose_no_packet";
    let (status, full) = (world.gateway.status()?, overflows(world, lab)?);
    let stop = AtomicBool::new(false);
    let to = server_side(SERVER_HOST).v4.into();
    let (udp, rounds) = thread::scope(|scope| {
        let changes = scope.spawn(|| keep_changing(world, &stop));
        let udp = iperf::udp(&world.clients[0].namespace, to, direction, 3, megabits, 200);
        stop.store(true, Ordering::Release);
        (udp, changes.join())
    });
    let (udp, rounds) = (udp?, rounds.expect("no panic")?);
    let status = world.gateway.status()?.since(&status);
    let full = overflows(world, lab)? - full;
    let lost = udp.lost;
    let what = format!(
        "{direction:?}: {} packets, {lost} lost ({full} to full queues), {rounds} changes",
        udp.packets
    );
    note(NAME, &what);
    ensure!(rounds > 100 && udp.packets > 3000, "too little happened: {what}");
    let full_verdicts: u64 =
        ["link", "tunnel", "socket"].iter().map(|queue| status.verdict(&format!("drop_{queue}_full"))).sum();
    ensure!(status.dropped() == full_verdicts, "the gateway dropped packets: {:?}", status.verdicts());
    if lost == 0 {
        return Ok(Some(()));
    }
    ensure!(lost <= full + full_verdicts, "{what}; {:?}", status.verdicts());
    Ok(None)
}

#[test]
fn changes_under_load_lose_no_packet() {
    const NAME: &str = "changes_under_load_lose_no_packet";
    scenario_with_wgx(NAME, |lab| {
        let world = large_world(lab, NAME)?;
        let to: IpAddr = server_side(SERVER_HOST).v4.into();
        let _iperf = world.site.start_iperf(lab)?;
        wait_until("pings leave the slow path", Duration::from_secs(10), || {
            let before = world.gateway.status()?;
            ping::all_answered(&world.clients[0].namespace, to, 4)?;
            Ok(world.gateway.status()?.since(&before).fast() >= 8)
        })?;
        for direction in Direction::BOTH {
            // 20,000 packets a second; less where the machine is too busy for that.
            let lossless = [32, 16, 8, 4, 2]
                .into_iter()
                .find_map(|megabits| load_meanwhile_changing(&world, lab, direction, megabits).transpose());
            lossless.with_context(|| format!("{direction:?}: queues overflow at every rate"))??;
        }
        Ok(())
    });
}
