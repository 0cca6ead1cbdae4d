//! What workers tell control about a peer's traffic, without locks and without a message per packet.
//!
//! Workers write marks once per batch; [`crate::Device`] reads them when a timer fires. A mark that control does
//! not expect must not wait for a timer, so the first write after control has stopped watching is announced:
//!
//! - a worker writes its marks, then calls [`Activity::note`], which swaps `noted` to true;
//! - control stops watching by swapping `noted` to false, and only then reads the marks.
//!
//! Both swaps are read-modify-writes of one atomic, so they have one order. If the worker's comes first, control's
//! swap acquires what the worker released and control sees the marks. If it comes second, it finds false, and
//! the worker queues a note. A plain load in `note` would break this: worker and control could each miss the
//! other's write. While `noted` stays true control reviews the peer at least every `KEEPALIVE_TIMEOUT`, the
//! shortest time any mark can ask for, so nothing is late either.
//!
//! Marks of concurrent workers may land in any order. That is as if their packets had been handled in that order.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};

use crate::time::Time;

/// Traffic marks of one peer, shared by all its sessions, the workers and control.
///
/// Times are nanoseconds of [`Time`], 0 for never; time 0 itself is stored as 1. All of it is one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Activity {
    rx_bytes: AtomicU64,
    tx_bytes: AtomicU64,
    unanswered_since: AtomicU64,
    unacknowledged_since: AtomicU64,
    last_sent: AtomicU64,
    last_received: AtomicU64,
    last_data_received: AtomicU64,
    noted: AtomicBool,
}

fn encode(time: Time) -> u64 {
    time.0.max(1)
}

fn decode(nanos: u64) -> Option<Time> {
    (nanos != 0).then_some(Time(nanos))
}

/// Writes only if nothing is there, and without a locked instruction in the usual case that something is.
fn mark_first(mark: &AtomicU64, now: Time) {
    if mark.load(Relaxed) == 0 {
        // Losing against another worker leaves its time, which is as good.
        let _ = mark.compare_exchange(0, encode(now), Relaxed, Relaxed);
    }
}

/// Clears without dirtying the cache line in the usual case that nothing is there.
fn clear(mark: &AtomicU64) {
    if mark.load(Relaxed) != 0 {
        mark.store(0, Relaxed);
    }
}

impl Activity {
    /// One or more authenticated packets of `bytes` UDP payload in total were sent; `data` if any was no keepalive.
    pub fn sent(&self, now: Time, bytes: u64, data: bool) {
        self.tx_bytes.fetch_add(bytes, Relaxed);
        self.last_sent.store(encode(now), Relaxed);
        clear(&self.unacknowledged_since);
        if data {
            mark_first(&self.unanswered_since, now);
        }
    }

    /// One or more packets of `bytes` UDP payload in total were authenticated; `data` if any was no keepalive.
    pub fn received(&self, now: Time, bytes: u64, data: bool) {
        self.rx_bytes.fetch_add(bytes, Relaxed);
        self.last_received.store(encode(now), Relaxed);
        clear(&self.unanswered_since);
        if data {
            self.last_data_received.store(encode(now), Relaxed);
            mark_first(&self.unacknowledged_since, now);
        }
    }

    /// Call after [`Self::sent`] or [`Self::received`]. When true, queue
    /// [`crate::SessionEvent::Activity`]: control is not watching this peer.
    pub fn note(&self) -> bool {
        !self.noted.swap(true, AcqRel)
    }

    /// Takes back a [`Self::note`] that was true but could not be queued, so that the next batch notes again.
    pub fn retract_note(&self) {
        self.noted.swap(false, AcqRel);
    }

    /// Control stops watching; marks read after this call are complete up to every note that returned false.
    pub(crate) fn unwatch(&self) {
        self.noted.swap(false, AcqRel);
    }

    /// Bytes of UDP payload received in authenticated packets, handshakes included.
    pub fn rx_bytes(&self) -> u64 {
        self.rx_bytes.load(Relaxed)
    }

    /// Bytes of UDP payload sent in packets of this peer, handshakes included.
    pub fn tx_bytes(&self) -> u64 {
        self.tx_bytes.load(Relaxed)
    }

