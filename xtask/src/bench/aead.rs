//! Sealing and opening beside other libraries: builds and runs `wgx-aead`, and prints its tables.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use bench::aead::{Cell, Direction, Figure, Measurements, goals};

use crate::{
    asm,
    command::{self, root, step, target_dir},
    setup,
    table::Table,
};

/// Options of the benchmark.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer rounds: seconds instead of a minute.
    #[arg(long)]
    quick: bool,
    /// Test instead whether the time it takes depends on secrets (dudect).
    #[arg(long)]
    constant_time: bool,
}

/// Measures and prints the tables.
pub fn run(args: &Args) -> Result<()> {
    step("build wgx-aead", asm::build)?;
    if cfg!(target_arch = "x86_64") {
        step("read the machine code of the kernels", asm::check)?;
    }
    let program = target_dir().join("release/wgx-aead");
    let mut command = command::command(&program.to_string_lossy());
    if args.quick {
        command.arg("--quick");
    }
    if args.constant_time {
        command.arg("--constant-time");
        return step("look for secrets in how long it takes", || command::run(&mut command));
    }
    let folder = target_dir().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let json = folder.join("aead.json");
    command.arg("--json").arg(&json);
    match ipsec_mb(&folder.join("ipsec-mb")) {
        Ok(program) => command.arg("--ipsec-mb").arg(program),
        Err(error) => command.arg("--without-ipsec-mb").arg(format!("{error:#}")),
    };
    step("measure", || command::run(&mut command))?;
    let text = fs::read_to_string(&json).with_context(|| format!("cannot read {}", json.display()))?;
    let measurements =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", json.display()))?;
    print(&measurements);
    println!("\n  The figures: {}", json.display());
    Ok(())
}

/// The competitor in C, where its library is.
fn ipsec_mb(program: &PathBuf) -> Result<&PathBuf> {
    setup::install_ipsec_mb()?;
    let source = root().join("bench/src/aead/ipsec_mb.c");
    let mut compiler = command::command("gcc");
    compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(program).arg(source).arg("-lIPSec_MB");
    if command::output(&mut compiler).is_none() {
        bail!("`{}` failed", command::shown(&compiler));
    }
    Ok(program)
}

fn print(measurements: &Measurements) {
    println!("\nns per packet on {}; {} is ours", measurements.processor, measurements.ours);
    for direction in Direction::ALL {
        print!("{}", sizes(measurements, "sizes", direction, "best, times as fast as ring", best));
        print!("{}", sizes(measurements, "sizes", direction, "median (quartiles)", usual));
        for (name, what) in FAR {
            print!("{}", sizes(measurements, name, direction, what, typical));
        }
        print!("{}", batches(measurements, direction));
    }
    print!("{}", keys(measurements));
    if let Some(reason) = &measurements.without_ipsec_mb {
        println!("\n  Without ipsec-mb: {reason}");
    }
    println!();
    for goal in goals(measurements) {
        println!("  {goal}");
    }
}

fn cells<'a>(
    measurements: &'a Measurements,
    table: &'a str,
    direction: Direction,
) -> impl Iterator<Item = &'a Cell> {
    measurements.cells.iter().filter(move |cell| cell.table == table && cell.direction == direction)
}

/// Each once, in the order in which they come.
fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.fold(Vec::new(), |mut distinct, item| {
        if !distinct.contains(&item) {
            distinct.push(item);
        }
        distinct
    })
}

/// What a gateway meets: packets that another core or a network card wrote.
const FAR: [(&str, &str); 2] = [
    ("shared-cache", "packets in no order, in the cache that all cores share: median, times as fast as ring"),
    ("memory", "packets in no order, in none of the caches: median, times as fast as ring"),
];

/// A figure as a cell of a table, beside ring's.
type Shown = fn(Figure, Figure) -> String;

/// Everyone by sizes: the best with how many times ring's that is, or what is usual.
fn sizes(measurements: &Measurements, table: &str, direction: Direction, what: &str, shown: Shown) -> Table {
    let cells: Vec<&Cell> = cells(measurements, table, direction).collect();
    let loads = distinct(cells.iter().map(|cell| cell.load.as_str()));
    let columns: Vec<&str> = [""].into_iter().chain(loads.iter().copied()).collect();
    let title = format!("{}: {what}; batches of 64 with 64 keys", direction.verb());
    let mut table = Table::new(&title, &columns);
    let figure = |name: &str, load: &str| {
        let cell = cells.iter().find(|cell| cell.implementation == name && cell.load == load);
        cell.map(|cell| cell.figure)
    };
    for name in distinct(cells.iter().map(|cell| cell.implementation.as_str())) {
        let row = loads.iter().map(|load| match (figure(name, load), figure("ring", load)) {
            (Some(own), Some(ring)) => shown(own, ring),
            _ => "-".to_owned(),
        });
        table.row([name.to_owned()].into_iter().chain(row));
    }
    table
}

fn best(own: Figure, ring: Figure) -> String {
    format!("{:.0} {:.2}x", own.best, ring.best / own.best)
}

fn typical(own: Figure, ring: Figure) -> String {
    format!("{:.0} {:.2}x", own.median, ring.median / own.median)
}

fn usual(own: Figure, _: Figure) -> String {
    format!("{:.0} ({:.0}..{:.0})", own.median, own.lower_quartile, own.upper_quartile)
}

/// From how many packets at a time on our backend pays.
fn batches(measurements: &Measurements, direction: Direction) -> Table {
    let cells: Vec<&Cell> = cells(measurements, "batches", direction).collect();
    let who = distinct(cells.iter().map(|cell| (cell.implementation.as_str(), cell.batch_len)));
    let names: Vec<String> = who
        .iter()
        .map(
            |(name, batch_len)| {
                if *name == measurements.ours { format!("by {batch_len}") } else { (*name).to_owned() }
            },
        )
        .collect();
    let columns: Vec<&str> = ["bytes"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let title = format!("{}: best, by packets at a time", direction.verb());
    let mut table = Table::new(&title, &columns);
    for load in distinct(cells.iter().map(|cell| cell.load.as_str())) {
        let own =
            cells.iter().filter(|cell| cell.load == load).map(|cell| format!("{:.0}", cell.figure.best));
        table.row([load.to_owned()].into_iter().chain(own));
    }
    table
}

/// One key against many.
fn keys(measurements: &Measurements) -> Table {
    let columns = ["", "bytes", "1 key", "64 keys"];
    let mut table = Table::new("Distinct keys: best", &columns);
    for direction in Direction::ALL {
        let cells: Vec<&Cell> = cells(measurements, "keys", direction).collect();
        for (name, load) in distinct(cells.iter().map(|cell| (&cell.implementation, &cell.load))) {
            let own = cells.iter().filter(|cell| cell.implementation == *name && cell.load == *load);
            let row = own.map(|cell| format!("{:.1}", cell.figure.best));
            table.row([format!("{name} {}", direction.verb()), load.clone()].into_iter().chain(row));
        }
    }
    table
}
