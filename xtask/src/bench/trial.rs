//! `cargo xtask bench trial`: one gateway, some trials by hand. For whoever tunes the data path.

use anyhow::{Result, anyhow};
use bench::{
    load::{Direction, Driver, KeySeed, LATE_US, Load, Outcome, Sizes, Trial, Watched},
    report::reasons,
};
use tests::{Implementation, Io, Lab, Process, Straight};

use super::{candidate::worker_cpus, priority::Ahead, stand::cpu_count};
use crate::{
    command::{cargo, command, run as run_command, target_dir},
    demo::console::Console,
    table::Table,
};

/// Whatever else the machine does comes after the gateway.
const NICE: i32 = -20;

/// Options of the trials.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// Which way: decrypt, encrypt, hairpin or both.
    #[arg(value_parser = direction, default_value = "decrypt")]
    direction: Direction,

    /// Length of the inner IP packets in bytes, or `imix`, or `media`.
    #[arg(long, value_name = "BYTES", value_parser = sizes, default_value = "1228")]
    size: Sizes,

    /// Packets per second; as fast as possible without.
    #[arg(long, value_name = "PPS")]
    rate: Option<u64>,

    /// Clients, in turn.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    clients: u32,

    /// Seconds of each trial.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,

    /// How many trials.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,

    /// What to measure: wgx, wireguard-go, or forward (plain AF_XDP forwarding without WireGuard).
    #[arg(long, value_name = "NAME", default_value = "wgx")]
    gateway: Subject,

    /// Use this `wgx` instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<std::path::PathBuf>,

    /// Use what was built last, as it is.
    #[arg(long)]
    built: bool,

    /// Further options for `wgx run`, separated by blanks.
    #[arg(long, value_name = "OPTIONS", default_value = "--cores 0", allow_hyphen_values = true)]
    options: String,

    /// Queues of each interface, and so workers; their cores are among the options.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,

    /// What the load comes by, live-frames or af-xdp; live-frames with one worker, af-xdp with more.
    #[arg(long, value_name = "NAME", value_parser = driver_named)]
    driver: Option<Driver>,

    /// The generator's CPU.
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    core: u32,

    /// Tell who else held packets up, at the cost of an interrupt each millisecond.
    #[arg(long)]
    watch: bool,

    /// Print the outcomes as lines of JSON instead of a table.
    #[arg(long)]
    json: bool,

    /// Print the gateway's `status --json` at the end.
    #[arg(long)]
    status: bool,
}

/// What stands between clients and server.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    Wgx,
    WireguardGo,
    Forward,
}

fn direction(text: &str) -> Result<Direction, String> {
    match text {
        "decrypt" => Ok(Direction::Decrypt),
        "encrypt" => Ok(Direction::Encrypt),
        "hairpin" => Ok(Direction::Hairpin),
        "both" => Ok(Direction::Bidirectional),
        _ => Err("use decrypt, encrypt, hairpin or both".to_owned()),
    }
}

fn driver_named(text: &str) -> Result<Driver, String> {
    match text {
        "live-frames" => Ok(Driver::LiveFrames),
        "af-xdp" => Ok(Driver::AfXdp),
        _ => Err("use live-frames or af-xdp".to_owned()),
    }
}

fn sizes(text: &str) -> Result<Sizes, String> {
    match text {
        "imix" => Ok(Sizes::Imix),
        "media" => Ok(Sizes::Media),
        _ => text.parse().map(Sizes::Fixed).map_err(|_| "use a number of bytes, imix or media".to_owned()),
    }
}

/// Brings everything up, runs the trials and prints them.
pub fn run(args: &Args) -> Result<()> {
    let console = Console::start();
    let mut lab = Lab::new()?;
    measure(args, &mut lab, &console).map_err(|error| anyhow!("{error:#}\n{}", lab.tails()))
}

