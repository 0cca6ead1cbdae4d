//! A report as plots.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Axis, Contender, Kind, Offered, Report, size_name};
use crate::{
    chart::{Bars, Lines},
    load::{Direction, Sizes},
    media::Percentile,
    plot::latency_svg,
};

/// A plot that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// The SVG file.
    pub path: PathBuf,
}

/// Draws all there is to draw of a report into a folder that exists.
///
/// # Errors
/// A file cannot be written.
pub fn plots(report: &Report, folder: &Path) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    let mut add = |title: String, name: &str, write: &dyn Fn(&Path) -> Result<()>| -> Result<()> {
        let path = folder.join(name).with_extension("svg");
        write(&path)?;
        plots.push(Plot { title, path });
        Ok(())
    };
    for (direction, name) in [(Direction::Decrypt, "decrypt"), (Direction::Encrypt, "encrypt")] {
        if let Some(bars) = throughput_bars(report, direction) {
            let title = format!("Throughput by size and implementation, {name}");
            add(title, &format!("throughput-{name}"), &|path| bars.write(path))?;
        }
    }
    for (rate_pps, series) in latencies(report) {
        let kpps = rate_pps / 1000;
        let title = format!("Latency by percentile at {kpps} kpps");
        add(title, &format!("latency-{kpps}kpps"), &|path| latency_svg(&series, path))?;
    }
    let axes = [
        (Axis::Clients, "clients"),
        (Axis::Peers, "peers"),
        (Axis::Prefixes, "prefixes"),
        (Axis::Workers, "workers"),
    ];
    for (axis, name) in axes {
        if let Some(lines) = scaling(report, axis, name) {
            add(format!("Throughput against {name}"), &format!("scale-{name}"), &|path| lines.write(path))?;
        }
    }
    Ok(plots)
}

fn throughput_bars(report: &Report, direction: Direction) -> Option<Bars> {
    let entries: Vec<_> =
        report.throughput.iter().filter(|entry| entry.case.direction == direction).collect();
    let mut sizes: Vec<&Sizes> = entries.iter().map(|entry| &entry.case.sizes).collect();
    sizes.sort();
    sizes.dedup();
    let mut contenders: Vec<_> = entries.iter().map(|entry| &entry.contender).collect();
    contenders.sort_by_key(|contender| (contender.kind, &contender.name));
    contenders.dedup();
    let kpps = |contender: &Contender, sizes: &Sizes| {
        let mut of_size = entries.iter().filter(|entry| entry.case.sizes == *sizes);
        Some(of_size.find(|entry| entry.contender == *contender)?.flood_pps.median / 1e3)
    };
    (!entries.is_empty()).then(|| Bars {
        caption: format!("Packets delivered at full speed, {direction:?}")
            .replace("crypt", "crypt, one core"),
        unit: "kpps".to_owned(),
        groups: sizes.iter().map(|sizes| size_name(sizes)).collect(),
        series: contenders
            .iter()
            .map(|contender| {
                (contender.name.clone(), sizes.iter().map(|sizes| kpps(contender, sizes)).collect())
            })
            .collect(),
    })
}

/// A line each, with its name.
type Series = Vec<(String, Vec<Percentile>)>;

/// Distributions at each fixed load, by its rate.
fn latencies(report: &Report) -> Vec<(u64, Series)> {
    let fixed = || report.latency.iter().filter(|entry| entry.offered == Offered::Fixed);
    let mut rates: Vec<u64> = fixed().map(|entry| entry.rate_pps).collect();
    rates.sort_unstable();
    rates.dedup();
    let series = |rate_pps| {
        fixed()
            .filter(|entry| entry.rate_pps == rate_pps && !entry.percentiles.is_empty())
            .map(|entry| (entry.contender.name.clone(), entry.percentiles.clone()))
            .collect::<Series>()
    };
    rates.into_iter().map(|rate| (rate, series(rate))).filter(|(_, series)| !series.is_empty()).collect()
}

fn scaling(report: &Report, axis: Axis, name: &str) -> Option<Lines> {
    let points: Vec<_> = report.scale.iter().filter(|point| point.axis == axis).collect();
    let mut contenders: Vec<_> = points.iter().map(|point| &point.contender).collect();
    contenders.sort_by_key(|contender| (contender.kind != Kind::Ours, &contender.name));
    contenders.dedup();
    let series = contenders
        .into_iter()
        .map(|contender| {
            let mut own: Vec<(f64, f64)> = points
                .iter()
                .filter(|point| point.contender == *contender)
                .map(|point| (f64::from(point.count), point.flood_pps.median / 1e3))
                .collect();
            own.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            (contender.name.clone(), own)
        })
        .collect();
    (!points.is_empty()).then(|| Lines {
        caption: format!("Packets delivered at full speed against {name}"),
        counts: name.to_owned(),
        unit: "kpps".to_owned(),
        series,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Machine, tests};
    use super::*;

    #[test]
    fn a_report_is_drawn_in_full() {
        let folder = std::env::temp_dir().join(format!("wgx-plots-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let drawn = plots(&tests::report(), &folder).unwrap();
        let names: Vec<_> =
            drawn.iter().map(|plot| plot.path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        let are_there = drawn.iter().all(|plot| plot.path.is_file());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["throughput-decrypt", "throughput-encrypt", "latency-50kpps", "scale-clients"]);
        assert!(are_there);
    }

    #[test]
    fn bars_are_grouped_by_size() {
        let bars = throughput_bars(&tests::report(), Direction::Decrypt).unwrap();
        assert_eq!(bars.groups, ["200 B", "1228 B"]);
        assert_eq!(bars.series[0], ("wgx".to_owned(), vec![Some(400.0), Some(400.0)]));
        assert_eq!(bars.series.len(), 4);
    }

    #[test]
    fn an_empty_report_has_no_plots() {
        let report = Report::new(Machine::sample(), "", true, 1);
        assert_eq!(plots(&report, Path::new("/nonexistent")).unwrap(), []);
    }
}
