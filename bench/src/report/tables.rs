//! A report as tables.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Axis, Case, Goal, Grid, Kind, LatencyAt, Offered, Rate, Report, ScalePoint, Throughput, goals};
use crate::{
    load::{Direction, LATE_US, Sizes},
    search::End,
};

/// Reasons of late packets that are named.
const REASONS: usize = 3;

/// All tables of a report that have something to show, the goals first.
pub fn grids(report: &Report) -> Vec<Grid> {
    let tables = [
        goals_grid(report),
        throughput(report),
        overload(report),
        latency(report),
        interference(report),
        scale(report),
    ];
    tables.into_iter().filter(|grid| !grid.rows.is_empty()).collect()
}

/// `1228 B`, or the name of a mix.
pub fn size_name(sizes: &Sizes) -> String {
    match sizes {
        Sizes::Fixed(size) => format!("{size} B"),
        Sizes::Imix => "IMIX".to_owned(),
        Sizes::Media => "media".to_owned(),
    }
}

/// What the marks in the throughput table mean, where there are any.
pub fn ceilings_note(report: &Report) -> Option<&'static str> {
    let ends =
        report.throughput.iter().flat_map(|entry| [entry.ndr, entry.pdr]).flatten().map(|rate| rate.end);
    ends.into_iter()
        .any(|end| matches!(end, End::Generator | End::Unfinished))
        .then_some("≥: beyond this rate the generator itself was late, which may be its limit or the machine's other load; ~: the search was cut short")
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Decrypt => "decrypt",
        Direction::Encrypt => "encrypt",
        Direction::Hairpin => "hairpin",
        Direction::Bidirectional => "both ways",
    }
}

fn case_cells(case: &Case) -> [String; 2] {
    [direction_name(case.direction).to_owned(), size_name(&case.sizes)]
}

fn goals_grid(report: &Report) -> Grid {
    let columns = ["goal", "must", "stretch", "measured", "verdict", "figures"];
    let mut grid = Grid::new("Goals", &columns);
    let goals = goals(report);
    if goals.iter().all(|goal| goal.ratio.is_none()) {
        return grid;
    }
    // One benchmark alone says nothing of the goals of others.
    let is_whole = !(report.throughput.is_empty() || report.latency.is_empty() || report.scale.is_empty());
    for goal in goals.into_iter().filter(|goal| is_whole || goal.ratio.is_some()) {
        let Goal { what, must, stretch, ratio, verdict, detail } = goal;
        let measured = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"));
        grid.row([what, must, stretch, measured, verdict.name().to_owned(), detail]);
    }
    grid
}

fn throughput(report: &Report) -> Grid {
    let title = format!("Throughput in kpps, median of {} rounds (least..greatest)", report.rounds);
    let columns = ["direction", "size", "who", "flood", "PDR (0.5 %)", "NDR (no loss)", "of the best peer"];
    let mut grid = Grid::new(title, &columns);
    let mut entries: Vec<&Throughput> = report.throughput.iter().collect();
    entries.sort_by_key(|entry| (&entry.case, entry.contender.kind));
    for entry in entries {
        let best = report
            .throughput
            .iter()
            .filter(|other| other.case == entry.case && other.contender.kind == Kind::Peer)
            .map(|other| other.flood_pps.median)
            .reduce(f64::max);
        let ratio = best.map_or("-".to_owned(), |best| format!("{:.2}x", entry.flood_pps.median / best));
        let kpps = format!("{:.0}", entry.flood_pps.scaled(1e-3));
        let cells = [entry.contender.name.clone(), kpps, rate(entry.pdr), rate(entry.ndr), ratio];
        grid.row(case_cells(&entry.case).into_iter().chain(cells));
    }
    grid
}

fn rate(rate: Option<Rate>) -> String {
    let Some(rate) = rate else { return "-".to_owned() };
    let mark = match rate.end {
        End::Generator => "≥ ",
        End::Unfinished => "~ ",
        End::Bracketed | End::Floor => "",
    };
    format!("{mark}{:.0}", rate.pps.scaled(1e-3))
}

fn overload(report: &Report) -> Grid {
    let columns = ["direction", "size", "who", "offered / carried", "goodput / peak", "p99 µs"];
    let mut grid = Grid::new("Overload", &columns);
    for entry in &report.throughput {
        let Some(overload) = entry.overload else { continue };
        let cells = [
            entry.contender.name.clone(),
            format!("{:.1}x", overload.multiple),
            format!("{:.2}", overload.goodput_ratio),
            format!("{:.0}", overload.p99_us),
        ];
        grid.row(case_cells(&entry.case).into_iter().chain(cells));
    }
    grid
}

fn latency(report: &Report) -> Grid {
    let least = report.latency.iter().map(|entry| entry.rounds).min().unwrap_or(0);
    let title = format!(
        "One-way latency in µs from the intended send time, median of {least} rounds or more (least..greatest)"
    );
    let columns =
        ["load", "who", "kpps", "p50", "p90", "p99", "p99.9", "max", "jitter", "PDV", "lost %", "void"];
    let mut grid = Grid::new(title, &columns);
    for entry in latency_entries(report) {
        grid.row([
            load(entry),
            entry.contender.name.clone(),
            format!("{:.0}", entry.rate_pps as f64 / 1e3),
            entry.p50_us.to_string(),
            entry.p90_us.to_string(),
            entry.p99_us.to_string(),
            entry.p99_9_us.to_string(),
            entry.max_us.to_string(),
            format!("{:.1}", entry.jitter_us.median),
            format!("{:.0}", entry.pdv_us.median),
            format!("{:.2}", 100.0 * entry.loss_ratio.median),
            entry.void.to_string(),
        ]);
    }
    grid
}

