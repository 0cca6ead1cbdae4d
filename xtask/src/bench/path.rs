//! The packet path on plain memory: what each stage takes, and instructions per packet against the committed baseline.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use bench::path::{Baseline, Count, Passed, Profile, Stages, Verdict};

use crate::{
    command::{cargo, command, find_program, output, root, run as run_command, target_dir},
    table::Table,
};

/// The function callgrind collects in, one part of its output per call (`bench/path/src/count.rs`).
const MEASURED: &str = "wgx_path::count::measured";
const ACCEPT: &str = "cargo xtask bench path --accept";

/// Options of the benchmark.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer passes.
    #[arg(long)]
    quick: bool,

    /// The AEAD backend to time, as for `wgx`.
    #[arg(long, value_name = "NAME")]
    aead: Option<String>,

    /// Time with so many clients, once for each number; 1 and 1000 if not given.
    #[arg(long, value_name = "NUMBER")]
    clients: Vec<u32>,

    /// Only count instructions, and make the result the baseline that `cargo xtask test` holds later ones against.
    #[arg(long, conflicts_with_all = ["quick", "aead", "clients"])]
    accept: bool,
}

/// Measures and prints tables.
pub fn run(args: &Args) -> Result<()> {
    let program = build()?;
    if !args.accept {
        print_stages(&time_stages(&program, args)?);
    }
    if let Some(why) = obstacle() {
        bail!("instructions cannot be counted: {why}");
    }
    let scenarios = count(&program)?;
    if args.accept {
        let file = baseline_file();
        let text = Baseline { rustc: rustc()?, scenarios: scenarios.clone() }.to_text();
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let mut table = Table::new("Instructions per packet, without cipher and ports", &["", "instructions"]);
    for (name, count) in &scenarios {
        table.row([name.clone(), format!("{:.0}", count.instructions)]);
    }
    println!("{table}");
    Ok(())
}

fn time_stages(program: &Path, args: &Args) -> Result<Vec<Stages>> {
    let mut stages = Command::new(program);
    stages.arg("stages").args(args.quick.then_some("--quick"));
    stages.args(args.aead.iter().flat_map(|name| ["--aead", name]));
    for count in &args.clients {
        stages.args(["--clients", &count.to_string()]);
    }
    let result = stages.stderr(Stdio::inherit()).output().context("`wgx-path` did not start")?;
    ensure!(result.status.success(), "`wgx-path stages` failed");
    let lines = String::from_utf8(result.stdout)?;
    lines
        .lines()
        .map(|line| serde_json::from_str(line).context("`wgx-path stages` says something else"))
        .collect()
}

/// One table per direction: a row per stage, a column per scenario.
fn print_stages(measured: &[Stages]) {
    for scenarios in measured.chunk_by(|one, next| one.scenario.direction == next.scenario.direction) {
        let names: Vec<String> = scenarios.iter().map(|stages| stages.scenario.to_string()).collect();
        let columns: Vec<&str> = std::iter::once("").chain(names.iter().map(String::as_str)).collect();
        let mut table =
            Table::new("Nanoseconds per packet of each stage, alone; best of all passes", &columns);
        for (index, stage) in scenarios[0].stages.iter().enumerate() {
            let cells = scenarios.iter().map(|stages| format!("{:.1}", stages.stages[index].ns));
            table.row(std::iter::once(stage.name.clone()).chain(cells));
        }
        let mut total = |name: &str, ns: fn(&Stages) -> f64| {
            let cells = scenarios.iter().map(|stages| format!("{:.1}", ns(stages)));
            table.row(std::iter::once(name.to_owned()).chain(cells));
        };
        total("what joins them", Stages::rest_ns);
        total("engine", |stages| stages.engine_ns);
        print!("{table}");
    }
    println!(
        "  rx and tx need a NIC: `cargo xtask bench profile` has them, as system calls and the far end of a veth pair."
    );
}

/// What became of the check of `cargo xtask test`.
pub enum Check {
    /// No scenario takes more instructions than it should; what is to be noted.
    Passed(Vec<String>),
    /// It could not be made, and why.
    Skipped(String),
}

/// Holds the instructions per packet against the baseline.
///
/// Another compiler's counts cannot be compared: that is a note, with what to do.
pub fn check_instructions() -> Result<Check> {
    let file = baseline_file();
    let text = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}: `{ACCEPT}` writes it", file.display()))?;
    let baseline = Baseline::parse(&text)?;
    if let Some(why) = obstacle() {
        return Ok(Check::Skipped(why));
    }
    let rustc = rustc()?;
    if baseline.rustc != rustc {
        let note =
            format!("not compared, the baseline is of {}, this is {rustc}: `{ACCEPT}`", baseline.rustc);
        return Ok(Check::Passed(vec![note]));
    }
    let (mut complaints, mut notes) = (Vec::new(), Vec::new());
    for judged in baseline.judge(&count(&build()?)?) {
        let (name, now) = (&judged.scenario, judged.instructions);
        let former = judged.former.map_or_else(|| "none".into(), |former| format!("{former:.1}"));
        let line = format!("{name}: {now:.1} instructions per packet, baseline {former}");
        match judged.verdict {
            Verdict::Same => {}
            Verdict::More => {
                let changes = judged.changes.iter().map(|(source, change)| format!("{source} {change:+.1}"));
                complaints.push(format!("{line}; most changed: {}", changes.collect::<Vec<_>>().join(", ")));
            }
            Verdict::Fewer | Verdict::New => {
                notes.push(format!("{line}: make it the baseline with `{ACCEPT}`"));
            }
        }
    }
    if complaints.is_empty() {
        return Ok(Check::Passed(notes));
    }
    bail!("{}\n    if they are worth it, `{ACCEPT}` makes them the baseline", complaints.join("\n    "))
}

