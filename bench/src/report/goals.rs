//! What wgx is to reach against others, and whether a report shows that it does.

use std::fmt::Write as _;

use super::{Axis, Case, Interference, Kind, LatencyAt, Offered, Report, Throughput};
use crate::load::{Direction, Sizes};

/// How a goal came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// More than was asked for.
    Stretch,
    /// What was asked for.
    Met,
    /// Less.
    Missed,
    /// The report lacks what it takes to tell.
    NotMeasured,
}

impl Verdict {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stretch => "met, stretch too",
            Self::Met => "met",
            Self::Missed => "missed",
            Self::NotMeasured => "not measured",
        }
    }
}

/// One line of the table of goals.
#[derive(Debug, Clone, PartialEq)]
pub struct Goal {
    /// What is compared with what.
    pub what: String,
    /// What has to be reached.
    pub must: String,
    /// What would be better.
    pub stretch: String,
    /// What was reached, as a factor.
    pub ratio: Option<f64>,
    /// How it came out.
    pub verdict: Verdict,
    /// The figures behind it.
    pub detail: String,
}

/// A factor to reach, or not to exceed.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}x"),
            Self::AtMost(most) => format!("≤ {most}x"),
        }
    }
}

/// The contender whose share one goal is of.
pub const AF_XDP_FORWARD: &str = "af-xdp-forward";
/// Fixed load of the goals on latency, in packets per second.
const LATENCY_PPS: u64 = 50_000;
/// What stands beside the factor in the stretch goal on p99, in microseconds.
const P99_STRETCH_US: f64 = 100.0;

/// All goals, in the order they were set.
pub fn goals(report: &Report) -> Vec<Goal> {
    let mut goals: Vec<Goal> = [
        (Direction::Decrypt, 1228, 2.5, 3.0),
        (Direction::Encrypt, 1228, 2.5, 3.2),
        (Direction::Decrypt, 200, 2.5, 3.5),
    ]
    .into_iter()
    .map(|(direction, size, must, stretch)| against_peers(report, direction, size, must, stretch))
    .collect();
    goals.push(of_forwarding(report));
    goals.push(p99(report));
    goals.push(p99_9(report));
    goals.push(many_clients(report));
    goals.push(overload(report));
    goals
}

fn goal(
    what: String,
    [must, stretch]: [Bound; 2],
    measured: Option<(f64, String)>,
    also_stretch: impl Fn() -> bool,
) -> Goal {
    let verdict = match &measured {
        None => Verdict::NotMeasured,
        Some((ratio, _)) if stretch.holds(*ratio) && also_stretch() => Verdict::Stretch,
        Some((ratio, _)) if must.holds(*ratio) => Verdict::Met,
        Some(_) => Verdict::Missed,
    };
    let (ratio, detail) = measured.unzip();
    let detail = detail.unwrap_or_default();
    Goal { what, must: must.text(), stretch: stretch.text(), ratio, verdict, detail }
}

fn one_client(direction: Direction, size: u16) -> Case {
    Case { direction, sizes: Sizes::Fixed(size), clients: 1 }
}

/// Ours in a case, and the others of a kind.
fn in_case<'a>(report: &'a Report, case: &Case, kind: Kind) -> impl Iterator<Item = &'a Throughput> {
    report.throughput.iter().filter(move |entry| entry.case == *case && entry.contender.kind == kind)
}

/// By what arrives at full speed: kinder to the others than the partial drop rate, at which short queues count.
fn against_peers(report: &Report, direction: Direction, size: u16, must: f64, stretch: f64) -> Goal {
    let case = one_client(direction, size);
    let way = if direction == Direction::Encrypt { "encrypt" } else { "decrypt" };
    let ours = in_case(report, &case, Kind::Ours).next();
    let best = in_case(report, &case, Kind::Peer)
        .max_by(|one, other| one.flood_pps.median.total_cmp(&other.flood_pps.median));
    let measured = ours.zip(best).map(|(ours, best)| {
        let ratio = ours.flood_pps.median / best.flood_pps.median;
        let mut detail = format!(
            "{:.0} against {:.0} kpps of {}",
            ours.flood_pps.median / 1e3,
            best.flood_pps.median / 1e3,
            best.contender.name
        );
        let pdr = |entry: &Throughput| entry.pdr.map(|rate| rate.pps.median);
        let best_pdr = in_case(report, &case, Kind::Peer).filter_map(pdr).reduce(f64::max);
        if let (Some(ours), Some(best)) = (pdr(ours), best_pdr)
            && best > 0.0
        {
            let _ = write!(detail, "; by PDR {:.2}x", ours / best);
        }
        (ratio, detail)
    });
    goal(
        format!("{way} {size} B against the best peer"),
        [Bound::AtLeast(must), Bound::AtLeast(stretch)],
        measured,
        || true,
    )
}

