//! Sends and receives RTP-shaped media and reports what the network did to it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench::media::{self, Profile, ReceiveOptions, Report, Schedule, SendOptions};
use bench::plot;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

/// RTP-shaped media over UDP, and what became of it. Both ends must run on one host: they compare its clock.
#[derive(Parser)]
#[command(name = "wgx-media")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take in media, as an SFU would, and report when it ends.
    Receive(Receive),
    /// Send the media of some participants.
    Send(Send),
    /// Send packets of one size at a constant rate.
    Flood(Flood),
    /// Draw the latencies of JSON reports as SVG.
    Plot(Plot),
}

#[derive(Args)]
struct Receive {
    /// Where to receive.
    #[arg(long, value_name = "ADDR:PORT")]
    bind: SocketAddr,
    /// Wait this many seconds for the first packet.
    #[arg(long, default_value = "30", value_parser = seconds)]
    wait: Duration,
    /// End after this many seconds of silence.
    #[arg(long, default_value = "5", value_parser = seconds)]
    idle: Duration,
    /// End after this many seconds in any case.
    #[arg(long, default_value = "3600", value_parser = seconds)]
    limit: Duration,
    /// Send every packet back, so that the sender can measure the round trip.
    #[arg(long)]
    reflect: bool,
    /// Look for packets only every so many microseconds: less processor time, but up to as much more latency.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    coalesce: u64,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Send {
    /// Where to send.
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// Where to send from, instead of what the kernel picks.
    #[arg(long, value_name = "ADDR:PORT")]
    bind: Option<SocketAddr>,
    /// What each participant sends.
    #[arg(long, value_enum, default_value = "conference")]
    profile: Profile,
    /// How long to send.
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// How many participants send.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    participants: u32,
    /// Measure the round trip: the receiver must run with --reflect.
    #[arg(long)]
    round_trip: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Flood {
    /// Where to send.
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// Where to send from, instead of what the kernel picks.
    #[arg(long, value_name = "ADDR:PORT")]
    bind: Option<SocketAddr>,
    /// Packets per second.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pps: u32,
    /// Length of each IP packet in bytes, headers included.
    #[arg(long, value_name = "BYTES", default_value_t = 1228)]
    size: usize,
    /// How long to send.
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Plot {
    /// Reports as `receive --json` prints them, each NAME=FILE or FILE.
    #[arg(required = true, value_name = "NAME=FILE")]
    reports: Vec<String>,
    /// Where to write the plot.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct Output {
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Also write the distribution of latencies as CSV (for a sender: of round trips).
    #[arg(long, value_name = "FILE")]
    latency_out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot handle signals")?;
    }
    match Cli::parse().command {
        Command::Receive(arguments) => receive(&arguments, &stop),
        Command::Send(arguments) => send(&arguments, &stop),
        Command::Flood(arguments) => flood(&arguments, &stop),
        Command::Plot(arguments) => draw(&arguments),
    }
}

fn receive(arguments: &Receive, stop: &AtomicBool) -> Result<()> {
    let socket = media::bind(arguments.bind)?;
    let options = ReceiveOptions {
        wait: arguments.wait,
        idle: arguments.idle,
        limit: arguments.limit,
        reflect: arguments.reflect,
        coalesce: Duration::from_micros(arguments.coalesce),
    };
    let report = media::receive(&socket, options, stop)
        .with_context(|| format!("cannot receive at {}", arguments.bind))?;
    arguments.output.write(&report, Some(&report))
}

fn send(arguments: &Send, stop: &AtomicBool) -> Result<()> {
    let socket = media::connect(arguments.to, arguments.bind)?;
    let schedule = Schedule::media(arguments.profile, arguments.participants, arguments.seconds);
    let report = media::send(&socket, schedule, SendOptions { round_trip: arguments.round_trip }, stop)?;
    arguments.output.write(&report, report.round_trip.as_ref())
}

fn flood(arguments: &Flood, stop: &AtomicBool) -> Result<()> {
    let payload_len = media::udp_payload_len(arguments.size, arguments.to.ip())?;
    let socket = media::connect(arguments.to, arguments.bind)?;
    let schedule = Schedule::flood(arguments.pps, payload_len, arguments.seconds);
    let report = media::send(&socket, schedule, SendOptions::default(), stop)?;
    arguments.output.write(&report, report.round_trip.as_ref())
}

fn draw(arguments: &Plot) -> Result<()> {
    let mut series = Vec::new();
    for argument in &arguments.reports {
        let (name, path) = argument.split_once('=').unwrap_or((argument, argument));
        let json = std::fs::read_to_string(path).with_context(|| format!("cannot read the report {path}"))?;
        let report: Report = serde_json::from_str(&json)
            .with_context(|| format!("{path} is not a report of `wgx-media receive --json`"))?;
        series.extend(plot::latency_series(name, &report.flows));
    }
    plot::latency_svg(&series, &arguments.out)
}

impl Output {
    fn write<R: Serialize + std::fmt::Display>(&self, report: &R, latencies: Option<&Report>) -> Result<()> {
        if let (Some(path), Some(latencies)) = (&self.latency_out, latencies) {
            write_csv(latencies, path)?;
        }
        let mut stdout = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut stdout, report)?;
            writeln!(stdout)?;
        } else {
            write!(stdout, "{report}")?;
        }
        stdout.flush().context("cannot print the report")
    }
}

fn write_csv(report: &Report, path: &Path) -> Result<()> {
    std::fs::write(path, report.percentiles_csv()).with_context(|| format!("cannot write {}", path.display()))
}

/// Seconds, possibly with a fraction, up to a day.
fn seconds(argument: &str) -> Result<Duration, String> {
    match argument.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds between 0.001 and 86400".to_owned()),
    }
}
