//! Runs the test programs of the crate `tests`: several at a time, and alone those that others would disturb.
//!
//! A program runs its own tests one by one. Namespaces, interfaces and sockets of a laboratory carry the id of the
//! process that made them, so two programs do not meet; and as most tests wait for timers of the protocol, two
//! processors serve more than two of them. What they share is time: a test that failed beside others runs once more
//! with nothing beside it. So does one that failed while a hypervisor gave the processors to other machines, up to three
//! times: no gateway forwards without loss on a processor that it does not have. The last run decides, and the closing
//! report names such tests.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    mem,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bench::report::StealClock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{log::Log, results::Tally};
use crate::command::{cargo, root, shown, target_dir};

/// How many run at the same time.
const AT_ONCE: usize = 3;
/// What measures load or rates, or allows no loss at a rate: with nothing beside it.
const ALONE: [&str; 5] =
    ["netns_fast_path", "netns_load", "netns_scale", "netns_traffic", "netns_uapi_traffic"];
/// The longest, in this order before the others, so that none of them is left over at the end.
const FIRST: [&str; 7] = [
    "netns_interop",
    "conformance",
    "interop_kernel",
    "interop_renewal",
    "netns_kernel_selftest_routing",
    "netns_kernel_selftest_roaming",
    "netns_kernel_selftest_lifecycle",
];
/// From this share of the processors' time on, in percent, that went to other machines, a test that failed has not been
/// decided;
const STOLEN_MAX: f64 = 5.0;
/// but after so many runs it has.
const REPEATS_MAX: usize = 3;
/// A program that has not ended by then hangs. (Each test has a shorter limit of its own.)
const LIMIT: Duration = Duration::from_mins(10);
/// What it then gets to remove what it made.
const FAREWELL: Duration = Duration::from_secs(20);

/// One test program.
struct Program {
    name: String,
    command: Command,
}

/// What came of one.
struct Outcome {
    name: String,
    output: String,
    tally: Tally,
    failed: Vec<String>,
    /// The tests that failed at first and passed alone, each with what was beside it.
    unsteady: Vec<(String, String)>,
    /// Percent of the processors' time that went to other machines.
    stolen: f64,
    /// Why it is a failure even if no test said so.
    broken: Option<String>,
    took: Duration,
}

/// Builds and runs all; each program's output is shown in one piece when it ends. Adds to `tally`.
pub fn run(log: &Log, tally: &mut Tally) -> Result<()> {
    let output = target_dir().join("test-output");
    fs::create_dir_all(&output).with_context(|| format!("{} cannot be made", output.display()))?;
    let (alone, mut together): (Vec<_>, Vec<_>) =
        build(&log.path)?.into_iter().partition(|program| ALONE.contains(&program.name.as_str()));
    let place = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    together.sort_by_key(|program| place(&program.name));

    let commands: BTreeMap<_, _> =
        together.iter().chain(&alone).map(|program| (program.name.clone(), copy(&program.command))).collect();
    let mut outcomes = run_several(together, AT_ONCE, &output, LIMIT);
    let beside_others = outcomes.len();
    outcomes.extend(run_several(alone, 1, &output, LIMIT));
    for (index, outcome) in outcomes.iter_mut().enumerate() {
        if let Some(command) = commands.get(&outcome.name) {
            outcome.decide(command, index < beside_others, &output, LIMIT, |outcome| outcome.stolen);
        }
    }

    let mut complaints = Vec::new();
    for outcome in outcomes {
        complaints.extend(outcome.complaints());
        for (test, beside) in &outcome.unsteady {
            log.note("unsteady", &format!("{}: {test}: failed {beside}, passed alone", outcome.name))?;
        }
        // What fails is among the complaints.
        let _ = tally.add(outcome.tally);
    }
    if !complaints.is_empty() {
        bail!("{}", complaints.join(", "));
    }
    Ok(())
}

/// Builds the programs; each command runs one as cargo would.
fn build(log: &Path) -> Result<Vec<Program>> {
    let mut command = cargo();
    command
        .args([
            "test",
            "--quiet",
            "--package",
            "tests",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("`{}` did not start", shown(&command)))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shown(&command), output.status);
    }
    let programs: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(executable)
        .map(|(name, path)| {
            let mut command = Command::new(path);
            command
                .arg("--test-threads=1")
                .current_dir(root().join("tests"))
                .env("WGX_TEST_LOG", log)
                .env("WGX_BINARY", target_dir().join("debug/wgx"))
                .env("RUST_BACKTRACE", "1");
            Program { name, command }
        })
        .collect();
    if programs.is_empty() {
        bail!("`{}` names no test program", shown(&command));
    }
    Ok(programs)
}

