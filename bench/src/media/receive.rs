//! The receiving side: a sink like an SFU's socket, or a mirror for round trips.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::clock::now_ns;
use super::meter::StreamMeter;
use super::packet::{Kind, Packet};
use super::report::Report;
use super::socket::drops;

/// Each stream costs some tens of kilobytes; what exceeds this is counted as malformed.
const STREAM_COUNT_MAX: usize = 8_192;

/// How often a receiver without packets looks at its deadlines and at `stop`.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// After the last stream ended, stragglers are waited for this long.
const LINGER_NS: u64 = 500_000_000;

/// When to stop, and what to do with packets.
#[derive(Debug, Clone, Copy)]
pub struct ReceiveOptions {
    /// How long to wait for the first packet.
    pub wait: Duration,
    /// Silence after which the run is over.
    pub idle: Duration,
    /// End of the run in any case.
    pub limit: Duration,
    /// Send every packet back to where it came from.
    pub reflect: bool,
    /// Take packets out of the socket only this often, not one by one: saves most of the processor time at high
    /// rates, adds up to as much to every latency. Zero: at once.
    pub coalesce: Duration,
}

impl Default for ReceiveOptions {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(30),
            idle: Duration::from_secs(5),
            limit: Duration::from_hours(1),
            reflect: false,
            coalesce: Duration::ZERO,
        }
    }
}

