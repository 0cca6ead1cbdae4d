//! Sets in maps, changed by difference: what stays is never absent for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::{
    Ebpf,
    maps::{MapError, lpm_trie::Key},
};
use gateway_ebpf::layout;
use ipnet::IpNet;

use super::{Error, Result, maps};

/// An element's way into its map and out of it.
pub trait Member: Copy + Ord {
    /// Map for this element's family.
    fn map_name(&self) -> &'static str;
    fn insert(&self, ebpf: &mut Ebpf) -> Result<()>;
    fn remove(&self, ebpf: &mut Ebpf) -> Result<()>;
}

/// What the maps hold: always true, also when an update failed half-way.
pub struct Table<T> {
    members: BTreeSet<T>,
    /// What is wanted too and the maps had no room for.
    missing: BTreeSet<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { members: BTreeSet::new(), missing: BTreeSet::new() }
    }
}

impl<T: Member> Table<T> {
    /// Makes the maps hold exactly `wanted`; new members first.
    pub fn replace(&mut self, ebpf: &mut Ebpf, wanted: &BTreeSet<T>) -> Result<()> {
        let fresh: Vec<T> = wanted.difference(&self.members).copied().collect();
        let stale: Vec<T> = self.members.difference(wanted).copied().collect();
        for member in fresh {
            member.insert(ebpf)?;
            self.members.insert(member);
        }
        for member in stale {
            member.remove(ebpf)?;
            self.members.remove(&member);
        }
        Ok(())
    }

    /// Adds (`true`) and removes (`false`) members, new ones first; of several changes of one the last counts.
    /// Costs what the changes cost. What finds no room is kept, and gets what room later changes make.
    ///
    /// # Errors
    /// The first refusal of the kernel; all the rest was changed nevertheless.
    pub fn change(&mut self, ebpf: &mut Ebpf, changes: impl IntoIterator<Item = (T, bool)>) -> Result<()> {
        let changes: BTreeMap<T, bool> = changes.into_iter().collect();
        let mut outcome = Ok(());
        for (member, _) in changes.iter().filter(|(_, is_wanted)| **is_wanted) {
            if !self.members.contains(member) && !self.missing.contains(member) {
                outcome = outcome.and(self.add(ebpf, *member));
            }
        }
        let mut removed: BTreeMap<&str, usize> = BTreeMap::new();
        for (member, _) in changes.iter().filter(|(_, is_wanted)| !**is_wanted) {
            self.missing.remove(member);
            if self.members.contains(member) {
                match member.remove(ebpf) {
                    Ok(()) => {
                        self.members.remove(member);
                        *removed.entry(member.map_name()).or_default() += 1;
                    }
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
        }
        for (map, count) in removed {
            let fitting: Vec<T> =
                self.missing.iter().filter(|member| member.map_name() == map).take(count).copied().collect();
            for member in fitting {
                outcome = outcome.and(self.add(ebpf, member));
            }
        }
        outcome
    }

    /// Puts `member` into its map, or among the missing.
    fn add(&mut self, ebpf: &mut Ebpf, member: T) -> Result<()> {
        match member.insert(ebpf) {
            Ok(()) => {
                self.missing.remove(&member);
                self.members.insert(member);
                Ok(())
            }
            Err(error) => {
                self.missing.insert(member);
                Err(error)
            }
        }
    }

    /// How many members the maps had no room for.
    pub fn missing_count(&self) -> usize {
        self.missing.len()
    }
}

impl Member for IpAddr {
    fn map_name(&self) -> &'static str {
        if self.is_ipv4() { layout::LOCAL_IPV4 } else { layout::LOCAL_IPV6 }
    }

    fn insert(&self, ebpf: &mut Ebpf) -> Result<()> {
        match self {
            Self::V4(address) => maps::local_ipv4(ebpf)?.insert(address.octets(), 1, 0),
            Self::V6(address) => maps::local_ipv6(ebpf)?.insert(address.octets(), 1, 0),
        }
        .map_err(|error| Error::map(self.map_name(), &error))
    }

    fn remove(&self, ebpf: &mut Ebpf) -> Result<()> {
        let outcome = match self {
            Self::V4(address) => maps::local_ipv4(ebpf)?.remove(&address.octets()),
            Self::V6(address) => maps::local_ipv6(ebpf)?.remove(&address.octets()),
        };
        absent_is_fine(self.map_name(), outcome)
    }
}

impl Member for IpNet {
    fn map_name(&self) -> &'static str {
        if matches!(self, Self::V4(_)) { layout::ALLOWED_IPV4 } else { layout::ALLOWED_IPV6 }
    }

    fn insert(&self, ebpf: &mut Ebpf) -> Result<()> {
        let len = u32::from(self.prefix_len());
        match self {
            Self::V4(net) => maps::allowed_ipv4(ebpf)?.insert(&Key::new(len, net.network().octets()), 1, 0),
            Self::V6(net) => maps::allowed_ipv6(ebpf)?.insert(&Key::new(len, net.network().octets()), 1, 0),
        }
        .map_err(|error| Error::map(self.map_name(), &error))
    }

    fn remove(&self, ebpf: &mut Ebpf) -> Result<()> {
        let len = u32::from(self.prefix_len());
        let outcome = match self {
            Self::V4(net) => maps::allowed_ipv4(ebpf)?.remove(&Key::new(len, net.network().octets())),
            Self::V6(net) => maps::allowed_ipv6(ebpf)?.remove(&Key::new(len, net.network().octets())),
        };
        absent_is_fine(self.map_name(), outcome)
    }
}

fn absent_is_fine(map: &'static str, outcome: std::result::Result<(), MapError>) -> Result<()> {
    match outcome {
        Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(error) => Err(Error::map(map, &error)),
    }
}
