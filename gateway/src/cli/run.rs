//! `wgx run`: from arguments to a plan, and on to the gateway.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use super::Start;
use crate::config::{Config, ConfigError, Options, Plan};
use crate::runtime::Ready;

/// Arguments of `wgx run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Name of the tunnel, as `wg show NAME` takes it
    pub name: String,

    /// The options.
    #[command(flatten)]
    pub options: Options,

    /// TOML file with the same options; flags win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check everything, print the plan as JSON, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl RunArgs {
    /// What these arguments come to on this machine.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with the name, the file, an option or an interface.
    pub fn plan(&self) -> Result<Plan, ConfigError> {
        Plan::make(&Config::load(&self.name, self.options.clone(), self.config.as_deref())?)
    }
}

/// Plans, and starts or prints the plan.
pub(super) fn execute(args: &RunArgs, start: Start) -> Result<ExitCode> {
    let plan = args.plan()?;
    if args.dry_run {
        warn_of(&plan);
        println!("{}", serde_json::to_string_pretty(&plan)?);
        return Ok(ExitCode::SUCCESS);
    }
    serve(&plan, Box::new(|| Ok(())), start)
}

/// Says what is odd about the plan and carries it out; `ready` is called when everything is open.
pub(super) fn serve(plan: &Plan, ready: Ready, start: Start) -> Result<ExitCode> {
    warn_of(plan);
    start(plan, ready)?;
    Ok(ExitCode::SUCCESS)
}

fn warn_of(plan: &Plan) {
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
}
