//! `perf`, from the start of a recording to its samples.
//!
//! The clock of the processor is sampled, not its performance counters: virtual machines seldom have these.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::stacks::Samples;
use crate::command::{command, shown, target_dir};

/// Samples of a second. No divisor of what a scheduler's tick has.
const FREQUENCY: u32 = 2999;
/// Until the first sample can be taken.
const SETTLING: Duration = Duration::from_millis(300);
/// Until a recording is written.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running recording; dropping it ends it.
pub struct Recorder {
    child: Child,
    path: PathBuf,
}

impl Recorder {
    /// Between two samples of a processor.
    pub const PERIOD_NS: f64 = 1e9 / FREQUENCY as f64;

    /// Begins to sample the stacks of these processors.
    pub fn start(cpus: &[u32]) -> Result<Self> {
        let folder = target_dir().join("bench");
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let path = folder.join("perf.data");
        let cpus: Vec<_> = cpus.iter().map(u32::to_string).collect();
        let mut perf = command("perf");
        perf.args(["record", "--quiet", "--event", "cpu-clock", "--call-graph", "fp"])
            .args(["--freq", &FREQUENCY.to_string(), "--cpu", &cpus.join(","), "--output"])
            .arg(&path);
        let child = perf
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("`{}` did not start", shown(&perf)))?;
        let mut recorder = Self { child, path };
        sleep(SETTLING);
        if let Some(status) = recorder.child.try_wait()? {
            bail!("`{}` has ended ({status}): may this user sample the kernel?", shown(&perf));
        }
        Ok(recorder)
    }

    /// Ends the recording; `is_own` tells processes whose user code counts from others.
    pub fn finish(mut self, is_own: impl Fn(u32) -> bool) -> Result<Samples> {
        self.end()?;
        let mut perf = command("perf");
        perf.args(["script", "--fields", "comm,pid,ip,sym", "--input"]).arg(&self.path);
        let output = perf.output().with_context(|| format!("`{}` did not start", shown(&perf)))?;
        ensure!(output.status.success(), "`{}` failed ({})", shown(&perf), output.status);
        Ok(Samples::read(&String::from_utf8_lossy(&output.stdout), is_own))
    }

    /// `perf` writes its file when it is interrupted.
    fn end(&mut self) -> Result<()> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::INT).context("perf cannot be interrupted")?;
        }
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(start.elapsed() < PATIENCE, "perf does not end");
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // After `finish` it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.path);
    }
}
