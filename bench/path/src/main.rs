//! `wgx-path`: what a packet's way through the engine costs, stage by stage, and how many instructions it is.
//!
//! Run by `cargo xtask bench path`, which reads the JSON it prints.
#![forbid(unsafe_code)]

mod count;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Count => count::run(),
    }
}
