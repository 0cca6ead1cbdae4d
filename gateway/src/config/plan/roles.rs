//! The interfaces of a plan: which exist, what each is for, and whether `AF_XDP` can serve them.

use std::collections::BTreeSet;

use gateway_ebpf::layout::{MAX_INTERFACES, MAX_QUEUES};

use super::Link;
use crate::{
    config::{Config, ConfigError, IoMode},
    topology::{Interface, Machine},
};

/// An interface with the roles it was given.
pub struct Role<'a> {
    pub interface: &'a Interface,
    pub uplink: bool,
    pub downlink: bool,
}

impl Role<'_> {
    /// What `AF_XDP` needs of the interface.
    pub fn link(&self) -> Result<Link, ConfigError> {
        let Interface { name, index, mtu, queues, .. } = self.interface;
        let interface = name.clone();
        let Some(mac) = self.interface.mac else {
            return Err(ConfigError::InterfaceNotEthernet { interface });
        };
        if queues.rx_count > MAX_QUEUES {
            return Err(ConfigError::TooManyQueues {
                interface,
                count: queues.rx_count,
                limit: MAX_QUEUES,
                command: set_queues(self.interface, MAX_QUEUES),
            });
        }
        if queues.tx_count < queues.rx_count {
            return Err(ConfigError::TooFewTransmitQueues {
                interface,
                rx_count: queues.rx_count,
                tx_count: queues.tx_count,
                command: set_queues(self.interface, queues.tx_count.max(1)),
            });
        }
        if let Some(program) = &self.interface.xdp {
            return Err(ConfigError::ForeignProgram { interface, mode: program.mode.clone() });
        }
        Ok(Link {
            name: interface,
            index: *index,
            mac,
            mtu: *mtu,
            queue_count: queues.rx_count,
            uplink: self.uplink,
            downlink: self.downlink,
        })
    }
}

/// The `ethtool` command that gives `interface` as many receive queues.
fn set_queues(interface: &Interface, count: u32) -> String {
    let combined = interface.channels.is_some_and(|channels| channels.combined);
    let name = &interface.name;
    if combined {
        format!("ethtool -L {name} combined {count}")
    } else {
        format!("ethtool -L {name} rx {count}")
    }
}

/// The interfaces named, each once, after the checks that hold on every rung.
pub fn interfaces<'a>(config: &Config, machine: &'a Machine) -> Result<Vec<Role<'a>>, ConfigError> {
    let mut roles: Vec<Role<'a>> = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, option) in config.interfaces() {
        let interface = name.to_owned();
        if name.is_empty() {
            return Err(ConfigError::InterfaceNameEmpty { option });
        }
        if !seen.insert((name, option)) {
            return Err(ConfigError::InterfaceTwice { interface, option });
        }
        if name == config.name {
            return Err(ConfigError::TunnelIsInterface { interface, option });
        }
        let Some(found) = machine.interface(name) else {
            return Err(ConfigError::NoSuchInterface { interface, option });
        };
        if found.loopback && config.io() != IoMode::Udp {
            return Err(ConfigError::InterfaceLoopback { interface });
        }
        if !found.up {
            return Err(ConfigError::InterfaceDown { interface });
        }
        let (uplink, downlink) = (option == "--uplink", option == "--downlink");
        match roles.iter_mut().find(|role| role.interface.index == found.index) {
            Some(role) => {
                role.uplink |= uplink;
                role.downlink |= downlink;
            }
            None => roles.push(Role { interface: found, uplink, downlink }),
        }
    }
    if machine.interface(&config.name).is_some() {
        return Err(ConfigError::TunnelExists { name: config.name.clone() });
    }
    if roles.len() > MAX_INTERFACES as usize {
        return Err(ConfigError::TooManyInterfaces { count: roles.len(), limit: MAX_INTERFACES });
    }
    if config.io() != IoMode::Udp && !roles.iter().any(|role| role.uplink) {
        return Err(ConfigError::NoUplink);
    }
    Ok(roles)
}

/// A worker without a queue on every interface has to send by the slow path there.
pub fn warn_of_queues(links: &[Link], warnings: &mut Vec<String>) {
    let Some(widest) = links.iter().max_by_key(|link| link.queue_count) else { return };
    for link in links.iter().filter(|link| link.queue_count < widest.queue_count) {
        warnings.push(format!(
            "{} has {} queues and {} has {}: workers without a queue on both use the kernel's path; \
             give both as many (ethtool -L)",
            link.name, link.queue_count, widest.name, widest.queue_count
        ));
    }
}

pub fn warn_of_carrier(roles: &[Role<'_>], warnings: &mut Vec<String>) {
    for role in roles.iter().filter(|role| !role.interface.running) {
        warnings.push(format!("{} has no carrier: no packet arrives before it has", role.interface.name));
    }
}
