//! From a log of arrivals to counts, latencies and jitter: after the trial, so that nothing of it costs the trial time.

use hdrhistogram::Histogram;

use crate::media::meter::{latency_histogram, record_latency};

/// One arrival, in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Packets are in order among their stream's only.
    pub stream: u32,
    /// Rises with each packet of the stream that was sent: a sequence number, or a session's counter.
    pub order: u64,
    /// When the sink saw it, in nanoseconds of the clock of `intended_ns`.
    pub at_ns: u64,
    /// When it should have been sent; `None` for a sealed packet that was not opened.
    pub intended_ns: Option<u64>,
}

/// What the arrivals amount to.
#[derive(Debug, Clone)]
pub struct Account {
    /// Packets that arrived, each counted once.
    pub received: u64,
    /// Of these, those that arrived before sending ended.
    pub received_in_time: u64,
    /// Packets that arrived after a later one of their stream (RFC 4737, type P reordered).
    pub reordered: u64,
    /// Arrivals of what had arrived before.
    pub duplicates: u64,
    /// Of the first arrival of each packet, where known.
    pub latency_ns: Histogram<u64>,
    /// RFC 3550 jitter, averaged over the streams.
    pub jitter_ns: f64,
    /// When the last packet arrived.
    pub last_ns: Option<u64>,
}

/// What is known of one stream so far.
#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    /// The highest order seen, plus one.
    next: u64,
    transit_ns: Option<i64>,
    jitter_ns: f64,
}

impl Account {
    /// Takes all arrivals of a trial, whose sending ended at `sent_until_ns`.
    pub fn of(arrivals: &[Arrival], sent_until_ns: u64) -> Self {
        let repeated = repetitions(arrivals);
        let stream_count = arrivals.iter().map(|arrival| arrival.stream as usize + 1).max().unwrap_or(0);
        let mut streams = vec![Stream::default(); stream_count];
        let mut account = Self {
            received: 0,
            received_in_time: 0,
            reordered: 0,
            duplicates: 0,
            latency_ns: latency_histogram(),
            jitter_ns: 0.0,
            last_ns: arrivals.last().map(|arrival| arrival.at_ns),
        };
        for (arrival, is_repeated) in arrivals.iter().zip(repeated) {
            if is_repeated {
                account.duplicates += 1;
                continue;
            }
            account.received += 1;
            account.received_in_time += u64::from(arrival.at_ns <= sent_until_ns);
            let stream = &mut streams[arrival.stream as usize];
            if arrival.order < stream.next {
                account.reordered += 1;
            } else {
                stream.next = arrival.order + 1;
            }
            if let Some(intended_ns) = arrival.intended_ns {
                let transit_ns = arrival.at_ns as i64 - intended_ns as i64;
                record_latency(&mut account.latency_ns, transit_ns.max(0) as u64);
                stream.step_jitter(transit_ns);
            }
        }
        let measured: Vec<f64> = streams
            .iter()
            .filter(|stream| stream.transit_ns.is_some())
            .map(|stream| stream.jitter_ns)
            .collect();
        account.jitter_ns = measured.iter().sum::<f64>() / measured.len().max(1) as f64;
        account
    }
}

impl Stream {
    /// RFC 3550, 6.4.1, in the order of arrival, with the intended send time as the timestamp.
    fn step_jitter(&mut self, transit_ns: i64) {
        if let Some(before_ns) = self.transit_ns.replace(transit_ns) {
            let difference_ns = (transit_ns - before_ns).unsigned_abs() as f64;
            self.jitter_ns += (difference_ns - self.jitter_ns) / 16.0;
        }
    }
}

/// Which arrivals are of packets that had arrived before. Exact, whatever the distance: there is time.
fn repetitions(arrivals: &[Arrival]) -> Vec<bool> {
    let mut by_packet: Vec<(u32, u64, u32)> = arrivals
        .iter()
        .enumerate()
        .map(|(index, arrival)| (arrival.stream, arrival.order, index as u32))
        .collect();
    by_packet.sort_unstable();
    let mut repeated = vec![false; arrivals.len()];
    for pair in by_packet.windows(2) {
        if (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1) {
            repeated[pair[1].2 as usize] = true;
        }
    }
    repeated
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::StreamMeter;

    /// Sent 10 ns apart, each arrival one nanosecond after the one before.
    fn arrivals(orders: &[(u32, u64)]) -> Vec<Arrival> {
        let arrival = |(index, &(stream, order)): (usize, &(u32, u64))| Arrival {
            stream,
            order,
            at_ns: 10_000 + index as u64,
            intended_ns: Some(10 * order),
        };
        orders.iter().enumerate().map(arrival).collect()
    }

    fn counts(orders: &[(u32, u64)]) -> [u64; 3] {
        let account = Account::of(&arrivals(orders), u64::MAX);
        [account.received, account.reordered, account.duplicates]
    }

    #[test]
    fn packets_in_order_are_received_and_nothing_else() {
        assert_eq!(counts(&[(0, 0), (0, 1), (0, 5)]), [3, 0, 0]);
        assert_eq!(counts(&[]), [0, 0, 0]);
    }

    #[test]
    fn late_packets_are_reordered_and_second_ones_are_duplicates() {
        assert_eq!(counts(&[(0, 0), (0, 2), (0, 1), (0, 1), (0, 2), (0, 3)]), [4, 1, 2]);
        // However far apart.
        assert_eq!(counts(&[(0, 1_000_000), (0, 0), (0, 1_000_000)]), [2, 1, 1]);
    }

    #[test]
    fn streams_have_an_order_of_their_own() {
        assert_eq!(counts(&[(0, 7), (1, 3), (0, 8), (1, 4), (1, 3)]), [4, 0, 1]);
    }

    #[test]
    fn what_arrives_after_the_end_of_sending_is_received_but_not_in_time() {
        let account = Account::of(&arrivals(&[(0, 0), (0, 1), (0, 2)]), 10_001);
        assert_eq!((account.received, account.received_in_time, account.last_ns), (3, 2, Some(10_002)));
    }

    #[test]
    fn latency_counts_from_the_intended_time_and_only_once() {
        let mut arrivals = arrivals(&[(0, 0), (0, 0), (0, 1)]);
        let account = Account::of(&arrivals, u64::MAX);
        assert_eq!((account.latency_ns.len(), account.latency_ns.min()), (2, 9_992));
        arrivals[0].intended_ns = None;
        assert_eq!(Account::of(&arrivals, u64::MAX).latency_ns.len(), 1);
    }

    proptest! {
        #[test]
        fn one_stream_is_accounted_as_media_are(orders in proptest::collection::vec(0u64..200, 1..300)) {
            let orders: Vec<_> = orders.into_iter().map(|order| (0, order)).collect();
            let arrivals = arrivals(&orders);
            let account = Account::of(&arrivals, u64::MAX);
            let mut meter = StreamMeter::default();
            for arrival in &arrivals {
                meter.record(arrival.order, arrival.intended_ns.unwrap(), arrival.at_ns, 100);
            }
            prop_assert_eq!(account.received, meter.received());
            prop_assert_eq!(account.reordered, meter.reordered());
            prop_assert_eq!(account.duplicates, meter.duplicates());
            prop_assert!((account.jitter_ns - meter.jitter_ns()).abs() < 1e-6);
            prop_assert_eq!(account.latency_ns.len(), meter.latency_ns().len());
        }
    }
}
