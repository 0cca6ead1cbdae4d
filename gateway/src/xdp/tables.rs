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
pub trait Member<Maps = Ebpf>: Copy + Ord {
    /// Map for this element's family.
    fn map_name(&self) -> &'static str;
    fn insert(&self, maps: &mut Maps) -> Result<()>;
    fn remove(&self, maps: &mut Maps) -> Result<()>;
}

/// What the maps hold: always true, also when an update failed half-way.
pub struct Table<T> {
    members: BTreeSet<T>,
    /// What is wanted too and the maps had no room for.
    missing: BTreeSet<T>,
    /// What is not wanted any more, and is still a member because the kernel refused to remove it.
    unwanted: BTreeSet<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { members: BTreeSet::new(), missing: BTreeSet::new(), unwanted: BTreeSet::new() }
    }
}

impl<T: Copy + Ord> Table<T> {
    /// Makes the maps hold exactly `wanted`; new members first.
    pub fn replace<Maps>(&mut self, maps: &mut Maps, wanted: &BTreeSet<T>) -> Result<()>
    where
        T: Member<Maps>,
    {
        self.unwanted.retain(|member| !wanted.contains(member));
        let fresh: Vec<T> = wanted.difference(&self.members).copied().collect();
        let stale: Vec<T> = self.members.difference(wanted).copied().collect();
        for member in fresh {
            member.insert(maps)?;
            self.members.insert(member);
        }
        for member in stale {
            member.remove(maps)?;
            self.members.remove(&member);
            self.unwanted.remove(&member);
        }
        Ok(())
    }

    /// Adds (`true`) and removes (`false`) members, new ones first; of several changes of one the last counts.
    /// Costs what the changes cost. What finds no room is kept, and gets what room later changes make; what could
    /// not be removed is tried again with the next change.
    ///
    /// # Errors
    /// The first refusal of the kernel; all the rest was changed nevertheless.
    pub fn change<Maps>(
        &mut self,
        maps: &mut Maps,
        changes: impl IntoIterator<Item = (T, bool)>,
    ) -> Result<()>
    where
        T: Member<Maps>,
    {
        let changes: BTreeMap<T, bool> = changes.into_iter().collect();
        let mut outcome = Ok(());
        for (member, _) in changes.iter().filter(|(_, is_wanted)| **is_wanted) {
            self.unwanted.remove(member);
            if !self.members.contains(member) && !self.missing.contains(member) {
                outcome = outcome.and(self.add(maps, *member));
            }
        }
        for (member, _) in changes.iter().filter(|(_, is_wanted)| !**is_wanted) {
            self.missing.remove(member);
            if self.members.contains(member) {
                self.unwanted.insert(*member);
            }
        }
        let mut removed: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.unwanted.clone() {
            match member.remove(maps) {
                Ok(()) => {
                    self.unwanted.remove(&member);
                    self.members.remove(&member);
                    *removed.entry(member.map_name()).or_default() += 1;
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        for (map, count) in removed {
            let fitting: Vec<T> =
                self.missing.iter().filter(|member| member.map_name() == map).take(count).copied().collect();
            for member in fitting {
                outcome = outcome.and(self.add(maps, member));
            }
        }
        outcome
    }

    /// Puts `member` into its map, or among the missing.
    fn add<Maps>(&mut self, maps: &mut Maps, member: T) -> Result<()>
    where
        T: Member<Maps>,
    {
        match member.insert(maps) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Maps that refuse to remove as long as they are told to.
    #[derive(Default)]
    struct Stubborn {
        held: BTreeSet<u32>,
        is_stubborn: bool,
    }

    impl Member<Stubborn> for u32 {
        fn map_name(&self) -> &'static str {
            "stubborn"
        }

        fn insert(&self, maps: &mut Stubborn) -> Result<()> {
            maps.held.insert(*self);
            Ok(())
        }

        fn remove(&self, maps: &mut Stubborn) -> Result<()> {
            if maps.is_stubborn {
                return Err(Error::Foreign { missing: "room" });
            }
            assert!(maps.held.remove(self), "{self} is not there");
            Ok(())
        }
    }

    #[test]
    fn what_could_not_be_removed_is_tried_again_with_the_next_change() {
        let (mut table, mut maps) = (Table::default(), Stubborn::default());
        table.change(&mut maps, [(1, true), (2, true), (3, true)]).unwrap();
        maps.is_stubborn = true;
        table.change(&mut maps, [(1, false), (2, false)]).unwrap_err();
        assert_eq!(maps.held, [1, 2, 3].into());
        maps.is_stubborn = false;
        // One of them is wanted again meanwhile.
        table.change(&mut maps, [(2, true), (4, true)]).unwrap();
        assert_eq!(maps.held, [2, 3, 4].into());
        table.change(&mut maps, [(2, false)]).unwrap();
        assert_eq!(maps.held, [3, 4].into());
    }

    #[test]
    fn a_whole_replacement_settles_what_was_left_over() {
        let (mut table, mut maps) = (Table::default(), Stubborn::default());
        table.change(&mut maps, [(1, true), (2, true)]).unwrap();
        maps.is_stubborn = true;
        table.change(&mut maps, [(1, false), (2, false)]).unwrap_err();
        maps.is_stubborn = false;
        table.replace(&mut maps, &[2].into()).unwrap();
        assert_eq!(maps.held, [2].into());
        table.change(&mut maps, []).unwrap();
        assert_eq!(maps.held, [2].into());
    }
}
