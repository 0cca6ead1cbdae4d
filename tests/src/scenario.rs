//! How a namespace test runs: alone, in bounded time, with its logs shown when it fails.

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write as _},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{Lab, gateway, peer::Program, program, registry};

/// A test that has not ended by then hangs.
const TIMEOUT: Duration = Duration::from_mins(5);

/// Programs every scenario uses.
const PROGRAMS: [&str; 10] =
    ["ip", "ss", "bpftool", "ethtool", "setpriv", "wg", "wireguard-go", "ping", "iperf3", "tcpdump"];

/// Scenarios share two cores and would disturb each other's timing.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `test` in a laboratory of its own, or says why it cannot run here.
pub fn scenario(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) {
    match obstacle() {
        Some(why) => skip(name, &why),
        None => run(name, test),
    }
}

/// As [`scenario`], for tests of our program.
pub fn scenario_with_wgx(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) {
    match obstacle().or_else(|| gateway::wgx_path().err().map(|error| error.to_string())) {
        Some(why) => skip(name, &why),
        None => run(name, test),
    }
}

/// As [`scenario_with_wgx`], for a test that takes another implementation too.
pub fn scenario_with_peer(name: &str, peer: Program, test: impl FnOnce(&mut Lab) -> Result<()>) {
    match peer.path() {
        Ok(_) => scenario_with_wgx(name, test),
        Err(error) => skip(name, &error.to_string()),
    }
}

/// Why no laboratory can be built here.
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root, for network namespaces".into());
    }
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|name| program::find(name).is_none()).collect();
    if !missing.is_empty() {
        return Some(format!("needs {}; run `cargo xtask setup`", missing.join(", ")));
    }
    None
}

/// Says that a test did not run, on standard error and in the file `WGX_TEST_LOG` names.
pub fn skip(name: &str, why: &str) {
    say(&format!("skipped: {name}: {why}"));
}

/// Puts a measurement into the report of the tests, in the same places.
pub fn note(name: &str, what: &str) {
    say(&format!("note: {name}: {what}"));
}

fn say(line: &str) {
    // Not by a macro: the test harness would keep the line to itself. Without standard error nobody reads it.
    let _ = writeln!(io::stderr(), "{line}");
    log(line).unwrap_or_else(|error| panic!("{error:#}"));
}

/// Adds a line to the file `WGX_TEST_LOG` names, if it names one.
pub fn log(line: &str) -> Result<()> {
    let Some(path) = env::var_os("WGX_TEST_LOG") else { return Ok(()) };
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        // In one piece: several test programs may write.
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .with_context(|| format!("{} cannot be written", path.display()))
}

fn run(name: &str, test: impl FnOnce(&mut Lab) -> Result<()>) {
    // A test that failed while it held the lock does not make the next one fail.
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (done, watch) = mpsc::channel::<()>();
    let watched = name.to_owned();
    let watchdog = thread::spawn(move || {
        if watch.recv_timeout(TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{watched}: not done after {} s: giving up", TIMEOUT.as_secs());
            registry::abandon(1);
        }
    });
    let outcome = Lab::new().and_then(|mut lab| {
        // The programs' last words belong to the error: the laboratory is gone when it is shown.
        test(&mut lab).map_err(|error| anyhow::anyhow!("{error:#}\n{}", lab.tails()))
    });
    drop(done);
    // The watchdog ends by itself once `done` is gone.
    let _ = watchdog.join();
    if let Err(error) = outcome {
        panic!("{name}: {error:#}");
    }
}
