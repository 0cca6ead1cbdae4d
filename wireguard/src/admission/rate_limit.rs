//! How many handshake messages one address may send while we are under load (kernel `ratelimiter.c`).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
    time::Duration,
};

use crate::{
    constants::{RATE_LIMIT_BURST, RATE_LIMIT_ENTRIES_MAX, RATE_LIMIT_PER_SECOND},
    time::Time,
};

/// What a message costs, in nanoseconds of waiting.
const COST: u64 = 1_000_000_000 / RATE_LIMIT_PER_SECOND;
/// A full bucket.
const TOKENS_MAX: u64 = COST * RATE_LIMIT_BURST;
/// A bucket left alone this long is full again, and forgotten.
const IDLE: Duration = Duration::from_secs(1);

/// Whom a bucket belongs to. An IPv6 host commands a whole /64, so that counts as one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4(u32),
    V6Network(u64),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6Network((address.to_bits() >> 64) as u64),
        }
    }
}

struct Bucket {
    tokens: u64,
    filled_at: Time,
}

/// Token buckets by address, a bounded number of them.
#[derive(Default)]
pub(super) struct RateLimit {
    /// Ordered, so that nobody can choose addresses that collide.
    buckets: BTreeMap<Source, Bucket>,
    collected_at: Time,
}

impl RateLimit {
    /// Takes a token of `address`. A new address is refused while the table is full.
    pub(super) fn admit(&mut self, address: IpAddr, now: Time) -> bool {
        self.collect(now);
        let is_full = self.buckets.len() >= RATE_LIMIT_ENTRIES_MAX;
        let bucket = match self.buckets.entry(Source::of(address)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if is_full => return false,
            Entry::Vacant(entry) => entry.insert(Bucket { tokens: TOKENS_MAX, filled_at: now }),
        };
        let waited = u64::try_from(now.saturating_since(bucket.filled_at).as_nanos()).unwrap_or(u64::MAX);
        bucket.tokens = bucket.tokens.saturating_add(waited).min(TOKENS_MAX);
        bucket.filled_at = bucket.filled_at.max(now);
        let is_admitted = bucket.tokens >= COST;
        if is_admitted {
            bucket.tokens -= COST;
        }
        is_admitted
    }

    /// Forgets buckets that are full again; walks the table at most once a second.
    fn collect(&mut self, now: Time) {
        if now.saturating_since(self.collected_at) >= IDLE {
            self.collected_at = now;
            self.buckets.retain(|_, bucket| now.saturating_since(bucket.filled_at) <= IDLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(1 << 40);

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// The sequence of the kernel's `selftest/ratelimiter.c`, and a longer wait: (milliseconds to wait before,
    /// admitted).
    const SEQUENCE: [(u64, bool); 13] = [
        (0, true),
        (0, true),
        (0, true),
        (0, true),
        (0, true),
        (0, false),
        (50, true),
        (0, false),
        (100, true),
        (0, true),
        (0, false),
        (500, true),
        (0, true),
    ];

    #[test]
    fn buckets_follow_the_kernels_sequence() {
        for source in ["192.0.2.1", "2001:db8:1:2::1"] {
            let mut limit = RateLimit::default();
            let mut now = START;
            for (step, (wait, admitted)) in SEQUENCE.into_iter().enumerate() {
                now = now + Duration::from_millis(wait);
                assert_eq!(limit.admit(address(source), now), admitted, "{source} step {step}");
            }
        }
    }

    #[test]
    fn ipv4_addresses_are_limited_one_by_one() {
        let mut limit = RateLimit::default();
        for _ in 0..RATE_LIMIT_BURST {
            assert!(limit.admit(address("192.0.2.1"), START));
        }
        assert!(!limit.admit(address("192.0.2.1"), START));
        assert!(!limit.admit(address("::ffff:192.0.2.1"), START), "the same address on a dual-stack socket");
        assert!(limit.admit(address("192.0.2.2"), START));
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_limited_as_one() {
        let mut limit = RateLimit::default();
        for host in 0..RATE_LIMIT_BURST {
            assert!(limit.admit(address(&format!("2001:db8:0:1::{host}")), START));
        }
        assert!(!limit.admit(address("2001:db8:0:1:ffff::1"), START));
        assert!(limit.admit(address("2001:db8:0:2::1"), START));
    }

    #[test]
    fn a_full_table_refuses_new_addresses_until_old_ones_are_forgotten() {
        let mut limit = RateLimit::default();
        for host in 0..RATE_LIMIT_ENTRIES_MAX as u32 {
            assert!(limit.admit(IpAddr::V4((0x0a00_0000 + host).into()), START));
        }
        assert!(!limit.admit(address("192.0.2.1"), START));
        assert!(limit.admit(address("10.0.0.7"), START), "known addresses go on");
        assert!(limit.admit(address("192.0.2.1"), START + IDLE + Duration::from_nanos(1)));
        assert_eq!(limit.buckets.len(), 1);
    }
}
