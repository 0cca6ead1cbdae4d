//! `ping`: whether packets arrive, how many, and how long they take.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{Namespace, wait_until};

/// What a run of `ping` saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Round-trip time of every reply, in milliseconds.
    pub round_trips_ms: Vec<f64>,
}

impl Pings {
    /// Requests without a reply.
    pub fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.received)
    }
}

/// One ping of one second's patience.
pub fn once(from: &Namespace, to: IpAddr) -> Result<bool> {
    Ok(from.attempt(&format!("ping -n -c 1 -W 1 {to}"), Duration::from_secs(10))?.status.success())
}

/// Waits until pings are answered: handshakes are done and neighbours resolved.
pub fn wait_for_reply(from: &Namespace, to: IpAddr, timeout: Duration) -> Result<()> {
    wait_until(&format!("a ping from {} to {to} is answered", from.name()), timeout, || once(from, to))
}

/// Sends `count` pings of `payload_len` bytes, `interval_ms` apart. Lost ones are no error.
pub fn run(from: &Namespace, to: IpAddr, count: u32, interval_ms: u32, payload_len: u32) -> Result<Pings> {
    run_with(from, to, count, interval_ms, &format!("-s {payload_len}"))
}

/// As [`run`], with other options of `ping`.
///
/// Once it was answered, `ping -c` waits no longer than two round trips for the rest, which a busy machine may
/// exceed. With `-w` it goes on until there are `count` replies; only the first `count` requests are looked at.
pub fn run_with(from: &Namespace, to: IpAddr, count: u32, interval_ms: u32, options: &str) -> Result<Pings> {
    let interval_s = f64::from(interval_ms) / 1000.0;
    let deadline_s = (count * interval_ms).div_ceil(1000) + 3;
    let line = format!("ping -n -c {count} -i {interval_s} -w {deadline_s} {options} {to}");
    let outcome = from.attempt(&line, Duration::from_secs(u64::from(deadline_s) + 15))?;
    parse(&outcome.stdout, count).with_context(|| format!("`{line}`: {}{}", outcome.stdout, outcome.stderr))
}

/// Pings that all have to be answered.
pub fn all_answered(from: &Namespace, to: IpAddr, count: u32) -> Result<()> {
    let pings = run(from, to, count, 20, 56)?;
    if pings.lost() > 0 {
        bail!("{} of {} pings from {} to {to} were lost", pings.lost(), pings.sent, from.name());
    }
    Ok(())
}

/// Pings 2 ms apart, as `netns.sh` floods; all have to be answered.
pub fn flood(from: &Namespace, to: IpAddr, count: u32) -> Result<()> {
    let pings = run(from, to, count, 2, 56)?;
    if pings.lost() > 0 {
        bail!("{} of {} flood pings from {} to {to} were lost", pings.lost(), pings.sent, from.name());
    }
    Ok(())
}

/// What one ping that cannot succeed says: nothing, or who answered it and why.
pub fn refusal(from: &Namespace, to: IpAddr) -> Result<String> {
    let outcome = from.attempt(&format!("ping -n -c 1 -W 1 {to}"), Duration::from_secs(10))?;
    if outcome.status.success() {
        bail!("{to} answered a ping from {}", from.name());
    }
    Ok(outcome.stdout + &outcome.stderr)
}

fn parse(text: &str, count: u32) -> Result<Pings> {
    text.lines().find(|line| line.contains(" packets transmitted")).context("no summary")?;
    let replies: BTreeMap<u32, f64> = text
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once("icmp_seq=")?;
            let (sequence, _) = rest.split_once(' ')?;
            let (_, time) = rest.split_once(" time=")?;
            Some((sequence.parse().ok()?, time.split(' ').next()?.parse().ok()?))
        })
        .filter(|(sequence, _)| *sequence <= count)
        .collect();
    let round_trips_ms: Vec<f64> = replies.into_values().collect();
    Ok(Pings { sent: count, received: round_trips_ms.len() as u32, round_trips_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_and_the_times_are_read() {
        // The second is lost, and the fourth went out while it was waited for.
        let text = "64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.5 ms\n\
                    64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=12 ms\n\
                    64 bytes from 10.0.0.1: icmp_seq=4 ttl=64 time=12 ms\n\n\
                    4 packets transmitted, 3 received, 25% packet loss, time 2003ms\n";
        let pings = parse(text, 3).unwrap();
        assert_eq!(pings, Pings { sent: 3, received: 2, round_trips_ms: vec![0.5, 12.0] });
        assert_eq!(pings.lost(), 1);
    }

    #[test]
    fn a_text_without_summary_is_an_error() {
        assert!(parse("ping: bad address", 1).is_err());
    }
}
