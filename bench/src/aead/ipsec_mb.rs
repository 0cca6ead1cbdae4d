//! Intel's ipsec-mb: `ipsec_mb.c`, which xtask compiles, as a child that works when it is its turn.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};

use super::{
    Direction,
    implementation::{Implementation, REPETITIONS},
    load::{Frames, Load},
};

/// The running child. It has packets of its own, of the same lengths.
pub struct IpsecMb {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl IpsecMb {
    /// Starts it, and makes sure that it computes ChaCha20-Poly1305.
    pub fn start(program: &Path, load: &Load, batch_len: usize) -> Result<Self> {
        let lens: Vec<String> = load.lens.iter().map(ToString::to_string).collect();
        let mut child = Command::new(program)
            .args([batch_len, load.keys.len(), REPETITIONS].map(|number| number.to_string()))
            .arg(lens.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("a child without output")?);
        let mut ipsec_mb = Self { child, requests, answers };
        let mut text = [0; 64];
        let tag = ChaCha20Poly1305::new(&[0; 32].into())
            .encrypt_inout_detached(&[0; 12].into(), &[], text.as_mut_slice().into())
            .ok()
            .context("a packet is short")?;
        let expected = format!("{:032x}", u128::from_be_bytes(tag.into()));
        let answer = ipsec_mb.answer()?;
        ensure!(answer.trim() == expected, "ipsec-mb computes {answer:?} where {expected} is right");
        Ok(ipsec_mb)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("ipsec-mb does not answer")?;
        ensure!(!line.is_empty(), "ipsec-mb ended");
        Ok(line)
    }
}

impl Implementation for IpsecMb {
    fn turn(&mut self, _: &Load, _: &mut Frames, direction: Direction) -> Result<Vec<Duration>> {
        let requests = self.requests.as_mut().context("ipsec-mb is over")?;
        writeln!(requests, "{}", direction.verb()).context("ipsec-mb takes no more requests")?;
        let answer = self.answer()?;
        let times: Option<Vec<Duration>> =
            answer.split_whitespace().map(|time| Some(Duration::from_nanos(time.parse().ok()?))).collect();
        let times = times.filter(|times| times.len() == REPETITIONS);
        times.with_context(|| format!("ipsec-mb answers {answer:?}, not {REPETITIONS} times"))
    }
}

impl Drop for IpsecMb {
    fn drop(&mut self) {
        // It ends when there is nothing more to read.
        self.requests = None;
        let _ = self.child.wait();
    }
}
