//! What the demo does once everything is up: the tour, or the load.

use anyhow::{Context, Result, bail};
use tests::{
    Implementation, Lab, Status, World,
    iperf::{self, Direction},
    ping,
    site::{Family, SERVER_HOST, server_side},
};

use super::{
    console::Console,
    media::{self, Leg},
    ways,
};

/// Pings per client and family.
const PING_COUNT: u32 = 50;
/// How long each iperf3 stream runs.
const IPERF_SECONDS: u32 = 2;
/// iperf3's UDP: 20 Mb/s in datagrams of 1200 bytes.
const UDP_MEGABITS: u32 = 20;
const UDP_PAYLOAD_LEN: u32 = 1200;

/// Ping, iperf3 and media, then the tables.
pub fn tour(lab: &Lab, world: &World, seconds: u32, console: &Console) -> Result<()> {
    let before = status(world)?;
    let mut failures = Vec::new();
    pings(world, console, &mut failures)?;
    bulk(lab, world, console, &mut failures)?;
    console
        .say("media", &format!("{seconds} s of conferences, {} participants a client", media::PARTICIPANTS));
    let legs = Leg::of_world(world);
    media::run(lab, world, &legs, media::Load::Conference, seconds, &mut failures)?;
    finish(world, before, failures)
}

/// The rate the gateway has to carry without loss, for `seconds`.
pub fn load(lab: &Lab, world: &World, seconds: u32, console: &Console) -> Result<()> {
    let before = status(world)?;
    let mut failures = Vec::new();
    let legs = Leg::of_world(world);
    let packets_per_second = media::LOAD_PACKETS_PER_SECOND;
    let text =
        format!("{seconds} s of {packets_per_second} packets/s of {} bytes each way", media::LOAD_PACKET_LEN);
    console.say("load", &text);
    media::run(lab, world, &legs, media::Load::Flood, seconds, &mut failures)?;
    finish(world, before, failures)
}

/// The table of ways, and the verdict over everything.
fn finish(world: &World, before: Option<Status>, mut failures: Vec<String>) -> Result<()> {
    if let (Some(before), Some(after)) = (before, status(world)?)
        && let Err(error) = ways::report(&before, &after)
    {
        failures.push(error.to_string());
    }
    println!();
    if !failures.is_empty() {
        bail!("the demo failed: {}", failures.join("; "));
    }
    Ok(())
}

/// What our program says of itself; the reference says nothing.
fn status(world: &World) -> Result<Option<Status>> {
    match world.gateway.implementation() {
        Implementation::Wgx(_) => world.gateway.status().map(Some).context("no status of the gateway"),
        Implementation::WireguardGo => Ok(None),
    }
}

fn pings(world: &World, console: &Console, failures: &mut Vec<String>) -> Result<()> {
    for client in &world.clients {
        for family in Family::BOTH {
            let to = server_side(SERVER_HOST).of(family);
            let pings = ping::run(&client.namespace, to, PING_COUNT, 10, 56)?;
            let mean_ms = pings.round_trips_ms.iter().sum::<f64>() / f64::from(pings.received.max(1));
            let text = format!(
                "client{} to server {to}: {} of {} answered, {mean_ms:.2} ms on average",
                client.number, pings.received, pings.sent
            );
            console.say("ping", &text);
            if pings.lost() > 0 {
                failures.push(format!("{} pings to {to} were lost", pings.lost()));
            }
        }
    }
    Ok(())
}

/// iperf3: the first client over IPv4, the second over IPv6, each way.
fn bulk(lab: &Lab, world: &World, console: &Console, failures: &mut Vec<String>) -> Result<()> {
    let _server = world.site.start_iperf(lab)?;
    for (client, family) in world.clients.iter().zip(Family::BOTH) {
        let to = server_side(SERVER_HOST).of(family);
        for direction in Direction::BOTH {
            let way = match direction {
                Direction::Forward => format!("client{} to server, IP{family:?}", client.number),
                Direction::Reverse => format!("server to client{}, IP{family:?}", client.number),
            }
            .replace("IPV", "IPv");
            let tcp = iperf::tcp(&client.namespace, to, direction, IPERF_SECONDS)?;
            let udp = iperf::udp(&client.namespace, to, direction, 1, UDP_MEGABITS, UDP_PAYLOAD_LEN)?;
            let text = format!(
                "{way}: TCP {:.0} Mb/s; UDP {} of {} lost, jitter {:.3} ms",
                tcp.bits_per_second / 1e6,
                udp.lost,
                udp.packets,
                udp.jitter_ms
            );
            console.say("iperf3", &text);
            if tcp.bits_per_second < 1e6 || udp.packets == 0 {
                failures.push(format!("iperf3 carried next to nothing, {way}"));
            }
        }
    }
    Ok(())
}
