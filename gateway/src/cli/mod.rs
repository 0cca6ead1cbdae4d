//! The command line. One file or folder per subcommand, and `daemon` for a tunnel's name in its place.
//!
//! Exit codes: 0 success, 1 it did not work, 2 it was called wrongly.

pub mod check;
pub mod daemon;
mod log;
pub mod run;
pub mod status;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::config::Plan;
use crate::runtime::Ready;
use log::Caller;

/// Runs a gateway by its plan until it is told to stop.
pub type Start = fn(&Plan, Ready) -> anyhow::Result<()>;

/// WireGuard gateway on the NIC queues
#[derive(Clone, Debug, Parser)]
#[expect(clippy::doc_markdown, reason = "doc comments here are help texts, shown as they are")]
#[command(name = "wgx", version, about, max_term_width = 100, arg_required_else_help = true)]
#[command(override_usage = "wgx [OPTIONS] <COMMAND>\n       wgx [OPTIONS] [--foreground] <NAME>")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    daemon: daemon::DaemonArgs,

    /// What to log: error, warn, info, debug, trace, or directives as in RUST_LOG [default: info]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = log::directives)]
    log: Option<String>,

    /// Append the log to a file [default: stderr; in the background, the system's log]
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,
}

/// What the program was told to do.
enum Task {
    Command(Command),
    Tunnel(String),
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

impl Cli {
    /// Reads the arguments: a command or a tunnel's name, and not both.
    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<(Self, Task), clap::Error> {
        let mut cli = Self::try_parse_from(arguments)?;
        let refused = |kind, message: &str| Err(Self::command().error(kind, message));
        match (cli.command.take(), cli.daemon.name.clone()) {
            (Some(_), _) if cli.daemon.are_given() => refused(
                ErrorKind::ArgumentConflict,
                "a command and the name of a tunnel to serve exclude each other",
            ),
            (Some(command), _) => Ok((cli, Task::Command(command))),
            (None, Some(name)) => Ok((cli, Task::Tunnel(name))),
            (None, None) => refused(
                ErrorKind::MissingRequiredArgument,
                "neither a command nor the name of a tunnel is given",
            ),
        }
    }

    fn caller(&self, task: &Task) -> Caller {
        match task {
            Task::Command(_) => Caller::Command,
            Task::Tunnel(_) if self.daemon.detached => Caller::Background,
            Task::Tunnel(_) => Caller::Tunnel,
        }
    }
}

/// Reads the arguments (which exits with 2 when they are wrong, 0 after `--help`) and does what they say.
pub fn main(start: Start) -> ExitCode {
    let (cli, task) = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if let Err(error) = log::start(cli.log.as_deref(), cli.log_file.as_deref(), cli.caller(&task)) {
        eprintln!("wgx: {error:#}");
        return ExitCode::from(2);
    }
    let done = match task {
        Task::Command(Command::Run(args)) => run::execute(&args, start),
        Task::Command(Command::Status(args)) => status::execute(&args),
        Task::Command(Command::Check(args)) => check::execute(&args),
        Task::Tunnel(name) => daemon::execute(&name, &cli.daemon, start),
    };
    done.unwrap_or_else(|error| {
        if cli.daemon.detached {
            // Standard error is closed by the time a running tunnel fails.
            tracing::error!("{error:#}");
        }
        eprintln!("wgx: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Task, clap::Error> {
        Cli::read(line.split_whitespace().map(OsString::from)).map(|(_, task)| task)
    }

    fn parse_run(line: &str) -> run::RunArgs {
        match parse(line).unwrap_or_else(|error| panic!("{line}: {error}")) {
            Task::Command(Command::Run(args)) => args,
            _ => panic!("{line} is no run"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lists_are_split_at_commas() {
        let args = parse_run("wgx run wg0 --uplink eth0,eth1 --downlink eth2 --io af-xdp --cores 1,3-5");
        assert_eq!(args.options.uplink.as_deref(), Some(&["eth0".to_owned(), "eth1".to_owned()][..]));
        assert_eq!(args.options.cores.expect("cores").numbers(), [1, 3, 4, 5]);
    }

    #[test]
    fn a_switch_needs_no_value_and_does_not_eat_the_next_one() {
        for (line, expected) in [
            ("wgx run --busy-poll wg0 --uplink eth0", Some(true)),
            ("wgx run --busy-poll=false wg0 --uplink eth0", Some(false)),
            ("wgx run wg0 --uplink eth0", None),
        ] {
            let args = parse_run(line);
            assert_eq!((args.name.as_str(), args.options.busy_poll), ("wg0", expected), "{line}");
            let args = parse_run(&line.replace("--busy-poll", "--napi-busy-poll"));
            assert_eq!((args.name.as_str(), args.options.napi_busy_poll), ("wg0", expected), "{line}");
            let args = parse_run(&line.replace("--busy-poll", "--pm-qos"));
            assert_eq!((args.name.as_str(), args.options.pm_qos), ("wg0", expected), "{line}");
        }
    }

    #[test]
    fn what_is_no_command_names_a_tunnel_as_with_wireguard_go() {
        for line in ["wgx wg0", "wgx -f wg0", "wgx wg0 --foreground", "wgx --log debug wg0", "wgx -- wg0"] {
            let task = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(matches!(task, Task::Tunnel(name) if name == "wg0"), "{line}");
        }
        assert!(matches!(parse("wgx -- run"), Ok(Task::Tunnel(name)) if name == "run"));
        assert!(matches!(parse("wgx --log debug run wg0"), Ok(Task::Command(Command::Run(_)))));
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in [
            "wgx",
            "wgx --log debug",
            "wgx --foreground",
            "wgx wg0 wg1",
            "wgx wg0 --frob",
            "wgx wg0 status",
            "wgx --foreground run wg0",
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
            let Err(error) = parse(line) else { panic!("{line} is understood") };
            assert_eq!(error.exit_code(), 2, "{line}: {error}");
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for (line, kind) in
            [("wgx --help", ErrorKind::DisplayHelp), ("wgx --version", ErrorKind::DisplayVersion)]
        {
            assert_eq!(parse(line).err().map(|error| error.kind()), Some(kind), "{line}");
        }
    }
}
