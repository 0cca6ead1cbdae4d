//! Plots of throughput as SVG: bars by size and contender, and lines over a growing number.

use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use plotters::prelude::*;

use crate::plot::COLOURS;

const SIZE: (u32, u32) = (960, 560);
/// Of the room of a group, what its bars take; the rest keeps groups apart.
const GROUP_SHARE: f64 = 0.8;

/// Groups of bars: one group per name of `groups`, one bar in it per series.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// Above the plot.
    pub caption: String,
    /// What the height is, with its unit.
    pub unit: String,
    /// Below each group.
    pub groups: Vec<String>,
    /// Name and heights, one per group; `None` leaves a gap.
    pub series: Vec<(String, Vec<Option<f64>>)>,
}

/// Lines over a logarithmic axis of counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Lines {
    /// Above the plot.
    pub caption: String,
    /// What the horizontal axis counts.
    pub counts: String,
    /// What the height is, with its unit.
    pub unit: String,
    /// Name and points (count, height).
    pub series: Vec<(String, Vec<(f64, f64)>)>,
}

impl Bars {
    /// Draws them to an SVG file.
    ///
    /// # Errors
    /// When there is nothing to draw, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let any = self.series.iter().any(|(_, heights)| heights.iter().any(Option::is_some));
        ensure!(any, "no bars to plot in {}", path.display());
        write(self.draw(), path)
    }

    fn draw(&self) -> Result<String, Box<dyn std::error::Error + '_>> {
        let heights = || self.series.iter().flat_map(|(_, heights)| heights.iter().flatten().copied());
        let top = heights().fold(0.0, f64::max) * 1.15;
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            root.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&root)
                .caption(&self.caption, ("sans-serif", 22))
                .margin(16)
                .x_label_area_size(40)
                .y_label_area_size(84)
                .build_cartesian_2d(0.0..self.groups.len() as f64, 0.0..top.max(1.0))?;
            // The axis is continuous: a group is named at its middle, the half after its number.
            chart
                .configure_mesh()
                .disable_x_mesh()
                .x_labels(2 * self.groups.len() + 1)
                .x_label_formatter(&|x| group_label(&self.groups, *x))
                .y_desc(&self.unit)
                .axis_desc_style(("sans-serif", 16))
                .label_style(("sans-serif", 14))
                .light_line_style(RGBColor(238, 238, 238))
                .bold_line_style(RGBColor(200, 200, 200))
                .draw()?;
            let width = GROUP_SHARE / self.series.len().max(1) as f64;
            for (index, ((name, heights), colour)) in
                self.series.iter().zip(COLOURS.iter().cycle()).enumerate()
            {
                let left = (1.0 - GROUP_SHARE) / 2.0 + width * index as f64;
                let bars = heights.iter().enumerate().filter_map(|(group, height)| {
                    let from = group as f64 + left;
                    Some(Rectangle::new([(from, 0.0), (from + width, (*height)?)], colour.filled()))
                });
                chart
                    .draw_series(bars)?
                    .label(name)
                    .legend(move |(x, y)| Rectangle::new([(x, y - 6), (x + 14, y + 6)], colour.filled()));
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .legend_area_size(32)
                .label_font(("sans-serif", 15))
                .background_style(WHITE.mix(0.85))
                .border_style(RGBColor(160, 160, 160))
                .draw()?;
            root.present()?;
        }
        Ok(svg)
    }
}

