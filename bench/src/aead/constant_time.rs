//! Whether the time a batch takes tells anything about what is secret, in the manner of dudect: see [`super::welch`].
//!
//! Lengths, counters and the number of packets are public; keys, plaintexts and where a wrong tag differs are not.
//! Whether a packet is authentic is public once it is opened (it goes on or it does not), so classes never mix both.

use std::{fmt, time::Instant};

use aead::{Aead, Key, Packet, TAG_LEN};
use anyhow::{Context as _, Result, anyhow};

use super::welch;

/// Packets in a timed batch: one group of the widest backend.
const BATCH_LEN: usize = 16;
/// Bytes of text of each: whole blocks and a part.
const TEXT_LEN: usize = 208;
/// Batches prepared before they are timed, so that preparing does not interfere.
const PREPARED: usize = 64;
/// The first ones come with cold caches and clocks.
const DISCARDED: usize = 1000;

/// From here on a difference is suspected: the paper's threshold.
const SUSPECTED: f64 = 4.5;
/// From here on it is sure: the threshold of the paper's program, which has room for what a machine does besides.
const SURE: f64 = 10.0;

/// A secret that time might tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leak {
    /// Sealing under one key or under others.
    SealKey,
    /// Sealing one text or others.
    SealText,
    /// Opening under one key or under others.
    OpenKey,
    /// Opening one text or others.
    OpenText,
    /// Refusing tags that are wrong in the first byte or in the last.
    WrongTag,
    /// Not ours: comparing tags byte by byte up to the first difference. It must be found, else the test shows nothing.
    Control,
}

impl Leak {
    const ALL: [Self; 6] =
        [Self::SealKey, Self::SealText, Self::OpenKey, Self::OpenText, Self::WrongTag, Self::Control];

    fn classes(self) -> &'static str {
        match self {
            Self::SealKey => "seal: fixed or random key",
            Self::SealText => "seal: fixed or random text",
            Self::OpenKey => "open: fixed or random key",
            Self::OpenText => "open: fixed or random text",
            Self::WrongTag => "open: tag wrong in first or last byte",
            Self::Control => "control: comparison that stops early",
        }
    }

    fn is_key(self) -> bool {
        matches!(self, Self::SealKey | Self::OpenKey)
    }

    fn is_text(self) -> bool {
        matches!(self, Self::SealText | Self::OpenText)
    }

    fn is_seal(self) -> bool {
        matches!(self, Self::SealKey | Self::SealText)
    }
}

/// The outcome for one backend and one secret.
#[derive(Clone, Debug)]
pub struct LeakReport {
    /// Name of the backend.
    pub backend: &'static str,
    /// What was tried.
    pub leak: Leak,
    /// The greatest |t|.
    pub t: f64,
    /// Batches timed.
    pub count: usize,
}

impl LeakReport {
    /// Whether the outcome is as it should be: the control found, anything else not.
    pub fn is_good(&self) -> bool {
        if self.leak == Leak::Control { self.t >= SURE } else { self.t < SURE }
    }
}

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.t {
            t if t >= SURE => "time differs",
            t if t >= SUSPECTED => "suspicious: measure longer, on a quiet machine",
            _ => "no difference found",
        };
        let remark = match (self.leak, self.is_good()) {
            (Leak::Control, true) => ", as it must",
            (Leak::Control, false) => ": THE TEST IS BLIND",
            (_, true) => "",
            (_, false) => ": LEAK",
        };
        let (name, classes) = (self.backend, self.leak.classes());
        write!(f, "{name:12} {classes:38} |t| = {:6.2} of {}: {verdict}{remark}", self.t, self.count)
    }
}

/// A batch ready to be timed.
struct Prepared {
    class: bool,
    keys: Vec<Key>,
    buffers: Vec<Vec<u8>>,
    /// Before any damage.
    tags: Vec<[u8; TAG_LEN]>,
}

