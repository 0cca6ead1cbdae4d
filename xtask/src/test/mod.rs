//! `cargo xtask test`: everything CI checks, with one closing line.
//!
//! A test that cannot run on a machine must not vanish: it appends a line `skipped: NAME: why` to the file
//! that `WGX_TEST_LOG` names (and prints it), then returns. Skips are listed at the end, and in CI one that
//! [`EXPECTED_SKIPS`] does not name fails the run. A line `note: NAME: what` puts a measurement into the report.
//! `gateway/tests/xdp_steering/report.rs` does both. Lines `interop: ...` are cells of the [`matrix`].
//!
//! Other tests than those of the crate `tests` run in parallel; that crate's use whole machines made of network
//! namespaces, and its [`programs`] run a few at a time. They find the built program in `WGX_BINARY`.

mod log;
mod matrix;
mod programs;
mod results;

use std::{env, fs, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::bench::path::{self, Check};
use crate::command::{cargo, run, step, target_dir};
use crate::{ebpf, setup, tidy};
use log::Log;
use matrix::Matrix;
use results::Tally;

/// Tests that CI may skip, each with the reason why its machines cannot run it.
const EXPECTED_SKIPS: &[&str] = &[
    // AVX-512 with IFMA: not every machine that a CI service lends has it.
    "words_are_transposed",
    "double_words_are_transposed",
    "key_stream_of_any_lanes_and_rows_is_theirs",
    "tags_of_extreme_keys_and_texts_are_those_of_poly1305",
    "sums_around_the_modulus_are_reduced",
    // From Linux 6.13 on the kernel polls NAPI for zero-copy sockets only, and none of CI's machines has a NIC for these.
    "a_link_that_polls_its_queue_needs_no_interrupts",
    // Linux 6.17, which is newer than what a CI service lends.
    "the_kernel_takes_a_transmit_budget_that_fits_the_ring_and_no_other",
    "one_call_sends_a_burst_of_every_worker_s_turn",
];

/// Everything of the crate `bench`: by default it comes without what needs the XDP objects, as xtask uses it.
const LOAD_GENERATOR: [&str; 2] = ["--features", "bench/af-xdp"];

/// What a skipped test means for the run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Skips {
    /// Failure, unless [`EXPECTED_SKIPS`] names it.
    Fail,
    /// A line in the report.
    Report,
}

impl Skips {
    /// `CI` set to anything but nothing and `false`, as the common services have it, means [`Skips::Fail`].
    pub fn from_environment() -> Self {
        match env::var("CI") {
            Ok(value) if !value.is_empty() && value != "false" && value != "0" => Self::Fail,
            _ => Self::Report,
        }
    }
}

/// Runs every check, also after one failed, and sums up.
pub fn run_all(skips: Skips) -> Result<()> {
    setup::run()?;
    setup::peers::install();
    ebpf::build(false)?;

    let log = Log::create(&target_dir().join("test-log.txt"))?;
    let mut failures = Vec::new();
    let mut check = |title: &str, work: &mut dyn FnMut() -> Result<()>| {
        if let Err(error) = step(title, work) {
            eprintln!("    {error:#}");
            failures.push(title.to_owned());
        }
    };
    check("tidy", &mut tidy::run);
    check("format", &mut || run(cargo().args(["fmt", "--all", "--check"])));
    check("lint", &mut || {
        run(cargo()
            .args(["clippy", "--quiet", "--workspace", "--all-targets"])
            .args(LOAD_GENERATOR)
            .args(["--", "--deny", "warnings"]))?;
        let trace =
            ["clippy", "--quiet", "--package", "gateway", "--features", "trace", "--", "--deny", "warnings"];
        run(cargo().args(trace))
    });
    check("documentation", &mut || {
        run(cargo()
            .args(["doc", "--quiet", "--workspace", "--no-deps", "--lib", "--document-private-items"])
            .args(LOAD_GENERATOR)
            .env("RUSTDOCFLAGS", "--deny warnings"))
    });
    check("build", &mut || {
        run(cargo().args(["build", "--quiet", "--workspace", "--bins"]).args(LOAD_GENERATOR))?;
        run(cargo().args(["test", "--quiet", "--workspace", "--no-run"]).args(LOAD_GENERATOR))
    });

    check("instructions per packet", &mut || match path::check_instructions()? {
        Check::Passed(notes) => notes.iter().try_for_each(|note| log.note("instructions per packet", note)),
        Check::Skipped(why) => log.skip("instructions per packet", &why),
    });

    // Where this fails, the tests that need it say so and count as skipped.
    if let Err(error) = setup::guest::run() {
        eprintln!("setup: no guest for the kernel's WireGuard: {error:#}");
    }

    let mut tally = Tally::default();
    check("tests in parallel", &mut || {
        let [features, load_generator] = LOAD_GENERATOR;
        let arguments = ["--workspace", "--exclude", "tests", "--no-fail-fast", features, load_generator];
        tally.add(test(&log.path, &arguments)?)
    });
    check("tests in network namespaces", &mut || programs::run(&log, &mut tally));

    conclude(&tally, &log, failures, skips)
}

/// Prints the interop matrix; what is missing from it fails the run where nothing may be skipped.
fn conclude_matrix(matrix: &Matrix, skips: Skips) -> Option<String> {
    if !matrix.is_empty() {
        println!("{}", matrix.table());
    }
    let missing = matrix.missing();
    for cell in &missing {
        println!("interop: missing: {cell}");
    }
    (skips == Skips::Fail && !missing.is_empty())
        .then(|| format!("{} cells missing from the interop matrix", missing.len()))
}

fn test(log: &Path, arguments: &[&str]) -> Result<Tally> {
    let mut command: Command = cargo();
    command
        .arg("test")
        .args(arguments)
        .env("WGX_TEST_LOG", log)
        .env("WGX_BINARY", target_dir().join("debug/wgx"))
        .env("RUST_BACKTRACE", "1");
    results::watch(&mut command)
}

fn conclude(tally: &Tally, log: &Log, mut failures: Vec<String>, skips: Skips) -> Result<()> {
    let entries = log.read()?;
    for note in &entries.notes {
        println!("{note}");
    }
    for skip in &entries.skipped {
        println!("skipped: {}: {}", skip.test, skip.why);
    }
    let unexpected =
        entries.skipped.iter().filter(|skip| !EXPECTED_SKIPS.contains(&skip.test.as_str())).count();
    if skips == Skips::Fail && unexpected + tally.ignored > 0 {
        failures.push(format!("{} skipped that CI has to run", unexpected + tally.ignored));
    }
    failures.extend(conclude_matrix(&entries.matrix, skips));
    if tally.passed + tally.failed == 0 {
        failures.push("no test ran".into());
    }
    // libtest calls a test that returned early "ok".
    let skipped = entries.skipped.len();
    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed.saturating_sub(skipped),
        tally.failed,
        skipped + tally.ignored
    );
    if !failures.is_empty() {
        bail!("failed: {}", failures.join("; "));
    }
    let _ = fs::remove_file(&log.path);
    Ok(())
}
