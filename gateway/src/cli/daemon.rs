//! `wgx NAME`: a tunnel in the background, for whom `wireguard-go NAME` is replaced: `wg-quick` above all.
//!
//! The process that was called starts itself anew with [`DaemonArgs::detached`] and waits on the child's standard
//! output. A byte there says that device and control socket are ready; its end without one, that the start failed,
//! and why is on standard error already. So no process is ever forked with threads in it.

use std::{
    env,
    fs::File,
    io::{ErrorKind, Read, Write, stdout},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::{
    fs::Mode,
    process::{chdir, setsid, umask},
    stdio::{dup2_stderr, dup2_stdout},
};

use super::{Start, run};
use crate::config::{Config, Plan};

/// Names a file of options, instead of `/etc/wgx/NAME.toml`.
const CONFIG_VARIABLE: &str = "WGX_CONFIG";
/// `1` means `--foreground`, as with wireguard-go.
const FOREGROUND_VARIABLE: &str = "WG_PROCESS_FOREGROUND";
/// Descriptors wireguard-go would take over. A device of somebody else's making has neither our name nor our
/// settings, and a socket no file that could be watched.
const DESCRIPTOR_VARIABLES: [&str; 2] = ["WG_TUN_FD", "WG_UAPI_FD"];

/// Arguments of `wgx NAME`.
#[derive(Clone, Debug, Default, Args)]
#[expect(clippy::doc_markdown, reason = "doc comments here are help texts, shown as they are")]
pub struct DaemonArgs {
    /// Tunnel to serve in the background, as wireguard-go does: with the options in $WGX_CONFIG or in
    /// /etc/wgx/NAME.toml, over UDP sockets where neither names an uplink
    pub name: Option<String>,

    /// Serve NAME without going to the background; so does WG_PROCESS_FOREGROUND=1
    #[arg(short, long)]
    pub foreground: bool,

    /// This is the process in the background; standard output is a pipe to the one that waits for it.
    #[arg(long, hide = true)]
    pub detached: bool,
}

impl DaemonArgs {
    /// Whether any of them was given.
    pub(super) fn are_given(&self) -> bool {
        self.name.is_some() || self.foreground || self.detached
    }
}

/// Serves `name`, here or in a process of its own.
pub(super) fn execute(name: &str, args: &DaemonArgs, start: Start) -> Result<ExitCode> {
    if let Some(variable) = DESCRIPTOR_VARIABLES.into_iter().find(|variable| env::var_os(variable).is_some())
    {
        bail!("{variable} is set, but wgx makes its TUN device and control socket itself: unset it");
    }
    let is_foreground = args.foreground || env::var_os(FOREGROUND_VARIABLE).is_some_and(|value| value == "1");
    if args.detached {
        // What this process makes is nobody else's, and no terminal's end is its end.
        umask(Mode::from_raw_mode(0o077));
        setsid().context("cannot leave the session of the terminal")?;
        run::serve(&plan(name)?, Box::new(detach), start)
    } else if is_foreground {
        run::serve(&plan(name)?, Box::new(|| Ok(())), start)
    } else {
        start_detached(name)
    }
}

fn plan(name: &str) -> Result<Plan> {
    let named = env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    Ok(Plan::make(&Config::of_tunnel(name, named.as_deref())?)?)
}

/// Starts this program again with the same arguments and waits until it is ready or has failed.
fn start_detached(name: &str) -> Result<ExitCode> {
    let program =
        env::current_exe().context("cannot find this program again, to start it in the background")?;
    let mut child = Command::new(&program)
        .arg("--detached")
        .args(env::args_os().skip(1))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {} in the background", program.display()))?;
    let mut pipe = child.stdout.take().context("the background process has no standard output")?;
    let mut ready = [0];
    if pipe.read_exact(&mut ready).is_ok() {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().context("cannot wait for the background process")?;
    match status.code() {
        // It has said why on the standard error that it shares with us.
        Some(code @ 1..=255) => Ok(ExitCode::from(code as u8)),
        _ => bail!("the background process of {name} ended before it was ready ({status})"),
    }
}

/// Lets go of whoever started this process and tells it that all is ready.
///
/// Standard error first: who reads it to its end, as a shell's `$(...)` does, must not wait for a daemon.
fn detach() -> Result<()> {
    chdir("/").context("cannot change to /")?;
    let null = File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
    dup2_stderr(&null).context("cannot close standard error")?;
    let told = stdout().write_all(b"\n").and_then(|()| stdout().flush());
    match told {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            bail!("whoever started this is gone: nobody knows of the tunnel")
        }
        told => told.context("cannot tell that the tunnel is ready")?,
    }
    dup2_stdout(&null).context("cannot close standard output")
}
