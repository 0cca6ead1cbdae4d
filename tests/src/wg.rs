//! `wg` on one tunnel interface: what it is told and what it tells.

use anyhow::{Context, Result};

use crate::{Client, Gateway, Namespace};

/// A tunnel interface as `wg` names it.
#[derive(Clone, Copy, Debug)]
pub struct Wg<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its name.
    pub interface: &'a str,
}

/// Bytes of UDP payload exchanged with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
}

impl Wg<'_> {
    /// `wg set INTERFACE CHANGE`.
    pub fn set(&self, change: &str) -> Result<()> {
        self.namespace.run(&format!("wg set {} {change}", self.interface))?;
        Ok(())
    }

    /// What `wg show INTERFACE WHAT` says of a peer, or nothing.
    pub fn of_peer(&self, what: &str, public_key: &str) -> Result<Option<String>> {
        let text = self.namespace.run(&format!("wg show {} {what}", self.interface))?;
        let of_peer =
            |line: &str| Some(line.split_once('\t').filter(|(key, _)| *key == public_key)?.1.to_owned());
        Ok(text.lines().find_map(of_peer))
    }

    /// The endpoint of a peer.
    pub fn endpoint(&self, public_key: &str) -> Result<String> {
        self.of_peer("endpoints", public_key)?.with_context(|| format!("{}: no such peer", self.interface))
    }

    /// What was exchanged with a peer.
    pub fn transfer(&self, public_key: &str) -> Result<Transfer> {
        let text = self.of_peer("transfer", public_key)?.context("no such peer")?;
        let (rx, tx) = text.split_once('\t').with_context(|| format!("no transfer: {text}"))?;
        Ok(Transfer { rx: rx.parse()?, tx: tx.parse()? })
    }

    /// When the last handshake with a peer was, in seconds since 1970; 0 for never.
    pub fn latest_handshake(&self, public_key: &str) -> Result<u64> {
        Ok(self.of_peer("latest-handshakes", public_key)?.context("no such peer")?.parse()?)
    }
}

impl Gateway {
    /// Its tunnel interface.
    pub fn wg(&self) -> Wg<'_> {
        Wg { namespace: &self.namespace, interface: &self.interface }
    }
}

impl Client {
    /// Its tunnel interface.
    pub fn wg(&self) -> Wg<'_> {
        Wg { namespace: &self.namespace, interface: &self.interface }
    }
}
