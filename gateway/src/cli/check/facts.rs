//! What is so, without judging it. Reading changes nothing.

use std::{fs, io};

use rustix::{
    net::{AddressFamily, SocketType},
    process::{Resource, getrlimit},
    thread::{CapabilitySet, capabilities},
};
use serde::Serialize;

use crate::topology::{
    Cpu, Interface, InterfaceError, cpu,
    ethtool::{self, Features, Rss},
    netdev::{self, XdpFeatures},
    netlink,
};

/// Everything `wgx check` looks at.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    pub interface: Interface,
    /// What the driver says of XDP; `None` where the kernel does not tell.
    pub xdp_features: Option<XdpFeatures>,
    /// Offloads; `None` where the kernel does not tell.
    pub features: Option<Features>,
    /// Flow hash; `None` where the driver does not tell.
    pub rss: Option<Rss>,
    /// The other end of a veth pair, when it is in this network namespace.
    pub partner: Option<Partner>,
    pub host: Host,
    /// Mode in which the program could be attached, or why not; `None` unless asked to try.
    pub probe: Option<Result<String, String>>,
}

/// The other end of a veth pair.
#[derive(Clone, Debug, Serialize)]
pub struct Partner {
    pub name: String,
    pub features: Option<Features>,
}

/// What holds for the whole machine or process.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// As `uname -r` prints it.
    pub kernel: String,
    /// Whether a socket of family `AF_XDP` can be made.
    pub af_xdp_socket: Result<(), SocketRefusal>,
    pub capabilities: Capabilities,
    /// Bytes this process may lock in memory; `None` is no limit.
    pub memlock: Option<u64>,
    pub ipv4_forwarding: Option<bool>,
    pub ipv6_forwarding: Option<bool>,
    /// CPUs this process may use.
    pub cpus: Vec<Cpu>,
}

/// Why no `AF_XDP` socket can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum SocketRefusal {
    /// The kernel was built without `CONFIG_XDP_SOCKETS`.
    NoSupport,
    /// This process lacks `CAP_NET_RAW`.
    NotPermitted,
    /// Anything else, in the kernel's words.
    Other(String),
}

/// The effective capabilities that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one field per capability")]
pub struct Capabilities {
    pub net_admin: bool,
    pub net_raw: bool,
    /// `CAP_BPF`, or `CAP_SYS_ADMIN`, which contains it.
    pub bpf: bool,
    pub ipc_lock: bool,
}

impl Facts {
    /// Reads everything about the interface called `name`.
    pub fn read(name: &str) -> Result<Self, InterfaceError> {
        let interface = Interface::read(name)?;
        let index = interface.index;
        // What a driver fails to tell is reported as unknown: the rest of the check is still of use.
        Ok(Self {
            xdp_features: netdev::xdp_features(index).ok().flatten(),
            features: ethtool::features(index).ok().flatten(),
            rss: ethtool::rss(index).ok().flatten(),
            partner: partner(&interface),
            host: Host::read(),
            probe: None,
            interface,
        })
    }
}

impl Host {
    fn read() -> Self {
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            af_xdp_socket: af_xdp_socket(),
            capabilities: own_capabilities(),
            memlock: getrlimit(Resource::Memlock).current,
            ipv4_forwarding: switch("/proc/sys/net/ipv4/ip_forward"),
            ipv6_forwarding: switch("/proc/sys/net/ipv6/conf/all/forwarding"),
            cpus: cpu::read().unwrap_or_default(),
        }
    }
}

fn partner(interface: &Interface) -> Option<Partner> {
    use netlink_packet_route::link::LinkAttribute;
    if interface.kind.as_deref() != Some("veth") {
        return None;
    }
    let link = netlink::link_by_index(interface.linked_index?).ok()?;
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    Some(Partner { name, features: ethtool::features(link.header.index).ok().flatten() })
}

/// Makes a socket and closes it: bound to nothing, it touches no interface.
fn af_xdp_socket() -> Result<(), SocketRefusal> {
    match rustix::net::socket(AddressFamily::XDP, SocketType::RAW, None) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::AFNOSUPPORT) => Err(SocketRefusal::NoSupport),
        Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => Err(SocketRefusal::NotPermitted),
        Err(error) => Err(SocketRefusal::Other(io::Error::from(error).to_string())),
    }
}

fn own_capabilities() -> Capabilities {
    let Ok(sets) = capabilities(None) else {
        return Capabilities::default();
    };
    let has = |capability| sets.effective.contains(capability);
    Capabilities {
        net_admin: has(CapabilitySet::NET_ADMIN),
        net_raw: has(CapabilitySet::NET_RAW),
        bpf: has(CapabilitySet::BPF) || has(CapabilitySet::SYS_ADMIN),
        ipc_lock: has(CapabilitySet::IPC_LOCK),
    }
}

fn switch(path: &str) -> Option<bool> {
    Some(fs::read_to_string(path).ok()?.trim() != "0")
}
