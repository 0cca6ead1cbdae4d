//! What all benchmarks with load share: options, stands, rounds, and where the results go.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use bench::{
    load::{Driver, Outcome, Trial},
    report::{Case, Kind, Machine, Report, StealClock, ceilings_note, grids},
    search::Tester as _,
};

use super::{
    candidate::{Candidate, versions},
    priority::Ahead,
    stand::{Size, Stand},
    trial,
};
use crate::{command::target_dir, demo::console::Console, table::Table};

/// Clients of a stand unless their number is what is measured. Hairpin takes two; trials use the first of them.
const CLIENTS: u32 = 2;
/// How packets reach a gateway in these measurements.
const PATH: &str =
    "veth pairs, AF_XDP with native XDP in copy mode, gateway on CPU 0, load generator on CPU 1";

/// Options all of them have.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Only what the goals take, in shorter trials: a few minutes.
    #[arg(long)]
    pub quick: bool,

    /// How often everything is measured in turn [default: 5, or 3 with --quick].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// Only these.
    #[arg(long, value_name = "NAME[,NAME...]", value_delimiter = ',', value_parser = Candidate::named)]
    only: Vec<Candidate>,
}

/// One run of a benchmark.
pub struct Session {
    /// Progress.
    pub console: Console,
    /// What was found so far.
    pub report: Report,
    /// Whether it is the short form.
    pub quick: bool,
    name: &'static str,
    only: Vec<Candidate>,
    start: Instant,
    /// Of the quick form; the long one takes as long as it takes.
    budget: Option<Duration>,
    steal: StealClock,
    _ahead: Ahead,
}

impl Session {
    /// Builds the programs; `budget` bounds the quick form, and what does not fit into it is left out and said.
    pub fn start(name: &'static str, args: &Args, budget: Duration) -> Result<Self> {
        ensure!(
            std::thread::available_parallelism()?.get() >= 2,
            "load is measured with the gateway on one processor and the generator on another: there is only one"
        );
        let console = Console::start();
        console.say("build", "as released");
        trial::build(true)?;
        let only = if args.only.is_empty() { Candidate::ALL.to_vec() } else { args.only.clone() };
        let machine = Machine::read(PATH, versions(&only));
        let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 5 });
        Ok(Self {
            report: Report::new(machine, &typed(), args.quick, rounds),
            quick: args.quick,
            name,
            only,
            start: Instant::now(),
            budget: args.quick.then_some(budget),
            steal: StealClock::start(),
            _ahead: Ahead::of_other_sessions(),
            console,
        })
    }

    /// Seconds of sending in a trial of throughput.
    pub fn trial_seconds(&self) -> f64 {
        if self.quick { 0.3 } else { 1.0 }
    }

    /// Whether the time of the quick form is used up by this share, 0 to 1.
    pub fn has_spent(&self, share: f64) -> bool {
        is_spent(self.budget, share, self.start.elapsed())
    }

    /// Remembers and shows what went wrong, or was left out.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.console.say("note", &text);
        self.report.notes.push(text);
    }

    /// Brings up all candidates that were asked for, with load by `driver`; one that does not come up is noted and left
    /// out.
    pub fn stands(&mut self, driver: Driver) -> Result<Vec<Stand>> {
        let mut stands = Vec::new();
        for candidate in self.only.clone() {
            if let Some(stand) = self.stand(candidate, Size { driver, ..Size::clients(CLIENTS) })? {
                stands.push(stand);
            }
        }
        ensure!(!stands.is_empty(), "nothing came up to be measured: {}", self.report.notes.join("; "));
        Ok(stands)
    }

    /// Brings up one candidate. Only one of ours that does not come up is an error.
    pub fn stand(&mut self, candidate: Candidate, size: Size) -> Result<Option<Stand>> {
        let contender = candidate.contender();
        if let Some(why) = candidate.obstacle() {
            self.note(format!("{} is left out: {why}", contender.name));
            return Ok(None);
        }
        match Stand::build(candidate, size) {
            Ok(stand) => {
                let text = format!("{}, {} clients, {} peers", contender.name, size.clients, size.peers);
                self.console.say("up", &text);
                Ok(Some(stand))
            }
            Err(error) if contender.kind == Kind::Ours => Err(error),
            Err(error) => {
                self.note(format!("{} is left out: {error:#}", contender.name));
                Ok(None)
            }
        }
    }

    /// Whether a candidate was asked for.
    pub fn includes(&self, candidate: Candidate) -> bool {
        self.only.contains(&candidate)
    }

    /// Runs a trial; one that fails for another than ours is noted.
    pub fn trial(&mut self, stand: &mut Stand, trial: &Trial) -> Result<Option<Outcome>> {
        match stand.trial(trial) {
            Ok(outcome) => Ok(Some(outcome)),
            Err(error) if stand.contender.kind == Kind::Ours => Err(error),
            Err(error) => {
                self.note(format!("{error:#}"));
                Ok(None)
            }
        }
    }

    /// Prints the tables and writes `NAME.json`.
    pub fn finish(mut self) -> Result<()> {
        self.report.seconds = self.start.elapsed().as_secs_f64();
        self.report.steal_percent = self.steal.percent();
        print(&self.report);
        let path = json_path(self.name);
        let folder = path.parent().context("the file is in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        fs::write(&path, serde_json::to_string_pretty(&self.report)?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        println!(
            "\n  {:.0} s, {:.1} % of the processors stolen; {}",
            self.report.seconds,
            self.report.steal_percent,
            path.display()
        );
        Ok(())
    }
}

