//! A trial of load, and what came of it: plain data that crosses from the orchestrator to the load generator and back
//! as lines of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::media::{Latency, Percentile};

/// Which way packets cross the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Sealed datagrams in, plaintext out to the server.
    Decrypt,
    /// Plaintext from the server in, sealed datagrams out.
    Encrypt,
    /// Sealed datagrams of one client in, sealed for another client out.
    Hairpin,
    /// [`Direction::Decrypt`] and [`Direction::Encrypt`] at once, half of the rate each.
    Bidirectional,
}

/// Lengths of the inner IP packets of a trial, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sizes {
    /// All of one length.
    Fixed(u16),
    /// Seven of 64, four of 570 and one of 1420 bytes in turn: the simple Internet mix, cut to the tunnel's MTU.
    Imix,
    /// A call: Opus of 172 and video of 1228 bytes, as their rates of packets are to each other.
    Media,
}

/// A trial: so many packets at so steady a rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Which way.
    pub direction: Direction,
    /// How long the packets are.
    pub sizes: Sizes,
    /// Packets belong to that many clients in turn, each with a session of its own.
    pub clients: u32,
    /// Packets per second, by an open loop; `None` sends as fast as the generator can.
    pub rate_pps: Option<u64>,
    /// Seconds of sending.
    pub seconds: f64,
    /// Whether it is taken down what else held packets up. That takes an interrupt a millisecond, which packets meet.
    pub is_watched: bool,
}

/// What became of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The trial.
    pub trial: Trial,
    /// Packets whose time came.
    pub intended: u64,
    /// Packets the generator's transmit ring took.
    pub sent: u64,
    /// Packets that arrived, each counted once.
    pub received: u64,
    /// Sent and not arrived.
    pub lost: u64,
    /// Arrived after a later one of the same client.
    pub reordered: u64,
    /// Arrived again.
    pub duplicates: u64,
    /// From the first packet's intended time to the last arrival, in seconds.
    pub elapsed_seconds: f64,
    /// Arrivals while packets were sent, per second of that: what a gateway in overload still delivers.
    pub received_pps: f64,
    /// Packets that reached the sink and were lost there, for want of room: the generator's fault, not the gateway's.
    /// They are also among the lost; more than none make a trial void.
    pub sink_drops: u64,
    /// Arrivals whose contents, of those looked at, were not what was sent, or that did not open.
    pub corrupt: u64,
    /// Arrivals whose latency is known: all, or where the sink had to open sealed packets an even sample.
    pub latency_samples: u64,
    /// How much later than intended packets were sent, in microseconds, 99th percentile: the generator's own share of
    /// the latency. Large values make a trial void.
    pub send_delay_p99_us: f64,
    /// One-way latency from the intended send time; `None` when nothing arrived.
    pub latency: Option<Latency>,
    /// RFC 3550 jitter in microseconds, averaged over the clients.
    pub jitter_us: f64,
    /// Packet delay variation, p99.9 - min (RFC 8219, 7.3.1), in microseconds.
    pub pdv_p99_9_us: f64,
    /// The latency's distribution, finer towards the tail, for plots.
    pub percentiles: Vec<Percentile>,
    /// What others had to do with it, in a watched trial.
    pub held_up: Option<HeldUp>,
}

/// Packets that were held up because somebody else had the gateway's or the generator's processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldUp {
    /// How many were, with those that queued behind them, by whom they were held up longest.
    pub by: BTreeMap<String, u64>,
    /// Latency of all others.
    pub undisturbed: Option<Latency>,
    /// Packets with a latency of more than [`LATE_US`], those that nobody held up among them.
    pub late_by: BTreeMap<String, u64>,
}

impl HeldUp {
    /// Packets held up.
    pub fn packets(&self) -> u64 {
        self.by.values().sum()
    }
}

/// From this latency on it is asked why, in microseconds.
pub const LATE_US: u64 = 100;

/// The generator's own delay from which on a trial says more of the generator than of the gateway, in microseconds.
pub const SEND_DELAY_MAX_US: f64 = 1_000.0;

impl Outcome {
    /// Why the trial says nothing of the gateway; `None` when it does. An overload trial, which sends as fast as it
    /// can, has no delay.
    pub fn void(&self) -> Option<String> {
        if self.sink_drops > 0 {
            return Some(format!("the sink lost {} packets itself", self.sink_drops));
        }
        (self.send_delay_p99_us > SEND_DELAY_MAX_US)
            .then(|| format!("1 % of the packets were sent {:.0} us late or more", self.send_delay_p99_us))
    }

    /// Lost packets as a share of those intended, 0 to 1: what the generator could not send counts as lost.
    pub fn loss_ratio(&self) -> f64 {
        if self.intended == 0 {
            return 0.0;
        }
        (self.intended - self.received.min(self.intended)) as f64 / self.intended as f64
    }
}
