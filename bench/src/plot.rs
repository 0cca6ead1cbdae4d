//! Latency plots as SVG.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use plotters::prelude::*;

use crate::media::{Flow, Percentile};

const SIZE: (u32, u32) = (960, 560);

/// Told apart also by the colour-blind (the palette of Okabe and Ito, without yellow), in this order.
pub(crate) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// More nines than this are not drawn.
const NINES_MAX: f64 = 7.0;

/// Names the flows of a report for [`latency_svg`], each after `name` and its kind.
pub fn latency_series(name: &str, flows: &[Flow]) -> Vec<(String, Vec<Percentile>)> {
    flows
        .iter()
        .filter(|flow| !flow.percentiles.is_empty())
        .map(|flow| (format!("{name} {}", flow.kind.name()), flow.percentiles.clone()))
        .collect()
}

/// Draws latency by percentile, one line per series, to an SVG file.
///
/// The percentile axis is stretched by the number of nines (0, 90, 99, 99.9 %, ...), so that the tail gets as much
/// room as the body; the latency axis, in microseconds, is logarithmic.
///
/// # Errors
/// When there is nothing to draw, or the file cannot be written.
pub fn latency_svg(series: &[(String, Vec<Percentile>)], path: &Path) -> Result<()> {
    ensure!(
        series.iter().any(|(_, points)| !points.is_empty()),
        "no latencies to plot in {}",
        path.display()
    );
    let svg = draw(series).map_err(|error| anyhow!("cannot plot {}: {error}", path.display()))?;
    std::fs::write(path, svg).map_err(|error| anyhow!("cannot write {}: {error}", path.display()))
}

fn draw(series: &[(String, Vec<Percentile>)]) -> Result<String, Box<dyn std::error::Error + '_>> {
    let points = || series.iter().flat_map(|(_, points)| points);
    let nines_max = points().filter_map(nines).fold(1.0, f64::max).ceil();
    let (low, high) = points().fold((f64::INFINITY, 0.0_f64), |(low, high), point| {
        (low.min(point.latency_us), high.max(point.latency_us))
    });
    // Whole decades from 0.1 us: a logarithmic axis needs a positive range, and every range then has its labels.
    let low = 10_f64.powf(low.max(0.1).log10().floor());
    let high = 10_f64.powf(high.log10().ceil()).max(low * 10.0);

    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Latency by percentile", ("sans-serif", 22))
            .margin(16)
            .margin_right(40)
            .x_label_area_size(48)
            .y_label_area_size(84)
            .build_cartesian_2d(0.0..nines_max, (low..high).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("percentile of packets")
            .y_desc("latency from the intended send time (us)")
            .x_labels(nines_max as usize + 1)
            .x_label_formatter(&|nines| percentile_label(*nines))
            .y_label_formatter(&|latency_us| latency_label(*latency_us))
            .axis_desc_style(("sans-serif", 16))
            .label_style(("sans-serif", 14))
            .light_line_style(RGBColor(238, 238, 238))
            .bold_line_style(RGBColor(200, 200, 200))
            .draw()?;
        for ((name, points), colour) in series.iter().zip(COLOURS.iter().cycle()) {
            let line = curve(points, nines_max).map(|(nines, latency_us)| (nines, latency_us.max(low)));
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .legend_area_size(32)
            .label_font(("sans-serif", 15))
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(160, 160, 160))
            .draw()?;
        root.present()?;
    }
    Ok(svg)
}

/// A series in the chart's coordinates. The maximum, at 100 %, has no place on an axis of nines: it ends the line
/// as a vertical stroke.
fn curve(points: &[Percentile], nines_max: f64) -> impl Iterator<Item = (f64, f64)> {
    let last = points.iter().filter_map(nines).reduce(f64::max).unwrap_or(nines_max);
    points.iter().map(move |point| (nines(point).unwrap_or(last), point.latency_us))
}

/// 90 % is one nine, 99 % two; `None` for what lies beyond the axis, 100 % above all.
fn nines(point: &Percentile) -> Option<f64> {
    let nines = -(1.0 - point.percentile / 100.0).log10();
    (nines <= NINES_MAX).then_some(nines.max(0.0))
}

fn percentile_label(nines: f64) -> String {
    if (nines - nines.round()).abs() > 0.01 {
        return String::new();
    }
    let digits = (nines.round() as usize).saturating_sub(2);
    format!("{:.digits$} %", 100.0 - 100.0 / 10_f64.powf(nines.round()))
}

fn latency_label(latency_us: f64) -> String {
    if latency_us >= 1.0 { format!("{latency_us:.0}") } else { format!("{latency_us:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percentiles(scale: f64) -> Vec<Percentile> {
        [0.0, 50.0, 90.0, 99.0, 99.9, 99.95, 100.0]
            .into_iter()
            .enumerate()
            .map(|(index, percentile)| Percentile { percentile, latency_us: scale * (index + 1) as f64 })
            .collect()
    }

    #[test]
    fn percentiles_are_labelled_by_their_nines() {
        let labels = [0.0, 1.0, 2.0, 3.0, 4.0, 2.5].map(percentile_label);
        assert_eq!(labels, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", ""]);
    }

    #[test]
    fn maximum_ends_the_line_where_the_percentiles_do() {
        let points: Vec<_> = curve(&percentiles(1.0), 4.0).collect();
        let [.., (before, _), (last, maximum)] = points[..] else { panic!("too few points") };
        assert_eq!((last.to_bits(), maximum.to_bits()), (before.to_bits(), 7.0_f64.to_bits()));
    }

    #[test]
    fn plot_is_well_formed_and_names_axes_and_series() {
        let series = vec![
            ("wgx <audio>".to_owned(), percentiles(20.0)),
            ("plain & video".to_owned(), percentiles(300.0)),
        ];
        let svg = draw(&series).expect("drawn");
        for text in ["wgx &lt;audio&gt;", "plain &amp; video", "percentile of packets", "(us)", "99.9 %"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert_balanced(&svg);
    }

    #[test]
    fn flat_or_zero_latencies_still_plot() {
        let flat = vec![Percentile { percentile: 100.0, latency_us: 0.0 }];
        assert_balanced(&draw(&[("flat".to_owned(), flat)]).expect("drawn"));
    }

    #[test]
    fn nothing_to_plot_is_an_error_and_writes_no_file() {
        let path = std::env::temp_dir().join(format!("wgx-no-plot-{}.svg", std::process::id()));
        let error = latency_svg(&[("empty".to_owned(), Vec::new())], &path).expect_err("nothing to plot");
        assert!(error.to_string().contains("no latencies"));
        assert!(!path.exists());
    }

    /// Every element is closed, in order, and there is exactly one root.
    fn assert_balanced(svg: &str) {
        let mut open = Vec::new();
        let mut root_count = 0;
        for tag in svg.split('<').skip(1).map(|rest| rest.split_once('>').expect("every tag ends").0) {
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name.trim()));
            } else if !tag.starts_with(['?', '!']) {
                root_count += usize::from(open.is_empty());
                if !tag.ends_with('/') {
                    open.push(tag.split_whitespace().next().expect("every tag has a name"));
                }
            }
        }
        assert_eq!((open, root_count), (Vec::new(), 1));
    }
}