fn of_forwarding(report: &Report) -> Goal {
    let case = one_client(Direction::Decrypt, 1228);
    let ours = in_case(report, &case, Kind::Ours).next();
    let mut ceilings = in_case(report, &case, Kind::Ceiling);
    let ceiling = ceilings.find(|entry| entry.contender.name == AF_XDP_FORWARD);
    let measured = ours.zip(ceiling).map(|(ours, ceiling)| {
        let detail = format!(
            "{:.0} of {:.0} kpps of {}",
            ours.flood_pps.median / 1e3,
            ceiling.flood_pps.median / 1e3,
            ceiling.contender.name
        );
        (ours.flood_pps.median / ceiling.flood_pps.median, detail)
    });
    let bounds = [Bound::AtLeast(0.6), Bound::AtLeast(0.7)];
    goal("share of plain AF_XDP forwarding, 1228 B".into(), bounds, measured, || true)
}

/// Ours and the best peer at the fixed load, and the peer's name.
///
/// Where the generator itself was late in more than half of the rounds, nothing was measured: it is its own lateness.
///
/// A lost packet is one that is infinitely late: where more are lost than the percentile leaves out, it is infinite.
/// Otherwise whoever drops most would be the fastest.
fn latencies(report: &Report, pick: impl Fn(&LatencyAt) -> f64, left_out: f64) -> Option<(f64, f64, &str)> {
    let case = one_client(Direction::Decrypt, 1228);
    let late_us = |entry: &LatencyAt| {
        if entry.loss_ratio.median > left_out { f64::INFINITY } else { pick(entry) }
    };
    let at = |kind| {
        report.latency.iter().filter(move |entry| {
            let is_valid = 2 * entry.void <= entry.rounds;
            is_valid
                && entry.contender.kind == kind
                && entry.offered == Offered::Fixed
                && entry.rate_pps == LATENCY_PPS
        })
    };
    let ours = at(Kind::Ours).find(|entry| entry.case == case)?;
    let best = at(Kind::Peer)
        .filter(|entry| entry.case == case)
        .min_by(|one, other| late_us(one).total_cmp(&late_us(other)))?;
    Some((late_us(ours), late_us(best), &best.contender.name))
}

fn p99(report: &Report) -> Goal {
    let measured = latencies(report, |entry| entry.p99_us.median, 0.01);
    let undisturbed = undisturbed(report, |interference| interference.p99_us.median, 0.01);
    let ours_us = measured.map_or(f64::INFINITY, |(ours, ..)| ours);
    let mut goal = goal(
        "p99 at 50 kpps, 1228 B, against the best peer".into(),
        [Bound::AtMost(0.5), Bound::AtMost(0.3)],
        measured.map(latency_detail).map(|(ratio, detail)| (ratio, detail + &undisturbed)),
        || ours_us <= P99_STRETCH_US,
    );
    let _ = write!(goal.stretch, " and ≤ {P99_STRETCH_US} µs");
    goal
}

fn p99_9(report: &Report) -> Goal {
    let undisturbed = undisturbed(report, |interference| interference.p99_9_us.median, 0.001);
    let measured = latencies(report, |entry| entry.p99_9_us.median, 0.001)
        .map(latency_detail)
        .map(|(ratio, detail)| (ratio, detail + &undisturbed));
    let bounds = [Bound::AtMost(0.2), Bound::AtMost(0.1)];
    goal("p99.9 at the same load, against the best peer".into(), bounds, measured, || true)
}

