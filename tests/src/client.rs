//! A client of the gateway: Debian's `wireguard-go`, configured by `wg`.

use std::net::SocketAddr;

use anyhow::Result;

use crate::{
    Gateway, Lab, Namespace, Process, Site,
    gateway::{in_foreground, wait_for_tunnel},
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
            process: None,
        })
    }

    /// Starts the program and points it at the gateway.
    pub fn start(&mut self, lab: &Lab, gateway: &Gateway, endpoint: SocketAddr) -> Result<()> {
        let label = format!("client{}", self.number);
        // A client is a machine of its own, whose receive buffer other programs' load does not fill: wireguard-go
        // keeps the kernel's default one, so on a shared machine it comes before them.
        let mut command = self.namespace.command("nice");
        command.args(["-n", "-15", "wireguard-go"]);
        let mut process = lab.spawn(&label, in_foreground(&mut command, &self.interface))?;
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
