//! Where a peer was heard last, in one cache line that any worker reads without writing to it.

mod cell;
#[cfg(test)]
mod model;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
// What `cell` is made of; a test makes it of models of the same.
use std::sync::atomic;

use crossbeam::utils::Backoff;
use wireguard::{Endpoint, LocalAddress};

pub(super) use cell::HeardCell;

const WORD_COUNT: usize = 7;
/// Words that say the endpoint; the last says what is known of the way there.
const ENDPOINT_WORD_COUNT: usize = WORD_COUNT - 1;

/// In the third word, above the port; from bit 32 on is the index of the local interface.
const REMOTE_V6: u64 = 1 << 16;
const HAS_LOCAL: u64 = 1 << 17;
const LOCAL_V6: u64 = 1 << 18;
/// In the last word; from bit 32 on is the link's number.
const KNOWN: u64 = 1;
const KEEPS_LOCAL: u64 = 2;

/// Where a peer was heard, or that it never was: what roaming is told by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard([u64; WORD_COUNT]);

fn words_of(ip: IpAddr) -> [u64; 2] {
    match ip {
        IpAddr::V4(ip) => [ip.to_bits().into(), 0],
        IpAddr::V6(ip) => [ip.to_bits() as u64, (ip.to_bits() >> 64) as u64],
    }
}

fn ip_of([low, high]: [u64; 2], is_v6: bool) -> IpAddr {
    if is_v6 {
        Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
    } else {
        Ipv4Addr::from_bits(low as u32).into()
    }
}

#[inline]
fn endpoint_words(endpoint: &Endpoint) -> [u64; ENDPOINT_WORD_COUNT] {
    let Endpoint { remote, local } = endpoint;
    let [remote_low, remote_high] = words_of(remote.ip());
    let mut rest = u64::from(remote.port());
    let mut zone = 0;
    if let SocketAddr::V6(remote) = remote {
        rest |= REMOTE_V6;
        zone = u64::from(remote.flowinfo()) << 32 | u64::from(remote.scope_id());
    }
    let [local_low, local_high] = local.map_or([0; 2], |local| words_of(local.ip));
    if let Some(LocalAddress { ip, interface_index }) = local {
        rest |= HAS_LOCAL | u64::from(*interface_index) << 32;
        rest |= if ip.is_ipv6() { LOCAL_V6 } else { 0 };
    }
    [remote_low, remote_high, rest, local_low, local_high, zone]
}

impl Heard {
    /// At `endpoint`. `link_number` says which link leads there, 0 that none does.
    pub(super) fn new(endpoint: &Endpoint, keeps_local: bool, link_number: u32) -> Self {
        let [w0, w1, w2, w3, w4, w5] = endpoint_words(endpoint);
        let keeps = if keeps_local { KEEPS_LOCAL } else { 0 };
        Self([w0, w1, w2, w3, w4, w5, KNOWN | keeps | u64::from(link_number) << 32])
    }

    /// At a new endpoint, which only the kernel knows the way to.
    pub(super) fn at(endpoint: &Endpoint) -> Self {
        Self::new(endpoint, true, 0)
    }

    /// Whether it was there.
    #[inline]
    pub(super) fn is_at(&self, endpoint: &Endpoint) -> bool {
        self.0[ENDPOINT_WORD_COUNT] & KNOWN != 0 && self.0[..ENDPOINT_WORD_COUNT] == endpoint_words(endpoint)
    }

