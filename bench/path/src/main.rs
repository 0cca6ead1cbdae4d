//! `wgx-path`: what a packet's way through the engine costs, stage by stage, and how many instructions it is.
//!
//! Run by `cargo xtask bench path`, which reads the JSON it prints.
#![forbid(unsafe_code)]

mod count;
mod lookup;

use aead::Aead;
use anyhow::Result;
use bench::load::Direction;
use bench::path::Scenario;
use bench_path::stages;
use clap::{Parser, Subcommand};

/// Batches in one pass over a stage: the packets and frames of a pass do not all fit into the first two caches.
const BATCH_COUNT: usize = 32;

/// Costs of the packet path on plain memory; results are lines of JSON.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Pass batches through a worker, for callgrind to count instructions.
    Count,
    /// Time structures for longest-prefix matches.
    Lookup {
        /// Leave out the million.
        #[arg(long)]
        quick: bool,
    },
    /// Time the stages of the engine.
    Stages {
        /// The AEAD backend, as for `wgx`; the fastest if not given.
        #[arg(long, value_name = "NAME")]
        aead: Option<String>,
        /// Fewer passes.
        #[arg(long)]
        quick: bool,
        /// Only this direction: `decrypt`, `encrypt` or `hairpin`.
        #[arg(long, value_name = "NAME", value_parser = direction)]
        direction: Option<Direction>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Count => count::run(),
        Task::Lookup { quick } => lookup::run(quick),
        Task::Stages { aead, quick, direction } => time_stages(aead.as_deref(), quick, direction),
    }
}

/// Prints the costs of each scenario's stages as soon as they are known.
fn time_stages(aead: Option<&str>, quick: bool, only: Option<Direction>) -> Result<()> {
    let aead = aead.map_or_else(|| Ok(Aead::detect()), Aead::by_name)?;
    let rounds = if quick { 10 } else { 40 };
    let directions = [Direction::Decrypt, Direction::Encrypt, Direction::Hairpin];
    for direction in directions.into_iter().filter(|direction| only.is_none_or(|only| only == *direction)) {
        for (len, clients) in [(200, 1), (200, 1000), (1228, 1), (1228, 1000)] {
            let scenario = Scenario { direction, clients, len };
            let stages = stages::measure(aead, scenario, rounds, BATCH_COUNT)?;
            println!("{}", serde_json::to_string(&stages)?);
        }
    }
    Ok(())
}

fn direction(name: &str) -> Result<Direction, serde_json::Error> {
    serde_json::from_value(name.into())
}
