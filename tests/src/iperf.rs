//! `iperf3`: bulk TCP and paced UDP, read from its JSON.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{Lab, Losses, Namespace};

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the iperf3 client to the iperf3 server.
    Forward,
    /// From the iperf3 server to the iperf3 client.
    Reverse,
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reverse];
}

/// What arrived of a TCP stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tcp {
    /// Goodput at the receiver, in bits per second.
    pub bits_per_second: f64,
    /// Segments the sender sent again.
    pub retransmits: u64,
}

/// What arrived of a UDP stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Udp {
    /// Rate at the receiver, in bits per second.
    pub bits_per_second: f64,
    /// Datagrams sent.
    pub packets: u64,
    /// Datagrams that did not arrive.
    pub lost: u64,
    /// RFC 3550 jitter at the end, in milliseconds.
    pub jitter_ms: f64,
}

/// One TCP stream for `seconds` to the iperf3 server at `to`.
pub fn tcp(from: &Namespace, to: IpAddr, direction: Direction, seconds: u32) -> Result<Tcp> {
    let end = run(from, to, direction, seconds, "")?;
    Ok(Tcp {
        bits_per_second: number(&end, "/sum_received/bits_per_second")?,
        retransmits: end.pointer("/sum_sent/retransmits").and_then(Value::as_u64).unwrap_or(0),
    })
}

/// `stream_count` TCP streams at once for `seconds`.
pub fn tcp_parallel(from: &Namespace, to: IpAddr, seconds: u32, stream_count: u32) -> Result<Tcp> {
    let end = run(from, to, Direction::Forward, seconds, &format!("--parallel {stream_count}"))?;
    Ok(Tcp {
        bits_per_second: number(&end, "/sum_received/bits_per_second")?,
        retransmits: end.pointer("/sum_sent/retransmits").and_then(Value::as_u64).unwrap_or(0),
    })
}

/// One UDP stream of `megabits` per second, 0 for as much as goes, in datagrams of `payload_len` bytes.
pub fn udp(
    from: &Namespace,
    to: IpAddr,
    direction: Direction,
    seconds: u32,
    megabits: u32,
    payload_len: u32,
) -> Result<Udp> {
    let end =
        run(from, to, direction, seconds, &format!("--udp --bitrate {megabits}M --length {payload_len}"))?;
    Ok(Udp {
        bits_per_second: number(&end, "/sum/bits_per_second")?,
        packets: number(&end, "/sum/packets")? as u64,
        lost: number(&end, "/sum/lost_packets")? as u64,
        jitter_ms: number(&end, "/sum/jitter_ms")?,
    })
}

/// A second of UDP of which nothing may be lost. Where the kernel counts that a queue was full, which on a busy machine
/// the receiver's is soon, it is tried again.
pub fn udp_lossless(
    lab: &Lab,
    from: &Namespace,
    to: IpAddr,
    direction: Direction,
    megabits: u32,
    payload_len: u32,
) -> Result<Udp> {
    let mut overflows = String::new();
    for _ in 0..3 {
        let before = Losses::read(lab.namespaces())?;
        let stream = udp(from, to, direction, 1, megabits, payload_len)?;
        if stream.lost == 0 {
            return Ok(stream);
        }
        let losses = Losses::read(lab.namespaces())?.since(&before);
        if losses.total() < stream.lost {
            bail!("UDP to {to}, {direction:?}: {stream:?}; {losses}");
        }
        overflows = losses.to_string();
    }
    bail!("UDP to {to}, {direction:?}: a queue was full each time: {overflows}")
}

/// The `end` object of iperf3's report. A server that breaks off (on a slow machine it gives up on a test that does not
/// begin in time, or is not done with the one before) is asked once more.
fn run(from: &Namespace, to: IpAddr, direction: Direction, seconds: u32, options: &str) -> Result<Value> {
    attempt(from, to, direction, seconds, options).or_else(|error| {
        let text = format!("{error:#}");
        if !["control message", "server is busy"].iter().any(|said| text.contains(said)) {
            return Err(error);
        }
        eprintln!("{text}: once more");
        attempt(from, to, direction, seconds, options)
    })
}

fn attempt(from: &Namespace, to: IpAddr, direction: Direction, seconds: u32, options: &str) -> Result<Value> {
    let reverse = if direction == Direction::Reverse { "--reverse" } else { "" };
    let line =
        format!("iperf3 --client {to} --json --connect-timeout 5000 --time {seconds} {reverse} {options}");
    let outcome = from.attempt(&line, Duration::from_secs(u64::from(seconds) + 20))?;
    let report: Value = serde_json::from_str(&outcome.stdout)
        .with_context(|| format!("`{line}` gave no report: {}{}", outcome.stdout, outcome.stderr))?;
    if let Some(error) = report.get("error").and_then(Value::as_str) {
        bail!("`{line}` from {}: {error}", from.name());
    }
    Ok(report["end"].clone())
}

fn number(end: &Value, pointer: &str) -> Result<f64> {
    end.pointer(pointer)
        .and_then(Value::as_f64)
        .with_context(|| format!("iperf3's report has no number {pointer}"))
}