impl Lines {
    /// Draws them to an SVG file.
    ///
    /// # Errors
    /// When there is nothing to draw, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let any = self.series.iter().any(|(_, points)| !points.is_empty());
        ensure!(any, "no lines to plot in {}", path.display());
        write(self.draw(), path)
    }

    fn draw(&self) -> Result<String, Box<dyn std::error::Error + '_>> {
        let points = || self.series.iter().flat_map(|(_, points)| points.iter().copied());
        let most = points().fold(10.0, |most: f64, (count, _)| most.max(count));
        let top = points().fold(1.0, |top: f64, (_, height)| top.max(height)) * 1.15;
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            root.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&root)
                .caption(&self.caption, ("sans-serif", 22))
                .margin(16)
                .margin_right(40)
                .x_label_area_size(48)
                .y_label_area_size(84)
                .build_cartesian_2d((1.0..most).log_scale(), 0.0..top)?;
            chart
                .configure_mesh()
                .x_desc(&self.counts)
                .y_desc(&self.unit)
                .x_label_formatter(&|count| format!("{count:.0}"))
                .axis_desc_style(("sans-serif", 16))
                .label_style(("sans-serif", 14))
                .light_line_style(RGBColor(238, 238, 238))
                .bold_line_style(RGBColor(200, 200, 200))
                .draw()?;
            for ((name, points), colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
                chart
                    .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3)));
                let marks = points.iter().map(|&point| Circle::new(point, 4, colour.filled()));
                chart.draw_series(marks)?;
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .legend_area_size(32)
                .label_font(("sans-serif", 15))
                .background_style(WHITE.mix(0.85))
                .border_style(RGBColor(160, 160, 160))
                .draw()?;
            root.present()?;
        }
        Ok(svg)
    }
}

/// `N.5` is the middle of group N.
fn group_label(groups: &[String], x: f64) -> String {
    let is_middle = (x.fract() - 0.5).abs() < 1e-6;
    groups.get(x as usize).filter(|_| is_middle).cloned().unwrap_or_default()
}

fn write(drawn: Result<String, Box<dyn std::error::Error + '_>>, path: &Path) -> Result<()> {
    let svg = drawn.map_err(|error| anyhow!("cannot plot {}: {error}", path.display()))?;
    std::fs::write(path, svg).map_err(|error| anyhow!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars() -> Bars {
        Bars {
            caption: "decrypt".into(),
            unit: "kpps".into(),
            groups: vec!["200 B".into(), "1228 B".into()],
            series: vec![
                ("wgx".into(), vec![Some(700.0), Some(640.0)]),
                ("other".into(), vec![Some(240.0), None]),
            ],
        }
    }

    /// Filled rectangles of a colour.
    fn rectangles(svg: &str, colour: RGBColor) -> usize {
        let fill = format!("fill=\"#{:02X}{:02X}{:02X}\"", colour.0, colour.1, colour.2);
        svg.split('<').filter(|tag| tag.starts_with("rect") && tag.contains(&fill)).count()
    }

    #[test]
    fn each_height_has_a_bar_and_each_series_a_legend() {
        let bars = bars();
        let svg = bars.draw().unwrap();
        for text in ["decrypt", "kpps", "200 B", "1228 B", "wgx", "other"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert_eq!((rectangles(&svg, COLOURS[0]), rectangles(&svg, COLOURS[1])), (2 + 1, 1 + 1));
    }

    #[test]
    fn groups_are_named_at_their_middle() {
        let groups = bars().groups;
        let labels = [0.0, 0.5, 1.0, 1.5, 2.0].map(|x| group_label(&groups, x));
        assert_eq!(labels, ["", "200 B", "", "1228 B", ""]);
    }

    #[test]
    fn each_point_of_a_line_is_marked() {
        let lines = Lines {
            caption: "Scaling".into(),
            counts: "clients".into(),
            unit: "kpps".into(),
            series: vec![("wgx".into(), vec![(1.0, 640.0), (10_000.0, 600.0)])],
        };
        let svg = lines.draw().unwrap();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("clients") && svg.contains("10000"));
    }

    #[test]
    fn nothing_to_plot_is_an_error_and_writes_no_file() {
        let path = std::env::temp_dir().join(format!("wgx-no-chart-{}.svg", std::process::id()));
        let empty = Bars { series: vec![("wgx".into(), vec![None, None])], ..bars() };
        assert!(empty.write(&path).unwrap_err().to_string().contains("no bars"));
        assert!(!path.exists());
    }
}
