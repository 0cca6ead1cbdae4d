//! `cargo xtask demo`: the gateway at work in network namespaces.

/// Options of the demo.
#[derive(clap::Args)]
pub struct Args {
    /// Leave the namespaces up and print how to look around.
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo.
#[expect(clippy::needless_pass_by_value, reason = "the options are consumed by the run")]
pub fn run(args: Args) -> anyhow::Result<()> {
    let Args { keep: _ } = args;
    anyhow::bail!("this checkout has no demo yet")
}
