//! Structures for longest-prefix matches, measured against each other.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bench::path::Lookup;

use super::path::build;
use crate::table::Table;

/// Options of the benchmark.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out a million prefixes.
    #[arg(long)]
    quick: bool,
}

const COLUMNS: [&str; 6] =
    ["", "uniform, ns", "64 flows, ns", "bytes a prefix", "build, ms", "change and snapshot, us"];

/// Measures and prints a table for each set of prefixes.
pub fn run(args: &Args) -> Result<()> {
    let mut command = Command::new(build()?);
    command.arg("lookup").args(args.quick.then_some("--quick"));
    let result = command.stderr(Stdio::inherit()).output().context("`wgx-path` did not start")?;
    ensure!(result.status.success(), "`wgx-path lookup` failed");
    let text = String::from_utf8(result.stdout)?;
    let lookups: Vec<Lookup> = text
        .lines()
        .map(|line| serde_json::from_str(line).context("`wgx-path lookup` says something else"))
        .collect::<Result<_>>()?;
    for structures in lookups.chunk_by(|one, next| title(one) == title(next)) {
        let mut table = Table::new(&title(&structures[0]), &COLUMNS);
        for lookup in structures {
            let numbers = [
                lookup.uniform_ns,
                lookup.hot_ns,
                lookup.bytes_per_prefix,
                lookup.build_ms,
                lookup.update_us,
            ];
            let cells = numbers.map(|number| format!("{number:.1}"));
            table.row(std::iter::once(lookup.structure.clone()).chain(cells));
        }
        print!("{table}");
    }
    Ok(())
}

fn title(lookup: &Lookup) -> String {
    format!("{} {} of {}", lookup.count, lookup.prefixes, lookup.family)
}
