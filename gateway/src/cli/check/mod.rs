//! `wgx check`: will `AF_XDP` work on this interface, and what would make it better.

mod facts;
mod findings;
mod probe;
mod report;

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

/// Arguments of `wgx check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Interface to look at
    interface: String,

    /// Print everything found as JSON
    #[arg(long)]
    json: bool,

    /// Attach the XDP program for a moment to learn the mode; some drivers interrupt traffic when it is attached
    #[arg(long)]
    probe: bool,
}

/// Looks, judges and prints; success when nothing found keeps `AF_XDP` from working.
pub(super) fn execute(args: &CheckArgs) -> Result<ExitCode> {
    let mut facts = facts::Facts::read(&args.interface)?;
    if args.probe {
        facts.probe = Some(probe::probe(&facts.interface).map_err(|error| format!("{error:#}")));
    }
    let report = report::Report::of(facts);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.af_xdp_works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
