//! Measures what sealing and opening a packet costs, or looks for secrets in how long it takes.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use bench::aead::{constant_time, measure};
use clap::Parser;

/// ChaCha20-Poly1305 of wgx beside other libraries.
#[derive(Parser)]
#[command(name = "wgx-aead")]
struct Cli {
    /// Fewer rounds.
    #[arg(long)]
    quick: bool,
    /// Where to write the figures, as JSON.
    #[arg(long, value_name = "FILE", required_unless_present = "constant_time")]
    json: Option<PathBuf>,
    /// The program that `ipsec_mb.c` compiles to.
    #[arg(long, value_name = "PROGRAM")]
    ipsec_mb: Option<PathBuf>,
    /// Why there is no such program: for the report.
    #[arg(long, value_name = "REASON", conflicts_with = "ipsec_mb")]
    without_ipsec_mb: Option<String>,
    /// Instead of measuring, test whether time depends on secrets (dudect).
    #[arg(long)]
    constant_time: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if cli.constant_time {
        let reports = constant_time(if cli.quick { 20_000 } else { 100_000 })?;
        let bad = reports.iter().filter(|report| !report.is_good()).count();
        if bad > 0 {
            bail!("{bad} of {} tests of constant time failed", reports.len());
        }
        return Ok(());
    }
    let path = cli.json.context("where to write the figures: --json FILE")?;
    let mut measurements = measure(cli.ipsec_mb.as_deref(), if cli.quick { 40 } else { 300 })?;
    measurements.without_ipsec_mb = cli.without_ipsec_mb;
    let json = serde_json::to_vec_pretty(&measurements)?;
    std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))
}