/// The name and the path in a line of cargo's that tells of a test program.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_test = message["profile"]["test"].as_bool()?;
    let path = message["executable"].as_str()?;
    is_test.then_some((message["target"]["name"].as_str()?.to_owned(), path.into()))
}

/// Runs programs, up to `at_once` at a time, in their order.
fn run_several(programs: Vec<Program>, at_once: usize, folder: &Path, limit: Duration) -> Vec<Outcome> {
    let waiting = Mutex::new(VecDeque::from(programs));
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                // Not in the condition of a `while let`: the lock would be held as long as the program runs.
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(program) = next else { break };
                    let outcome = program.run(folder, limit);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    // Under the lock, so that the output of two programs does not mix.
                    outcome.show();
                    done.push(outcome);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Program {
    fn run(mut self, folder: &Path, limit: Duration) -> Outcome {
        let (start, steal) = (Instant::now(), StealClock::start());
        let path = folder.join(&self.name).with_extension("txt");
        let (status, broken) = match self.run_into(&path, limit) {
            Ok(Some(status)) => (Some(status), None),
            Ok(None) => (None, Some(format!("not done after {} s", limit.as_secs()))),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let output = fs::read(&path).unwrap_or_default();
        let output = String::from_utf8_lossy(&output).into_owned();
        let mut tally = Tally::of(&output);
        tally.cargo_failed = !status.is_some_and(|status| status.success());
        let broken = broken.or_else(|| {
            let odd = tally.cargo_failed && tally.failed == 0;
            odd.then(|| status.map_or_else(String::new, |status| format!("broke off ({status})")))
        });
        Outcome {
            failed: failed(&output),
            unsteady: Vec::new(),
            stolen: steal.percent(),
            name: self.name,
            output,
            tally,
            broken,
            took: start.elapsed(),
        }
    }

    /// Runs it with its output in a file: a pipe would stay open as long as something that it started.
    fn run_into(&mut self, path: &Path, limit: Duration) -> Result<Option<ExitStatus>> {
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("`{}` did not start", shown(&self.command)))?;
        if let Some(status) = wait(&mut child, limit)? {
            return Ok(Some(status));
        }
        // It removes what it made.
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if wait(&mut child, FAREWELL)?.is_none() {
            // Both only fail when it has ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
        }
        Ok(None)
    }
}

/// How the child ended, or `None` if it has not after `limit`.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The same command once more: [`Command`] is not `Clone`.
fn copy(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    copy.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        copy.current_dir(folder);
    }
    copy
}

impl Outcome {
    /// Runs the tests that failed once more by `command`, with nothing beside them, until none fails or nothing was beside
    /// them indeed; what then fails has failed.
    ///
    /// A program that broke off or hung did so for reasons of its own, and stays as it is. `stolen` gives the percentage of a
    /// run.
    fn decide(
        &mut self,
        command: &Command,
        was_beside_others: bool,
        folder: &Path,
        limit: Duration,
        stolen: impl Fn(&Self) -> f64,
    ) {
        let stolen = |outcome: &Self| {
            let percent = stolen(outcome);
            (percent >= STOLEN_MAX)
                .then(|| format!("while {percent:.0} % of the processors' time was stolen"))
        };
        let mut beside = if was_beside_others { Some("beside others".to_owned()) } else { stolen(self) };
        for _ in 0..REPEATS_MAX {
            let Some(what) = beside.take_if(|_| !self.failed.is_empty() && self.broken.is_none()) else {
                return;
            };
            let mut command = copy(command);
            command.arg("--exact").args(&self.failed);
            let name = format!("{} (alone)", self.name);
            let alone = Program { name, command }.run(folder, limit);
            alone.show();
            beside = stolen(&alone);
            let first = mem::take(&mut self.failed).into_iter();
            self.unsteady
                .extend(first.filter(|test| !alone.failed.contains(test)).map(|test| (test, what.clone())));
            self.tally = Tally { passed: self.tally.passed + alone.tally.passed, ..alone.tally };
            (self.failed, self.broken) = (alone.failed, alone.broken);
        }
    }

    fn show(&self) {
        println!("\n--- {}: {:.0} s\n{}", self.name, self.took.as_secs_f32(), self.output.trim_end());
        for complaint in self.complaints() {
            println!("failed: {complaint}");
        }
    }

    /// The tests that failed, `PROGRAM: TEST`, and what is wrong with the program itself.
    fn complaints(&self) -> Vec<String> {
        let named = |what: &String| format!("{}: {what}", self.name);
        self.failed.iter().chain(&self.broken).map(named).collect()
    }
}

/// The tests that libtest lists at its end: `failures:`, and their names indented.
fn failed(output: &str) -> Vec<String> {
    let Some((_, list)) = output.rsplit_once("\nfailures:\n") else { return Vec::new() };
    list.lines().map_while(|line| line.strip_prefix("    ")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
