//! The sending side: paces a schedule over a socket, open loop.

use std::net::UdpSocket;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use rustix::net::SendFlags;

use super::clock::{now_ns, sleep_until};
use super::meter::{latency_histogram, record_latency};
use super::packet::{HEADER_LEN, Kind, Packet};
use super::receive::{ReceiveOptions, receive};
use super::report::{Latency, SendReport};
use super::schedule::{Emission, Schedule};

/// Between start and the first packet, so that set-up is not counted as lag.
const LEAD_NS: u64 = 20_000_000;

/// A sender this far behind its schedule gives up.
const LAG_MAX_NS: u64 = 5_000_000_000;

/// Streams are ended several times, apart, since an end packet may be lost like any other; and not before the
/// last media packets had time to arrive.
const END_COUNT: usize = 3;
const END_INTERVAL_NS: u64 = 100_000_000;

/// Longest sleep without a look at `stop`.
const SLEEP_MAX_NS: u64 = 100_000_000;

/// How to send.
#[derive(Debug, Clone, Copy, Default)]
pub struct SendOptions {
    /// The other side reflects: measure the round trip.
    pub round_trip: bool,
}

/// Sends the whole schedule over a connected socket, or until `stop`, then ends every stream.
///
/// Takes no longer than the schedule's duration and 7 seconds more.
///
/// # Errors
/// When the thread that takes in reflected packets cannot run.
pub fn send(
    socket: &UdpSocket,
    schedule: Schedule,
    options: SendOptions,
    stop: &AtomicBool,
) -> Result<SendReport> {
    let mirrored = ReceiveOptions {
        wait: schedule.duration() + Duration::from_secs(2),
        idle: schedule.duration() + Duration::from_secs(2),
        limit: schedule.duration() + Duration::from_secs(7),
        ..ReceiveOptions::default()
    };
    let sent_all = AtomicBool::new(false);
    thread::scope(|scope| {
        let mirror = options.round_trip.then(|| scope.spawn(|| receive(socket, mirrored, &sent_all)));
        let report = Sender::new(socket, stop).run(schedule);
        if mirror.is_some() {
            sleep_until(now_ns() + 10 * END_INTERVAL_NS);
        }
        sent_all.store(true, Ordering::Relaxed);
        let round_trip = mirror
            .map(|mirror| mirror.join().expect("the receiver does not panic"))
            .transpose()
            .context("cannot receive what the other side reflects")?;
        Ok(SendReport { round_trip, ..report })
    })
}

struct Sender<'a> {
    socket: &'a UdpSocket,
    stop: &'a AtomicBool,
    datagram: Vec<u8>,
    /// Every stream of the schedule, by its number, and how many packets it has had.
    streams: Vec<(Kind, u64)>,
    sent: u64,
    bytes: u64,
    failed: u64,
    lag_ns: Histogram<u64>,
}

impl<'a> Sender<'a> {
    fn new(socket: &'a UdpSocket, stop: &'a AtomicBool) -> Self {
        // Filler that is neither constant nor secret.
        let datagram = (0..usize::from(u16::MAX)).map(|at| (at * 167 + 13) as u8).collect();
        Self {
            socket,
            stop,
            datagram,
            streams: Vec::new(),
            sent: 0,
            bytes: 0,
            failed: 0,
            lag_ns: latency_histogram(),
        }
    }

    fn run(mut self, mut schedule: Schedule) -> SendReport {
        // The kernel may delay a sleeper by its timer slack, 50 us unless set. Best effort.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let start_ns = now_ns() + LEAD_NS;
        let mut last_ns = start_ns;
        self.streams = schedule.kinds().map(|kind| (kind, 0)).collect();
        let mut unsent = 0;
        while let Some(emission) = schedule.next() {
            let intended_ns = start_ns + emission.at.as_nanos() as u64;
            let Some(now_ns) = self.sleep_until(intended_ns) else {
                unsent = 1 + schedule.by_ref().count() as u64;
                break;
            };
            self.emit(&emission, intended_ns);
            record_latency(&mut self.lag_ns, now_ns - intended_ns);
            last_ns = now_ns;
        }
        self.end();
        SendReport {
            duration_seconds: last_ns.saturating_sub(start_ns) as f64 / 1e9,
            sent: self.sent,
            bytes: self.bytes,
            failed: self.failed,
            unsent,
            lag: Latency::of(&self.lag_ns),
            round_trip: None,
        }
    }

    /// Returns the time, at or after `deadline_ns`; `None` when sending should stop.
    fn sleep_until(&self, deadline_ns: u64) -> Option<u64> {
        loop {
            let now_ns = now_ns();
            if self.stop.load(Ordering::Relaxed) || now_ns.saturating_sub(deadline_ns) > LAG_MAX_NS {
                return None;
            }
            if now_ns >= deadline_ns {
                return Some(now_ns);
            }
            sleep_until(deadline_ns.min(now_ns + SLEEP_MAX_NS));
        }
    }

    fn emit(&mut self, emission: &Emission, intended_ns: u64) {
        let &Emission { kind, stream, sequence, timestamp, marker, payload_len, .. } = emission;
        self.write(&Packet { kind, stream, sequence, timestamp, marker, intended_ns, end: false });
        self.streams[stream as usize].1 = sequence + 1;
        // Without waiting: a full socket must not slow the schedule down.
        match rustix::net::send(self.socket, &self.datagram[..payload_len], SendFlags::DONTWAIT) {
            Ok(_) => {
                self.sent += 1;
                self.bytes += payload_len as u64;
            }
            Err(_) => self.failed += 1,
        }
    }

    fn end(&mut self) {
        for _ in 0..END_COUNT {
            sleep_until(now_ns() + END_INTERVAL_NS);
            for stream in 0..self.streams.len() {
                let (kind, sequence) = self.streams[stream];
                let (stream, intended_ns) = (stream as u32, now_ns());
                let end =
                    Packet { kind, stream, sequence, timestamp: 0, marker: false, intended_ns, end: true };
                self.write(&end);
                let _ = rustix::net::send(self.socket, &self.datagram[..HEADER_LEN], SendFlags::DONTWAIT);
            }
        }
    }

    fn write(&mut self, packet: &Packet) {
        let header = self.datagram.first_chunk_mut().expect("the buffer is longer than a header");
        packet.write(header);
    }
}
