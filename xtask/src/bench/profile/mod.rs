//! `cargo xtask bench profile`: where the time of a packet goes, by samples of the stacks on the gateway's processor,
//! and at a steady load, who kept gateway and generator from running.
//!
//! A nanosecond of a packet is a sample's period times the samples of a part, by the packets that arrived.

mod recorder;
mod stacks;

use std::{collections::BTreeMap, fs};

use ::tests::Io;
use anyhow::{Context as _, Result, bail};
use bench::{
    load::{Direction, Outcome, Sizes, Trial},
    search::Tester as _,
};

use self::{
    recorder::Recorder,
    stacks::{Part, Samples},
};
use super::{
    candidate::{Candidate, GATEWAY_CPU, LOAD_CPU},
    priority::Ahead,
    stand::{Size, Stand},
    trial,
};
use crate::{demo::console::Console, setup, table::Table};

/// Loads whose packets are taken apart.
const FLOODS: [(Direction, u16); 3] =
    [(Direction::Decrypt, 1228), (Direction::Encrypt, 1228), (Direction::Decrypt, 200)];
/// The load at which the goals ask for the tail.
const STEADY: (u16, u64) = (1228, 50_000);
/// Clients of a stand; trials use the first.
const CLIENTS: u32 = 2;
/// Functions that are shown.
const FUNCTIONS: usize = 16;

/// Options.
#[derive(clap::Args)]
pub struct Args {
    /// Shorter floods.
    #[arg(long)]
    quick: bool,

    /// Only these.
    #[arg(
        long,
        value_name = "NAME[,NAME...]",
        value_delimiter = ',',
        value_parser = Candidate::named,
        default_values = ["wgx", "boringtun", "af-xdp-forward"]
    )]
    only: Vec<Candidate>,
}

/// What one candidate did in one flood.
struct Profile {
    name: String,
    received: u64,
    samples: Samples,
}

/// How one candidate fared at the steady load.
struct Steadiness {
    name: String,
    outcomes: Vec<Outcome>,
    /// Milliseconds per second that its threads, and the generator's, could have run and did not.
    waited: [f64; 2],
    /// Milliseconds per second of others on the two processors, by the name of the thread.
    others: BTreeMap<String, f64>,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    setup::install_profiler()?;
    let console = Console::start();
    console.say("build", "as released");
    trial::build(true)?;
    let _ahead = Ahead::of_other_sessions();
    let mut stands = Vec::new();
    for candidate in &args.only {
        if let Some(why) = candidate.obstacle() {
            bail!("{} cannot be profiled: {why}", candidate.contender().name);
        }
        stands.push(Stand::build(*candidate, Size::clients(CLIENTS))?);
    }
    let rounds = if args.quick { 2 } else { 5 };
    for (direction, size) in FLOODS {
        let trial = Trial { direction, sizes: Sizes::Fixed(size), clients: 1, rate_pps: None, seconds: 1.0 };
        let mut profiles = Vec::new();
        for stand in &mut stands {
            console.say("flood", &format!("{}: {direction:?} {size} bytes", stand.contender.name));
            profiles.push(flood(stand, &trial, rounds)?);
        }
        print!("{}", costs(&format!("{direction:?}, {size} bytes, flood: ns per packet"), &profiles));
        if let Some(own) = profiles.iter().find(|profile| profile.name == own_name()) {
            print!("{}", functions(own));
        }
    }
    let (size, rate_pps) = STEADY;
    let mut steadiness = Vec::new();
    for stand in &mut stands {
        console.say("steady", &stand.contender.name);
        steadiness.push(steady(stand, size, rate_pps, rounds)?);
    }
    print!("{}", waits(&steadiness, size, rate_pps));
    super::stand::take_down(stands);
    Ok(())
}

fn own_name() -> String {
    Candidate::Wgx(Io::AfXdp).contender().name
}

/// Floods a candidate and samples what runs on its processor.
fn flood(stand: &mut Stand, trial: &Trial, rounds: u32) -> Result<Profile> {
    let recorder = Recorder::start(&[GATEWAY_CPU])?;
    let mut received = 0;
    for _ in 0..rounds {
        received += stand.trial(trial)?.received;
    }
    let own = stand.pid();
    let samples = recorder.finish(|pid| Some(pid) == own)?;
    Ok(Profile { name: stand.contender.name.clone(), received, samples })
}

impl Profile {
    /// Nanoseconds of a packet.
    fn ns(&self, samples: u64) -> f64 {
        samples as f64 * Recorder::PERIOD_NS / self.received.max(1) as f64
    }
}

/// One column a candidate, one row a part.
fn costs(title: &str, profiles: &[Profile]) -> Table {
    let mut columns = vec!["part"];
    columns.extend(profiles.iter().map(|profile| profile.name.as_str()));
    let mut table = Table::new(title, &columns);
    let mut row = |title: &str, ns: &dyn Fn(&Profile) -> f64| {
        let cells = profiles.iter().map(|profile| format!("{:.0}", ns(profile)));
        table.row([title.to_owned()].into_iter().chain(cells));
    };
    for part in Part::OF_A_PACKET {
        row(part.title(), &|profile| profile.ns(profile.samples.of(part)));
    }
    row("all", &|profile| Part::OF_A_PACKET.iter().map(|part| profile.ns(profile.samples.of(*part))).sum());
    table
}

