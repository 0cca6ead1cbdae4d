//! Timers (protocol section 6): armed from what control does and from the marks workers leave.
//!
//! Workers only write marks ([`crate::Activity`]); a timer that fires looks whether its mark still says so. While
//! a peer's workers need not announce their marks, `Review` looks every `KEEPALIVE_TIMEOUT`: no mark asks for
//! anything sooner than that, so no deadline is missed.

use super::Device;
use crate::{
    PeerId,
    constants::{HANDSHAKE_RETRANSMITS_MAX, KEEPALIVE_TIMEOUT, NEW_HANDSHAKE_TIMEOUT, ZERO_KEYS_TIMEOUT},
    time::Now,
    timers::TimerKind,
};

/// Timers that one call handles at most.
const TIMEOUTS_AT_ONCE: usize = 256;

impl Device {
    /// Does what is due, earliest first. Costs nothing for peers with nothing due.
    ///
    /// Of very many timers that are due together, some are left for the next call, so that the owner can look after
    /// other things between two: [`Device::next_timeout`] is not in the future then.
    pub fn handle_timeout(&mut self, now: Now) {
        for _ in 0..TIMEOUTS_AT_ONCE {
            let Some((id, kind)) = self.timers.pop_due(now.monotonic) else { return };
            match kind {
                TimerKind::RetransmitHandshake => self.retransmit_due(id, now),
                TimerKind::PassiveKeepalive => self.passive_keepalive_due(id, now),
                TimerKind::NewHandshake => self.new_handshake_due(id, now),
                TimerKind::ZeroKeys => self.zero_keys(id),
                TimerKind::PersistentKeepalive => self.persistent_keepalive_due(id, now),
                TimerKind::Review => self.review_due(id, now),
                TimerKind::Wake => self.wake_due(id, now),
            }
        }
    }

    /// A worker announced marks: look now, and then by ourselves.
    pub(super) fn activity_noted(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        if !self.up {
            peer.activity.unwatch();
            return;
        }
        if !self.timers.is_armed(id, TimerKind::Review) {
            peer.reviewed_traversal = peer.activity.last_traversal();
            self.timers.arm(id, TimerKind::Review, now.monotonic + KEEPALIVE_TIMEOUT);
        }
        self.review(id, now);
    }

    fn review_due(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        let traversal = peer.activity.last_traversal();
        if traversal == peer.reviewed_traversal {
            // Quiet: let the workers announce the next packet. The marks are read after that, in `review`.
            peer.activity.unwatch();
        } else {
            peer.reviewed_traversal = traversal;
            self.timers.arm(id, TimerKind::Review, now.monotonic + KEEPALIVE_TIMEOUT);
        }
        self.review(id, now);
    }

    /// Sets the timers that follow from marks.
    pub(super) fn review(&mut self, id: PeerId, now: Now) {
        if !self.up {
            return;
        }
        let Some(peer) = self.peers.peer(id) else {
            return;
        };
        match peer.activity.unacknowledged_since() {
            Some(since) => self.timers.arm(id, TimerKind::PassiveKeepalive, since + KEEPALIVE_TIMEOUT),
            None => self.timers.disarm(id, TimerKind::PassiveKeepalive),
        }
        if let Some(interval) = peer.persistent_keepalive_interval()
            && !self.timers.is_armed(id, TimerKind::PersistentKeepalive)
        {
            let last = peer.activity.last_traversal().unwrap_or(now.monotonic);
            self.timers.arm(id, TimerKind::PersistentKeepalive, last + interval);
        }
        let (unanswered, armed_for) = (peer.activity.unanswered_since(), peer.new_handshake_armed_for);
        if unanswered != armed_for {
            match unanswered {
                Some(since) => {
                    let deadline = since + NEW_HANDSHAKE_TIMEOUT + self.jitter();
                    self.timers.arm(id, TimerKind::NewHandshake, deadline);
                }
                None => self.timers.disarm(id, TimerKind::NewHandshake),
            }
            if let Some(peer) = self.peers.peer_mut(id) {
                peer.new_handshake_armed_for = unanswered;
            }
        }
    }

    fn wake_due(&mut self, id: PeerId, now: Now) {
        self.wake(id, now);
        self.review(id, now);
    }

    fn retransmit_due(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        if peer.retransmit_count > HANDSHAKE_RETRANSMITS_MAX {
            if let Some(since) = peer.activity.unacknowledged_since() {
                peer.activity.forget_unacknowledged(since);
            }
            self.counters.handshakes_given_up += 1;
            self.timers.disarm(id, TimerKind::PassiveKeepalive);
            self.purge_staged(id);
            if !self.timers.is_armed(id, TimerKind::ZeroKeys) {
                self.timers.arm(id, TimerKind::ZeroKeys, now.monotonic + ZERO_KEYS_TIMEOUT);
            }
            return;
        }
        peer.retransmit_count += 1;
        self.forget_local_address(id);
        self.initiate(id, true, now);
    }

    fn passive_keepalive_due(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.peer(id) else {
            return;
        };
        if let Some(since) = peer.activity.unacknowledged_since()
            && since + KEEPALIVE_TIMEOUT <= now.monotonic
        {
            // Data that came after the first deserves a keepalive of its own, in case this one gets lost.
            let another = peer.activity.last_data_received() > Some(since);
            let activity = std::sync::Arc::clone(&peer.activity);
            activity.forget_unacknowledged(since);
            self.send_keepalive(id, now);
            if another {
                activity.mark_unacknowledged(now.monotonic);
            }
        }
        self.review(id, now);
    }

    fn new_handshake_due(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.peer_mut(id) else {
            return;
        };
        if let Some(since) = peer.new_handshake_armed_for.take()
            && peer.activity.unanswered_since() == Some(since)
        {
            peer.activity.forget_unanswered(since);
            self.forget_local_address(id);
            self.initiate(id, false, now);
        }
        self.review(id, now);
    }

    fn persistent_keepalive_due(&mut self, id: PeerId, now: Now) {
        let Some(peer) = self.peers.peer(id) else {
            return;
        };
        let Some(interval) = peer.persistent_keepalive_interval() else {
            return;
        };
        let due = peer.activity.last_traversal().map_or(now.monotonic, |last| last + interval);
        if due > now.monotonic {
            self.timers.arm(id, TimerKind::PersistentKeepalive, due);
            return;
        }
        // Armed first: it goes on whether or not anything can be sent.
        self.timers.arm(id, TimerKind::PersistentKeepalive, now.monotonic + interval);
        self.send_keepalive(id, now);
        self.review(id, now);
    }
}
