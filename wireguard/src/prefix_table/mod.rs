//! Longest-prefix matches, one trie per family: cryptokey routing, and whatever else goes by prefixes.
//!
//! The tries are persistent: a clone is a few references, and a change copies only what lies between the root and
//! the prefix and some clone still shares, at most two arrays for each six bits of an address. So a snapshot for
//! workers costs the same with ten peers and with a hundred thousand.

mod bits;
mod trie;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use trie::Trie;

/// Cryptokey routing: which peer an inner address belongs to.
pub type AllowedIps<P> = PrefixTable<P>;

/// Prefixes and the value of each. Host bits are masked.
#[derive(Clone, Debug)]
pub struct PrefixTable<V> {
    v4: Trie<u32, V>,
    v6: Trie<u128, V>,
}

impl<V> Default for PrefixTable<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> PrefixTable<V> {
    /// No prefixes.
    pub fn new() -> Self {
        Self { v4: Trie::default(), v6: Trie::default() }
    }

    /// The value of the longest prefix that contains `address`.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<&V> {
        match address {
            IpAddr::V4(address) => self.v4.lookup(address.to_bits()),
            IpAddr::V6(address) => self.v6.lookup(address.to_bits()),
        }
    }

    /// The value of exactly `prefix`: whose it is, where values are owners.
    pub fn owner(&self, prefix: &IpNet) -> Option<&V> {
        match prefix {
            IpNet::V4(prefix) => self.v4.exact(prefix.network().to_bits(), prefix.prefix_len()),
            IpNet::V6(prefix) => self.v6.exact(prefix.network().to_bits(), prefix.prefix_len()),
        }
    }

    /// All prefixes, IPv4 first, in lexicographic order within a family.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &V)> {
        let v4 = self.v4.iter().map(|(bits, len, value)| {
            (IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), len)), value)
        });
        let v6 = self.v6.iter().map(|(bits, len, value)| {
            (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), len)), value)
        });
        v4.chain(v6)
    }

    /// Number of prefixes of both families.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there are no prefixes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of pieces of memory, of up to 126 values or 64 nodes each, that are this table's own, and not shared with
    /// `other`: what a change since then, or until then, has copied. Walks no shared part.
    pub fn unshared_count(&self, other: &Self) -> usize {
        self.v4.unshared_array_count(&other.v4) + self.v6.unshared_array_count(&other.v6)
    }
}

impl<V: Clone> PrefixTable<V> {
    /// Gives `prefix` this value and returns the former one.
    pub fn insert(&mut self, prefix: IpNet, value: V) -> Option<V> {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(prefix.network().to_bits(), prefix.prefix_len(), value),
            IpNet::V6(prefix) => self.v6.insert(prefix.network().to_bits(), prefix.prefix_len(), value),
        }
    }

    /// Takes exactly `prefix` away and returns its value.
    pub fn remove(&mut self, prefix: &IpNet) -> Option<V> {
        match prefix {
            IpNet::V4(prefix) => self.v4.remove(prefix.network().to_bits(), prefix.prefix_len()),
            IpNet::V6(prefix) => self.v6.remove(prefix.network().to_bits(), prefix.prefix_len()),
        }
    }
}

