//! Results of a run: plain data for JSON, and a table for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::meter::{StreamMeter, latency_histogram};
use super::packet::Kind;

/// What a receiver saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// From the first media packet to the last, in seconds.
    pub duration_seconds: f64,
    /// Datagrams that were not ours, damaged, or of a stream too many.
    pub malformed: u64,
    /// Datagrams the kernel dropped because this receiver's own socket was full: the measurement's fault, not the
    /// network's. They are also among the lost. `None` where the kernel does not tell.
    pub socket_drops: Option<u64>,
    /// All streams of a kind taken together.
    pub flows: Vec<Flow>,
    /// Every stream by itself.
    pub streams: Vec<Stream>,
}

/// All streams of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// What they carry.
    pub kind: Kind,
    /// How many streams there are.
    pub stream_count: usize,
    /// Their packets.
    pub packets: PacketCounts,
    /// RFC 3550 jitter in microseconds, averaged over the streams.
    pub jitter_us: f64,
    /// The largest jitter of any stream, in microseconds.
    pub jitter_max_us: f64,
    /// One-way latency from the intended send time (there and back for a round trip).
    pub latency: Option<Latency>,
    /// The latency's distribution, finer towards the tail, for plots.
    pub percentiles: Vec<Percentile>,
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Address and port it came from.
    pub source: String,
    /// Number of the stream at its sender.
    pub stream: u32,
    /// What it carries.
    pub kind: Kind,
    /// Its packets.
    pub packets: PacketCounts,
    /// RFC 3550 jitter in microseconds.
    pub jitter_us: f64,
    /// One-way latency from the intended send time.
    pub latency: Option<Latency>,
}

/// What became of the packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCounts {
    /// Sent, as far as the receiver knows.
    pub expected: u64,
    /// Arrived, each counted once.
    pub received: u64,
    /// Expected and not arrived.
    pub lost: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Arrived again.
    pub duplicates: u64,
    /// Arrived too late to tell from a duplicate; among the lost.
    pub late: u64,
    /// UDP payload of the received ones.
    pub bytes: u64,
}

/// Latency in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "percentiles are named by what they are")]
pub struct Latency {
    pub min_us: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub max_us: f64,
    /// Packet delay variation: p99 - min (RFC 5481, 4.2, with the 99th percentile as the bound).
    pub pdv_us: f64,
}

/// One point of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentile {
    /// Share of packets in percent, 0 to 100, that were at most this late.
    pub percentile: f64,
    /// Latency in microseconds.
    pub latency_us: f64,
}

/// What a sender did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SendReport {
    /// From the start of the schedule to its last packet, in seconds.
    pub duration_seconds: f64,
    /// Packets handed to the kernel.
    pub sent: u64,
    /// Their UDP payload.
    pub bytes: u64,
    /// Packets that the kernel refused (socket full, no route, refused by the other side).
    pub failed: u64,
    /// Packets still to be sent when the sender gave up or was stopped.
    pub unsent: u64,
    /// How much later than intended packets were sent: the sender's own share of every latency.
    pub lag: Option<Latency>,
    /// What came back, when the receiver reflects.
    pub round_trip: Option<Report>,
}

impl Latency {
    /// `None` when nothing was recorded.
    pub fn of(nanoseconds: &Histogram<u64>) -> Option<Self> {
        if nanoseconds.is_empty() {
            return None;
        }
        let at = |quantile| microseconds(nanoseconds.value_at_quantile(quantile));
        let min_us = microseconds(nanoseconds.min());
        Some(Self {
            min_us,
            mean_us: rounded(nanoseconds.mean() / 1_000.0, 3),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: microseconds(nanoseconds.max()),
            pdv_us: rounded(at(0.99) - min_us, 3),
        })
    }
}

impl Percentile {
    /// The distribution at steps that halve towards 100 %, as `HdrHistogram` iterates, as far as there is at least
    /// one packet beyond; the last one is 100, the maximum.
    pub fn of(nanoseconds: &Histogram<u64>) -> Vec<Self> {
        const STEPS_PER_HALVING: u32 = 5;
        nanoseconds
            .iter_quantiles(STEPS_PER_HALVING)
            .filter(|step| {
                let beyond = 1.0 - step.quantile_iterated_to();
                beyond <= 0.0 || beyond * nanoseconds.len() as f64 >= 1.0
            })
            .map(|step| Self {
                percentile: rounded(step.quantile_iterated_to() * 100.0, 8),
                latency_us: microseconds(step.value_iterated_to()),
            })
            .collect()
    }
}

