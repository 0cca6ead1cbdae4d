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
use gateway::dataplane::engine::BATCH_MAX;

/// Batches in one pass over a stage, at least: the packets and frames of a pass do not all fit into the first two caches.
const BATCH_COUNT_MIN: usize = 32;

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
        /// So many clients; once for each number.
        #[arg(long, value_name = "NUMBER", default_values_t = [1, 1000], value_parser = clap::value_parser!(u32).range(1..=100_000))]
        clients: Vec<u32>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Count => count::run(),
        Task::Lookup { quick } => lookup::run(quick),
        Task::Stages { aead, quick, direction, clients } => {
            time_stages(aead.as_deref(), quick, direction, &clients)
        }
    }
}

/// Prints the costs of each scenario's stages as soon as they are known.
fn time_stages(
    aead: Option<&str>,
    quick: bool,
    only: Option<Direction>,
    client_counts: &[u32],
) -> Result<()> {
    let aead = aead.map_or_else(|| Ok(Aead::detect()), Aead::by_name)?;
    let rounds = if quick { 10 } else { 40 };
    let directions = [Direction::Decrypt, Direction::Encrypt, Direction::Hairpin];
    for direction in directions.into_iter().filter(|direction| only.is_none_or(|only| only == *direction)) {
        for len in [200, 1228] {
            for &clients in client_counts {
                let scenario = Scenario { direction, clients, len };
                // Every client has its turn.
                let batch_count = BATCH_COUNT_MIN.max((clients as usize).div_ceil(BATCH_MAX));
                let stages = stages::measure(aead, scenario, rounds, batch_count)?;
                println!("{}", serde_json::to_string(&stages)?);
            }
        }
    }
    Ok(())
}

fn direction(name: &str) -> Result<Direction, serde_json::Error> {
    serde_json::from_value(name.into())
}
