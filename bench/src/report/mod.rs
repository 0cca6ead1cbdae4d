//! What the benchmarks found, as data: for JSON, for tables, for plots, and for the goals.

mod drawn;
mod goals;
mod grid;
mod machine;
mod marked;
mod spread;
mod tables;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use drawn::{Plot, plots};
pub use goals::{AF_XDP_FORWARD, Goal, Verdict, goals};
pub use grid::Grid;
pub use machine::{Machine, StealClock};
pub use marked::replace_marked;
pub use spread::Spread;
pub use tables::{ceilings_note, grids, reasons, size_name};

use crate::{
    load::{Direction, Sizes},
    media::Percentile,
    search::End,
};

/// What is measured: ours, what it is compared with, or what bounds both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `wgx`.
    Ours,
    /// Another implementation of WireGuard.
    Peer,
    /// Forwarding without cryptography.
    Ceiling,
}

/// One of those measured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contender {
    /// As tables and plots call it.
    pub name: String,
    /// What it is in the comparison.
    pub kind: Kind,
}

/// Which packets crossed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    /// Which way.
    pub direction: Direction,
    /// How long the inner packets are.
    pub sizes: Sizes,
    /// From or to how many clients.
    pub clients: u32,
}

/// A rate found by search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Packets per second, over the rounds.
    pub pps: Spread,
    /// How the search of the last round ended.
    pub end: End,
}

/// What a gateway delivers when it is offered more than it can carry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Overload {
    /// Offered load as a multiple of what is carried at most: by the partial drop rate, or in a flood.
    pub multiple: f64,
    /// Delivered packets per second as a share of what is delivered when no more is offered than can be carried, trial by
    /// trial in turns; 1 where overload delivers more than that.
    pub goodput_ratio: Spread,
    /// 99th percentile of the latency of what was delivered, in microseconds.
    pub p99_us: Spread,
}

/// How much a contender carries in a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Who.
    pub contender: Contender,
    /// Which packets.
    pub case: Case,
    /// What arrives per second when the generator sends as fast as it can.
    pub flood_pps: Spread,
    /// What it sends then.
    pub flood_offered_pps: Spread,
    /// No drop rate.
    pub ndr: Option<Rate>,
    /// Partial drop rate.
    pub pdr: Option<Rate>,
    /// Beyond its capacity.
    pub overload: Option<Overload>,
}

/// What a latency was measured at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offered {
    /// The same rate for all.
    Fixed,
    /// So many percent of the contender's own partial drop rate.
    PdrPercent(u32),
}

/// Latency at a steady rate. Times in microseconds, one way, from the intended send time, over the rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyAt {
    /// Whose.
    pub contender: Contender,
    /// Of which packets.
    pub case: Case,
    /// How the rate was chosen.
    pub offered: Offered,
    /// Packets per second.
    pub rate_pps: u64,
    /// How often it was measured.
    pub rounds: u32,
    /// Median.
    pub p50_us: Spread,
    /// 90th percentile.
    pub p90_us: Spread,
    /// 99th percentile.
    pub p99_us: Spread,
    /// 99.9th percentile.
    pub p99_9_us: Spread,
    /// Largest.
    pub max_us: Spread,
    /// RFC 3550 jitter.
    pub jitter_us: Spread,
    /// Packet delay variation, p99.9 - min.
    pub pdv_us: Spread,
    /// Share of the packets lost, 0 to 1.
    pub loss_ratio: Spread,
    /// Rounds in which the generator itself was late; they are counted like the others.
    pub void: u32,
    /// Distribution of the round with the median p99.
    pub percentiles: Vec<Percentile>,
    /// What others on the machine had to do with it, where that was watched.
    pub interference: Option<Interference>,
}

/// Packets that others on the machine held up, and the latency of those they did not. Times in microseconds, over the
/// rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interference {
    /// Share of the packets held up, 0 to 1.
    pub held_up_ratio: Spread,
    /// 99th percentile of those not held up.
    pub p99_us: Spread,
    /// 99.9th percentile of those not held up.
    pub p99_9_us: Spread,
    /// Packets of all rounds with more than [`LATE_US`](crate::load::LATE_US), by whom they were held up longest.
    pub late_by: BTreeMap<String, u64>,
}

/// What grows in a scaling measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// Clients that send, in turn.
    Clients,
    /// Peers configured; one client sends.
    Peers,
    /// Allowed prefixes of one peer; one client sends.
    Prefixes,
    /// Workers of the gateway, each with a queue of its own; clients are spread over them.
    Workers,
}

/// Speed and memory at one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalePoint {
    /// Whose.
    pub contender: Contender,
    /// What grows.
    pub axis: Axis,
    /// How many there are of it.
    pub count: u32,
    /// Which packets.
    pub case: Case,
    /// What arrives per second when the generator sends as fast as it can.
    pub flood_pps: Spread,
    /// Resident memory of the gateway, in MiB.
    pub resident_mib: f64,
    /// Seconds it took to configure it.
    pub configure_seconds: f64,
}