/// Digits beyond these are noise of the arithmetic; without them JSON is short and reads back exactly.
fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1_000.0
}

impl PacketCounts {
    fn of(meter: &StreamMeter) -> Self {
        Self {
            expected: meter.expected(),
            received: meter.received(),
            lost: meter.lost(),
            reordered: meter.reordered(),
            duplicates: meter.duplicates(),
            late: meter.late(),
            bytes: meter.bytes(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.expected += other.expected;
        self.received += other.received;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.bytes += other.bytes;
    }

    /// Lost packets in percent of the expected ones.
    pub fn loss_percent(&self) -> f64 {
        if self.expected == 0 { 0.0 } else { self.lost as f64 * 100.0 / self.expected as f64 }
    }
}

impl Report {
    /// The packets of all flows together.
    pub fn total(&self) -> PacketCounts {
        let mut total = PacketCounts::default();
        for flow in &self.flows {
            total.add(&flow.packets);
        }
        total
    }

    /// Sums up meters, each with its source and number at that source.
    pub fn new<'a>(
        duration_seconds: f64,
        meters: impl IntoIterator<Item = (String, u32, Kind, &'a StreamMeter)>,
    ) -> Self {
        let mut flows = BTreeMap::<Kind, (Vec<f64>, PacketCounts, Histogram<u64>)>::new();
        let mut streams = Vec::new();
        for (source, stream, kind, meter) in meters {
            let packets = PacketCounts::of(meter);
            let jitter_us = rounded(meter.jitter_ns() / 1_000.0, 3);
            let (jitters_us, flow_packets, latency_ns) = flows
                .entry(kind)
                .or_insert_with(|| (Vec::new(), PacketCounts::default(), latency_histogram()));
            jitters_us.push(jitter_us);
            flow_packets.add(&packets);
            latency_ns.add(meter.latency_ns()).expect("the histogram resizes itself");
            let latency = Latency::of(meter.latency_ns());
            streams.push(Stream { source, stream, kind, packets, jitter_us, latency });
        }
        streams.sort_by(|a, b| (&a.source, a.stream).cmp(&(&b.source, b.stream)));
        let flows = flows
            .into_iter()
            .map(|(kind, (jitters_us, packets, latency_ns))| Flow {
                kind,
                stream_count: jitters_us.len(),
                packets,
                jitter_us: rounded(jitters_us.iter().sum::<f64>() / jitters_us.len() as f64, 3),
                jitter_max_us: jitters_us.iter().copied().fold(0.0, f64::max),
                latency: Latency::of(&latency_ns),
                percentiles: Percentile::of(&latency_ns),
            })
            .collect();
        Self { duration_seconds, malformed: 0, socket_drops: None, flows, streams }
    }

    /// The flows' distributions as CSV: `flow,percentile,latency_us`.
    pub fn percentiles_csv(&self) -> String {
        let mut csv = String::from("flow,percentile,latency_us\n");
        for flow in &self.flows {
            for point in &flow.percentiles {
                writeln!(csv, "{},{},{}", flow.kind.name(), point.percentile, point.latency_us)
                    .expect("writing to a string does not fail");
            }
        }
        csv
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:<6} {:>7} {:>10} {:>8} {:>7} {:>9} {:>5} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "flow",
            "streams",
            "received",
            "lost",
            "loss %",
            "reordered",
            "dup",
            "Mb/s",
            "jitter",
            "min us",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "PDV us",
        )?;
        for flow in &self.flows {
            let packets = &flow.packets;
            write!(
                out,
                "{:<6} {:>7} {:>10} {:>8} {:>7.3} {:>9} {:>5} {:>8.2} {:>9.1}",
                flow.kind.name(),
                flow.stream_count,
                packets.received,
                packets.lost,
                packets.loss_percent(),
                packets.reordered,
                packets.duplicates,
                if self.duration_seconds > 0.0 {
                    packets.bytes as f64 * 8e-6 / self.duration_seconds
                } else {
                    0.0
                },
                flow.jitter_us,
            )?;
            match &flow.latency {
                Some(latency) => writeln!(
                    out,
                    " {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
                    latency.min_us, latency.p50_us, latency.p99_us, latency.p99_9_us, latency.pdv_us
                )?,
                None => writeln!(out, "{:>10}", "-")?,
            }
        }
        if self.flows.is_empty() {
            writeln!(out, "nothing received")?;
        }
        if self.malformed > 0 {
            writeln!(out, "{} datagrams were not ours or damaged", self.malformed)?;
        }
        if let Some(drops @ 1..) = self.socket_drops {
            writeln!(out, "{drops} datagrams were lost in this receiver's own socket buffer")?;
        }
        Ok(())
    }
}

