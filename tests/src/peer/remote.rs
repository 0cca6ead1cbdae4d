//! A running implementation in the place of the site's first client.

use std::net::SocketAddr;

use anyhow::Result;

use crate::{
    Lab, Namespace, Process, Site,
    gateway::{self, START_TIMEOUT, wait_for_tunnel},
    keys::{Keys, Secret},
    peer::{Program, State},
    site::{self, Addresses, SERVER_NETWORKS, TUNNEL_NETWORKS, client_host},
};

/// The port it listens on unless told otherwise.
const LISTEN_PORT: u16 = 51_821;

/// The peer of the gateway.
#[derive(Debug)]
pub struct RemotePeer {
    /// What it runs.
    pub program: Program,
    /// Where it runs.
    pub namespace: Namespace,
    /// The tunnel interface.
    pub interface: String,
    /// Its key pair.
    pub keys: Keys,
    /// The preshared key it has with the gateway, if any.
    pub preshared_key: Option<Secret>,
    /// Its addresses outside the tunnel.
    pub outer: Addresses,
    /// Its addresses inside the tunnel.
    pub inner: Addresses,
    /// The UDP port of its socket.
    pub listen_port: u16,
    /// The interval of keepalives it sends, in seconds; 0 is off.
    pub persistent_keepalive: u16,
    options: &'static [&'static str],
    is_configured: bool,
    process: Process,
}

impl RemotePeer {
    /// Starts `program` with `options` of its own. It has addresses and routes, but no key and no peer yet.
    pub fn start(
        lab: &mut Lab,
        site: &Site,
        program: Program,
        options: &'static [&'static str],
    ) -> Result<Self> {
        let namespace = site.clients[0].clone();
        let interface = lab.interface_name("wgxdemo-c1");
        if !program.can_be_reconfigured() {
            // An interface that outlives the process. gotatun reads its MTU at the start, then every three seconds.
            namespace.ip(&format!("tuntap add dev {interface} mode tun"))?;
            namespace.ip(&format!("link set {interface} mtu 1420 up"))?;
        }
        let process = launch(lab, &namespace, &interface, program, options)?;
        let remote = Self {
            program,
            namespace,
            interface,
            keys: Keys::generate()?,
            preshared_key: None,
            outer: site::outer(client_host(1)),
            inner: site::inner(client_host(1)),
            listen_port: LISTEN_PORT,
            persistent_keepalive: 0,
            options,
            is_configured: false,
            process,
        };
        remote.address()?;
        Ok(remote)
    }

    /// Replaces all of its configuration.
    ///
    /// `endpoint` is the gateway's; without one it waits to be spoken to.
    pub fn configure(&mut self, lab: &Lab, gateway: &str, endpoint: Option<SocketAddr>) -> Result<()> {
        if self.is_configured && !self.program.can_be_reconfigured() {
            self.process.terminate(START_TIMEOUT)?;
            self.process = launch(lab, &self.namespace, &self.interface, self.program, self.options)?;
        }
        self.is_configured = true;
        // One by one: boringtun 0.7.1 keeps the sockets of peers that are replaced.
        for old in self.show("peers")?.lines() {
            self.set(&format!("peer {old} remove"))?;
        }
        let text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {}\n\n{}",
            self.keys.private.reveal(),
            self.listen_port,
            self.gateway_section(gateway, endpoint),
        );
        let file = lab.write_secret("remote.conf", &text)?;
        self.namespace.run(&format!("wg setconf {} {}", self.interface, file.display()))?;
        Ok(())
    }

    /// Removes the gateway from its peers and adds it again: sessions are gone, keys are the same.
    pub fn forget_and_add(&self, lab: &Lab, gateway: &str, endpoint: Option<SocketAddr>) -> Result<()> {
        self.forget(gateway)?;
        self.add(lab, gateway, endpoint)
    }

    /// Removes the gateway from its peers.
    pub fn forget(&self, gateway: &str) -> Result<()> {
        self.set(&format!("peer {gateway} remove"))
    }

    /// Adds the gateway to its peers.
    pub fn add(&self, lab: &Lab, gateway: &str, endpoint: Option<SocketAddr>) -> Result<()> {
        let file = lab.write_secret("remote.conf", &self.gateway_section(gateway, endpoint))?;
        self.namespace.run(&format!("wg addconf {} {}", self.interface, file.display()))?;
        Ok(())
    }

    /// `wg set INTERFACE WORDS`.
    pub fn set(&self, words: &str) -> Result<()> {
        self.namespace.run(&format!("wg set {} {words}", self.interface))?;
        Ok(())
    }

    /// `wg show INTERFACE WHAT`.
    pub fn show(&self, what: &str) -> Result<String> {
        self.namespace.run(&format!("wg show {} {what}", self.interface))
    }

    /// What it says about the gateway.
    pub fn state(&self) -> Result<State> {
        State::read(&self.interface)
    }

    /// Where it sends from.
    pub fn endpoint(&self, family: site::Family) -> SocketAddr {
        SocketAddr::new(self.outer.of(family), self.listen_port)
    }

    /// It as the gateway has to be configured with it.
    pub fn as_peer(&self) -> gateway::Peer {
        gateway::Peer {
            public_key: self.keys.public.clone(),
            preshared_key: self.preshared_key.clone(),
            allowed_ips: self.inner.both().map(gateway::host_prefix).to_vec(),
        }
    }

    /// Ends it as `kill -9` does and starts it again with the same keys.
    pub fn restart(&mut self, lab: &Lab, gateway: &str, endpoint: Option<SocketAddr>) -> Result<()> {
        self.process.kill()?;
        let Self { namespace, interface, .. } = self;
        self.process = launch(lab, namespace, interface, self.program, self.options)?;
        if self.program.can_be_reconfigured() {
            // Their interfaces went with them.
            self.address()?;
        }
        self.is_configured = false;
        self.configure(lab, gateway, endpoint)
    }

    fn address(&self) -> Result<()> {
        let Self { namespace, interface, .. } = self;
        namespace.ip(&format!("link set {interface} mtu 1420 up"))?;
        site::add_both(namespace, interface, self.inner)?;
        for network in SERVER_NETWORKS {
            namespace.ip(&format!("route add {network} dev {interface}"))?;
        }
        Ok(())
    }

    /// The running program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn gateway_section(&self, gateway: &str, endpoint: Option<SocketAddr>) -> String {
        let section = gateway::Peer {
            public_key: gateway.to_owned(),
            preshared_key: self.preshared_key.clone(),
            allowed_ips: TUNNEL_NETWORKS.iter().chain(&SERVER_NETWORKS).map(ToString::to_string).collect(),
        };
        let keepalive = match self.persistent_keepalive {
            0 => String::new(),
            seconds => format!("PersistentKeepalive = {seconds}\n"),
        };
        section.section() + &gateway::endpoint_line(endpoint) + &keepalive
    }
}

fn launch(
    lab: &Lab,
    namespace: &Namespace,
    interface: &str,
    program: Program,
    options: &[&str],
) -> Result<Process> {
    let mut process = lab.spawn(program.name(), &mut program.command(namespace, interface, options)?)?;
    wait_for_tunnel(&mut process, namespace, interface)?;
    Ok(process)
}
