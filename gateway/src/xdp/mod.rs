//! The XDP program from outside: load it, attach it, tell it what to steer, read its counters.
//!
//! The only place that names aya. Everything ends with the process: programs are attached by `bpf_link`, maps
//! are not pinned, and the kernel takes a closed socket out of the map by itself.

mod error;
mod inspect;
mod maps;
mod object;
mod redirect;
mod tables;
#[cfg(feature = "trace")]
mod trace;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    programs::{Xdp, XdpMode, xdp::XdpLink},
    util::KernelVersion,
};
use gateway_ebpf::layout::{self, Settings};
use ipnet::IpNet;
use tables::Table;

pub use error::Error;
pub use gateway_ebpf::Reason;
pub use inspect::{Verification, verify};
pub use redirect::Redirect;

/// What this module returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel allocates anything for the frame ("native").
    Driver,
    /// In the network stack, after it has: works on every interface, at a fraction of the speed.
    Generic,
}

/// What an interface is for, and what the program has to know about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// WireGuard datagrams arrive here.
    pub uplink: bool,
    /// Packets for addresses behind the tunnel arrive here.
    pub downlink: bool,
    /// MAC address; all zero for an interface without.
    pub mac: [u8; 6],
    /// MTU in bytes: drivers refuse native XDP when a frame does not fit a page.
    pub mtu: u32,
}

/// The loaded program with its maps and links. Dropping it detaches everything.
pub struct Steering {
    // Links before the program: detached first.
    interfaces: BTreeMap<u32, Interface>,
    settings: Settings,
    local: Table<IpAddr>,
    allowed: Table<IpNet>,
    ebpf: Ebpf,
    #[cfg(feature = "trace")]
    _forwarder: Option<trace::Forwarder>,
}

struct Interface {
    name: String,
    value: layout::Interface,
    link: Option<XdpLink>,
}

impl Steering {
    /// Loads the program; it steers nothing yet.
    ///
    /// # Errors
    ///
    /// Missing capabilities, a kernel that is too old, or one that refuses the program.
    pub fn load() -> Result<Self> {
        Self::load_with_room(layout::MAX_ALLOWED_IPS)
    }

    /// As [`load`](Self::load), with room for so many allowed IPs per family: a test fills it.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Self::load).
    pub fn load_with_room(allowed_ip_count: u32) -> Result<Self> {
        // Before 5.9 there is no bpf_link for XDP, and a program would survive a killed gateway.
        match KernelVersion::current() {
            Ok(version) if version < KernelVersion::new(5, 9, 0) => return Err(Error::KernelTooOld),
            _ => {}
        }
        let mut ebpf = object::load(allowed_ip_count)?;
        #[cfg(feature = "trace")]
        let forwarder = trace::Forwarder::start(&mut ebpf);
        let program = program_mut(&mut ebpf)?;
        program.load().map_err(|error| Error::program(&error))?;
        Ok(Self {
            interfaces: BTreeMap::new(),
            settings: Settings::default(),
            local: Table::default(),
            allowed: Table::default(),
            ebpf,
            #[cfg(feature = "trace")]
            _forwarder: forwarder,
        })
    }

    /// Gives an interface a slot, its role and fresh counters, and attaches the program to it.
    ///
    /// Driver mode first; generic mode is the fallback that the caller reports.
    ///
    /// # Errors
    ///
    /// The interface is gone, has another XDP program, was attached before, or takes neither mode.
    pub fn attach(&mut self, interface_index: u32, name: &str, role: Role) -> Result<AttachMode> {
        self.enrol(interface_index, name, role)?;
        match self.attach_program(interface_index, name, role) {
            Ok((link, mode)) => {
                self.interface_mut(interface_index)?.link = Some(link);
                Ok(mode)
            }
            Err(error) => {
                self.detach(interface_index)?;
                Err(error)
            }
        }
    }

    /// Gives an interface a slot, its role and fresh counters, without attaching the program.
    ///
    /// Half of [`attach`](Self::attach), for the program's tests.
    ///
    /// # Errors
    ///
    /// The interface has a slot already, or there are more than `MAX_INTERFACES`.
    pub fn enrol(&mut self, interface_index: u32, name: &str, role: Role) -> Result<()> {
        if self.interfaces.contains_key(&interface_index) {
            return Err(Error::AlreadyAttached { interface: name.to_owned() });
        }
        let taken = |slot: &u32| self.interfaces.values().any(|interface| interface.value.slot == *slot);
        let slot = (0..layout::MAX_INTERFACES)
            .find(|slot| !taken(slot))
            .ok_or_else(|| Error::TooManyInterfaces { interface: name.to_owned() })?;
        let roles = if role.uplink { layout::ROLE_UPLINK } else { 0 }
            | if role.downlink { layout::ROLE_DOWNLINK } else { 0 };
        let value = layout::Interface { slot, roles, mac: role.mac, reserved: [0; 2] };

        maps::reset_counters(&mut self.ebpf, slot)?;
        self.write_interface(interface_index, value)?;
        self.interfaces.insert(interface_index, Interface { name: name.to_owned(), value, link: None });
        Ok(())
    }

    /// Detaches the program from an interface; one that is not attached is fine.
    ///
    /// # Errors
    ///
    /// The kernel refused to change the map.
    pub fn detach(&mut self, interface_index: u32) -> Result<()> {
        if let Some(interface) = self.interfaces.remove(&interface_index) {
            drop(interface.link);
            maps::interfaces(&mut self.ebpf)?
                .remove(&interface_index)
                .map_err(|error| Error::map(layout::INTERFACES, &error))?;
        }
        Ok(())
    }

