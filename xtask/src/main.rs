//! `cargo xtask`: everything a developer or CI runs, in one word each.

mod asm;
mod bench;
mod command;
mod conformance;
mod demo;
mod ebpf;
mod fuzz;
mod setup;
mod table;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores. Each brings what it needs: there is nothing to install by hand.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what this machine lacks to build and test: Debian packages, bpf-linker, and what the interop tests meet.
    Setup,
    /// Build the XDP program that `wgx` embeds.
    BuildEbpf {
        /// With a log record per frame, for the laboratory.
        #[arg(long)]
        trace: bool,
    },
    /// Show the gateway at work: clients, gateway and server in network namespaces.
    Demo(demo::Args),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Search for inputs that make a fuzz target fail (`tests/fuzz`).
    Fuzz(fuzz::Args),
    /// Check everything that CI checks.
    Test,
    /// What CI runs: `test`, and a test that was skipped fails it.
    Ci,
    /// Check the machine code of the AEAD's kernels (release build).
    Asm,
    /// Check the structure of the sources (part of `test`).
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Setup => setup::run().and_then(|()| setup::guest::run()).map(|()| setup::peers::install()),
        Task::BuildEbpf { trace } => setup::run().and_then(|()| ebpf::build(trace)),
        Task::Demo(args) => setup::run().and_then(|()| ebpf::build(false)).and_then(|()| demo::run(args)),
        Task::Bench(bench) => {
            setup::run().and_then(|()| ebpf::build(false)).and_then(|()| bench::run(&bench))
        }
        Task::Fuzz(args) => setup::run().and_then(|()| ebpf::build(false)).and_then(|()| fuzz::run(&args)),
        Task::Test => test::run_all(test::Skips::from_environment()),
        Task::Ci => test::run_all(test::Skips::Fail),
        Task::Asm => asm::run(),
        Task::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
