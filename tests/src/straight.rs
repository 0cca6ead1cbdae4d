//! Where load is measured: one interface full of clients, a gateway, and a server, without a switch between them.
//!
//! ```text
//! clients eth0 ── uplink gateway downlink ── eth0 server
//! ```
//!
//! The clients and the server are the load generator (`bench::load`); only ARP is answered by the kernel there.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use bench::load::{Driver, KeySeed, Mac, Setup, Side, Tunnel};

use crate::{
    Gateway, Implementation, Lab, Namespace, Process,
    gateway::{Peer, START_TIMEOUT},
    lab::LinkEnd,
    site::{self, DOWNLINK, GATEWAY_HOST, LISTEN_PORT, SERVER_HOST, UPLINK},
    wait_until,
};

/// The generator's interfaces, in both of its namespaces.
pub const INTERFACE: &str = "eth0";
/// The clients' host number.
const CLIENTS_HOST: u8 = 2;
/// The clients' addresses inside the tunnel, as a route.
pub const INNER_NETWORK: &str = "10.64.0.0/16";
const FIRST_INNER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
const TUNNEL_MTU: u16 = 1420;
const OFFLOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The three namespaces, cabled and addressed.
#[derive(Clone, Debug)]
pub struct Straight {
    /// All clients.
    pub clients: Namespace,
    /// The gateway: interfaces [`UPLINK`] and [`DOWNLINK`].
    pub gateway: Namespace,
    /// The server.
    pub server: Namespace,
    /// Queues of each interface, and so workers of the gateway.
    pub queue_count: u32,
}

impl Straight {
    /// Builds it, with so many queues per interface.
    pub fn build(lab: &mut Lab, queue_count: u32) -> Result<Self> {
        let straight = Self {
            clients: lab.namespace("clients")?,
            gateway: lab.namespace("gateway")?,
            server: lab.namespace("server")?,
            queue_count,
        };
        let Self { clients, gateway, server, .. } = &straight;
        gateway.sysctl("net/ipv4/ip_forward", "1")?;
        let ends = [
            (clients, UPLINK, site::outer(CLIENTS_HOST), site::outer(GATEWAY_HOST)),
            (server, DOWNLINK, site::server_side(SERVER_HOST), site::server_side(GATEWAY_HOST)),
        ];
        for (namespace, interface, address, gateway_address) in ends {
            let end = LinkEnd { namespace: gateway, interface };
            lab.link(end, LinkEnd { namespace, interface: INTERFACE }, queue_count)?;
            // Without an XDP program it is this that gives a veth end NAPI, which takes frames from a driver.
            gateway.attempt(&format!("ethtool -K {interface} gro on"), OFFLOAD_TIMEOUT)?;
            gateway.add_address(interface, gateway_address.v4.into(), 24)?;
            namespace.add_address(INTERFACE, address.v4.into(), 24)?;
        }
        Ok(straight)
    }

    /// A gateway that has not been started, with these clients as its peers.
    pub fn gateway(
        &self,
        lab: &mut Lab,
        implementation: Implementation,
        seed: &KeySeed,
        client_count: u32,
    ) -> Result<Gateway> {
        let mut gateway = Gateway::in_namespace(lab, &self.gateway, implementation)?;
        gateway.peers = (0..client_count)
            .map(|client| Peer {
                public_key: seed.public_key(client).to_string(),
                preshared_key: None,
                allowed_ips: vec![format!("{}/32", inner(client))],
            })
            .collect();
        Ok(gateway)
    }

    /// Routes the clients' addresses into the tunnel of a gateway that has started.
    pub fn route(&self, gateway: &Gateway) -> Result<()> {
        self.gateway.ip(&format!("route add {INNER_NETWORK} dev {}", gateway.interface))?;
        Ok(())
    }

    /// Starts `wgx-forward`, plain forwarding on AF_XDP, in the gateway's place and on this CPU.
    pub fn forward(&self, lab: &Lab, program: &Path, core: Option<u32>) -> Result<Process> {
        let mut command = self.gateway.command(program);
        let next_hops = [(UPLINK, &self.clients), (DOWNLINK, &self.server)];
        for (interface, neighbour) in next_hops {
            command.arg(format!("{interface}={}", String::from(mac(neighbour, INTERFACE)?)));
        }
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        let mut process = lab.spawn("forward", &mut command)?;
        wait_until("wgx-forward is ready", START_TIMEOUT, || {
            process.check_running()?;
            Ok(process.tail().contains("forwarding"))
        })?;
        Ok(process)
    }

    /// What the generator is told of a gateway that speaks `WireGuard`.
    pub fn tunnel(&self, public_key: &str, seed: &KeySeed) -> Tunnel {
        Tunnel {
            address: site::outer(GATEWAY_HOST).v4,
            port: LISTEN_PORT,
            public_key: public_key.to_owned(),
            seed: seed.clone(),
            first_inner: FIRST_INNER,
            mtu: TUNNEL_MTU,
        }
    }

    /// What the generator is told; without a tunnel it sends plain packets.
    pub fn setup(&self, driver: Driver, client_count: u32, tunnel: Option<Tunnel>) -> Result<Setup> {
        let side = |namespace: &Namespace, gateway_interface, address: Ipv4Addr| -> Result<Side> {
            Ok(Side {
                namespace: Some(namespace.name().to_owned()),
                interface: INTERFACE.to_owned(),
                mac: mac(namespace, INTERFACE)?,
                address,
                gateway_mac: mac(&self.gateway, gateway_interface)?,
            })
        };
        Ok(Setup {
            clients: side(&self.clients, UPLINK, site::outer(CLIENTS_HOST).v4)?,
            server: side(&self.server, DOWNLINK, site::server_side(SERVER_HOST).v4)?,
            client_count,
            queue_count: self.queue_count,
            driver,
            tunnel,
            watched: None,
        })
    }
}

/// The address of a client inside the tunnel.
pub fn inner(client: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(FIRST_INNER) + client).into()
}

/// The MAC address of an interface.
pub fn mac(namespace: &Namespace, interface: &str) -> Result<Mac> {
    let text = namespace.ip(&format!("-json link show dev {interface}"))?;
    let links: serde_json::Value = serde_json::from_str(&text).context("`ip -json link show`")?;
    let address = links[0]["address"].as_str();
    address.with_context(|| format!("{interface} has no address in {text}"))?.parse()
}
