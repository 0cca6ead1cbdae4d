//! A client of the gateway, configured by `wg`: Debian's `wireguard-go`, or `wgx` without AF_XDP.

use std::{net::SocketAddr, process::Command};

use anyhow::Result;

use crate::{
    Gateway, Lab, Namespace, Process, Site,
    gateway::{Implementation, in_foreground, wait_for_tunnel},
    keys::{Keys, Secret},
    site::{self, Addresses, SERVER_NETWORKS, TUNNEL_NETWORKS, client_host},
};

/// A client.
#[derive(Debug)]
pub struct Client {
    /// Its number: 1 or 2.
    pub number: u8,
    /// Where it runs.
    pub namespace: Namespace,
    /// The tunnel interface.
    pub interface: String,
    /// Its key pair.
    pub keys: Keys,
    /// The preshared key it has with the gateway, if any.
    pub preshared_key: Option<Secret>,
    /// Its addresses inside the tunnel.
    pub inner: Addresses,
    /// What it runs; `wireguard-go` unless changed before the start.
    pub implementation: Implementation,
    process: Option<Process>,
}

impl Client {
    /// Client `number` of the site, not started. The second one has a preshared key, so both kinds are used.
    pub fn new(lab: &mut Lab, site: &Site, number: u8) -> Result<Self> {
        Ok(Self {
            number,
            namespace: site.clients[usize::from(number - 1)].clone(),
            interface: lab.interface_name(&format!("wgxdemo-c{number}")),
            keys: Keys::generate()?,
            preshared_key: (number == 2).then(Secret::preshared).transpose()?,
            inner: site::inner(client_host(number)),
            implementation: Implementation::WireguardGo,
            process: None,
        })
    }

    fn command(&self, gateway: &Gateway) -> Result<Command> {
        // A client is a machine of its own: on a shared one it comes before the programs that make the load.
        let mut command = self.namespace.command("nice");
        command.args(["-n", "-15"]);
        match self.implementation {
            Implementation::WireguardGo => {
                in_foreground(command.arg("wireguard-go"), &self.interface);
            }
            Implementation::Wgx(io) => {
                command.arg(gateway.program()?).args(["run", &self.interface, "--io", &io.to_string()]);
            }
        }
        Ok(command)
    }

    /// Starts the program and points it at the gateway.
    pub fn start(&mut self, lab: &Lab, gateway: &Gateway, endpoint: SocketAddr) -> Result<()> {
        let label = format!("client{}", self.number);
        let mut process = lab.spawn(&label, &mut self.command(gateway)?)?;
        wait_for_tunnel(&mut process, &self.namespace, &self.interface)?;
        self.process = Some(process);
        let file = lab.write_secret(&format!("{label}.conf"), &self.configuration(gateway, endpoint))?;
        self.namespace.run(&format!("wg setconf {} {}", self.interface, file.display()))?;
        self.namespace.ip(&format!("link set {} mtu 1420 up", self.interface))?;
        site::add_both(&self.namespace, &self.interface, self.inner)?;
        for network in SERVER_NETWORKS {
            self.namespace.ip(&format!("route add {network} dev {}", self.interface))?;
        }
        Ok(())
    }

    /// Points it at another endpoint of the gateway.
    pub fn move_to(&self, gateway: &Gateway, endpoint: SocketAddr) -> Result<()> {
        let line = format!("wg set {} peer {} endpoint {endpoint}", self.interface, gateway.keys.public);
        self.namespace.run(&line)?;
        Ok(())
    }

    /// `wg show INTERFACE WHAT`.
    pub fn show(&self, what: &str) -> Result<String> {
        self.namespace.run(&format!("wg show {} {what}", self.interface))
    }

    /// The running program.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Leaves the program running when this is dropped.
    pub fn keep(&mut self) {
        if let Some(process) = &mut self.process {
            process.keep();
        }
    }

    fn configuration(&self, gateway: &Gateway, endpoint: SocketAddr) -> String {
        let preshared = self
            .preshared_key
            .as_ref()
            .map(|key| format!("PresharedKey = {}\n", key.reveal()))
            .unwrap_or_default();
        format!(
            "[Interface]\nPrivateKey = {}\n\n[Peer]\nPublicKey = {}\n{preshared}Endpoint = {endpoint}\n\
             AllowedIPs = {}, {}\n",
            self.keys.private.reveal(),
            gateway.keys.public,
            TUNNEL_NETWORKS.join(", "),
            SERVER_NETWORKS.join(", "),
        )
    }
}
