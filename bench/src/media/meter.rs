//! Accounting of one received stream.

use hdrhistogram::Histogram;

/// How far behind the newest packet one may arrive and still be told from a duplicate.
const WINDOW_LEN: u64 = 1 << 16;

/// Latencies are kept to three digits, up to a minute.
const LATENCY_DIGITS: u8 = 3;
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// What arrived of one stream, and how.
#[derive(Debug, Clone)]
pub struct StreamMeter {
    /// One more than the highest sequence number seen.
    next: u64,
    /// Bit `sequence % WINDOW_LEN` says whether that packet arrived, for the last `WINDOW_LEN` before `next`.
    seen: Box<[u64]>,
    /// How many packets the sender says it sent, once it has said so.
    sent: Option<u64>,
    received: u64,
    reordered: u64,
    duplicates: u64,
    late: u64,
    bytes: u64,
    last_transit_ns: Option<i64>,
    jitter_ns: f64,
    latency_ns: Histogram<u64>,
}

impl Default for StreamMeter {
    fn default() -> Self {
        Self {
            next: 0,
            seen: vec![0; (WINDOW_LEN / 64) as usize].into(),
            sent: None,
            received: 0,
            reordered: 0,
            duplicates: 0,
            late: 0,
            bytes: 0,
            last_transit_ns: None,
            jitter_ns: 0.0,
            latency_ns: latency_histogram(),
        }
    }
}

/// An empty histogram of nanoseconds; it grows with the latencies it sees.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new(LATENCY_DIGITS).expect("three digits are within what a histogram can hold")
}

pub fn record_latency(histogram: &mut Histogram<u64>, latency_ns: u64) {
    histogram.record(latency_ns.min(LATENCY_MAX_NS)).expect("the histogram resizes itself");
}

impl StreamMeter {
    /// Takes in one packet of `len` bytes. Duplicates and packets too late to tell are counted and nothing else.
    pub fn record(&mut self, sequence: u64, intended_ns: u64, received_ns: u64, len: usize) {
        if sequence >= self.next {
            self.advance(sequence);
        } else if self.next - sequence > WINDOW_LEN {
            self.late += 1;
            return;
        } else if self.is_seen(sequence) {
            self.duplicates += 1;
            return;
        } else {
            self.reordered += 1;
        }
        let slot = sequence % WINDOW_LEN;
        self.seen[(slot / 64) as usize] |= 1 << (slot % 64);
        self.received += 1;
        self.bytes += len as u64;
        self.record_times(intended_ns, received_ns);
    }

    /// The sender's word on how many packets it sent: makes losses at the very end visible.
    pub fn end(&mut self, sent: u64) {
        self.sent = Some(sent);
    }

    /// Whether the sender said that it is done.
    pub fn has_ended(&self) -> bool {
        self.sent.is_some()
    }

    /// Packets that the sender is known to have sent.
    pub fn expected(&self) -> u64 {
        self.sent.unwrap_or(0).max(self.next)
    }