/// The same of the packets that nobody else on the machine held up, as text: what the goal would be without the others.
fn undisturbed(report: &Report, pick: fn(&Interference) -> f64, left_out: f64) -> String {
    let pick = |entry: &LatencyAt| entry.interference.as_ref().map_or(f64::INFINITY, pick);
    match latencies(report, pick, left_out) {
        Some((ours, best, name)) if ours.is_finite() && best.is_finite() => {
            format!(
                "; of packets nobody else held up {ours:.0} against {best:.0} of {name}, {:.2}x",
                ours / best
            )
        }
        _ => String::new(),
    }
}

fn latency_detail((ours, best, name): (f64, f64, &str)) -> (f64, String) {
    match (ours.is_finite(), best.is_finite()) {
        (true, true) => (ours / best, format!("{ours:.0} against {best:.0} µs of {name}")),
        (true, false) => {
            (0.0, format!("{ours:.0} µs; every peer loses more packets than this percentile bears"))
        }
        (false, _) => (f64::INFINITY, "more packets were lost than this percentile bears".to_owned()),
    }
}

fn many_clients(report: &Report) -> Goal {
    let of = |count| {
        let ours = |entry: &&super::ScalePoint| {
            entry.contender.kind == Kind::Ours && entry.axis == Axis::Clients && entry.count == count
        };
        report.scale.iter().find(ours).map(|entry| entry.flood_pps.median)
    };
    let measured = of(10_000)
        .zip(of(1))
        .map(|(many, one)| (many / one, format!("{:.0} against {:.0} kpps", many / 1e3, one / 1e3)));
    let bounds = [Bound::AtLeast(0.9), Bound::AtLeast(0.95)];
    goal("10k clients against 1 client".into(), bounds, measured, || true)
}

/// The worst of all cases measured.
fn overload(report: &Report) -> Goal {
    let worst = report
        .throughput
        .iter()
        .filter(|entry| entry.contender.kind == Kind::Ours)
        .filter_map(|entry| Some((entry, entry.overload?)))
        .min_by(|(_, one), (_, other)| one.goodput_ratio.median.total_cmp(&other.goodput_ratio.median));
    let measured = worst.map(|(entry, overload)| {
        let detail = format!(
            "{:?} {}, offered {:.1} times what it carries, p99 {:.0} µs",
            entry.case.direction,
            super::size_name(&entry.case.sizes),
            overload.multiple,
            overload.p99_us.median
        );
        (overload.goodput_ratio.median, detail.to_lowercase())
    });
    let bounds = [Bound::AtLeast(0.9), Bound::AtLeast(0.95)];
    goal("overload: goodput against peak".into(), bounds, measured, || true)
}

#[cfg(test)]
mod tests {
    use super::super::{Overload, Spread, tests};
    use super::*;

    fn verdicts(report: &Report) -> Vec<(Verdict, Option<f64>)> {
        goals(report).into_iter().map(|goal| (goal.verdict, goal.ratio)).collect()
    }

    #[test]
    fn goals_compare_with_the_best_of_the_others() {
        let report = tests::report();
        let expected = [
            (Verdict::Missed, Some(2.0)),
            (Verdict::Missed, Some(2.0)),
            (Verdict::Missed, Some(2.0)),
            (Verdict::Missed, Some(0.5)),
            (Verdict::Met, Some(100.0 / 300.0)),
            (Verdict::Missed, Some(100.0 / 300.0)),
            (Verdict::Stretch, Some(0.975)),
            (Verdict::NotMeasured, None),
        ];
        assert_eq!(verdicts(&report), expected);
        let goals = goals(&report);
        assert_eq!(goals[0].detail, "400 against 200 kpps of best; by PDR 2.00x");
        assert_eq!((goals[0].must.as_str(), goals[4].stretch.as_str()), ("≥ 2.5x", "≤ 0.3x and ≤ 100 µs"));
    }

