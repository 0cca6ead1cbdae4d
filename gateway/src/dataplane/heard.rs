//! Where a peer was heard last, in one cache line that any worker reads without writing to it.
//!
//! A sequence lock of plain words (Boehm, "Can seqlocks get along with programming language memory models?", MSPC
//! 2012). A cell that copies values as a whole would do but for speed: what copies through memory waits for the line,
//! and with it all that comes after, where loads of words overlap with those of other peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crossbeam::utils::Backoff;
use wireguard::{Endpoint, LocalAddress};

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

/// A [`Heard`] that changes, as a whole.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct HeardCell {
    /// Odd while a writer is at it.
    sequence: AtomicU64,
    words: [AtomicU64; WORD_COUNT],
}

impl HeardCell {
    /// Brings it into the cache. The result means nothing.
    pub(super) fn touch(&self) -> u64 {
        self.sequence.load(Relaxed)
    }

    #[inline]
    pub(super) fn load(&self) -> Heard {
        let backoff = Backoff::new();
        loop {
            let before = self.sequence.load(Acquire);
            if before & 1 == 0 {
                let words = std::array::from_fn(|word| self.words[word].load(Relaxed));
                fence(Acquire);
                if self.sequence.load(Relaxed) == before {
                    return Heard(words);
                }
            }
            backoff.snooze();
        }
    }

    pub(super) fn store(&self, heard: Heard) {
        self.update(|_| Some(heard));
    }

    /// Puts `new` where `old` is; `false` when it was another by now.
    pub(super) fn replace(&self, old: Heard, new: Heard) -> bool {
        self.update(|held| (held == old).then_some(new))
    }

    /// Writes what `change` makes of what is there, if anything, with other writers kept out.
    fn update(&self, change: impl FnOnce(Heard) -> Option<Heard>) -> bool {
        let backoff = Backoff::new();
        let before = loop {
            let before = self.sequence.load(Relaxed);
            if before & 1 == 0 && self.sequence.compare_exchange(before, before + 1, Acquire, Relaxed).is_ok()
            {
                break before;
            }
            backoff.snooze();
        };
        // No reader sees a word of what follows without the odd number.
        fence(Release);
        let changed = change(Heard(std::array::from_fn(|word| self.words[word].load(Relaxed))));
        if let Some(Heard(words)) = changed {
            for (cell, word) in self.words.iter().zip(words) {
                cell.store(word, Relaxed);
            }
        }
        self.sequence.store(before + 2, Release);
        changed.is_some()
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
        fn only_the_same_endpoint_is_where_it_was_heard(one in endpoints(), other in endpoints(), part in 0..5) {
            let (mut near, port) = (one, one.remote.port());
            match (part, &mut near.local) {
                (0, _) => near.remote.set_port(port.wrapping_add(1)),
                (1, _) => near.remote.set_ip(other.remote.ip()),
                (2, local) => *local = other.local,
                (3, Some(local)) => local.interface_index ^= 1,
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
    fn readers_and_writers_on_many_threads_see_whole_values() {
        const ROUNDS: u16 = 20_000;
        let heard = |number: u16| {
            let remote = SocketAddr::from((
                Ipv6Addr::from_bits(u128::from(number) << 64 | u128::from(number)),
                number,
            ));
            Heard::new(&Endpoint { remote, local: None }, true, number.into())
        };
        let cell = HeardCell::default();
        cell.store(heard(0));
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        (0..ROUNDS)
                            .filter(|_| {
                                let held = cell.load();
                                cell.replace(held, heard(held.link_number() as u16 + 1))
                            })
                            .count()
                    })
                })
                .collect();
            let reader = scope.spawn(|| {
                let mut last = 0;
                for _ in 0..ROUNDS {
                    let held = cell.load();
                    let number = held.link_number() as u16;
                    assert_eq!(held, heard(number));
                    assert!(number >= last);
                    last = number;
                }
            });
            let replaced: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
            reader.join().unwrap();
            assert_eq!(replaced, cell.load().link_number() as usize, "no replacement was lost");
        });
    }
}