impl<V: Clone + PartialEq> PrefixTable<V> {
    /// Takes all prefixes of this value away. Walks all prefixes.
    pub fn remove_all_of(&mut self, value: &V) {
        let prefixes: Vec<IpNet> =
            self.iter().filter(|(_, held)| *held == value).map(|(prefix, _)| prefix).collect();
        for prefix in &prefixes {
            self.remove(prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn longest_prefix_wins_in_both_families() {
        let mut table = PrefixTable::new();
        for (prefix, peer) in
            [("0.0.0.0/0", 1), ("10.0.0.0/8", 2), ("10.1.2.3/32", 3), ("::/0", 4), ("fd00::/64", 5)]
        {
            assert_eq!(table.insert(net(prefix), peer), None);
        }
        for (text, peer) in
            [("192.0.2.1", 1), ("10.9.9.9", 2), ("10.1.2.3", 3), ("2001:db8::1", 4), ("fd00::9", 5)]
        {
            assert_eq!(table.lookup(address(text)), Some(&peer), "{text}");
        }
    }

    #[test]
    fn inserting_a_known_prefix_moves_it() {
        let mut table = PrefixTable::new();
        table.insert(net("10.0.0.7/24"), 1);
        assert_eq!(table.insert(net("10.0.0.0/24"), 2), Some(1));
        assert_eq!(table.len(), 1);
        assert_eq!(table.lookup(address("10.0.0.200")), Some(&2));
        table.remove_all_of(&2);
        assert!(table.is_empty());
        assert_eq!(table.lookup(address("10.0.0.200")), None);
    }

    /// Addresses 10.0.0.0 to 10.1.134.159 and a default route.
    fn hundred_thousand() -> PrefixTable<u32> {
        let mut table = PrefixTable::new();
        table.insert(net("0.0.0.0/0"), u32::MAX);
        for host in 0..100_000 {
            table.insert(IpNet::from(IpAddr::V4(Ipv4Addr::from_bits((10 << 24) | host))), host);
        }
        table
    }

    #[test]
    fn a_change_copies_one_path_and_leaves_the_clone_as_it_was() {
        let mut table = hundred_thousand();
        let snapshot = table.clone();
        assert_eq!(table.unshared_count(&snapshot), 0);
        table.insert(net("10.0.7.7/32"), 1);
        table.insert(net("10.200.0.0/16"), 2);
        let copied = table.unshared_count(&snapshot);
        assert!((1..=2 * 2 * 6).contains(&copied), "{copied} arrays copied");
        table.remove(&net("10.1.0.1/32"));
        let copied = table.unshared_count(&snapshot);
        assert!((1..=3 * 2 * 6).contains(&copied), "{copied} arrays copied");

        assert_eq!(snapshot.lookup(address("10.0.7.7")), Some(&(7 * 256 + 7)));
        assert_eq!(snapshot.lookup(address("10.200.1.1")), Some(&u32::MAX));
        assert_eq!(snapshot.lookup(address("10.1.0.1")), Some(&65537));
        assert_eq!(snapshot.len(), 100_001);
        assert_eq!(table.lookup(address("10.0.7.7")), Some(&1));
        assert_eq!(table.lookup(address("10.200.1.1")), Some(&2));
        assert_eq!(table.lookup(address("10.1.0.1")), Some(&u32::MAX));
        assert_eq!(table.len(), 100_001);
    }

    #[test]
    fn removing_what_is_not_there_copies_nothing() {
        let mut table = hundred_thousand();
        let snapshot = table.clone();
        assert_eq!(table.remove(&net("10.0.0.0/8")), None);
        assert_eq!(table.remove(&net("192.0.2.1/32")), None);
        assert_eq!(table.unshared_count(&snapshot), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(IpNet, u8),
        Remove(IpNet),
        RemovePeer(u8),
    }

    /// Prefixes from few bits, so that they nest and collide.
    fn prefixes() -> impl Strategy<Value = IpNet> {
        let v4 = (0u32..64, 0u8..=32).prop_map(|(bits, len)| {
            let bits = (bits << 26) | (bits & 3);
            IpNet::new(Ipv4Addr::from_bits(bits).into(), len).expect("length fits").trunc()
        });
        let v6 = (0u128..64, 0u8..=128).prop_map(|(bits, len)| {
            let bits = (bits << 122) | (bits & 3);
            IpNet::new(Ipv6Addr::from_bits(bits).into(), len).expect("length fits").trunc()
        });
        prop_oneof![v4, v6]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (prefixes(), 0u8..6).prop_map(|(prefix, peer)| Step::Insert(prefix, peer)),
            2 => prefixes().prop_map(Step::Remove),
            1 => (0u8..6).prop_map(Step::RemovePeer),
        ];
        proptest::collection::vec(step, 0..80)
    }

    proptest! {
        #[test]
        fn table_agrees_with_a_linear_scan(steps in steps(), probes in proptest::collection::vec(prefixes(), 40)) {
            let mut table = PrefixTable::new();
            let mut list: Vec<(IpNet, u8)> = Vec::new();
            let mut snapshots = Vec::new();
            for step in steps {
                snapshots.push((table.clone(), list.clone()));
                match step {
                    Step::Insert(prefix, peer) => {
                        list.retain(|entry| entry.0 != prefix);
                        list.push((prefix, peer));
                        table.insert(prefix, peer);
                    }
                    Step::Remove(prefix) => {
                        list.retain(|entry| entry.0 != prefix);
                        table.remove(&prefix);
                    }
                    Step::RemovePeer(peer) => {
                        list.retain(|entry| entry.1 != peer);
                        table.remove_all_of(&peer);
                    }
                }
            }
            for probe in probes {
                let probe = probe.addr();
                let expected = list
                    .iter()
                    .filter(|(prefix, _)| prefix.contains(&probe))
                    .max_by_key(|(prefix, _)| prefix.prefix_len())
                    .map(|(_, peer)| peer);
                prop_assert_eq!(table.lookup(probe), expected, "{}", probe);
            }
            snapshots.push((table, list));
            for (table, mut list) in snapshots {
                let listed: Vec<_> = table.iter().map(|(prefix, peer)| (prefix, *peer)).collect();
                prop_assert_eq!(table.len(), list.len());
                prop_assert!(table.v4.is_compressed() && table.v6.is_compressed(), "nodes without a reason");
                list.sort();
                prop_assert_eq!(listed, list, "in order, and not changed by what came after");
            }
        }
    }
}
