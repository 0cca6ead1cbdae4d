//! The demo's topology: two clients and the gateway on one switch, a server behind the gateway.
//!
//! ```text
//! client1 eth0 ─┐
//!               ├─ wan br0 ── uplink gateway downlink ── eth0 server
//! client2 eth0 ─┘
//! ```
//!
//! The gateway has one uplink, so one XDP program and one set of queues serve all clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::{Lab, Namespace, Process, lab::LinkEnd, program, wait::wait_until};

/// The gateway's interface towards the clients.
pub const UPLINK: &str = "uplink";
/// The gateway's interface towards the server.
pub const DOWNLINK: &str = "downlink";
/// The UDP port the gateway listens on.
pub const LISTEN_PORT: u16 = 51820;
/// What clients reach through the tunnel: the other clients and the server's network, in both families.
pub const TUNNEL_NETWORKS: [&str; 2] = ["10.10.0.0/24", "fd10:10::/64"];
/// The server's networks.
pub const SERVER_NETWORKS: [&str; 2] = ["198.51.100.0/24", "2001:db8:2::/64"];

/// An IPv4 and an IPv6 address of one party in one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The IPv4 address; its network has 24 bits.
    pub v4: Ipv4Addr,
    /// The IPv6 address; its network has 64 bits.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// Both, IPv4 first.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// The one of a family.
    pub fn of(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];
}

/// The switch network, by host number: 1 is the gateway, clients count from 11.
pub fn outer(host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(192, 0, 2, host),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, host.into()),
    }
}

/// The tunnel network, by host number as in [`outer`].
pub fn inner(host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(10, 10, 0, host),
        v6: Ipv6Addr::new(0xfd10, 0x10, 0, 0, 0, 0, 0, host.into()),
    }
}

/// The server's network: 1 is the gateway, 2 the server.
pub fn server_side(host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(198, 51, 100, host),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, host.into()),
    }
}

/// The host number of client `number` (1 or 2).
pub fn client_host(number: u8) -> u8 {
    10 + number
}

/// The gateway's number in every network.
pub const GATEWAY_HOST: u8 = 1;
/// The server's number in its network.
pub const SERVER_HOST: u8 = 2;

/// The namespaces of the topology, cabled and addressed, without any tunnel yet.
#[derive(Clone, Debug)]
pub struct Site {
    /// The clients' namespaces.
    pub clients: [Namespace; 2],
    /// The switch.
    pub wan: Namespace,
    /// The gateway's namespace: interfaces [`UPLINK`] and [`DOWNLINK`].
    pub gateway: Namespace,
    /// The server's namespace.
    pub server: Namespace,
}

impl Site {
    /// Builds it; the gateway's interfaces get `queue_count` queues.
    pub fn build(lab: &mut Lab, queue_count: u32) -> Result<Self> {
        let site = Self {
            clients: [lab.namespace("client1")?, lab.namespace("client2")?],
            wan: lab.namespace("wan")?,
            gateway: lab.namespace("gateway")?,
            server: lab.namespace("server")?,
        };
        site.cable(lab, queue_count)?;
        site.address()?;
        Ok(site)
    }

    fn cable(&self, lab: &Lab, queue_count: u32) -> Result<()> {
        let Self { clients, wan, gateway, server } = self;
        wan.ip("link add br0 type bridge")?;
        wan.ip("link set br0 up")?;
        let uplink = LinkEnd { namespace: gateway, interface: UPLINK };
        lab.link(uplink, LinkEnd { namespace: wan, interface: "to-gateway" }, queue_count)?;
        wan.ip("link set to-gateway master br0")?;
        for (client, port) in clients.iter().zip(["to-client1", "to-client2"]) {
            let end = LinkEnd { namespace: client, interface: "eth0" };
            lab.link(end, LinkEnd { namespace: wan, interface: port }, 1)?;
            wan.ip(&format!("link set {port} master br0"))?;
        }
        let downlink = LinkEnd { namespace: gateway, interface: DOWNLINK };
        lab.link(downlink, LinkEnd { namespace: server, interface: "eth0" }, queue_count)
    }

    fn address(&self) -> Result<()> {
        let Self { clients, gateway, server, wan: _ } = self;
        // Before the addresses: forwarding makes the kernel forget what router advertisements said.
        gateway.sysctl("net/ipv4/ip_forward", "1")?;
        gateway.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        for (client, number) in clients.iter().zip(1..) {
            add_both(client, "eth0", outer(client_host(number)))?;
        }
        add_both(gateway, UPLINK, outer(GATEWAY_HOST))?;
        add_both(gateway, DOWNLINK, server_side(GATEWAY_HOST))?;
        add_both(server, "eth0", server_side(SERVER_HOST))?;
        for (network, via) in TUNNEL_NETWORKS.iter().zip(server_side(GATEWAY_HOST).both()) {
            server.ip(&format!("route add {network} via {via}"))?;
        }
        Ok(())
    }

    /// Starts an iperf3 server where the server is and waits until it listens.
    pub fn start_iperf(&self, lab: &Lab) -> Result<Process> {
        self.start_iperf_in(lab, &self.server)
    }

    /// Starts an iperf3 server in `namespace` and waits until it listens.
    pub fn start_iperf_in(&self, lab: &Lab, namespace: &Namespace) -> Result<Process> {
        let mut command = namespace.command(program_or_name("iperf3"));
        let mut process = lab.spawn(&format!("iperf3-{}", namespace.name()), command.arg("--server"))?;
        wait_until("iperf3 listens", std::time::Duration::from_secs(20), || {
            process.check_running()?;
            Ok(namespace.run("ss -Hltn sport = :5201")?.contains(":5201"))
        })?;
        Ok(process)
    }
}

/// Gives an interface an address of each family.
pub(crate) fn add_both(namespace: &Namespace, interface: &str, addresses: Addresses) -> Result<()> {
    namespace.add_address(interface, addresses.v4.into(), 24)?;
    namespace.add_address(interface, addresses.v6.into(), 64)
}

fn program_or_name(name: &str) -> std::path::PathBuf {
    program::find(name).unwrap_or_else(|| name.into())
}
