//! WireGuard keys made by `wg`, in the text form it uses.

use std::{fmt, io::Write, process::Stdio, time::Duration};

use anyhow::{Context, Result};

use crate::program;

const QUICK: Duration = Duration::from_secs(10);

/// A key that must not be shown: its debug form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The key in base64, for a file only we may read.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// A fresh preshared key.
    pub fn preshared() -> Result<Self> {
        Ok(Self(program::output(program::command("wg").arg("genpsk"), QUICK)?.trim().to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A key pair.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The private key.
    pub private: Secret,
    /// The public key in base64.
    pub public: String,
}

impl Keys {
    /// A fresh pair.
    pub fn generate() -> Result<Self> {
        let private = program::output(program::command("wg").arg("genkey"), QUICK)?.trim().to_owned();
        let mut child = program::command("wg")
            .arg("pubkey")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("`wg pubkey` did not start")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(private.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let public = String::from_utf8(output.stdout)?.trim().to_owned();
        anyhow::ensure!(public.len() == 44, "`wg pubkey` gave no key");
        Ok(Self { private: Secret(private), public })
    }
}
