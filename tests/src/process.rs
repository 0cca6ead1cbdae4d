//! A program that runs in the background, with its output kept for the case that something goes wrong.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::{
    program,
    registry::{self, Registry},
    wait_until,
};

/// How many lines of a log a failure shows.
const TAIL_LINES: usize = 20;

/// A background process; dropping it ends it.
#[derive(Debug)]
pub struct Process {
    label: String,
    line: String,
    child: Child,
    status: Option<ExitStatus>,
    log: PathBuf,
    keep: bool,
}

impl Process {
    /// Starts `command`; what it writes goes to `LABEL.log` in `folder`.
    pub(crate) fn spawn(label: &str, folder: &Path, command: &mut Command) -> Result<Self> {
        let log = folder.join(label).with_extension("log");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{} cannot be written", log.display()))?;
        let line = program::shown(command);
        // A group of its own: Ctrl-C reaches us only, and we end the programs in order.
        command.process_group(0).stdout(file.try_clone()?).stderr(file);
        let mut registry = Registry::lock();
        let child = command.spawn().with_context(|| format!("{label}: `{line}` did not start"))?;
        registry.add_pid(child.id());
        Ok(Self { label: label.to_owned(), line, child, status: None, log, keep: false })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, or `None` while it runs.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let mut registry = Registry::lock();
            self.status = self.child.try_wait()?;
            if self.status.is_some() {
                registry.forget_pid(self.child.id());
            }
        }
        Ok(self.status)
    }

    /// An error with the log's tail unless it still runs.
    pub fn check_running(&mut self) -> Result<()> {
        match self.status()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): `{}`\n{}", self.label, self.line, self.tail()),
        }
    }

    /// Waits until it ends of itself.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        wait_until(&format!("{} ends", self.label), timeout, || Ok(self.status()?.is_some()))
            .with_context(|| self.tail())?;
        self.status.context("the process has ended")
    }

    /// Asks it to end by SIGTERM and waits until it has.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(timeout)
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(10))
    }

    /// Sends a signal unless it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.status()?.is_none() {
            registry::signal(self.child.id(), signal);
        }
        Ok(())
    }

    /// Leaves it running when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// All it wrote so far.
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines it wrote, under a heading.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }

    fn end(&mut self) {
        let start = Instant::now();
        let _ = self.signal(Signal::TERM);
        while matches!(self.status(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(3) {
                let _ = self.signal(Signal::KILL);
            }
            if start.elapsed() > Duration::from_secs(6) {
                eprintln!("{} (process {}) does not end", self.label, self.child.id());
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.keep {
            Registry::lock().forget_pid(self.child.id());
        } else {
            self.end();
        }
    }
}

/// The last lines of a log file, under a heading.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n    ");
    let name = log.file_stem().unwrap_or_default().to_string_lossy();
    if shown.is_empty() {
        format!("  {name} wrote nothing")
    } else {
        format!("  last lines of {name}:\n    {shown}")
    }
}