fn measure(args: &Args, lab: &mut Lab, console: &Console) -> Result<()> {
    if !args.built {
        if !args.json {
            console.say("build", "as released");
        }
        build(args.program.is_none())?;
    }
    let _ahead = Ahead::of_other_sessions();
    let straight = Straight::build(lab, args.workers)?;
    let seed = KeySeed::random()?;
    let implementation = match args.gateway {
        Subject::Wgx => Implementation::Wgx(Io::AfXdp),
        Subject::WireguardGo | Subject::Forward => Implementation::WireguardGo,
    };
    let mut gateway = straight.gateway(lab, implementation, &seed, args.clients)?;
    gateway.use_program(args.program.clone().unwrap_or_else(|| target_dir().join("release/wgx")));
    gateway.options = args.options.split_whitespace().map(str::to_owned).collect();
    gateway.nice = NICE;
    let mut forward = None;
    let tunnel = if args.gateway == Subject::Forward {
        forward = Some(straight.forward(lab, &target_dir().join("release/wgx-forward"), Some(0))?);
        None
    } else {
        gateway.start(lab)?;
        straight.route(&gateway)?;
        Some(straight.tunnel(&gateway.keys.public, &seed))
    };
    let driver = args.driver.unwrap_or(if args.workers == 1 { Driver::LiveFrames } else { Driver::AfXdp });
    let mut setup = straight.setup(driver, args.clients, tunnel)?;
    let process = forward.as_ref().or(gateway.process().ok().as_deref()).map(Process::pid);
    let mut cpus = worker_cpus(args.workers, cpu_count()?);
    cpus.push(args.core);
    setup.watched = Some(Watched { process, cpus });
    let mut generator = command(&target_dir().join("release/wgx-load").to_string_lossy());
    let mut load = Load::start(generator.args(["--core", &args.core.to_string()]), &setup)?;
    if !args.json {
        let ready = load.ready();
        console.say("ready", &format!("{} handshakes in {:.2} s", ready.handshakes, ready.handshake_seconds));
    }
    let trial = Trial {
        direction: args.direction,
        sizes: args.size.clone(),
        clients: args.clients,
        rate_pps: args.rate,
        seconds: args.seconds,
        is_watched: args.watch,
    };
    let mut outcomes = Vec::new();
    for _ in 0..args.repeat {
        let outcome = load.trial(&trial)?;
        if args.json {
            println!("{}", serde_json::to_string(&outcome)?);
        }
        outcomes.push(outcome);
    }
    if !args.json {
        print!("{}", table(&outcomes));
        if args.watch {
            print!("{}", held_up(&outcomes));
        }
    }
    if args.status {
        println!("{}", gateway.namespace.run(&format!("{} status --json", gateway.program()?.display()))?);
    }
    drop(forward);
    Ok(())
}

pub(super) fn build(with_gateway: bool) -> Result<()> {
    if with_gateway {
        run_command(cargo().args(["build", "--quiet", "--release", "--package", "gateway", "--bin", "wgx"]))?;
    }
    run_command(
        cargo().args(["build", "--quiet", "--release", "--package", "bench", "--features", "af-xdp"]).args([
            "--bin",
            "wgx-load",
            "--bin",
            "wgx-forward",
        ]),
    )
}

/// What others had to do with it.
fn held_up(outcomes: &[Outcome]) -> Table {
    let late = format!("later than {LATE_US} us, and because of whom");
    let mut table =
        Table::new("Packets that nobody else held up", &["held up", "p50 us", "p99 us", "p99.9 us", &late]);
    for held_up in outcomes.iter().filter_map(|outcome| outcome.held_up.as_ref()) {
        let undisturbed = |pick: fn(&bench::media::Latency) -> f64| {
            held_up.undisturbed.as_ref().map_or("-".to_owned(), |latency| format!("{:.1}", pick(latency)))
        };
        table.row([
            held_up.packets().to_string(),
            undisturbed(|latency| latency.p50_us),
            undisturbed(|latency| latency.p99_us),
            undisturbed(|latency| latency.p99_9_us),
            format!("{}: {}", held_up.late_by.values().sum::<u64>(), reasons(&held_up.late_by)),
        ]);
    }
    table
}

fn table(outcomes: &[Outcome]) -> Table {
    let columns = [
        "received/s",
        "intended",
        "sent",
        "received",
        "lost",
        "reordered",
        "twice",
        "corrupt",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "max us",
        "jitter us",
        "delay us",
        "void",
    ];
    let mut table = Table::new("Trials", &columns);
    for outcome in outcomes {
        let latency = |pick: fn(&bench::media::Latency) -> f64| {
            outcome.latency.as_ref().map_or("-".to_owned(), |latency| format!("{:.1}", pick(latency)))
        };
        table.row([
            format!("{:.0}", outcome.received_pps),
            outcome.intended.to_string(),
            outcome.sent.to_string(),
            outcome.received.to_string(),
            outcome.lost.to_string(),
            outcome.reordered.to_string(),
            outcome.duplicates.to_string(),
            outcome.corrupt.to_string(),
            latency(|latency| latency.p50_us),
            latency(|latency| latency.p99_us),
            latency(|latency| latency.p99_9_us),
            latency(|latency| latency.max_us),
            format!("{:.1}", outcome.jitter_us),
            format!("{:.1}", outcome.send_delay_p99_us),
            outcome.void().unwrap_or_default(),
        ]);
    }
    table
}
