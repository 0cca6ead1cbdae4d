//! The kernel's WireGuard in a guest, configured and read by `wg` as on any machine.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use crate::{
    gateway::Peer,
    guest::{GUEST_HOST, Guest},
    keys::Keys,
    site::{self, SERVER_NETWORKS},
};

/// Where the configuration passes through.
const FILE: &str = "/tmp/wg.conf";

/// An interface of the kernel's WireGuard.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel<'a> {
    guest: &'a Guest,
    interface: &'a str,
}

/// A peer as the kernel is configured with it.
#[derive(Clone, Debug)]
pub struct KernelPeer {
    /// Keys and addresses.
    pub peer: Peer,
    /// Where it is, if the kernel shall speak first.
    pub endpoint: Option<SocketAddr>,
}

impl KernelPeer {
    /// Its section in the format of `wg setconf`; also for `wgx`.
    pub fn section(&self) -> String {
        let endpoint = self.endpoint.map(|endpoint| format!("Endpoint = {endpoint}\n"));
        format!("{}{}", self.peer.section(), endpoint.unwrap_or_default())
    }
}

/// Bytes of UDP payload to and from a peer, handshakes included, as `wg show transfer` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
}

impl Transfer {
    /// Reads the line of a peer in the output of `wg show INTERFACE transfer`.
    pub fn parse(text: &str, public_key: &str) -> Result<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix(public_key));
        let mut numbers = line.context("no such peer")?.split_whitespace().map(str::parse);
        let mut next = || numbers.next().context("a number is missing")?.context("no number");
        Ok(Self { rx: next()?, tx: next()? })
    }

    /// The same traffic as the other side counts it.
    #[must_use]
    pub fn mirrored(self) -> Self {
        Self { rx: self.tx, tx: self.rx }
    }
}

impl<'a> Tunnel<'a> {
    /// Adds the interface with the addresses of [`GUEST_HOST`], up, and the routes to the server behind it.
    pub fn add(guest: &'a Guest, interface: &'a str) -> Result<Self> {
        guest.run(&format!("ip link add {interface} type wireguard"))?;
        guest.run(&format!("ip link set {interface} mtu 1420"))?;
        guest.address(interface, site::inner(GUEST_HOST))?;
        for network in SERVER_NETWORKS {
            guest.run(&format!("ip route add {network} dev {interface}"))?;
        }
        Ok(Self::named(guest, interface))
    }

    /// An interface that exists.
    pub fn named(guest: &'a Guest, interface: &'a str) -> Self {
        Self { guest, interface }
    }

    /// Gives it this key, port and these peers, and no others.
    pub fn configure(&self, keys: &Keys, listen_port: u16, peers: &[KernelPeer]) -> Result<()> {
        let sections: String = peers.iter().map(KernelPeer::section).collect();
        let key = keys.private.reveal();
        let text = format!("[Interface]\nPrivateKey = {key}\nListenPort = {listen_port}\n{sections}");
        self.guest.write_secret(FILE, &text)?;
        self.guest.run(&format!("wg setconf {} {FILE}; code=$?; rm {FILE}; exit $code", self.interface))?;
        Ok(())
    }

    /// Runs `wg set INTERFACE WHAT`.
    pub fn set(&self, what: &str) -> Result<()> {
        self.guest.run(&format!("wg set {} {what}", self.interface))?;
        Ok(())
    }

    /// Runs `wg show INTERFACE WHAT`.
    pub fn show(&self, what: &str) -> Result<String> {
        self.guest.run(&format!("wg show {} {what}", self.interface))
    }

    /// What went to and came from a peer.
    pub fn transfer(&self, public_key: &str) -> Result<Transfer> {
        Transfer::parse(&self.show("transfer")?, public_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_peer_is_read() {
        let transfer = Transfer::parse("a=\t1\t2\nb=\t1372\t1428\n", "b=").unwrap();
        assert_eq!(transfer, Transfer { rx: 1372, tx: 1428 });
        assert_eq!(transfer.mirrored(), Transfer { rx: 1428, tx: 1372 });
    }

    #[test]
    fn an_unknown_peer_and_a_missing_number_are_errors() {
        Transfer::parse("a=\t1\t2\n", "b=").unwrap_err();
        Transfer::parse("a=\t1\n", "a=").unwrap_err();
    }
}
