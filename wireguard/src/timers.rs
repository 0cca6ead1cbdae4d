//! Deadlines of all peers in one order: neither the next deadline nor what is due costs a walk over peers.

use std::collections::BTreeSet;

use crate::{PeerId, time::Time};

/// The timers of a peer (paper section 6; kernel `timers.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(crate) enum TimerKind {
    /// The response to our initiation is late.
    RetransmitHandshake,
    /// We received data and sent nothing for `KEEPALIVE_TIMEOUT`.
    PassiveKeepalive,
    /// We sent data and received nothing for `NEW_HANDSHAKE_TIMEOUT`.
    NewHandshake,
    /// No new keys for `ZERO_KEYS_TIMEOUT`.
    ZeroKeys,
    /// The configured interval passed without any packet.
    PersistentKeepalive,
    /// Time to look at the marks of a peer whose workers need not announce them.
    Review,
    /// A change of configuration woke many peers: this one's turn has come.
    Wake,
}

const KIND_COUNT: usize = TimerKind::Wake as usize + 1;

/// Armed timers, ordered by deadline, then peer, then kind.
#[derive(Default)]
pub(crate) struct Timers {
    queue: BTreeSet<(Time, PeerId, TimerKind)>,
    deadlines: Vec<[Option<Time>; KIND_COUNT]>,
}

impl Timers {
    pub(crate) fn deadline(&self, peer: PeerId, kind: TimerKind) -> Option<Time> {
        self.deadlines.get(peer.0 as usize)?[kind as usize]
    }

    pub(crate) fn is_armed(&self, peer: PeerId, kind: TimerKind) -> bool {
        self.deadline(peer, kind).is_some()
    }

    /// Arms or re-arms.
    pub(crate) fn arm(&mut self, peer: PeerId, kind: TimerKind, deadline: Time) {
        let slot = peer.0 as usize;
        if slot >= self.deadlines.len() {
            self.deadlines.resize(slot + 1, [None; KIND_COUNT]);
        }
        if let Some(previous) = self.deadlines[slot][kind as usize].replace(deadline) {
            self.queue.remove(&(previous, peer, kind));
        }
        self.queue.insert((deadline, peer, kind));
    }

    pub(crate) fn disarm(&mut self, peer: PeerId, kind: TimerKind) {
        let Some(deadlines) = self.deadlines.get_mut(peer.0 as usize) else {
            return;
        };
        if let Some(deadline) = deadlines[kind as usize].take() {
            self.queue.remove(&(deadline, peer, kind));
        }
    }

    pub(crate) fn disarm_all(&mut self, peer: PeerId) {
        for kind in KINDS {
            self.disarm(peer, kind);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.queue.first().map(|entry| entry.0)
    }

    /// Takes the earliest timer that is due; it is disarmed.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(PeerId, TimerKind)> {
        let &(deadline, peer, kind) = self.queue.first().filter(|entry| entry.0 <= now)?;
        self.queue.remove(&(deadline, peer, kind));
        self.deadlines[peer.0 as usize][kind as usize] = None;
        Some((peer, kind))
    }
}

const KINDS: [TimerKind; KIND_COUNT] = [
    TimerKind::RetransmitHandshake,
    TimerKind::PassiveKeepalive,
    TimerKind::NewHandshake,
    TimerKind::ZeroKeys,
    TimerKind::PersistentKeepalive,
    TimerKind::Review,
    TimerKind::Wake,
];

#[cfg(test)]
mod tests {
    use super::{KINDS, TimerKind, Timers};
    use crate::{PeerId, time::Time};

    #[test]
    fn kinds_are_listed_at_their_own_number() {
        for (number, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }

    #[test]
    fn timers_fire_in_order_of_their_last_deadline() {
        let mut timers = Timers::default();
        timers.arm(PeerId(3), TimerKind::ZeroKeys, Time(30));
        timers.arm(PeerId(1), TimerKind::NewHandshake, Time(10));
        timers.arm(PeerId(1), TimerKind::NewHandshake, Time(40));
        timers.arm(PeerId(2), TimerKind::Review, Time(20));
        timers.arm(PeerId(2), TimerKind::ZeroKeys, Time(5));
        timers.disarm(PeerId(2), TimerKind::ZeroKeys);
        assert_eq!(timers.next_deadline(), Some(Time(20)));
        assert_eq!(timers.pop_due(Time(19)), None);
        assert_eq!(timers.pop_due(Time(35)), Some((PeerId(2), TimerKind::Review)));
        assert_eq!(timers.pop_due(Time(35)), Some((PeerId(3), TimerKind::ZeroKeys)));
        assert_eq!(timers.pop_due(Time(35)), None);
        assert!(timers.is_armed(PeerId(1), TimerKind::NewHandshake));
        timers.disarm_all(PeerId(1));
        assert_eq!(timers.next_deadline(), None);
        assert!(!timers.is_armed(PeerId(1), TimerKind::NewHandshake));
    }
}
