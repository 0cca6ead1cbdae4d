//! `ping`: whether packets arrive, how many, and how long they take.

use std::{net::IpAddr, time::Duration};

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
    let interval_s = f64::from(interval_ms) / 1000.0;
    let line = format!("ping -n -c {count} -i {interval_s} -W 2 -s {payload_len} {to}");
    let limit = Duration::from_millis(u64::from(count * interval_ms)) + Duration::from_secs(15);
    let outcome = from.attempt(&line, limit)?;
    parse(&outcome.stdout).with_context(|| format!("`{line}`: {}{}", outcome.stdout, outcome.stderr))
}

/// Pings that all have to be answered.
pub fn all_answered(from: &Namespace, to: IpAddr, count: u32) -> Result<()> {
    let pings = run(from, to, count, 20, 56)?;
    if pings.lost() > 0 {
        bail!("{} of {} pings from {} to {to} were lost", pings.lost(), pings.sent, from.name());
    }
    Ok(())
}

/// Pings as fast as they are answered, as `netns.sh` does; all have to be.
pub fn flood(from: &Namespace, to: IpAddr, count: u32) -> Result<()> {
    let line = format!("ping -n -f -c {count} -W 2 {to}");
    let outcome = from.attempt(&line, Duration::from_mins(1))?;
    let pings =
        parse(&outcome.stdout).with_context(|| format!("`{line}`: {}{}", outcome.stdout, outcome.stderr))?;
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

fn parse(text: &str) -> Result<Pings> {
    let summary = text.lines().find(|line| line.contains(" packets transmitted")).context("no summary")?;
    let number_before = |what: &str| {
        let (before, _) = summary.split_once(what)?;
        before.rsplit([' ', ',']).find(|word| !word.is_empty())?.parse().ok()
    };
    Ok(Pings {
        sent: number_before(" packets transmitted").context("no number sent")?,
        received: number_before(" received").context("no number received")?,
        round_trips_ms: text
            .lines()
            .filter_map(|line| line.split_once(" time=")?.1.split(' ').next()?.parse().ok())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_and_the_times_are_read() {
        let text = "64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.5 ms\n\
                    64 bytes from 10.0.0.1: icmp_seq=2 ttl=64 time=12 ms\n\n\
                    3 packets transmitted, 2 received, 33.3333% packet loss, time 2003ms\n";
        let pings = parse(text).unwrap();
        assert_eq!(pings, Pings { sent: 3, received: 2, round_trips_ms: vec![0.5, 12.0] });
        assert_eq!(pings.lost(), 1);
    }

    #[test]
    fn a_text_without_summary_is_an_error() {
        assert!(parse("ping: bad address").is_err());
    }
}
