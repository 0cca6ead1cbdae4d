//! The structures, each behind the same few functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ip_network_table_deps_treebitmap::IpLookupTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use wireguard::AllowedIps;

use super::Table;

/// `wireguard::AllowedIps`. Of these the only one whose clone shares all it does not change.
#[derive(Clone, Default)]
pub(crate) struct Ours(AllowedIps<u32>);

impl Table for Ours {
    const NAME: &'static str = "wireguard::AllowedIps";

    fn insert(&mut self, prefix: IpNet, value: u32) {
        self.0.insert(prefix, value);
    }

    fn lookup(&self, address: IpAddr) -> Option<u32> {
        self.0.lookup(address).copied()
    }
}

/// Crate `poptrie`.
#[derive(Clone, Default)]
pub(crate) struct Poptrie {
    v4: poptrie::Poptrie<(Ipv4Addr, u8), u32>,
    v6: poptrie::Poptrie<(Ipv6Addr, u8), u32>,
}

impl Table for Poptrie {
    const NAME: &'static str = "poptrie";

    /// One after the other takes time as the square of their number.
    fn build(prefixes: &[IpNet]) -> Self {
        let numbered = || (0..).zip(prefixes);
        let v4 = numbered().filter_map(|(value, prefix)| match prefix {
            IpNet::V4(prefix) => Some(((prefix.network(), prefix.prefix_len()), value)),
            IpNet::V6(_) => None,
        });
        let v6 = numbered().filter_map(|(value, prefix)| match prefix {
            IpNet::V6(prefix) => Some(((prefix.network(), prefix.prefix_len()), value)),
            IpNet::V4(_) => None,
        });
        Self { v4: v4.collect(), v6: v6.collect() }
    }

    fn insert(&mut self, prefix: IpNet, value: u32) {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert((prefix.network(), prefix.prefix_len()), value),
            IpNet::V6(prefix) => self.v6.insert((prefix.network(), prefix.prefix_len()), value),
        };
    }

    fn lookup(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => self.v4.lookup(address).copied(),
            IpAddr::V6(address) => self.v6.lookup(address).copied(),
        }
    }
}

/// Crate `ip_network_table-deps-treebitmap`; it cannot be cloned but prefix by prefix.
pub(crate) struct TreeBitmap {
    v4: IpLookupTable<Ipv4Addr, u32>,
    v6: IpLookupTable<Ipv6Addr, u32>,
}

impl Default for TreeBitmap {
    fn default() -> Self {
        Self { v4: IpLookupTable::new(), v6: IpLookupTable::new() }
    }
}

impl Clone for TreeBitmap {
    fn clone(&self) -> Self {
        let mut clone = Self::default();
        for (address, len, value) in self.v4.iter() {
            clone.v4.insert(address, len, *value);
        }
        for (address, len, value) in self.v6.iter() {
            clone.v6.insert(address, len, *value);
        }
        clone
    }
}

impl Table for TreeBitmap {
    const NAME: &'static str = "treebitmap";

    fn insert(&mut self, prefix: IpNet, value: u32) {
        let len = prefix.prefix_len().into();
        match prefix.network() {
            IpAddr::V4(address) => self.v4.insert(address, len, value),
            IpAddr::V6(address) => self.v6.insert(address, len, value),
        };
    }

    fn lookup(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => self.v4.longest_match(address).map(|(_, _, value)| *value),
            IpAddr::V6(address) => self.v6.longest_match(address).map(|(_, _, value)| *value),
        }
    }
}

/// Crate `prefix-trie`.
#[derive(Clone, Default)]
pub(crate) struct PrefixTrie {
    v4: prefix_trie::PrefixMap<Ipv4Net, u32>,
    v6: prefix_trie::PrefixMap<Ipv6Net, u32>,
}

impl Table for PrefixTrie {
    const NAME: &'static str = "prefix-trie";

    fn insert(&mut self, prefix: IpNet, value: u32) {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(prefix, value),
            IpNet::V6(prefix) => self.v6.insert(prefix, value),
        };
    }

    fn lookup(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&address.into()).map(|(_, value)| *value),
            IpAddr::V6(address) => self.v6.get_lpm(&address.into()).map(|(_, value)| *value),
        }
    }
}

/// DIR-24-8 (Gupta, Lin, `McKeown`, INFOCOM 1998): a table of all /24, and blocks of 256 for what is longer. Each entry
/// is a value and the length of its prefix, plus one. In two pieces of shared memory, so that a clone is cheap and the
/// first change after it is not.
#[derive(Clone)]
pub(crate) struct Dir24 {
    first: Arc<Vec<Entry>>,
    blocks: Arc<Vec<[Entry; 256]>>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    /// A value; in `first`, where `len` is [`BLOCK`], the number of a block.
    value: u32,
    /// Length of the prefix plus one; 0 for none.
    len: u8,
}

const BLOCK: u8 = u8::MAX;

impl Default for Dir24 {
    fn default() -> Self {
        Self { first: Arc::new(vec![Entry::default(); 1 << 24]), blocks: Arc::default() }
    }
}

fn fill(entries: &mut [Entry], value: u32, len: u8) {
    for entry in entries.iter_mut().filter(|entry| entry.len <= len) {
        *entry = Entry { value, len };
    }
}

impl Table for Dir24 {
    const NAME: &'static str = "DIR-24-8";
    const HAS_V6: bool = false;

    fn insert(&mut self, prefix: IpNet, value: u32) {
        let IpNet::V4(prefix) = prefix else { return };
        let (bits, len) = (prefix.network().to_bits(), prefix.prefix_len() + 1);
        let (first, blocks) = (Arc::make_mut(&mut self.first), Arc::make_mut(&mut self.blocks));
        let start = (bits >> 8) as usize;
        if prefix.prefix_len() <= 24 {
            for entry in &mut first[start..][..1 << (24 - prefix.prefix_len())] {
                if entry.len == BLOCK {
                    fill(&mut blocks[entry.value as usize], value, len);
                } else {
                    fill(std::slice::from_mut(entry), value, len);
                }
            }
            return;
        }
        let entry = &mut first[start];
        if entry.len != BLOCK {
            blocks.push([*entry; 256]);
            *entry = Entry { value: blocks.len() as u32 - 1, len: BLOCK };
        }
        let within = (bits & 0xff) as usize;
        fill(&mut blocks[entry.value as usize][within..][..1 << (32 - prefix.prefix_len())], value, len);
    }

    fn lookup(&self, address: IpAddr) -> Option<u32> {
        let IpAddr::V4(address) = address else { return None };
        let bits = address.to_bits();
        let mut entry = self.first[(bits >> 8) as usize];
        if entry.len == BLOCK {
            entry = self.blocks[entry.value as usize][(bits & 0xff) as usize];
        }
        (entry.len > 0).then_some(entry.value)
    }
}