/// Whether more than a share of a budget, where there is one, has gone by.
fn is_spent(budget: Option<Duration>, share: f64, elapsed: Duration) -> bool {
    budget.is_some_and(|budget| elapsed > budget.mul_f64(share))
}

/// Prints all tables of a report and what has to be known of them.
pub fn print(report: &Report) {
    for grid in grids(report) {
        let columns: Vec<&str> = grid.columns.iter().map(String::as_str).collect();
        let mut table = Table::new(&grid.title, &columns);
        for row in grid.rows {
            table.row(row);
        }
        print!("{table}");
    }
    if let Some(note) = ceilings_note(report) {
        println!("\n  {note}");
    }
    println!("\n  {}", report.machine.describe());
    for note in &report.notes {
        println!("  note: {}", note.lines().next().unwrap_or_default());
    }
}

/// The trial of a case.
pub fn trial_of(case: &Case, rate_pps: Option<u64>, seconds: f64) -> Trial {
    let Case { direction, sizes, clients } = case.clone();
    Trial { direction, sizes, clients, rate_pps, seconds, is_watched: false }
}

/// Where a benchmark leaves its report.
pub fn json_path(name: &str) -> PathBuf {
    target_dir().join("bench").join(name).with_extension("json")
}

/// What a benchmark of this name has left; `None` when it has not run, or longer ago than `age_max`.
pub fn left(name: &str, age_max: Duration) -> Result<Option<Report>> {
    let path = json_path(name);
    let Ok(written) = fs::metadata(&path).and_then(|metadata| metadata.modified()) else { return Ok(None) };
    if SystemTime::now().duration_since(written).is_ok_and(|age| age > age_max) {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let report = serde_json::from_str(&text)
        .with_context(|| format!("{} is of another version: run the benchmark again", path.display()))?;
    Ok(Some(report))
}

/// The command as it was typed.
fn typed() -> String {
    let words: Vec<_> = std::env::args().skip(1).collect();
    format!("cargo xtask {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_quick_form_runs_out_of_time() {
        let hours = Duration::from_hours(20);
        assert!(!is_spent(None, 1.0, hours) && !is_spent(None, 0.85, hours));
        let budget = Some(Duration::from_secs(100));
        assert!(is_spent(budget, 0.85, Duration::from_secs(86)));
        assert!(!is_spent(budget, 1.0, Duration::from_secs(86)));
    }
}