    /// `None` if it never was.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        let [remote_low, remote_high, rest, local_low, local_high, zone, known] = self.0;
        if known & KNOWN == 0 {
            return None;
        }
        let remote = match ip_of([remote_low, remote_high], rest & REMOTE_V6 != 0) {
            IpAddr::V4(ip) => SocketAddr::from((ip, rest as u16)),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, rest as u16, (zone >> 32) as u32, zone as u32).into(),
        };
        let local = (rest & HAS_LOCAL != 0).then(|| LocalAddress {
            ip: ip_of([local_low, local_high], rest & LOCAL_V6 != 0),
            interface_index: (rest >> 32) as u32,
        });
        Some(Endpoint { remote, local })
    }

    /// Whether replies may come from the endpoint's local address.
    pub(super) fn keeps_local(&self) -> bool {
        self.0[ENDPOINT_WORD_COUNT] & KEEPS_LOCAL != 0
    }

    /// 0 if no link leads there.
    pub(super) fn link_number(&self) -> u32 {
        (self.0[ENDPOINT_WORD_COUNT] >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoints() -> impl Strategy<Value = Endpoint> {
        let ip = || any::<IpAddr>();
        let remote = (ip(), any::<u16>(), any::<[u32; 2]>()).prop_map(|(ip, port, [flow, scope])| match ip {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, flow, scope).into(),
        });
        let local =
            (ip(), any::<u32>()).prop_map(|(ip, interface_index)| LocalAddress { ip, interface_index });
        (remote, proptest::option::of(local)).prop_map(|(remote, local)| Endpoint { remote, local })
    }

    proptest! {
        #[test]
        fn what_is_heard_is_read_back(endpoint in endpoints(), keeps_local: bool, link_number: u32) {
            let cell = HeardCell::default();
            prop_assert_eq!(cell.load().endpoint(), None);
            prop_assert!(!cell.load().is_at(&endpoint));
            cell.store(Heard::new(&endpoint, keeps_local, link_number));
            let heard = cell.load();
            prop_assert_eq!(heard.endpoint(), Some(endpoint));
            prop_assert!(heard.is_at(&endpoint));
            prop_assert_eq!((heard.keeps_local(), heard.link_number()), (keeps_local, link_number));
        }

        #[test]
        fn only_the_same_endpoint_is_where_it_was_heard(one in endpoints(), other in endpoints(), part in 0..8) {
            let (mut near, port) = (one, one.remote.port());
            match (part, &mut near.remote, &mut near.local) {
                (0, remote, _) => remote.set_port(port.wrapping_add(1)),
                (1, remote, _) => remote.set_ip(other.remote.ip()),
                (2, SocketAddr::V6(remote), _) => remote.set_flowinfo(remote.flowinfo() ^ 1),
                (3, SocketAddr::V6(remote), _) => remote.set_scope_id(remote.scope_id() ^ 1),
                (4, _, local) => *local = other.local,
                (5, _, Some(local)) => local.interface_index ^= 1,
                (6, _, Some(LocalAddress { ip: IpAddr::V4(ip), .. })) => *ip = Ipv4Addr::from_bits(ip.to_bits() ^ 1),
                (7, _, Some(LocalAddress { ip: IpAddr::V6(ip), .. })) => {
                    *ip = Ipv6Addr::from_bits(ip.to_bits() ^ 1 << (port % 128));
                }
                _ => near = other,
            }
            prop_assert_eq!(Heard::at(&one).is_at(&near), one == near);
        }
    }

    #[test]
    fn nothing_heard_is_not_the_unspecified_address() {
        let unspecified = Endpoint { remote: (Ipv4Addr::UNSPECIFIED, 0).into(), local: None };
        assert!(!Heard::default().is_at(&unspecified));
        assert!(Heard::at(&unspecified).is_at(&unspecified));
    }

    #[test]
    fn what_was_meant_for_another_value_replaces_nothing() {
        let held = Heard([1, 2, 3, 4, 5, 6, 7]);
        let cell = HeardCell::default();
        cell.store(held);
        for word in 0..WORD_COUNT {
            let mut other = held;
            other.0[word] ^= 1 << 63;
            assert!(!cell.replace(other, Heard::default()), "word {word}");
            assert_eq!(cell.load(), held, "word {word}");
        }
        assert!(cell.replace(held, Heard::default()));
        assert_eq!(cell.load(), Heard::default());
    }
}
