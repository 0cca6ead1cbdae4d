//! Which neighbours to ask the kernel to use now.
//!
//! Packets that leave by AF_XDP do not pass the kernel's neighbour table, so to the kernel these neighbours look
//! idle: it would let their entries grow stale and drop them. Each next hop in use is therefore marked as used
//! (`NTF_USE`, net/core/neighbour.c), which makes the kernel resolve or probe it as if it had sent a packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use wireguard::Time;

/// How often a neighbour that is not resolved is asked for. The kernel itself asks three times a second apart.
pub const UNRESOLVED_INTERVAL: Duration = Duration::from_secs(1);
/// How often a resolved one is marked as used: within the kernel's `base_reachable_time`, so that it is probed
/// before its entry could be collected.
pub const RESOLVED_INTERVAL: Duration = Duration::from_secs(30);

/// Neighbours marked at once, at most. The kernel's table has room for as many by default (`gc_thresh3`), so more
/// would push out each other.
const MARKS_MAX: usize = 1024;

/// When each next hop in use was last marked.
#[derive(Debug, Default)]
pub struct Upkeep {
    marked: BTreeMap<(u32, IpAddr), Time>,
}

impl Upkeep {
    /// The next hops to mark now, of those `in_use` (interface index and address): at most 1024, those that
    /// were longest not marked first. What is no longer in use is forgotten.
    pub fn due(
        &mut self,
        in_use: &[(u32, IpAddr)],
        is_resolved: impl Fn(&(u32, IpAddr)) -> bool,
        now: Time,
    ) -> Vec<(u32, IpAddr)> {
        let former = std::mem::take(&mut self.marked);
        let mut due = Vec::new();
        for hop in in_use.iter().collect::<BTreeSet<_>>() {
            let interval = if is_resolved(hop) { RESOLVED_INTERVAL } else { UNRESOLVED_INTERVAL };
            let marked = former.get(hop).copied();
            match marked.filter(|marked| now.saturating_since(*marked) < interval) {
                Some(marked) => drop(self.marked.insert(*hop, marked)),
                None => due.push((marked, *hop)),
            }
        }
        due.sort_unstable();
        let later = due.split_off(due.len().min(MARKS_MAX));
        self.marked.extend(later.into_iter().filter_map(|(marked, hop)| Some((hop, marked?))));
        self.marked.extend(due.iter().map(|(_, hop)| (*hop, now)));
        due.into_iter().map(|(_, hop)| hop).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: (u32, IpAddr) = (2, IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    fn at(secs: u64) -> Time {
        Time(secs * 1_000_000_000)
    }

    #[test]
    fn an_unresolved_neighbour_is_asked_for_every_second() {
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.due(&[HOP, HOP], |_| false, at(1)), [HOP]);
        assert_eq!(upkeep.due(&[HOP], |_| false, Time(at(1).0 + 999_999_999)), []);
        assert_eq!(upkeep.due(&[HOP], |_| false, at(2)), [HOP]);
    }

    #[test]
    fn a_resolved_neighbour_is_marked_every_thirty_seconds() {
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.due(&[HOP], |_| true, at(1)), [HOP]);
        assert_eq!(upkeep.due(&[HOP], |_| true, at(30)), []);
        assert_eq!(upkeep.due(&[HOP], |_| true, at(31)), [HOP]);
    }

    #[test]
    fn a_neighbour_that_is_lost_is_asked_for_at_once() {
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.due(&[HOP], |_| true, at(1)), [HOP]);
        assert_eq!(upkeep.due(&[HOP], |_| false, at(3)), [HOP]);
    }

    #[test]
    fn very_many_neighbours_take_turns() {
        let hops: Vec<(u32, IpAddr)> = (0..2500)
            .map(|number| (2, IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number))))
            .collect();
        let mut upkeep = Upkeep::default();
        let turns: Vec<_> = (1..=3).map(|secs| upkeep.due(&hops, |_| false, at(secs))).collect();
        assert_eq!(turns.iter().map(Vec::len).max(), Some(MARKS_MAX));
        let all: BTreeSet<_> = turns.concat().into_iter().collect();
        assert_eq!(all.len(), 2500, "everyone had a turn");
    }

    #[test]
    fn what_is_not_in_use_is_forgotten() {
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.due(&[HOP], |_| true, at(1)), [HOP]);
        assert_eq!(upkeep.due(&[], |_| true, at(2)), []);
        assert_eq!(upkeep.due(&[HOP], |_| true, at(3)), [HOP]);
    }
}
