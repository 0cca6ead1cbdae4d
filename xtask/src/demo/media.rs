//! RTP-shaped media and floods between clients and server, with what became of every packet.
//!
//! Senders and receivers are threads inside the namespaces, so both ends read one clock.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    sync::atomic::AtomicBool,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use bench::{
    media::{self, Flow, Profile, ReceiveOptions, Report, Schedule, SendOptions, SendReport},
    plot,
};
use tests::{
    Lab, Namespace, World,
    losses::Losses,
    site::{Family, SERVER_HOST, server_side},
};

use crate::command::target_dir;
use crate::table::Table;

/// Participants behind each client; as many speak back to each.
pub const PARTICIPANTS: u32 = 2;
/// Packets a second each way under load, over all clients.
pub const LOAD_PACKETS_PER_SECOND: u32 = 20_000;
/// Length in bytes of a packet inside the tunnel under load.
pub const LOAD_PACKET_LEN: usize = 1228;

/// The port media is received at.
const PORT: u16 = 5004;

/// Under load, receivers look at their sockets this often: the demo's cores are needed elsewhere.
const LOAD_COALESCE: Duration = Duration::from_micros(500);

/// What is sent over each leg.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Audio and video of [`PARTICIPANTS`].
    Conference,
    /// A constant rate: each leg's share of [`LOAD_PACKETS_PER_SECOND`].
    Flood,
}

/// One direction between one client and the server.
#[derive(Clone, Debug)]
pub struct Leg {
    name: String,
    from: Namespace,
    to: Namespace,
    address: IpAddr,
}

impl Leg {
    /// Both directions of both clients: the first over IPv4, the second over IPv6.
    pub fn of_world(world: &World) -> Vec<Self> {
        let server = &world.site.server;
        let legs = world.clients.iter().zip(Family::BOTH).flat_map(|(client, family)| {
            let up = Self {
                name: format!("client{} to server", client.number),
                from: client.namespace.clone(),
                to: server.clone(),
                address: server_side(SERVER_HOST).of(family),
            };
            let down = Self {
                name: format!("server to client{}", client.number),
                from: server.clone(),
                to: client.namespace.clone(),
                address: client.inner.of(family),
            };
            [up, down]
        });
        legs.collect()
    }

    fn schedule(&self, load: Load, duration: Duration, leg_count: usize) -> Result<Schedule> {
        Ok(match load {
            Load::Conference => Schedule::media(Profile::Conference, PARTICIPANTS, duration),
            Load::Flood => {
                let share = LOAD_PACKETS_PER_SECOND * 2 / leg_count as u32;
                Schedule::flood(share, media::udp_payload_len(LOAD_PACKET_LEN, self.address)?, duration)
            }
        })
    }

    /// Sends and receives; both sockets exist before the first packet.
    fn run(&self, schedule: Schedule, load: Load) -> Result<Outcome> {
        let never = AtomicBool::new(false);
        let to = SocketAddr::new(self.address, PORT);
        let options = ReceiveOptions {
            wait: Duration::from_secs(10),
            limit: schedule.duration() + Duration::from_secs(20),
            coalesce: if load == Load::Flood { LOAD_COALESCE } else { Duration::ZERO },
            ..ReceiveOptions::default()
        };
        let receiver = self.to.enter(|| media::bind(to))??;
        let sender = self.from.enter(|| media::connect(to, None))??;
        thread::scope(|scope| {
            // In the namespace once more: the count of drops at the socket is read from its /proc.
            let received = scope.spawn(|| self.to.enter(|| media::receive(&receiver, options, &never)));
            let sent = media::send(&sender, schedule, SendOptions::default(), &never)?;
            let received = received.join().map_err(|_| anyhow!("the receiver panicked"))???;
            Ok(Outcome { name: self.name.clone(), sent, received })
        })
    }
}

/// What both ends of a leg saw.
struct Outcome {
    name: String,
    sent: SendReport,
    received: Report,
}

impl Outcome {
    /// Packets the sender's kernel took and the receiver never saw, also when nothing at all arrived.
    fn lost(&self) -> u64 {
        self.sent.sent.saturating_sub(self.received.total().received)
    }
}

