//! `cargo xtask bench docs`: puts what the last benchmarks found into the book.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bench::report::{Plot, Report, ceilings_note, grids, plots, replace_marked};

use super::{
    all::{OTHERS, text_path},
    session::{json_path, left},
};
use crate::command::{root, target_dir};

/// The generated part of the page is between markers of this name.
const MARKERS: &str = "bench";
/// The page.
const PAGE: &str = "docs/src/performance.md";
/// Its plots.
const PLOTS: &str = "docs/src/performance";
/// What has left a report.
const REPORTS: [&str; 3] = ["gateway", "latency", "scale"];

/// One report of what the three benchmarks with load have left, and the commands that made it; `None` when there is
/// nothing.
pub fn merged(age_max: Duration) -> Result<Option<(Report, Vec<String>)>> {
    let mut commands = Vec::new();
    let mut merged: Option<Report> = None;
    for name in REPORTS {
        let Some(report) = left(name, age_max)? else { continue };
        commands.push(format!(
            "`{}` ({}, {:.0} s, {:.1} % of the processors stolen)",
            report.command, report.machine.date, report.seconds, report.steal_percent
        ));
        match &mut merged {
            Some(merged) => {
                merged.throughput.extend(report.throughput);
                merged.latency.extend(report.latency);
                merged.scale.extend(report.scale);
                merged.notes.extend(report.notes);
                merged.seconds += report.seconds;
                merged.machine.versions.extend(report.machine.versions);
            }
            None => merged = Some(report),
        }
    }
    Ok(merged.map(|report| (report, commands)))
}

/// Replaces the results and their plots.
pub fn write() -> Result<()> {
    let (report, commands) = merged(Duration::MAX)?.with_context(|| {
        format!(
            "nothing to write: run `cargo xtask bench all` first, which leaves {}",
            json_path("gateway").display()
        )
    })?;
    let folder = root().join(PLOTS);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let plots = plots(&report, &folder)?;
    let mut text = section(&report, &commands, &plots);
    for other in OTHERS {
        if let Ok(said) = fs::read_to_string(text_path(other.name)) {
            let _ = write!(text, "\n### {}\n\n{}", other.title, quoted(&said));
        }
    }
    let page = root().join(PAGE);
    let before = fs::read_to_string(&page).with_context(|| format!("{} cannot be read", page.display()))?;
    let after = replace_marked(&before, MARKERS, &text)
        .with_context(|| format!("{} has no place for results", page.display()))?;
    fs::write(&page, after).with_context(|| format!("{} cannot be written", page.display()))?;
    println!("  {} and {} plots in {}", page.display(), plots.len(), folder.display());
    Ok(())
}

/// The plots of a report, beside its JSON.
pub fn plot_beside(report: &Report) -> Result<Vec<Plot>> {
    let folder = target_dir().join("bench");
    ensure!(folder.is_dir(), "{} is not there", folder.display());
    plots(report, &folder)
}

/// Tables and plots as Markdown.
fn section(report: &Report, commands: &[String], plots: &[Plot]) -> String {
    let mut text = format!("{}\n\nMeasured by {}.\n", report.machine.describe(), commands.join(", "));
    for grid in grids(report) {
        let _ = write!(text, "\n{}", grid.markdown());
    }
    if let Some(note) = ceilings_note(report) {
        let _ = write!(text, "\n{note}.\n");
    }
    for note in &report.notes {
        let _ = write!(text, "\nNote: {}.\n", note.lines().next().unwrap_or_default());
    }
    for plot in plots {
        let file = plot.path.file_name().unwrap_or_default().to_string_lossy();
        let folder = Path::new(PLOTS).file_name().unwrap_or_default().to_string_lossy();
        let _ = write!(text, "\n![{}]({folder}/{file})\n", plot.title);
    }
    text
}

/// What a program said, with the command in its first line, as a block of code.
fn quoted(said: &str) -> String {
    let (command, output) = said.split_once('\n').unwrap_or((said, ""));
    format!("`{command}`:\n\n```text\n{}\n```\n", output.trim_matches('\n'))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bench::report::Machine;

    use super::*;

    #[test]
    fn section_names_its_command_and_shows_its_plots() {
        let machine = Machine::read("veth", [("wgx".to_owned(), "1.2.3".to_owned())].into());
        let mut report = Report::new(machine, "cargo xtask bench gateway", true, 3);
        report.notes.push("gotatun is left out: it is missing\nmore".to_owned());
        let plots = [Plot { title: "Throughput".into(), path: PathBuf::from("/x/throughput.svg") }];
        let text = section(&report, &["`cargo xtask bench gateway`".to_owned()], &plots);
        for part in [
            "Measured by `cargo xtask bench gateway`.",
            "![Throughput](performance/throughput.svg)",
            "Note: gotatun is left out: it is missing.\n",
            "wgx 1.2.3",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn the_page_has_its_markers() {
        let page = fs::read_to_string(root().join(PAGE)).unwrap();
        let after = replace_marked(&page, MARKERS, "new results").unwrap();
        assert!(after.contains("new results") && after.contains("## How it is measured"));
    }

    #[test]
    fn output_of_others_follows_its_command() {
        assert_eq!(quoted("cargo xtask x\n\nTable\n 1\n"), "`cargo xtask x`:\n\n```text\nTable\n 1\n```\n");
    }
}
