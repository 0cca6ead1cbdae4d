//! How many handshakes a core does, and media through the gateway, quiet and in storms of initiations from a stranger.
//!
//! Quiet and storm alternate in one run, so that what else the machine does hits all alike. The stranger sits on the
//! clients' switch; packets of media go from a client through the tunnel to the server, and their latency counts
//! from the time they should have been sent.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use bench::{
    media::{self, Latency, ReceiveOptions, Schedule, SendOptions},
    report::Spread,
    storm::{self, Storm, StormReport},
};
use tests::{
    Implementation, Io, Lab, Namespace, World,
    lab::LinkEnd,
    site::{Family, SERVER_HOST, outer, server_side},
};

use super::{
    candidate::Candidate,
    stand::{Handshakes, Size, Stand},
    trial,
};
use crate::{
    demo::{self, console::Console},
    table::Table,
};

/// Where the stranger is on the clients' switch.
const STRANGER_HOST: u8 = 99;
/// Clients that open a session at once.
const CLIENTS: u32 = 5_000;
/// The port media is received at.
const PORT: u16 = 5004;

/// Options of the benchmark.
#[derive(clap::Args)]
pub struct Args {
    /// Initiations per second in a storm.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rate: u32,

    /// Media packets per second.
    #[arg(long, value_name = "COUNT", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pps: u32,

    /// Length of a media packet inside the tunnel, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 228)]
    size: usize,

    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,

    /// How often all conditions are measured in turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Measure wireguard-go as the gateway instead.
    #[arg(long)]
    reference: bool,
}

/// A condition with all its measurements.
struct Condition {
    name: &'static str,
    storm: Option<Storm>,
    runs: Vec<Run>,
}

struct Run {
    latency: Latency,
    lost: u64,
    storm: StormReport,
}

/// Measures and prints the table.
pub fn run(args: &Args) -> Result<()> {
    let console = Console::start();
    let mut lab = Lab::new()?;
    let implementation =
        if args.reference { Implementation::WireguardGo } else { Implementation::Wgx(Io::AfXdp) };
    let setting = demo::Setting { implementation, client: Implementation::Wgx(Io::Udp), queue_count: 1 };
    let world = demo::bring_up(&mut lab, setting, &console)?;
    let stranger = add_stranger(&mut lab, &world)?;
    let mut conditions = [
        Condition { name: "quiet", storm: None, runs: Vec::new() },
        Condition { name: "garbage", storm: Some(Storm::Garbage), runs: Vec::new() },
        Condition { name: "valid mac1", storm: Some(Storm::ValidMac1), runs: Vec::new() },
    ];
    for round in 1..=args.rounds {
        console.say("round", &format!("{round} of {}", args.rounds));
        for condition in &mut conditions {
            let run = measure(args, &world, &stranger, condition.storm)
                .with_context(|| format!("the measurement `{}` failed", condition.name))
                .map_err(|error| anyhow!("{error:#}\n{}", lab.tails()))?;
            condition.runs.push(run);
        }
    }
    print!("{}", table(args, &conditions));
    if let Ok(status) = world.gateway.status() {
        println!("\n  The gateway's handshake counters: {}", status.handshakes()?);
    }
    drop((world, stranger, lab));
    if !args.reference {
        print!("{}", capacity(args, &console)?);
    }
    Ok(())
}

/// Clients that open a session each, all at once, as after a gateway was started anew: what that costs the gateway.
///
/// A core's rate is by the time its threads run, since the clients, on a core of their own, take as long for their side.
fn capacity(args: &Args, console: &Console) -> Result<Table> {
    console.say("build", "as released");
    trial::build(true)?;
    let mut shown = Vec::new();
    for round in 1..=args.rounds {
        console.say("sessions", &format!("{CLIENTS} clients, {round} of {}", args.rounds));
        let stand = Stand::build(Candidate::Wgx(Io::AfXdp), Size::clients(CLIENTS))?;
        shown.push(stand.handshakes);
    }
    let of = |pick: fn(&Handshakes) -> f64| {
        Spread::of(shown.iter().map(pick)).map_or("-".to_owned(), |spread| format!("{spread:.0}"))
    };
    let title = format!("Handshakes of {CLIENTS} clients at once; median of {} rounds", args.rounds);
    let mut table =
        Table::new(&title, &["handshakes/s, clients on one core", "us of a core", "handshakes/s per core"]);
    table.row([
        of(|all| f64::from(all.count) / all.seconds),
        of(|all| 1e6 * all.cpu_seconds / f64::from(all.count)),
        of(|all| f64::from(all.count) / all.cpu_seconds),
    ]);
    Ok(table)
}