/// Runs `load` over all legs at once, prints the table, plots, and notes what failed.
pub fn run(
    lab: &Lab,
    world: &World,
    legs: &[Leg],
    load: Load,
    seconds: u32,
    failures: &mut Vec<String>,
) -> Result<()> {
    let duration = Duration::from_secs(seconds.into());
    let before = Losses::read(lab.namespaces())?;
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let running: Vec<_> = legs
            .iter()
            .map(|leg| {
                scope.spawn(move || {
                    leg.run(leg.schedule(load, duration, legs.len())?, load).context(leg.name.clone())
                })
            })
            .collect();
        running
            .into_iter()
            .map(|leg| leg.join().map_err(|_| anyhow!("a leg panicked"))?)
            .collect::<Result<_>>()
    })?;
    let losses = Losses::read(lab.namespaces())?.since(&before);
    print!("{}", table(&outcomes));
    judge(world, &outcomes, &losses, failures);
    draw(&outcomes)
}

/// Loss is a failure unless it is all accounted for where it is not the gateway's: at the clients and the server.
fn judge(world: &World, outcomes: &[Outcome], losses: &Losses, failures: &mut Vec<String>) {
    let lost: u64 = outcomes.iter().map(Outcome::lost).sum();
    let refused: u64 = outcomes.iter().map(|outcome| outcome.sent.failed + outcome.sent.unsent).sum();
    if refused > 0 {
        failures.push(format!("{refused} packets could not be sent on time: this machine is too busy"));
    }
    if outcomes.iter().any(|outcome| outcome.received.total().received == 0) {
        failures.push("some media never arrived".to_owned());
    }
    if lost > 0 {
        let ends = world.site.clients.iter().chain([&world.site.server]);
        let at_ends: u64 = ends.map(|namespace| losses.in_namespace(namespace)).sum();
        println!("\n  {lost} packets were lost. {losses}");
        if lost > at_ends {
            failures.push(format!(
                "{lost} packets were lost, only {at_ends} of them at the clients or the server"
            ));
        }
    }
}

fn table(outcomes: &[Outcome]) -> Table {
    let columns = [
        "media",
        "streams",
        "packets",
        "Mb/s",
        "lost",
        "reordered",
        "jitter us",
        "p50 us",
        "p99 us",
        "p99.9 us",
    ];
    let mut table = Table::new("Media: loss, RFC 3550 jitter and one-way latency", &columns);
    for outcome in outcomes {
        for flow in &outcome.received.flows {
            table.row(cells(outcome, flow));
        }
    }
    table
}

fn cells(outcome: &Outcome, flow: &Flow) -> Vec<String> {
    let seconds = outcome.received.duration_seconds.max(f64::MIN_POSITIVE);
    let latency = |pick: fn(&media::Latency) -> f64| {
        flow.latency.as_ref().map_or_else(|| "-".to_owned(), |latency| format!("{:.0}", pick(latency)))
    };
    vec![
        format!("{}, {}", outcome.name, flow.kind.name()),
        flow.stream_count.to_string(),
        flow.packets.received.to_string(),
        format!("{:.2}", flow.packets.bytes as f64 * 8e-6 / seconds),
        flow.packets.lost.to_string(),
        flow.packets.reordered.to_string(),
        format!("{:.0}", flow.jitter_us),
        latency(|latency| latency.p50_us),
        latency(|latency| latency.p99_us),
        latency(|latency| latency.p99_9_us),
    ]
}

/// The latency plot, in the folder of what cargo makes.
fn draw(outcomes: &[Outcome]) -> Result<()> {
    let series: Vec<_> = outcomes
        .iter()
        .flat_map(|outcome| plot::latency_series(&outcome.name, &outcome.received.flows))
        .collect();
    if series.is_empty() {
        return Ok(());
    }
    let folder = target_dir().join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let file = folder.join("latency.svg");
    plot::latency_svg(&series, &file)?;
    println!("\n  Latency plot: {}", file.display());
    Ok(())
}