/// Looks for each leak in each of our backends, by so many batches.
///
/// # Errors
/// A backend that cannot run, or a system without random numbers.
pub fn constant_time(batch_count: usize) -> Result<Vec<LeakReport>> {
    let mut reports = Vec::new();
    for name in Aead::names() {
        let aead = Aead::by_name(name).context("a backend of ours cannot run")?;
        for leak in Leak::ALL {
            let t = welch::greatest_t(&times(aead, leak, batch_count)?);
            let report = LeakReport { backend: name, leak, t, count: batch_count };
            eprintln!("    {report}");
            reports.push(report);
        }
    }
    Ok(reports)
}

fn times(aead: Aead, leak: Leak, batch_count: usize) -> Result<Vec<(bool, f64)>> {
    let mut times = Vec::with_capacity(batch_count);
    let mut authentic = Vec::with_capacity(BATCH_LEN);
    let fixed = Secret::random()?;
    while times.len() < batch_count + DISCARDED {
        let mut prepared = (0..PREPARED).map(|_| prepare(aead, leak, &fixed)).collect::<Result<Vec<_>>>()?;
        for Prepared { class, keys, buffers, tags } in &mut prepared {
            let mut batch = packets(keys, buffers);
            let start = Instant::now();
            match leak {
                Leak::Control => compare_up_to_first_difference(&batch, tags),
                leak if leak.is_seal() => _ = std::hint::black_box(aead.seal(&mut batch)),
                _ => aead.open(&mut batch, &mut authentic),
            }
            times.push((*class, start.elapsed().as_nanos() as f64));
        }
    }
    Ok(times.split_off(DISCARDED))
}

fn packets<'a>(keys: &'a [Key], buffers: &'a mut [Vec<u8>]) -> Vec<Packet<'a>> {
    let buffers = keys.iter().zip(buffers).enumerate();
    buffers.map(|(index, (key, buffer))| Packet { key, counter: index as u64, buffer }).collect()
}

/// What an attacker would like to know.
#[derive(Clone)]
struct Secret {
    key: [u8; 32],
    text: Vec<u8>,
}

impl Secret {
    fn random() -> Result<Self> {
        let mut key = [0; 32];
        let mut text = vec![0; TEXT_LEN];
        random(&mut key)?;
        random(&mut text)?;
        Ok(Self { key, text })
    }
}

fn prepare(aead: Aead, leak: Leak, fixed: &Secret) -> Result<Prepared> {
    let mut coin = [0];
    random(&mut coin)?;
    let class = coin[0] & 1 == 1;
    let mut keys = Vec::with_capacity(BATCH_LEN);
    let mut buffers = Vec::with_capacity(BATCH_LEN);
    for _ in 0..BATCH_LEN {
        // Both classes draw the same random numbers and copy as much: they differ in values alone.
        let random = Secret::random()?;
        let key = if leak.is_key() && class { &random.key } else { &fixed.key };
        let text = if leak.is_text() && class { &random.text } else { &fixed.text };
        keys.push(Key::new(key));
        buffers.push([text.as_slice(), &[0; TAG_LEN]].concat());
    }
    if !leak.is_seal() {
        aead.seal(&mut packets(&keys, &mut buffers));
    }
    let tags = buffers.iter().filter_map(|buffer| buffer.last_chunk().copied()).collect();
    if matches!(leak, Leak::WrongTag | Leak::Control) {
        for buffer in &mut buffers {
            buffer[TEXT_LEN + if class { 0 } else { TAG_LEN - 1 }] ^= 1;
        }
    }
    Ok(Prepared { class, keys, buffers, tags })
}

fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| anyhow!("the system has no random numbers: {error}"))
}

/// What nobody should do.
fn compare_up_to_first_difference(batch: &[Packet<'_>], right_tags: &[[u8; TAG_LEN]]) {
    for (packet, right) in batch.iter().zip(right_tags) {
        for (byte, right) in packet.buffer[TEXT_LEN..].iter().zip(right) {
            if std::hint::black_box(*byte) != *right {
                break;
            }
        }
    }
}
