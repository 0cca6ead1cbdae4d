//! Arguments and start; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::main(gateway::cli::Parts {
        run: |_| anyhow::bail!("this build has no data plane"),
        probe: |_| anyhow::bail!("this build has no XDP program"),
    })
}
