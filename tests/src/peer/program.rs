//! The userspace implementations: where they are, how they are started, and how they differ from the kernel's.

use std::{env, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{Namespace, gateway::in_foreground, program};

/// A userspace implementation of WireGuard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Debian's `wireguard-go`, of 2022.
    WireguardGo,
    /// Cloudflare's, from crates.io.
    Boringtun,
    /// Mullvad's descendant of it, from crates.io.
    Gotatun,
}

impl Program {
    /// All.
    pub const ALL: [Program; 3] = [Program::WireguardGo, Program::Boringtun, Program::Gotatun];

    /// Its name in the interop matrix.
    pub fn name(self) -> &'static str {
        match self {
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
        }
    }

    /// Its executable, as its package or crate calls it.
    pub fn executable(self) -> &'static str {
        match self {
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun-cli",
            Self::Gotatun => "gotatun",
        }
    }

    /// Where it is: on the search path, or where `cargo install` put it.
    pub fn path(self) -> Result<PathBuf> {
        let name = self.executable();
        let home = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
        program::find(name)
            .or_else(|| home.map(|home| home.join("bin").join(name)).filter(|file| file.is_file()))
            .with_context(|| format!("{name} is missing; run `cargo xtask setup`"))
    }

    /// Its own version, without the name.
    pub fn version(self) -> Result<String> {
        let path = self.path()?;
        let text = program::output(Command::new(&path).arg("--version"), Duration::from_secs(10))?;
        let words = text.lines().next().unwrap_or_default().split_whitespace();
        match words.last() {
            Some(version) if version.contains('.') => Ok(version.to_owned()),
            _ => bail!("`{} --version` names no version: {text:?}", path.display()),
        }
    }

    /// The command that serves `interface` in `namespace` in the foreground; `options` are its own.
    pub fn command(self, namespace: &Namespace, interface: &str, options: &[&str]) -> Result<Command> {
        let mut command = namespace.command(self.path()?);
        command.args(options);
        match self {
            Self::WireguardGo => {
                in_foreground(&mut command, interface);
            }
            // Both would ask who is logged in, to become that user; in a container nobody is.
            Self::Boringtun | Self::Gotatun => {
                command.args([
                    "--foreground",
                    "--disable-drop-privileges",
                    "--verbosity",
                    "error",
                    interface,
                ]);
            }
        }
        Ok(command)
    }

    /// Whether a running process takes a second private key or port.
    ///
    /// gotatun 0.10.2 does not reliably: it binds its new socket before the old one is closed, and may take its own
    /// change for the end of the TUN device.
    pub fn can_be_reconfigured(self) -> bool {
        self != Self::Gotatun
    }

    /// The length at which it seals a packet of `inner_len` bytes: padded as WireGuard has it, or not at all.
    pub fn padded_len(self, inner_len: usize, mtu: usize) -> usize {
        match self {
            Self::WireguardGo | Self::Gotatun => padded_len(inner_len, mtu),
            Self::Boringtun => inner_len,
        }
    }
}

/// Padded to a multiple of 16, but not beyond the MTU (kernel `calculate_skb_padding`).
pub(crate) fn padded_len(inner_len: usize, mtu: usize) -> usize {
    inner_len.next_multiple_of(16).min(mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_ends_at_the_mtu() {
        assert_eq!([28, 32, 1408, 1409, 1420].map(|len| padded_len(len, 1420)), [32, 32, 1408, 1420, 1420]);
        assert_eq!(Program::Boringtun.padded_len(29, 1420), 29);
    }
}