impl fmt::Display for SendReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "sent {} packets, {:.2} Mb/s, in {:.2} s; {} failed, {} unsent",
            self.sent,
            if self.duration_seconds > 0.0 { self.bytes as f64 * 8e-6 / self.duration_seconds } else { 0.0 },
            self.duration_seconds,
            self.failed,
            self.unsent,
        )?;
        if let Some(lag) = &self.lag {
            write!(
                out,
                "; behind schedule by {:.0} us (p50), {:.0} us (p99), {:.0} us (max)",
                lag.p50_us, lag.p99_us, lag.max_us
            )?;
        }
        writeln!(out)?;
        if let Some(round_trip) = &self.round_trip {
            write!(out, "there and back:\n{round_trip}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut meters = [StreamMeter::default(), StreamMeter::default()];
        for sequence in (0..100).filter(|sequence| sequence % 10 != 3) {
            let sent_ns = sequence * 20_000_000;
            meters[0].record(sequence, sent_ns, sent_ns + 100_000 + sequence * 1_000, 172);
            meters[1].record(sequence, sent_ns, sent_ns + 900_000, 1_200);
        }
        let kinds = [Kind::Audio, Kind::Video];
        Report::new(
            2.0,
            meters
                .iter()
                .zip(kinds)
                .enumerate()
                .map(|(index, (meter, kind))| ("192.0.2.1:5004".to_owned(), index as u32, kind, meter)),
        )
    }

    #[test]
    fn report_survives_json() {
        let sent = SendReport {
            duration_seconds: 2.0,
            sent: 200,
            bytes: 137_200,
            failed: 0,
            unsent: 1,
            lag: report().flows[0].latency,
            round_trip: Some(report()),
        };
        let json = serde_json::to_string(&sent).expect("a report is JSON");
        assert_eq!(serde_json::from_str::<SendReport>(&json).expect("its own JSON parses"), sent);
        assert!(json.contains("\"kind\":\"audio\""));
    }

    #[test]
    fn flows_sum_their_streams() {
        let report = report();
        assert_eq!(report.flows.len(), 2);
        let PacketCounts { expected, received, lost, .. } = report.total();
        assert_eq!((expected, received, lost), (200, 180, 20));
        assert!((report.flows[0].packets.loss_percent() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn delay_variation_is_the_99th_percentile_over_the_minimum() {
        let latency = report().flows[0].latency.expect("packets were received");
        assert!((latency.min_us - 100.0).abs() < 0.2, "{latency:?}");
        assert!((latency.p50_us - 149.0).abs() < 2.0, "{latency:?}");
        assert!((latency.pdv_us - (latency.p99_us - latency.min_us)).abs() < 1e-9);
        assert!((latency.pdv_us - 99.0).abs() < 1.0, "{latency:?}");
    }

    #[test]
    fn percentiles_rise_from_0_to_100() {
        let report = report();
        let points = &report.flows[0].percentiles;
        assert!(points.is_sorted_by(|a, b| a.percentile <= b.percentile && a.latency_us <= b.latency_us));
        assert!((points.last().expect("points").percentile - 100.0).abs() < 1e-9);
        let point_count: usize = report.flows.iter().map(|flow| flow.percentiles.len()).sum();
        assert_eq!(report.percentiles_csv().lines().count(), 1 + point_count);
    }

    #[test]
    fn table_names_every_flow_and_its_loss() {
        let table = report().to_string();
        assert!(table.contains("audio") && table.contains("video") && table.contains("10.000"), "{table}");
        assert!(Report::new(0.0, []).to_string().contains("nothing received"));
    }
}