    /// Packets that arrived, each counted once.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Packets that did not arrive (or only later than the window reaches).
    pub fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received)
    }

    /// Packets that arrived after one with a higher sequence number (RFC 4737, type P reordered).
    pub fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Arrivals of packets that had already arrived.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Arrivals more than 65,536 packets behind the newest: lost for any purpose.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// UDP payload bytes of the received packets.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Interarrival jitter in nanoseconds (RFC 3550, 6.4.1).
    pub fn jitter_ns(&self) -> f64 {
        self.jitter_ns
    }

    /// One-way latency in nanoseconds, from the intended send time.
    pub fn latency_ns(&self) -> &Histogram<u64> {
        &self.latency_ns
    }

    fn is_seen(&self, sequence: u64) -> bool {
        let slot = sequence % WINDOW_LEN;
        self.seen[(slot / 64) as usize] >> (slot % 64) & 1 == 1
    }

    /// Makes `sequence` the newest and forgets what leaves the window.
    fn advance(&mut self, sequence: u64) {
        if sequence - self.next >= WINDOW_LEN {
            self.seen.fill(0);
        } else {
            for skipped in self.next..=sequence {
                let slot = skipped % WINDOW_LEN;
                self.seen[(slot / 64) as usize] &= !(1 << (slot % 64));
            }
        }
        self.next = sequence.saturating_add(1);
    }

    /// Jitter is taken in the order of arrival, as the RFC says, with the intended send time as the timestamp.
    fn record_times(&mut self, intended_ns: u64, received_ns: u64) {
        let transit_ns = received_ns as i64 - intended_ns as i64;
        if let Some(last_transit_ns) = self.last_transit_ns.replace(transit_ns) {
            let difference_ns = (transit_ns - last_transit_ns).unsigned_abs() as f64;
            self.jitter_ns += (difference_ns - self.jitter_ns) / 16.0;
        }
        record_latency(&mut self.latency_ns, transit_ns.max(0) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream whose packets arrive 1 µs after they were sent.
    fn arrivals(sequences: impl IntoIterator<Item = u64>) -> StreamMeter {
        let mut meter = StreamMeter::default();
        for sequence in sequences {
            meter.record(sequence, 1_000, 2_000, 100);
        }
        meter
    }

    #[track_caller]
    fn assert_counts(meter: &StreamMeter, [received, lost, reordered, duplicates, late]: [u64; 5]) {
        assert_eq!(
            [meter.received(), meter.lost(), meter.reordered(), meter.duplicates(), meter.late()],
            [received, lost, reordered, duplicates, late]
        );
    }

    #[test]
    fn jitter_follows_rfc_3550() {
        // Transit times 5000, 5160, 5000, 5320: differences 160, 160, 320.
        let mut meter = StreamMeter::default();
        let mut jitters = Vec::new();
        for (sequence, transit_ns) in [5_000, 5_160, 5_000, 5_320].into_iter().enumerate() {
            let intended_ns = sequence as u64 * 20_000_000;
            meter.record(sequence as u64, intended_ns, intended_ns + transit_ns, 1);
            jitters.push(meter.jitter_ns());
        }
        // 160/16 = 10; 10 + (160 - 10)/16 = 19.375; 19.375 + (320 - 19.375)/16 = 38.1640625.
        assert_eq!(jitters, [0.0, 10.0, 19.375, 38.164_062_5]);
    }

    #[test]
    fn packets_in_order_are_just_received() {
        let meter = arrivals(0..1_000);
        assert_counts(&meter, [1_000, 0, 0, 0, 0]);
        assert_eq!(meter.bytes(), 100_000);
        assert_eq!(meter.jitter_ns().to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn gap_is_loss_until_it_is_filled() {
        let mut meter = arrivals([0, 1, 4]);
        assert_counts(&meter, [3, 2, 0, 0, 0]);
        meter.record(2, 0, 1, 1);
        assert_counts(&meter, [4, 1, 1, 0, 0]);
    }

    #[test]
    fn loss_of_the_first_and_last_packets_counts() {
        let mut meter = arrivals(3..10);
        assert_counts(&meter, [7, 3, 0, 0, 0]);
        assert!(!meter.has_ended());
        meter.end(12);
        assert_counts(&meter, [7, 5, 0, 0, 0]);
        assert!(meter.has_ended());
    }

    #[test]
    fn stream_that_never_arrived_is_all_lost() {
        let mut meter = StreamMeter::default();
        meter.end(50);
        assert_counts(&meter, [0, 50, 0, 0, 0]);
    }

    #[test]
    fn duplicates_count_once_and_leave_jitter_and_bytes_alone() {
        let mut meter = arrivals([0, 1, 2]);
        let bytes = meter.bytes();
        meter.record(1, 0, 9_999_999, 100);
        meter.record(2, 0, 9_999_999, 100);
        assert_counts(&meter, [3, 0, 0, 2, 0]);
        assert_eq!((meter.bytes(), meter.jitter_ns().to_bits()), (bytes, 0.0_f64.to_bits()));
        assert_eq!(meter.latency_ns().len(), 3);
    }

    #[test]
    fn wrap_of_the_rtp_sequence_number_is_not_a_gap() {
        assert_counts(&arrivals(65_000..66_100), [1_100, 65_000, 0, 0, 0]);
        let mut around = arrivals(0..65_535);
        for sequence in [65_536, 65_535, 65_537, 65_536] {
            around.record(sequence, 0, 1, 1);
        }
        assert_counts(&around, [65_538, 0, 1, 1, 0]);
    }

    #[test]
    fn outage_longer_than_the_window_is_counted_exactly() {
        let meter = arrivals((0..10).chain(200_000..200_010));
        assert_counts(&meter, [20, 199_990, 0, 0, 0]);
    }

    #[test]
    fn arrival_behind_the_window_is_late_and_stays_lost() {
        let meter = arrivals((0..10).chain([100_000, 9, 34_464, 34_465]));
        // 100_001 - 65_536 = 34_465 is the oldest that the window holds.
        assert_counts(&meter, [12, 99_989, 1, 0, 2]);
    }

    #[test]
    fn window_is_cleared_as_it_moves() {
        // Slot 5 was set by packet 5; packet 65_541 in the same slot is skipped, then arrives out of order.
        let meter = arrivals((0..65_541).chain([65_542, 65_541]));
        assert_counts(&meter, [65_543, 0, 1, 0, 0]);
    }

    #[test]
    fn latency_counts_from_the_intended_send_time() {
        let mut meter = StreamMeter::default();
        meter.record(0, 1_000_000, 3_000_000, 1);
        assert!(meter.latency_ns().equivalent(meter.latency_ns().max(), 2_000_000));
        // A clock that seems to run backwards is no latency, and no panic.
        meter.record(1, 2_000_000, 1_000_000, 1);
        assert_eq!(meter.latency_ns().min(), 0);
    }
}
