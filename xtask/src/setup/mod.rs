//! `cargo xtask setup`: brings what the machine lacks, and nothing else.
//!
//! Probing looks for files, so it is quick and does not ask the package manager; what is missing is installed
//! as Debian packages and by `cargo install`. The compiler for the XDP program is in [`toolchain`], programs that only
//! the interop tests need are in [`peers`].

pub mod guest;
mod packages;
pub mod peers;
pub mod toolchain;

use anyhow::{Result, bail};

use crate::command::{self, cargo, shown, step};
use packages::Probe;

/// Major version of the LLVM that bpf-linker, libclang and the BPF-capable compiler share.
pub const LLVM: &str = "22";

/// Checks everything, installs what is missing and checks again.
pub fn run() -> Result<()> {
    install_missing(packages::PACKAGES)?;
    if let Err(reason) = toolchain::check_linker() {
        install_linker(&reason)?;
    }
    toolchain::find()?;
    Ok(())
}

/// Brings Intel's ipsec-mb, which only `bench aead` uses.
pub fn install_ipsec_mb() -> Result<()> {
    install_missing(packages::IPSEC_MB)
}

/// Brings perf, which only `bench profile` uses.
pub fn install_profiler() -> Result<()> {
    install_missing(packages::PROFILER)
}

/// Installs what is missing of these packages and checks again.
fn install_missing(packages: &[(&'static str, Probe)]) -> Result<()> {
    let missing = packages::missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let mut update = command::command("apt-get");
    update.args(["--quiet=2", "update"]);
    let mut install = command::command("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    // Without the flag wireguard-tools drags in a whole kernel.
    install
        .args(["--quiet", "--yes", "--no-install-recommends", "--option=Dpkg::Use-Pty=0", "install"])
        .args(&missing);

    eprintln!("setup: missing Debian packages: {}", missing.join(" "));
    let obstacle = if command::find_program("apt-get").is_none() {
        Some("this is no Debian system (there is no apt-get); install their like")
    } else if rustix::process::geteuid().is_root() {
        None
    } else {
        Some("installing them takes root")
    };
    if let Some(obstacle) = obstacle {
        bail!("{obstacle}:\n  sudo {}\n  sudo {}\n  cargo xtask setup", shown(&update), shown(&install));
    }
    step("setup: refresh the package lists", || run_patiently(&mut update))?;
    step("setup: install the packages", || run_patiently(&mut install))?;

    let still_missing = packages::missing(packages);
    if !still_missing.is_empty() {
        bail!("installed, yet what they should bring is not there: {}", still_missing.join(" "));
    }
    Ok(())
}

/// A mirror may hiccup: one more try before giving up.
fn run_patiently(apt: &mut std::process::Command) -> Result<()> {
    command::run(apt).or_else(|error| {
        eprintln!("    {error:#}; once more");
        command::run(apt)
    })
}

fn install_linker(reason: &anyhow::Error) -> Result<()> {
    eprintln!("setup: {reason:#}");
    let mut install = cargo();
    install
        .args([
            "install",
            "--quiet",
            "--force",
            "--locked",
            "bpf-linker",
            "--version",
            toolchain::LINKER_VERSION,
        ])
        .args(["--no-default-features", "--features", &format!("llvm-{LLVM}")])
        .envs(toolchain::linker_environment());
    let variables = toolchain::linker_environment().map(|(name, value)| format!("{name}={value}")).join(" ");
    eprintln!("    {variables} {}", shown(&install));
    step("setup: build bpf-linker (about a minute)", || command::run(&mut install))?;
    toolchain::check_linker()
}
