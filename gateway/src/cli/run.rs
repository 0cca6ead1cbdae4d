//! `wgx run`: from arguments to a plan, and on to the gateway.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;

use crate::config::{Config, ConfigError, Options, Plan};

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

/// Plans, says what is odd about the plan, and starts.
pub(super) fn execute(args: &RunArgs, start: fn(&Plan) -> Result<()>) -> Result<ExitCode> {
    let plan = args.plan()?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    if args.dry_run {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        start(&plan)?;
    }
    Ok(ExitCode::SUCCESS)
}