fn add_stranger(lab: &mut Lab, world: &World) -> Result<Namespace> {
    let stranger = lab.namespace("stranger")?;
    let wan = &world.site.wan;
    let end = LinkEnd { namespace: &stranger, interface: "eth0" };
    lab.link(end, LinkEnd { namespace: wan, interface: "to-stranger" }, 1)?;
    wan.ip("link set to-stranger master br0")?;
    stranger.add_address("eth0", outer(STRANGER_HOST).of(Family::V4), 24)?;
    Ok(stranger)
}

fn measure(args: &Args, world: &World, stranger: &Namespace, storm: Option<Storm>) -> Result<Run> {
    let client = &world.clients[0].namespace;
    let to = SocketAddr::new(server_side(SERVER_HOST).of(Family::V4), PORT);
    let payload_len = media::udp_payload_len(args.size, to.ip())?;
    let schedule = Schedule::flood(args.pps, payload_len, Duration::from_secs(args.seconds.into()));
    let receiver = world.site.server.enter(|| media::bind(to))??;
    let sender = client.enter(|| media::connect(to, None))??;
    let gateway = world.gateway.endpoint(Family::V4);
    let attacker = stranger.enter(|| media::connect(gateway, None))??;
    let public_key = storm::parse_public_key(world.gateway.show("public-key")?.trim())?;
    let (never, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let options =
        ReceiveOptions { limit: schedule.duration() + Duration::from_secs(20), ..ReceiveOptions::default() };
    let (attacker, public_key, over_now) = (&attacker, &public_key, &over);
    let (received, storm) = thread::scope(|scope| -> Result<_> {
        let storm = storm
            .map(|storm| scope.spawn(move || storm::send(attacker, storm, public_key, args.rate, over_now)));
        let received = scope.spawn(|| world.site.server.enter(|| media::receive(&receiver, options, &never)));
        let sent = media::send(&sender, schedule, SendOptions::default(), &never);
        over.store(true, Ordering::Relaxed);
        let received = received.join().map_err(|_| anyhow!("the receiver panicked"))???;
        let storm =
            storm.map(|storm| storm.join().map_err(|_| anyhow!("the storm panicked"))?).transpose()?;
        sent?;
        Ok((received, storm.unwrap_or_default()))
    })?;
    let lost = received.total().lost;
    let flow = received.flows.into_iter().next().context("no media arrived")?;
    Ok(Run { latency: flow.latency.context("no latency was measured")?, lost, storm })
}

fn table(args: &Args, conditions: &[Condition]) -> Table {
    let title = format!(
        "Media latency in us, {} packets/s of {} bytes; storms of {} initiations/s; median of {} rounds (least..greatest)",
        args.pps, args.size, args.rate, args.rounds
    );
    let columns = ["condition", "p50", "p99", "p99.9", "max", "lost", "initiations/s", "cookies/s"];
    let mut table = Table::new(&title, &columns);
    for condition in conditions {
        let runs = &condition.runs;
        let seconds = u64::from(args.seconds) * runs.len() as u64;
        let per_second = |count: fn(&StormReport) -> u64| {
            (runs.iter().map(|run| count(&run.storm)).sum::<u64>() / seconds.max(1)).to_string()
        };
        table.row([
            condition.name.to_owned(),
            spread(runs, |latency| latency.p50_us),
            spread(runs, |latency| latency.p99_us),
            spread(runs, |latency| latency.p99_9_us),
            spread(runs, |latency| latency.max_us),
            runs.iter().map(|run| run.lost).sum::<u64>().to_string(),
            per_second(|storm| storm.sent),
            per_second(|storm| storm.answers),
        ]);
    }
    table
}

/// `median (least..greatest)`.
fn spread(runs: &[Run], pick: fn(&Latency) -> f64) -> String {
    let mut values: Vec<f64> = runs.iter().map(|run| pick(&run.latency)).collect();
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(least), Some(median), Some(greatest)) => format!("{median:.0} ({least:.0}..{greatest:.0})"),
        _ => "-".to_owned(),
    }
}