/// Receives until every stream has ended, or the options or `stop` say so, and reports.
///
/// # Errors
/// When the socket cannot be used at all. Errors of single packets (such as ICMP answers) are not the end.
pub fn receive(socket: &UdpSocket, options: ReceiveOptions, stop: &AtomicBool) -> io::Result<Report> {
    if options.coalesce.is_zero() {
        socket.set_read_timeout(Some(POLL_INTERVAL))?;
    } else {
        socket.set_nonblocking(true)?;
    }
    let mut receiver = Receiver::new(now_ns());
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((len, source)) => {
                receiver.take_in(&buffer[..len], source, now_ns());
                if options.reflect {
                    // A mirror that cannot answer shows as loss at the sender.
                    let _ = socket.send_to(&buffer[..len], source);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                thread::sleep(options.coalesce);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // ICMP errors of earlier packets arrive here; the pause keeps a lasting error from spinning.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
        if stop.load(Ordering::Relaxed) || receiver.is_over(&options, now_ns()) {
            break;
        }
    }
    Ok(Report { socket_drops: drops(socket), ..receiver.report() })
}

/// State of a run, apart from the socket.
struct Receiver {
    started_ns: u64,
    /// Times of the first and the latest packet of any kind.
    active_ns: Option<(u64, u64)>,
    /// Time of the latest packet that carried media: ends come later, and rates are about media.
    latest_media_ns: u64,
    streams: HashMap<(SocketAddr, u32), (Kind, StreamMeter)>,
    ended_count: usize,
    malformed: u64,
}

impl Receiver {
    fn new(started_ns: u64) -> Self {
        Self {
            started_ns,
            active_ns: None,
            latest_media_ns: 0,
            streams: HashMap::new(),
            ended_count: 0,
            malformed: 0,
        }
    }

    fn take_in(&mut self, datagram: &[u8], source: SocketAddr, received_ns: u64) {
        let Ok(packet) = Packet::parse(datagram) else {
            self.malformed += 1;
            return;
        };
        let key = (source, packet.stream);
        if self.streams.len() >= STREAM_COUNT_MAX && !self.streams.contains_key(&key) {
            self.malformed += 1;
            return;
        }
        let first_ns = self.active_ns.map_or(received_ns, |(first_ns, _)| first_ns);
        self.active_ns = Some((first_ns, received_ns));
        let (_, meter) = self.streams.entry(key).or_insert_with(|| (packet.kind, StreamMeter::default()));
        if packet.end {
            self.ended_count += usize::from(!meter.has_ended());
            meter.end(packet.sequence);
        } else {
            self.latest_media_ns = received_ns;
            meter.record(packet.sequence, packet.intended_ns, received_ns, datagram.len());
        }
    }

    fn is_over(&self, options: &ReceiveOptions, now_ns: u64) -> bool {
        let since = |then_ns: u64| Duration::from_nanos(now_ns.saturating_sub(then_ns));
        if since(self.started_ns) >= options.limit {
            return true;
        }
        let Some((_, latest_ns)) = self.active_ns else {
            return since(self.started_ns) >= options.wait;
        };
        let all_ended = self.ended_count == self.streams.len();
        since(latest_ns) >= options.idle || all_ended && now_ns.saturating_sub(latest_ns) >= LINGER_NS
    }

    fn report(&self) -> Report {
        let duration_ns =
            self.active_ns.map_or(0, |(first_ns, _)| self.latest_media_ns.saturating_sub(first_ns));
        let meters = self
            .streams
            .iter()
            .map(|((source, stream), (kind, meter))| (source.to_string(), *stream, *kind, meter));
        Report { malformed: self.malformed, ..Report::new(duration_ns as f64 / 1e9, meters) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::packet::HEADER_LEN;

    const SECOND_NS: u64 = 1_000_000_000;

    fn source() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 5_004))
    }

    fn datagram(stream: u32, sequence: u64, end: bool) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        let packet =
            Packet { kind: Kind::Audio, stream, sequence, timestamp: 0, marker: true, intended_ns: 0, end };
        packet.write(&mut header);
        header
    }

    #[test]
    fn receiver_waits_for_the_first_packet_only_so_long() {
        let receiver = Receiver::new(0);
        let options = ReceiveOptions { wait: Duration::from_secs(3), ..ReceiveOptions::default() };
        assert!(!receiver.is_over(&options, 3 * SECOND_NS - 1));
        assert!(receiver.is_over(&options, 3 * SECOND_NS));
    }

    #[test]
    fn silence_ends_the_run() {
        let mut receiver = Receiver::new(0);
        receiver.take_in(&datagram(0, 0, false), source(), 10 * SECOND_NS);
        let options = ReceiveOptions::default();
        assert!(!receiver.is_over(&options, 15 * SECOND_NS - 1));
        assert!(receiver.is_over(&options, 15 * SECOND_NS));
    }

    #[test]
    fn run_ends_soon_after_every_stream_has_and_not_before() {
        let mut receiver = Receiver::new(0);
        for stream in 0..2 {
            receiver.take_in(&datagram(stream, 0, false), source(), 0);
        }
        receiver.take_in(&datagram(0, 1, true), source(), SECOND_NS);
        receiver.take_in(&datagram(0, 1, true), source(), SECOND_NS);
        assert!(!receiver.is_over(&ReceiveOptions::default(), 2 * SECOND_NS));
        receiver.take_in(&datagram(1, 1, true), source(), 2 * SECOND_NS);
        assert!(!receiver.is_over(&ReceiveOptions::default(), 2 * SECOND_NS + LINGER_NS - 1));
        assert!(receiver.is_over(&ReceiveOptions::default(), 2 * SECOND_NS + LINGER_NS));
    }

    #[test]
    fn limit_ends_even_a_busy_run() {
        let mut receiver = Receiver::new(0);
        receiver.take_in(&datagram(0, 0, false), source(), 60 * SECOND_NS);
        let options = ReceiveOptions { limit: Duration::from_mins(1), ..ReceiveOptions::default() };
        assert!(receiver.is_over(&options, 60 * SECOND_NS));
    }

    #[test]
    fn streams_of_different_senders_are_kept_apart() {
        let mut receiver = Receiver::new(0);
        receiver.take_in(&datagram(0, 0, false), source(), 1);
        receiver.take_in(&datagram(0, 0, false), SocketAddr::from(([192, 0, 2, 2], 5_004)), 2);
        receiver.take_in(b"not ours", source(), 3);
        let report = receiver.report();
        assert_eq!((report.streams.len(), report.malformed), (2, 1));
        assert_eq!(report.total().duplicates, 0);
    }

    #[test]
    fn streams_are_bounded() {
        let mut receiver = Receiver::new(0);
        for stream in 0..=STREAM_COUNT_MAX as u32 {
            receiver.streams.insert((source(), stream), (Kind::Audio, StreamMeter::default()));
            if receiver.streams.len() == STREAM_COUNT_MAX {
                break;
            }
        }
        receiver.take_in(&datagram(u32::MAX, 0, false), source(), 1);
        assert_eq!((receiver.streams.len(), receiver.malformed), (STREAM_COUNT_MAX, 1));
    }
}
