//! `cargo xtask fuzz`: the targets of `tests/fuzz` under libFuzzer, on the stable compiler.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::command::{self, cargo, find_program, root, run as run_command, step, target_dir};

/// What libFuzzer needs to see where an input leads: the flags that `cargo fuzz` passes too, without a sanitizer.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cdebug-assertions=on --cfg fuzzing";

/// What to search, and for how long.
#[derive(clap::Args)]
pub struct Args {
    /// One target, else all, one after the other.
    target: Option<String>,
    /// Seconds per target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Add what reaches new code to `tests/fuzz/corpus`.
    #[arg(long)]
    keep: bool,
}

/// Builds the fuzzer and runs it on each target.
pub fn run(args: &Args) -> Result<()> {
    if find_program("g++").is_none() {
        bail!("libFuzzer is C++ and there is no g++: `apt-get install g++`");
    }
    let home = root().join("tests/fuzz");
    let targets = targets(&home, args.target.as_deref())?;
    let build_dir = target_dir().join("fuzz");
    step("build the fuzzer", || {
        run_command(
            cargo()
                .args(["build", "--quiet", "--package", "fuzz", "--bin", "libfuzzer"])
                .args(["--features", "libfuzzer", "--target", host()?.trim()])
                .arg("--target-dir")
                .arg(&build_dir)
                // Coverage is a debugging aid of the compiler, which stable hides.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTFLAGS", COVERAGE),
        )
    })?;
    let program = build_dir.join(host()?.trim()).join("debug/libfuzzer");
    let mut failed = Vec::new();
    for target in targets {
        let search = || search(&program, &home, &build_dir, &target, args);
        if let Err(error) = step(&format!("fuzz {target}"), search) {
            eprintln!("    {error:#}");
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!("targets that failed, their inputs are in tests/fuzz/crashes: {}", failed.join(", "));
    }
    Ok(())
}

/// The target asked for, or all: each has a folder of inputs (`tests/fuzz/tests/replay.rs` sees to it).
fn targets(home: &Path, asked: Option<&str>) -> Result<Vec<String>> {
    let corpus = home.join("corpus");
    let entries = fs::read_dir(&corpus).with_context(|| format!("cannot list {}", corpus.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    match asked {
        None => Ok(names),
        Some(name) if names.iter().any(|other| other == name) => Ok(vec![name.to_owned()]),
        Some(name) => bail!("there is no target {name}: use one of {}", names.join(", ")),
    }
}

/// Named, so that build scripts and procedural macros are built without [`COVERAGE`].
fn host() -> Result<String> {
    command::output(command::command("rustc").args(["--print", "host-tuple"])).context("rustc does not run")
}

fn search(program: &Path, home: &Path, build_dir: &Path, target: &str, args: &Args) -> Result<()> {
    let kept = home.join("corpus").join(target);
    let found = build_dir.join("corpus").join(target);
    let crashes = home.join("crashes").join(target);
    let folders: [&PathBuf; 2] = [&found, &crashes];
    for folder in folders {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let fuzzer = || {
        let mut fuzzer = command::command(&program.to_string_lossy());
        fuzzer.env("WGX_FUZZ_TARGET", target).arg(format!("-artifact_prefix={}/", crashes.display()));
        fuzzer
    };
    let outcome = run_command(
        fuzzer()
            .args([
                "-max_len=1024",
                "-timeout=10",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
                "-verbosity=0",
            ])
            .arg(format!("-max_total_time={}", args.seconds))
            .args([&found, &kept]),
    );
    if outcome.is_ok() && args.keep {
        // By edges, not by how often each is taken: an eighth of the inputs reach as far.
        run_command(
            fuzzer()
                .args(["-set_cover_merge=1", "-use_counters=0", "-max_len=1024", "-verbosity=0"])
                .args([&kept, &found]),
        )?;
    }
    // Empty unless something was found; git would not keep it.
    let _ = fs::remove_dir(&crashes);
    outcome
}
