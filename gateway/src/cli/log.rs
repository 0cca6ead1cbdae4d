//! Where the log goes and how much of it: stderr, by `--log`, else by `RUST_LOG`, else `info`.

use std::io::{IsTerminal, stderr};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

const VARIABLE: &str = "RUST_LOG";

/// Accepts what [`EnvFilter`] can read.
pub fn directives(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| {
        format!("{error}: use a level (error, warn, info, debug, trace) or target=level,...")
    })
}

/// Starts the log of this process.
///
/// # Errors
///
/// When the environment variable cannot be read.
pub fn start(flag: Option<&str>) -> Result<()> {
    let from_environment = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let text = flag.map(str::to_owned).or(from_environment).unwrap_or_else(|| "info".to_owned());
    let filter =
        EnvFilter::try_new(&text).with_context(|| format!("{VARIABLE}={text:?} is no log filter"))?;
    // A log that cannot be written is no reason to stop forwarding packets: the layer drops such lines.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
    Ok(())
}
