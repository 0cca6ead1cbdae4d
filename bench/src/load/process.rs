//! `wgx-load` from outside: starts it, tells it the world, and asks for trials.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::{Outcome, Setup, Trial};

/// Time for a generator that was told to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// One line of the generator's output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// To the [`Setup`]: it is in place.
    Ready {
        /// What it took.
        ready: Ready,
    },
    /// To either: why there is no other answer.
    Error {
        /// What was tried, and why it failed.
        error: String,
    },
    /// To a [`Trial`].
    Outcome(Box<Outcome>),
}

/// What the first handshakes took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// Handshakes completed: one per client, or none without a tunnel.
    pub handshakes: u32,
    /// Seconds they took.
    pub handshake_seconds: f64,
}

/// A running generator; dropping it ends it.
pub struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    ready: Ready,
}

impl Load {
    /// Runs `command`, which starts `wgx-load`, and waits until all clients have their sessions.
    ///
    /// # Errors
    /// It does not start, or says why it cannot take its place.
    pub fn start(command: &mut Command, setup: &Setup) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} did not start", command.get_program().display()))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("a piped output")?);
        let ready = Ready { handshakes: 0, handshake_seconds: 0.0 };
        let mut load = Self { child, stdin, stdout, ready };
        match load.ask(&serde_json::to_string(setup)?)? {
            Answer::Ready { ready } => load.ready = ready,
            Answer::Error { error } => bail!("the load generator is not ready: {error}"),
            Answer::Outcome(_) => bail!("the load generator answers its setup by an outcome"),
        }
        Ok(load)
    }

    /// What its handshakes took.
    pub fn ready(&self) -> Ready {
        self.ready
    }

    /// Runs one trial to its end.
    ///
    /// # Errors
    /// The trial cannot be run, or the generator has ended.
    pub fn trial(&mut self, trial: &Trial) -> Result<Outcome> {
        match self.ask(&serde_json::to_string(trial)?)? {
            Answer::Outcome(outcome) => Ok(*outcome),
            Answer::Error { error } => {
                Err(anyhow!(error)).with_context(|| format!("no outcome of {trial:?}"))
            }
            Answer::Ready { .. } => bail!("the load generator answers a trial by being ready"),
        }
    }

    fn ask(&mut self, line: &str) -> Result<Answer> {
        let stdin = self.stdin.as_mut().context("the load generator was told to end")?;
        writeln!(stdin, "{line}").context("the load generator takes no more lines")?;
        let mut answer = String::new();
        if self.stdout.read_line(&mut answer)? == 0 {
            bail!("the load generator has ended ({})", self.child.wait()?);
        }
        serde_json::from_str(&answer).with_context(|| format!("the load generator says `{}`", answer.trim()))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.stdin = None;
        let deadline = Instant::now() + END_TIMEOUT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
