//! Arguments and start; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::main(gateway::runtime::start)
}
