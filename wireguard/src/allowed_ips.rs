//! Cryptokey routing: which peer an inner address belongs to, one longest-prefix-match trie per family.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Prefixes of inner addresses and what each belongs to. Host bits are masked; a prefix has one owner.
#[derive(Clone, Debug, Default)]
pub struct AllowedIps<V> {
    v4: PrefixMap<Ipv4Net, V>,
    v6: PrefixMap<Ipv6Net, V>,
}

impl<V> AllowedIps<V> {
    /// No prefixes.
    pub fn new() -> Self {
        Self { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }

    /// Gives `prefix` to `value` and returns whose it was.
    pub fn insert(&mut self, prefix: IpNet, value: V) -> Option<V> {
        match prefix.trunc() {
            IpNet::V4(prefix) => self.v4.insert(prefix, value),
            IpNet::V6(prefix) => self.v6.insert(prefix, value),
        }
    }

    /// Takes exactly `prefix` away and returns whose it was.
    pub fn remove(&mut self, prefix: &IpNet) -> Option<V> {
        match prefix.trunc() {
            IpNet::V4(prefix) => self.v4.remove(&prefix),
            IpNet::V6(prefix) => self.v6.remove(&prefix),
        }
    }

    /// Whose `address` is: the owner of the longest prefix that contains it.
    pub fn lookup(&self, address: IpAddr) -> Option<&V> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&Ipv4Net::from(address)).map(|(_, value)| value),
            IpAddr::V6(address) => self.v6.get_lpm(&Ipv6Net::from(address)).map(|(_, value)| value),
        }
    }

    /// Whose exactly `prefix` is.
    pub fn owner(&self, prefix: &IpNet) -> Option<&V> {
        match prefix.trunc() {
            IpNet::V4(prefix) => self.v4.get(&prefix),
            IpNet::V6(prefix) => self.v6.get(&prefix),
        }
    }

    /// All prefixes, IPv4 first, in lexicographic order within a family.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &V)> {
        let v4 = self.v4.iter().map(|(prefix, value)| (IpNet::V4(*prefix), value));
        v4.chain(self.v6.iter().map(|(prefix, value)| (IpNet::V6(*prefix), value)))
    }

    /// Number of prefixes of both families.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there are no prefixes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V: PartialEq> AllowedIps<V> {
    /// Takes all prefixes of one peer away. Walks all prefixes of all peers.
    pub fn remove_peer(&mut self, peer: &V) {
        self.v4.retain(|_, value| value != peer);
        self.v6.retain(|_, value| value != peer);
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
        let mut table = AllowedIps::new();
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
        let mut table = AllowedIps::new();
        table.insert(net("10.0.0.7/24"), 1);
        assert_eq!(table.insert(net("10.0.0.0/24"), 2), Some(1));
        assert_eq!(table.len(), 1);
        assert_eq!(table.lookup(address("10.0.0.200")), Some(&2));
        table.remove_peer(&2);
        assert!(table.is_empty());
        assert_eq!(table.lookup(address("10.0.0.200")), None);
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
            let mut table = AllowedIps::new();
            let mut list: Vec<(IpNet, u8)> = Vec::new();
            for step in steps {
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
                        table.remove_peer(&peer);
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
            let mut listed: Vec<_> = table.iter().map(|(prefix, peer)| (prefix, *peer)).collect();
            listed.sort();
            list.sort();
            prop_assert_eq!(listed, list);
        }
    }
}