    #[test]
    fn a_goal_is_met_at_its_bound() {
        let mut report = tests::report();
        for entry in &mut report.throughput {
            if entry.contender.kind == Kind::Ours {
                entry.flood_pps = Spread::exactly(5e5);
            }
        }
        assert_eq!(verdicts(&report)[0], (Verdict::Met, Some(2.5)));
        report.throughput[0].flood_pps = Spread::exactly(6e5);
        assert_eq!(verdicts(&report)[0], (Verdict::Stretch, Some(3.0)));
    }

    #[test]
    fn a_low_factor_is_not_enough_where_the_time_is_bounded_too() {
        let mut report = tests::report();
        for entry in &mut report.latency {
            entry.p99_us = entry.p99_us.scaled(if entry.contender.kind == Kind::Peer { 10.0 } else { 1.5 });
        }
        assert_eq!(verdicts(&report)[4], (Verdict::Met, Some(0.05)));
    }

    #[test]
    fn lost_packets_are_infinitely_late() {
        let mut report = tests::report();
        let lossy = |report: &mut Report, name: &str, ratio| {
            let entry = report.latency.iter_mut().find(|entry| entry.contender.name == name).unwrap();
            entry.loss_ratio = Spread::exactly(ratio);
        };
        lossy(&mut report, "best", 0.02);
        assert_eq!(verdicts(&report)[4], (Verdict::Stretch, Some(100.0 / 3000.0)));
        lossy(&mut report, "slow", 0.005);
        assert_eq!(
            verdicts(&report)[4..6],
            [(Verdict::Stretch, Some(100.0 / 3000.0)), (Verdict::Stretch, Some(0.0)),]
        );
        lossy(&mut report, "wgx", 0.5);
        assert_eq!(verdicts(&report)[4], (Verdict::Missed, Some(f64::INFINITY)));
    }

    #[test]
    fn what_a_late_generator_saw_is_not_measured() {
        let mut report = tests::report();
        let name_void = |report: &mut Report, name: &str, void| {
            let entry = report.latency.iter_mut().find(|entry| entry.contender.name == name).unwrap();
            entry.void = void;
        };
        name_void(&mut report, "wgx", 1);
        assert_eq!(verdicts(&report)[4], (Verdict::Met, Some(100.0 / 300.0)));
        name_void(&mut report, "best", 2);
        assert_eq!(verdicts(&report)[4], (Verdict::Stretch, Some(100.0 / 3000.0)), "against the next best");
        name_void(&mut report, "wgx", 2);
        assert_eq!(verdicts(&report)[4..6], [(Verdict::NotMeasured, None); 2]);
    }

    #[test]
    fn what_others_held_up_is_told_apart_and_bears_no_verdict() {
        let mut report = tests::report();
        let before = verdicts(&report);
        for entry in &mut report.latency {
            entry.interference = Some(tests::interference(entry.p99_us.median / 10.0));
        }
        assert_eq!(verdicts(&report), before);
        let goals = goals(&report);
        assert_eq!(
            goals[4].detail,
            "100 against 300 µs of best; of packets nobody else held up 10 against 30 of best, 0.33x"
        );
        assert!(goals[5].detail.ends_with("20 against 60 of best, 0.33x"), "{}", goals[5].detail);
    }

    #[test]
    fn the_worst_overload_counts() {
        let mut report = tests::report();
        for (entry, ratio) in report.throughput.iter_mut().step_by(4).zip([0.97, 0.93, 0.99]) {
            let goodput_ratio = Spread::exactly(ratio);
            entry.overload = Some(Overload { multiple: 2.0, goodput_ratio, p99_us: Spread::exactly(500.0) });
        }
        let goal = goals(&report).pop().unwrap();
        assert_eq!((goal.verdict, goal.ratio), (Verdict::Met, Some(0.93)));
        assert!(
            goal.detail.starts_with("encrypt 1228 b, offered 2.0 times what it carries"),
            "{}",
            goal.detail
        );
    }

    #[test]
    fn nothing_measured_is_not_met() {
        let report = Report::new(crate::report::Machine::sample(), "", true, 1);
        assert!(verdicts(&report).iter().all(|verdict| *verdict == (Verdict::NotMeasured, None)));
    }
}
