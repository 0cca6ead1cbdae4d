//! One network interface as it is now.
//!
//! Netlink is asked before sysfs wherever both know: `/sys` shows the network namespace it was mounted in,
//! which is not always ours.

use std::{fs, io, path::Path};

use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::{
    cpu,
    ethtool::{self, Channels},
    netlink,
};

/// Longest name of an interface in bytes (`IFNAMSIZ` less the final zero).
pub const NAME_LEN_MAX: usize = 15;

/// An interface could not be read.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// No interface has that name in this network namespace.
    #[error("no interface is called {name:?} in this network namespace: `ip link` lists those that exist")]
    NotFound {
        /// The name asked for.
        name: String,
    },
    /// The kernel did not answer.
    #[error("cannot read interface {name:?} over netlink: {source}")]
    Netlink {
        /// The name asked for.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The affinity of this process cannot be read.
    #[error("cannot read which CPUs this process may use: {source}")]
    Cpus {
        /// What the kernel said.
        source: io::Error,
    },
}

/// Queues of an interface that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Queues {
    /// Receive queues.
    pub rx_count: u32,
    /// Transmit queues.
    pub tx_count: u32,
}

/// An XDP program that is attached already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttachedXdp {
    /// `driver`, `generic`, `hardware` or `several modes`.
    pub mode: String,
    /// The kernel's number of the program, as `bpftool prog show id` takes it.
    pub program_id: Option<u32>,
}

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Name in this network namespace.
    pub name: String,
    /// Kernel index.
    pub index: u32,
    /// Hardware address; `None` unless the link is Ethernet.
    #[serde(serialize_with = "optional_mac_text")]
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Has carrier.
    pub running: bool,
    /// The loopback device.
    pub loopback: bool,
    /// Kind of a virtual interface (`veth`, `vlan`, `bond`, ...); `None` for hardware.
    pub kind: Option<String>,
    /// Driver of a hardware interface, where sysfs shows it.
    pub driver: Option<String>,
    /// Index of the other end or the lower device (`IFLA_LINK`), when it is in this network namespace.
    pub linked_index: Option<u32>,
    /// Queues in use.
    pub queues: Queues,
    /// What the driver says of its queues; `None` when it does not tell.
    pub channels: Option<Channels>,
    /// NUMA node of the device.
    pub numa_node: Option<u32>,
    /// XDP program attached by someone else.
    pub xdp: Option<AttachedXdp>,
}

impl Interface {
    /// Reads the interface called `name`.
    ///
    /// # Errors
    ///
    /// [`InterfaceError::NotFound`] or what the kernel says.
    pub fn read(name: &str) -> Result<Self, InterfaceError> {
        let not_found = || InterfaceError::NotFound { name: name.to_owned() };
        // The kernel answers ERANGE or EINVAL to names that cannot exist: the same to whoever asked.
        if name.is_empty() || name.len() > NAME_LEN_MAX || name.contains('\0') {
            return Err(not_found());
        }
        let link = netlink::link(name).map_err(|source| match source.raw_os_error() {
            Some(libc::ENODEV | libc::EINVAL | libc::ERANGE) => not_found(),
            _ => InterfaceError::Netlink { name: name.to_owned(), source },
        })?;
        Ok(Self::from_link(name, &link))
    }