    /// When the first data was sent since the last authenticated packet came in.
    pub fn unanswered_since(&self) -> Option<Time> {
        decode(self.unanswered_since.load(Relaxed))
    }

    /// When the first data came in since the last authenticated packet was sent.
    pub fn unacknowledged_since(&self) -> Option<Time> {
        decode(self.unacknowledged_since.load(Relaxed))
    }

    /// When an authenticated packet was last sent.
    pub fn last_sent(&self) -> Option<Time> {
        decode(self.last_sent.load(Relaxed))
    }

    /// When an authenticated packet last came in.
    pub fn last_received(&self) -> Option<Time> {
        decode(self.last_received.load(Relaxed))
    }

    /// When data last came in.
    pub fn last_data_received(&self) -> Option<Time> {
        decode(self.last_data_received.load(Relaxed))
    }

    /// When an authenticated packet last went in either direction.
    pub fn last_traversal(&self) -> Option<Time> {
        self.last_sent().max(self.last_received())
    }

    /// Ends the wait that began at `since`, so that the next data sent begins a new one.
    pub(crate) fn forget_unanswered(&self, since: Time) {
        let _ = self.unanswered_since.compare_exchange(encode(since), 0, Relaxed, Relaxed);
    }

    /// Ends the wait that began at `since`, so that the next data received begins a new one.
    pub(crate) fn forget_unacknowledged(&self, since: Time) {
        let _ = self.unacknowledged_since.compare_exchange(encode(since), 0, Relaxed, Relaxed);
    }

    /// Makes the next keepalive due `KEEPALIVE_TIMEOUT` after `now`.
    pub(crate) fn mark_unacknowledged(&self, now: Time) {
        mark_first(&self.unacknowledged_since, now);
    }

    /// Forgets what timers are made of, not the byte counts.
    pub(crate) fn reset_marks(&self) {
        for mark in [
            &self.unanswered_since,
            &self.unacknowledged_since,
            &self.last_sent,
            &self.last_received,
            &self.last_data_received,
        ] {
            mark.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Activity;
    use crate::time::Time;

    #[test]
    fn first_unanswered_data_is_kept_until_an_answer() {
        let activity = Activity::default();
        activity.sent(Time(0), 100, true);
        activity.sent(Time(9), 100, true);
        assert_eq!(activity.unanswered_since(), Some(Time(1)));
        activity.received(Time(10), 32, false);
        assert_eq!(activity.unanswered_since(), None);
        assert_eq!((activity.tx_bytes(), activity.rx_bytes()), (200, 32));
        assert_eq!(activity.last_traversal(), Some(Time(10)));
    }

    #[test]
    fn keepalive_received_asks_for_no_acknowledgement() {
        let activity = Activity::default();
        activity.received(Time(5), 32, false);
        assert_eq!(activity.unacknowledged_since(), None);
        activity.received(Time(6), 128, true);
        assert_eq!(activity.unacknowledged_since(), Some(Time(6)));
        activity.sent(Time(7), 32, false);
        assert_eq!(activity.unacknowledged_since(), None);
        assert_eq!(activity.unanswered_since(), None);
    }

    #[test]
    fn only_the_first_note_since_control_looked_is_queued() {
        let activity = Activity::default();
        assert!(activity.note());
        assert!(!activity.note());
        activity.unwatch();
        assert!(activity.note());
        activity.retract_note();
        assert!(activity.note(), "the queue was full: again");
    }

    /// Each mark is either announced or seen by control after it stopped watching.
    #[test]
    fn no_note_is_lost_between_threads() {
        const ROUNDS: u64 = 20_000;
        let activity = Activity::default();
        let announced = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                for round in 1..=ROUNDS {
                    activity.sent(Time(round), 1, true);
                    if activity.note() {
                        announced.store(true, std::sync::atomic::Ordering::Release);
                    }
                }
            });
            let mut last = Time(0);
            loop {
                let finished = worker.is_finished();
                if announced.swap(false, std::sync::atomic::Ordering::Acquire) {
                    activity.unwatch();
                    last = activity.last_sent().unwrap_or_default();
                } else if finished {
                    break;
                }
            }
            assert_eq!(last, Time(ROUNDS));
        });
    }
}