/// Fixed loads side by side; each contender's own steps together.
fn latency_entries(report: &Report) -> Vec<&LatencyAt> {
    let mut entries: Vec<&LatencyAt> = report.latency.iter().collect();
    entries.sort_by_key(|entry| match entry.offered {
        Offered::Fixed => (&entry.case, 0, entry.rate_pps, entry.contender.kind, String::new()),
        Offered::PdrPercent(percent) => {
            (&entry.case, 1, percent.into(), entry.contender.kind, entry.contender.name.clone())
        }
    });
    entries
}

fn load(entry: &LatencyAt) -> String {
    let [direction, size] = case_cells(&entry.case);
    match entry.offered {
        Offered::Fixed => format!("{direction} {size}"),
        Offered::PdrPercent(percent) => format!("{direction} {size}, {percent} % of PDR"),
    }
}

fn interference(report: &Report) -> Grid {
    let title = "Latency in µs of packets that nobody else held up, and who held up the late ones";
    let late = format!("later than {LATE_US} µs because of");
    let mut grid = Grid::new(title, &["load", "who", "held up %", "p99", "p99.9", &late]);
    for entry in latency_entries(report) {
        let Some(interference) = &entry.interference else { continue };
        grid.row([
            load(entry),
            entry.contender.name.clone(),
            format!("{:.2}", interference.held_up_ratio.scaled(100.0)),
            interference.p99_us.to_string(),
            interference.p99_9_us.to_string(),
            reasons(&interference.late_by),
        ]);
    }
    grid
}

/// Who held up most of the late packets, each with a share of all of them.
pub fn reasons(late_by: &BTreeMap<String, u64>) -> String {
    let all: u64 = late_by.values().sum();
    let mut reasons: Vec<_> = late_by.iter().collect();
    reasons.sort_by_key(|&(_, count)| Reverse(count));
    let share = |count: u64| 100.0 * count as f64 / all as f64;
    let named = reasons.iter().take(REASONS).map(|&(by, &count)| format!("{by} {:.0} %", share(count)));
    let others: u64 = reasons.iter().skip(REASONS).map(|&(_, count)| count).sum();
    let others = (others > 0).then(|| format!("others {:.0} %", share(others)));
    named.chain(others).collect::<Vec<_>>().join(", ")
}

fn scale(report: &Report) -> Grid {
    let columns = ["what", "count", "who", "flood kpps", "against least", "RSS MiB", "configured in s"];
    let mut grid = Grid::new("Scaling", &columns);
    for point in &report.scale {
        let ScalePoint { contender, axis, count, case, flood_pps, resident_mib, configure_seconds } = point;
        let least = report
            .scale
            .iter()
            .filter(|other| other.contender == *contender && other.axis == *axis)
            .min_by_key(|other| other.count)
            .map_or(flood_pps.median, |least| least.flood_pps.median);
        let what = match axis {
            Axis::Clients => "clients",
            Axis::Peers => "peers",
            Axis::Prefixes => "prefixes",
            Axis::Workers => "workers",
        };
        let [direction, size] = case_cells(case);
        grid.row([
            format!("{what}, {direction} {size}"),
            count.to_string(),
            contender.name.clone(),
            format!("{:.0}", flood_pps.scaled(1e-3)),
            format!("{:.2}x", flood_pps.median / least),
            format!("{resident_mib:.0}"),
            format!("{configure_seconds:.1}"),
        ]);
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::super::{Machine, Spread, tests};
    use super::*;

    #[test]
    fn an_empty_report_has_no_tables() {
        assert_eq!(grids(&Report::new(Machine::sample(), "", true, 1)), []);
    }

    #[test]
    fn goals_of_other_benchmarks_are_left_out() {
        let mut report = tests::report();
        assert_eq!(goals_grid(&report).rows.len(), 8);
        report.throughput.clear();
        assert_eq!(goals_grid(&report).rows.len(), 3);
    }

    #[test]
    fn every_row_has_a_cell_per_column() {
        let grids = grids(&tests::report());
        let titles: Vec<_> = grids.iter().map(|grid| grid.title.split(' ').next().unwrap()).collect();
        assert_eq!(titles, ["Goals", "Throughput", "One-way", "Scaling"]);
        for grid in grids {
            assert!(grid.rows.iter().all(|row| row.len() == grid.columns.len()), "{grid:?}");
        }
    }

    #[test]
    fn throughput_is_shown_against_the_best_peer() {
        let grid = throughput(&tests::report());
        let row = grid.rows.iter().find(|row| row[0] == "encrypt" && row[2] == "wgx").unwrap();
        assert_eq!(row[1..], ["1228 B", "wgx", "400", "360", "320", "2.00x"]);
    }

    #[test]
    fn late_packets_are_shared_out_among_their_reasons() {
        let mut report = tests::report();
        assert!(interference(&report).rows.is_empty());
        report.latency[0].interference = Some(tests::interference(30.0));
        let rows = interference(&report).rows;
        let reasons = "kdamond.0 on CPU 0 75 %, nobody 20 %, a on CPU 1 4 %, others 1 %";
        assert_eq!(rows[0], ["decrypt 1228 B", "wgx", "2.00", "30", "60", reasons]);
    }

    #[test]
    fn a_rate_the_generator_bounds_is_marked() {
        let mut report = tests::report();
        assert_eq!(ceilings_note(&report), None);
        let limited = Rate { pps: Spread::exactly(1e6), end: End::Generator };
        report.throughput[0].ndr = Some(limited);
        assert_eq!(rate(Some(limited)), "≥ 1000");
        assert!(ceilings_note(&report).is_some());
    }
}