/// Everything of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// What was typed.
    pub command: String,
    /// Whether it was the short form.
    pub quick: bool,
    /// How often everything was measured in turn.
    pub rounds: u32,
    /// Seconds it took.
    pub seconds: f64,
    /// Share of the processors' time the hypervisor gave to others meanwhile, in percent.
    pub steal_percent: f64,
    /// How much.
    pub throughput: Vec<Throughput>,
    /// How late.
    pub latency: Vec<LatencyAt>,
    /// How it grows.
    pub scale: Vec<ScalePoint>,
    /// What went wrong on the way.
    pub notes: Vec<String>,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(machine: Machine, command: &str, quick: bool, rounds: u32) -> Self {
        Self {
            machine,
            command: command.to_owned(),
            quick,
            rounds,
            seconds: 0.0,
            steal_percent: 0.0,
            throughput: Vec::new(),
            latency: Vec::new(),
            scale: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The throughput of a contender in a case.
    pub fn throughput_of(&self, name: &str, case: &Case) -> Option<&Throughput> {
        self.throughput.iter().find(|entry| entry.contender.name == name && entry.case == *case)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn contender(name: &str, kind: Kind) -> Contender {
        Contender { name: name.into(), kind }
    }

    pub fn case(direction: Direction, size: u16, clients: u32) -> Case {
        Case { direction, sizes: Sizes::Fixed(size), clients }
    }

    pub fn throughput(who: &Contender, case: Case, flood_pps: f64) -> Throughput {
        let rate = |pps| Some(Rate { pps: Spread::exactly(pps), end: End::Bracketed });
        Throughput {
            contender: who.clone(),
            case,
            flood_pps: Spread::exactly(flood_pps),
            flood_offered_pps: Spread::exactly(1.1e6),
            ndr: rate(0.8 * flood_pps),
            pdr: rate(0.9 * flood_pps),
            overload: None,
        }
    }

    pub fn latency(who: &Contender, case: Case, p99_us: f64) -> LatencyAt {
        LatencyAt {
            contender: who.clone(),
            case,
            offered: Offered::Fixed,
            rate_pps: 50_000,
            rounds: 3,
            p50_us: Spread::exactly(p99_us / 4.0),
            p90_us: Spread::exactly(p99_us / 2.0),
            p99_us: Spread::exactly(p99_us),
            p99_9_us: Spread::exactly(2.0 * p99_us),
            max_us: Spread::exactly(4.0 * p99_us),
            jitter_us: Spread::exactly(1.0),
            pdv_us: Spread::exactly(2.0 * p99_us - 10.0),
            loss_ratio: Spread::exactly(0.0),
            void: 0,
            percentiles: vec![Percentile { percentile: 99.0, latency_us: p99_us }],
            interference: None,
        }
    }

    pub fn interference(p99_us: f64) -> Interference {
        Interference {
            held_up_ratio: Spread::exactly(0.02),
            p99_us: Spread::exactly(p99_us),
            p99_9_us: Spread::exactly(2.0 * p99_us),
            late_by: [("kdamond.0 on CPU 0", 75), ("nobody", 20), ("a on CPU 1", 4), ("b on CPU 1", 1)]
                .map(|(by, count)| (by.to_owned(), count))
                .into(),
        }
    }

    pub fn scale_point(who: &Contender, count: u32, flood_pps: f64) -> ScalePoint {
        ScalePoint {
            contender: who.clone(),
            axis: Axis::Clients,
            count,
            case: case(Direction::Decrypt, 1228, count),
            flood_pps: Spread::exactly(flood_pps),
            resident_mib: 40.0,
            configure_seconds: 0.5,
        }
    }

    /// Twice as fast as the best of the others, whatever is measured, and a third of its latency.
    pub fn report() -> Report {
        let [ours, slow, best, ceiling] = [
            ("wgx", Kind::Ours),
            ("slow", Kind::Peer),
            ("best", Kind::Peer),
            (AF_XDP_FORWARD, Kind::Ceiling),
        ]
        .map(|(name, kind)| contender(name, kind));
        let mut report = Report::new(Machine::sample(), "cargo xtask bench gateway", true, 3);
        for (direction, size) in
            [(Direction::Decrypt, 1228), (Direction::Encrypt, 1228), (Direction::Decrypt, 200)]
        {
            for (who, pps) in [(&ours, 4e5), (&slow, 1e5), (&best, 2e5), (&ceiling, 8e5)] {
                report.throughput.push(throughput(who, case(direction, size, 1), pps));
            }
        }
        for (who, p99_us) in [(&ours, 100.0), (&slow, 3000.0), (&best, 300.0), (&ceiling, 50.0)] {
            report.latency.push(latency(who, case(Direction::Decrypt, 1228, 1), p99_us));
        }
        report.scale = vec![scale_point(&ours, 1, 4e5), scale_point(&ours, 10_000, 3.9e5)];
        report
    }

    #[test]
    fn report_survives_its_json() {
        let report = report();
        let text = serde_json::to_string_pretty(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert!(text.contains(r#""direction": "decrypt""#), "{text}");
    }
}
