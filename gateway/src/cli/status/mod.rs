//! `wgx status`: asks running gateways what they do and lays it out for people.

mod source;
mod table;

use std::{process::ExitCode, time::UNIX_EPOCH};

use anyhow::Result;
use clap::Args;

/// Arguments of `wgx status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Name of the tunnel; all that run when left out
    name: Option<String>,

    /// Print what the gateway answers, as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the status of one gateway or of all; fails when none runs.
pub(super) fn execute(args: &StatusArgs) -> Result<ExitCode> {
    let directory = source::directory();
    let names = match &args.name {
        Some(name) => vec![name.clone()],
        None => source::running(directory)?,
    };
    if names.is_empty() {
        anyhow::bail!("no gateway runs: start one with `wgx run`");
    }
    let answers =
        names.iter().map(|name| source::ask(directory, name)).collect::<Result<Vec<serde_json::Value>>>()?;
    if args.json {
        // One name asked for gives that gateway's object, no name gives a list: scripts know which they get.
        let value =
            if args.name.is_some() { &answers[0] } else { &serde_json::Value::Array(answers.clone()) };
        println!("{}", serde_json::to_string_pretty(value)?);
    } else {
        let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let texts: Vec<_> = answers.iter().map(|answer| table::render(answer, now)).collect();
        print!("{}", texts.join("\n"));
    }
    Ok(ExitCode::SUCCESS)
}