fn baseline_file() -> PathBuf {
    root().join("bench/instructions.toml")
}

/// Why this machine cannot count.
fn obstacle() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the baseline is of x86-64".into());
    }
    find_program("valgrind")
        .is_none()
        .then(|| "valgrind is not installed: `cargo xtask setup` does it".into())
}

fn rustc() -> Result<String> {
    let version = output(command("rustc").arg("--version")).context("`rustc --version` says nothing")?;
    Ok(version.trim().to_owned())
}

/// The program, as released.
pub fn build() -> Result<PathBuf> {
    run_command(cargo().args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "bench-path",
        "--bin",
        "wgx-path",
    ]))?;
    Ok(target_dir().join("release/wgx-path"))
}

/// Runs all scenarios under callgrind.
fn count(program: &Path) -> Result<BTreeMap<String, Count>> {
    let folder = target_dir().join("callgrind");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let parts = folder.join("part");
    let mut valgrind = command("valgrind");
    valgrind
        .args(["--quiet", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .args(["--collect-atstart=no", &format!("--toggle-collect={MEASURED}")])
        .arg(format!("--dump-after={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", parts.display()))
        .arg(program)
        .arg("count");
    let result = valgrind.stdin(Stdio::null()).output().context("valgrind did not start")?;
    ensure!(result.status.success(), "valgrind failed: {}", String::from_utf8_lossy(&result.stderr).trim());

    let root = root().to_string_lossy();
    let mut scenarios = BTreeMap::new();
    for (index, line) in String::from_utf8(result.stdout)?.lines().enumerate() {
        let passed: Passed = serde_json::from_str(line).context("`wgx-path count` says something else")?;
        let part = parts.with_extension((index + 1).to_string());
        let text = fs::read_to_string(&part)
            .with_context(|| format!("callgrind wrote no part {}", part.display()))?;
        let profile = Profile::parse(&text, &root).with_context(|| part.display().to_string())?;
        scenarios.insert(passed.scenario.to_string(), Count::new(&profile, &passed));
    }
    ensure!(!scenarios.is_empty(), "`wgx-path count` passed nothing");
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(scenarios)
}
