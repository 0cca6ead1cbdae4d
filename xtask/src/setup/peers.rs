//! The WireGuard implementations from crates.io that the interop tests run against `wgx`.
//!
//! They take minutes to build, and only tests need them: `demo` and `build-ebpf` do without. One that does not build
//! is no failure of the setup: its tests are skipped and counted.

use anyhow::{Result, bail};

use crate::command::{self, cargo, command, find_program, output, shown, step};
use crate::setup::toolchain::home_bin;

/// A crate with one program.
struct Peer {
    package: &'static str,
    version: &'static str,
    executable: &'static str,
}

const PEERS: [Peer; 2] = [
    Peer { package: "boringtun-cli", version: "0.7.1", executable: "boringtun-cli" },
    Peer { package: "gotatun-cli", version: "0.10.2", executable: "gotatun" },
];

/// Builds those that are missing or of another version.
pub fn install() {
    for peer in &PEERS {
        let Err(reason) = peer.check() else { continue };
        eprintln!("setup: {reason:#}");
        if let Err(error) = peer.install() {
            eprintln!("setup: {error:#}\n    without {}, its interop tests are skipped", peer.executable);
        }
    }
}

impl Peer {
    /// Whether the program is there and says that it is the version the tests know.
    fn check(&self) -> Result<()> {
        let installed = home_bin().map(|bin| bin.join(self.executable)).filter(|file| file.is_file());
        let Some(program) = find_program(self.executable).or(installed) else {
            bail!("{} is missing", self.executable);
        };
        let program = program.display().to_string();
        let said = output(command(&program).arg("--version")).unwrap_or_default();
        if said.split_whitespace().last() != Some(self.version) {
            bail!("{program} is {:?}, not {}", said.trim(), self.version);
        }
        Ok(())
    }

    fn install(&self) -> Result<()> {
        let mut install = cargo();
        install.args(["install", "--locked", "--force", self.package, "--version", self.version]);
        // Not into the target folder of this checkout: what is built there is ours.
        install.env_remove("CARGO_TARGET_DIR");
        eprintln!("    {}", shown(&install));
        let title = format!("setup: build {} {} (a few minutes)", self.package, self.version);
        step(&title, || command::run(&mut install))?;
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_another_version_is_named_with_its_path() {
        let peer = Peer { package: "none", version: "0.0.0-none", executable: "cargo" };
        let error = peer.check().unwrap_err().to_string();
        assert!(error.contains("cargo") && error.contains("not 0.0.0-none"), "{error}");
    }

    #[test]
    fn a_program_that_is_nowhere_is_missing() {
        let peer = Peer { package: "none", version: "1", executable: "wgx-no-such-program" };
        assert_eq!(peer.check().unwrap_err().to_string(), "wgx-no-such-program is missing");
    }
}