    fn from_link(name: &str, link: &LinkMessage) -> Self {
        let index = link.header.index;
        let flags = link.header.flags;
        let ethernet = link.header.link_layer_type == LinkLayerType::Ether;
        // A driver that fails to tell its queues or whose interface is just going away has none to count.
        let channels = ethtool::channels(index).ok().flatten();
        let sysfs = sysfs_directory(name, index);
        let mut interface = Self {
            name: name.to_owned(),
            index,
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            loopback: flags.contains(LinkFlags::Loopback),
            kind: None,
            driver: sysfs.as_deref().and_then(driver),
            linked_index: None,
            queues: queues(channels.as_ref(), sysfs.as_deref()),
            channels,
            numa_node: sysfs
                .as_deref()
                .and_then(|directory| cpu::interface_numa_node(name).or_else(|| sysfs_numa_node(directory))),
            xdp: None,
        };
        let mut elsewhere = false;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Address(bytes) if ethernet => interface.mac = bytes.as_slice().try_into().ok(),
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::Link(linked) => interface.linked_index = Some(*linked),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::Xdp(attributes) => interface.xdp = attached_xdp(attributes),
                LinkAttribute::LinkInfo(infos) => {
                    interface.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        if elsewhere {
            interface.linked_index = None;
        }
        interface
    }
}

/// Serializes a hardware address as people write it.
///
/// # Errors
///
/// The serializer's.
pub fn mac_text<S: Serializer>(mac: &[u8; 6], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = mac.map(|byte| format!("{byte:02x}"));
    serializer.collect_str(&bytes.join(":"))
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signature serde calls")]
fn optional_mac_text<S: Serializer>(mac: &Option<[u8; 6]>, serializer: S) -> Result<S::Ok, S::Error> {
    match mac {
        Some(mac) => mac_text(mac, serializer),
        None => serializer.serialize_none(),
    }
}

fn attached_xdp(attributes: &[LinkXdp]) -> Option<AttachedXdp> {
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(mode) => Some(*mode),
        _ => None,
    })?;
    let mode = match mode {
        XdpAttached::None => return None,
        XdpAttached::Driver => "driver",
        XdpAttached::SocketBuffer => "generic",
        XdpAttached::Hardware => "hardware",
        _ => "several modes",
    };
    let program_id = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) if *id != 0 => Some(*id),
        _ => None,
    });
    Some(AttachedXdp { mode: mode.to_owned(), program_id })
}

/// The directory of the interface in sysfs, unless `/sys` belongs to another network namespace.
pub(crate) fn sysfs_directory(name: &str, index: u32) -> Option<std::path::PathBuf> {
    let directory = Path::new("/sys/class/net").join(name);
    let found: u32 = fs::read_to_string(directory.join("ifindex")).ok()?.trim().parse().ok()?;
    (found == index).then_some(directory)
}

fn sysfs_numa_node(directory: &Path) -> Option<u32> {
    // -1 where the firmware does not say: then it is unknown.
    fs::read_to_string(directory.join("device/numa_node")).ok()?.trim().parse().ok()
}

fn driver(directory: &Path) -> Option<String> {
    let target = fs::read_link(directory.join("device/driver")).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// By the driver, else by sysfs, else one of each: every interface has at least that.
fn queues(channels: Option<&Channels>, sysfs: Option<&Path>) -> Queues {
    if let Some(channels) = channels.filter(|channels| channels.rx_count != 0) {
        return Queues { rx_count: channels.rx_count, tx_count: channels.tx_count };
    }
    let count = |prefix: &str| {
        let entries = sysfs.and_then(|directory| fs::read_dir(directory.join("queues")).ok());
        let matching = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        (matching.count() as u32).max(1)
    };
    Queues { rx_count: count("rx-"), tx_count: count("tx-") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_read_as_what_it_is() {
        let loopback = Interface::read("lo").expect("lo");
        assert!(loopback.loopback);
        assert_eq!(loopback.mac, None);
        assert_eq!(loopback.mtu, 65536);
        assert_eq!(loopback.queues, Queues { rx_count: 1, tx_count: 1 });
    }

    #[test]
    fn names_that_cannot_exist_are_not_found() {
        for name in ["", "no-such-link", "longer-than-any-name", "a/b", "nul\0"] {
            assert!(matches!(Interface::read(name), Err(InterfaceError::NotFound { .. })), "{name:?}");
        }
    }

    #[test]
    fn an_attached_program_has_a_mode_and_an_id() {
        let attributes = [LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(7)];
        let attached = attached_xdp(&attributes).expect("attached");
        assert_eq!((attached.mode.as_str(), attached.program_id), ("driver", Some(7)));
        assert_eq!(attached_xdp(&[LinkXdp::Attached(XdpAttached::None)]), None);
    }
}