/// What costs most.
fn functions(own: &Profile) -> Table {
    let title = format!("Where {} spends it", own.name);
    let mut table = Table::new(&title, &["function", "part", "ns per packet"]);
    for (part, function, samples) in own.samples.functions().into_iter().take(FUNCTIONS) {
        table.row([function, part.title().to_owned(), format!("{:.0}", own.ns(samples))]);
    }
    table
}

/// Offers the steady load and samples both processors.
fn steady(stand: &mut Stand, size: u16, rate_pps: u64, rounds: u32) -> Result<Steadiness> {
    let trial = Trial {
        direction: Direction::Decrypt,
        sizes: Sizes::Fixed(size),
        clients: 1,
        rate_pps: Some(rate_pps),
        seconds: 1.0,
    };
    let pids = [stand.pid(), Some(stand.load_pid())];
    let recorder = Recorder::start(&[GATEWAY_CPU, LOAD_CPU])?;
    let before = pids.map(|pid| pid.map_or(Ok(0), run_delay_ns));
    let mut outcomes = Vec::new();
    for _ in 0..rounds {
        outcomes.push(stand.trial(&trial)?);
    }
    let after = pids.map(|pid| pid.map_or(Ok(0), run_delay_ns));
    let samples = recorder.finish(|pid| pids.contains(&Some(pid)))?;
    let seconds = f64::from(rounds) * trial.seconds;
    let mut waited = [0.0; 2];
    for ((waited, before), after) in waited.iter_mut().zip(before).zip(after) {
        *waited = (after? - before?) as f64 / 1e6 / seconds;
    }
    let milliseconds = |samples: u64| samples as f64 * Recorder::PERIOD_NS / 1e6 / seconds;
    let others = samples.others().into_iter().map(|(name, samples)| (name, milliseconds(samples))).collect();
    Ok(Steadiness { name: stand.contender.name.clone(), outcomes, waited, others })
}

/// The tail, and what made it.
fn waits(steadiness: &[Steadiness], size: u16, rate_pps: u64) -> Table {
    let title = format!(
        "{rate_pps} packets/s of {size} bytes: latency in us, and how many ms of each second others had the processors"
    );
    let columns =
        ["", "p50", "p99", "p99.9", "gateway waited ms", "generator waited ms", "others in ms (the busiest)"];
    let mut table = Table::new(&title, &columns);
    for one in steadiness {
        let median = |pick: fn(&bench::media::Latency) -> f64| {
            let latency = one.outcomes.iter().filter_map(|outcome| outcome.latency.as_ref().map(pick));
            bench::report::Spread::of(latency)
                .map_or("-".to_owned(), |spread| format!("{:.0}", spread.median))
        };
        let mut others: Vec<_> = one.others.iter().collect();
        others.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let others: Vec<_> = others.iter().take(4).map(|(name, ms)| format!("{name} {ms:.1}")).collect();
        table.row([
            one.name.clone(),
            median(|latency| latency.p50_us),
            median(|latency| latency.p99_us),
            median(|latency| latency.p99_9_us),
            format!("{:.1}", one.waited[0]),
            format!("{:.1}", one.waited[1]),
            others.join(", "),
        ]);
    }
    table
}

/// Nanoseconds that a process's threads were ready to run and did not: the second figure of `schedstat`
/// (Documentation/scheduler/sched-stats.rst).
fn run_delay_ns(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&folder).with_context(|| format!("{folder} cannot be read"))? {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        sum += run_delay(&text).with_context(|| format!("schedstat of {pid} says `{}`", text.trim()))?;
    }
    Ok(sum)
}

fn run_delay(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_the_second_figure_of_schedstat() {
        assert_eq!(run_delay("12 345 6\n"), Some(345));
        assert_eq!(run_delay("12"), None);
        assert!(run_delay_ns(std::process::id()).is_ok());
    }

    #[test]
    fn costs_are_samples_by_packets_received() {
        let script = "wgx-queue-0 7\n\tffffffff81000000 veth_poll\n\nwgx-queue-0 7\n\t401000 main\n\n";
        let samples = Samples::read(script, |pid| pid == 7);
        let profile = Profile { name: "wgx".into(), received: 1000, samples };
        let text = costs("Costs", &[profile]).to_string();
        let each = format!("{:.0}", Recorder::PERIOD_NS / 1000.0);
        let row = |title: &str| text.lines().find(|line| line.trim_start().starts_with(title)).unwrap();
        assert!(row(Part::Receiver.title()).ends_with(&each), "{text}");
        assert!(row(Part::Program.title()).ends_with(&each), "{text}");
        assert!(row("all").ends_with(&format!("{:.0}", Recorder::PERIOD_NS / 500.0)), "{text}");
    }
}
