//! The command line. One file or folder per subcommand.
//!
//! Exit codes: 0 success, 1 it did not work, 2 it was called wrongly.

pub mod check;
mod log;
pub mod run;
pub mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Plan;

/// WireGuard gateway on the NIC queues
#[derive(Clone, Debug, Parser)]
#[expect(clippy::doc_markdown, reason = "doc comments here are help texts, shown as they are")]
#[command(name = "wgx", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What to log to stderr: error, warn, info, debug, trace, or directives as in RUST_LOG [default: info]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = log::directives)]
    log: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Run the gateway in the foreground until SIGTERM or SIGINT
    Run(run::RunArgs),
    /// Show what running gateways do: workers, queues, interfaces, peers, and every drop by its reason
    Status(status::StatusArgs),
    /// Tell whether AF_XDP will work on an interface, and what to change
    Check(check::CheckArgs),
}

/// Reads the arguments (which exits with 2 when they are wrong, 0 after `--help`) and does what they say.
///
/// `start` runs a gateway by its plan until it is told to stop.
pub fn main(start: fn(&Plan) -> anyhow::Result<()>) -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = log::start(cli.log.as_deref()) {
        eprintln!("wgx: {error}");
        return ExitCode::from(2);
    }
    let done = match cli.command {
        Command::Run(args) => run::execute(&args, start),
        Command::Status(args) => status::execute(&args),
        Command::Check(args) => check::execute(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("wgx: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lists_are_split_at_commas() {
        let cli =
            parse("wgx run wg0 --uplink eth0,eth1 --downlink eth2 --io af-xdp --cores 1,3-5").expect("parse");
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.options.uplink.as_deref(), Some(&["eth0".to_owned(), "eth1".to_owned()][..]));
        assert_eq!(args.options.cores.expect("cores").numbers(), [1, 3, 4, 5]);
    }

    #[test]
    fn busy_poll_needs_no_value_and_does_not_eat_the_next_one() {
        for (line, expected) in [
            ("wgx run --busy-poll wg0 --uplink eth0", Some(true)),
            ("wgx run --busy-poll=false wg0 --uplink eth0", Some(false)),
            ("wgx run wg0 --uplink eth0", None),
        ] {
            let Command::Run(args) = parse(line).expect(line).command else { panic!("not run") };
            assert_eq!((args.name.as_str(), args.options.busy_poll), ("wg0", expected), "{line}");
        }
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            "wgx",
            "wgx fly",
            "wgx run",
            "wgx run wg0 --uplink",
            "wgx run wg0 --io dpdk",
            "wgx run wg0 --cores 5-1",
            "wgx run wg0 --cores 9999",
            "wgx run wg0 --mtu -1",
            "wgx run wg0 --mtu 99999999999",
            "wgx run wg0 --frob",
            "wgx run wg0 wg1",
            "wgx check",
            "wgx status --log =,=",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        assert_eq!(parse("wgx --help").expect_err("help").kind(), ErrorKind::DisplayHelp);
        assert_eq!(parse("wgx --version").expect_err("version").kind(), ErrorKind::DisplayVersion);
    }
}