    /// Gives the socket bound to a queue of an attached interface the frames of that queue.
    ///
    /// The kernel takes the socket out again when it is closed.
    ///
    /// # Errors
    ///
    /// The interface is not attached, the queue is beyond `MAX_QUEUES`, or this is no `AF_XDP` socket.
    pub fn register_socket(
        &mut self,
        interface_index: u32,
        queue: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<()> {
        let interface = self.interface_mut(interface_index)?;
        let (slot, name) = (interface.value.slot, interface.name.clone());
        let index = layout::socket_index(slot, queue)
            .ok_or_else(|| Error::QueueOutOfRange { interface: name.clone(), queue })?;
        maps::sockets(&mut self.ebpf)?.set(index, socket.as_raw_fd(), 0).map_err(|error| Error::Socket {
            interface: name,
            queue,
            cause: error::chain(&error),
        })
    }

    /// Steers datagrams to this UDP port from now on; 0 steers none.
    ///
    /// # Errors
    ///
    /// The kernel refused to change the map.
    pub fn set_listen_port(&mut self, port: u16) -> Result<()> {
        self.write_settings(Settings { listen_port: port.to_be_bytes(), ..self.settings })
    }

    /// Leaves inner packets of more than this many bytes to the kernel.
    ///
    /// # Errors
    ///
    /// The kernel refused to change the map.
    pub fn set_tunnel_mtu(&mut self, mtu: u16) -> Result<()> {
        self.write_settings(Settings { tunnel_mtu: mtu, ..self.settings })
    }

    /// Makes these the host's addresses: where datagrams are ours, and what is never forwarded.
    ///
    /// # Errors
    ///
    /// More than `MAX_LOCAL_ADDRESSES` of a family, or the kernel refused; what was changed stays changed,
    /// and the next call goes on from there.
    pub fn set_local_addresses(&mut self, addresses: &[IpAddr]) -> Result<()> {
        self.local.replace(&mut self.ebpf, &addresses.iter().copied().collect())
    }

    /// Steers packets to these prefixes from now on, on interfaces with the downlink role.
    ///
    /// # Errors
    ///
    /// As [`set_local_addresses`](Self::set_local_addresses), for `MAX_ALLOWED_IPS`.
    pub fn set_allowed_ips(&mut self, prefixes: &[IpNet]) -> Result<()> {
        self.allowed.replace(&mut self.ebpf, &prefixes.iter().map(IpNet::trunc).collect())
    }

    /// Steers packets to some prefixes from now on (`true`) and to others no more (`false`), at the cost of these
    /// alone; of several changes of one prefix the last counts. What stays is never absent for a moment.
    ///
    /// # Errors
    ///
    /// The kernel refused some, usually because there are more than `MAX_ALLOWED_IPS` of a family; all others are
    /// steered. See [`unsteered_count`](Self::unsteered_count).
    pub fn change_allowed_ips(&mut self, changes: impl IntoIterator<Item = (IpNet, bool)>) -> Result<()> {
        let changes = changes.into_iter().map(|(prefix, is_wanted)| (prefix.trunc(), is_wanted));
        self.allowed.change(&mut self.ebpf, changes)
    }

    /// How many prefixes the maps had no room for: their packets are left to the kernel. They are steered as soon
    /// as others are given up.
    pub fn unsteered_count(&self) -> usize {
        self.allowed.missing_count()
    }

    /// Follows a change of the MAC address of an attached interface.
    ///
    /// # Errors
    ///
    /// The interface is not attached, or the kernel refused to change the map.
    pub fn set_mac(&mut self, interface_index: u32, mac: [u8; 6]) -> Result<()> {
        let value = layout::Interface { mac, ..self.interface_mut(interface_index)?.value };
        self.write_interface(interface_index, value)?;
        self.interface_mut(interface_index)?.value = value;
        Ok(())
    }

    fn attach_program(
        &mut self,
        interface_index: u32,
        name: &str,
        role: Role,
    ) -> Result<(XdpLink, AttachMode)> {
        let program = program_mut(&mut self.ebpf)?;
        let mut attach = |mode| {
            let id = program.attach_to_if_index(interface_index, mode)?;
            program.take_link(id)
        };
        let refusal = match attach(XdpMode::Driver) {
            Ok(link) => return Ok((link, AttachMode::Driver)),
            Err(error) => error,
        };
        if let Some(error) = error::hopeless(name, &refusal) {
            return Err(error);
        }
        match attach(XdpMode::Skb) {
            Ok(link) => Ok((link, AttachMode::Generic)),
            Err(error) => Err(error::hopeless(name, &error).unwrap_or_else(|| Error::Attach {
                interface: name.to_owned(),
                mtu: role.mtu,
                driver: error::chain(&refusal),
                generic: error::chain(&error),
            })),
        }
    }

    fn interface_mut(&mut self, interface_index: u32) -> Result<&mut Interface> {
        self.interfaces.get_mut(&interface_index).ok_or(Error::NotAttached { interface_index })
    }

    fn write_interface(&mut self, interface_index: u32, value: layout::Interface) -> Result<()> {
        maps::interfaces(&mut self.ebpf)?
            .insert(interface_index, value.to_bytes(), 0)
            .map_err(|error| Error::map(layout::INTERFACES, &error))
    }

    fn write_settings(&mut self, settings: Settings) -> Result<()> {
        maps::settings(&mut self.ebpf)?
            .set(0, settings.to_bytes(), 0)
            .map_err(|error| Error::map(layout::SETTINGS, &error))?;
        self.settings = settings;
        Ok(())
    }
}

fn program_mut(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf.program_mut(layout::PROGRAM).ok_or(Error::Foreign { missing: layout::PROGRAM })?;
    program.try_into().map_err(|error| Error::program(&error))
}
