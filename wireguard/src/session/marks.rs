//! What several threads change in a session at any moment, each word for itself.

use std::time::Duration;

use super::atomic::Ordering::{AcqRel, Relaxed};
use super::atomic::{AtomicBool, AtomicU64};
use crate::{constants::REJECT_AFTER_MESSAGES, time::Time};

/// Least time between two wishes for a new handshake, so that control's queue is not flooded by each batch.
const REKEY_WISH_INTERVAL: Duration = Duration::from_secs(1);

/// Hands out each nonce below `REJECT_AFTER_MESSAGES` once.
#[derive(Debug, Default)]
pub(super) struct NonceCounter(AtomicU64);

impl NonceCounter {
    /// The first of `count` consecutive nonces; `None` where there are not as many.
    #[inline]
    pub(super) fn reserve(&self, count: u32) -> Option<u64> {
        self.0
            .fetch_update(Relaxed, Relaxed, |next| {
                next.checked_add(u64::from(count)).filter(|&end| end <= REJECT_AFTER_MESSAGES)
            })
            .ok()
    }

    /// How many were handed out.
    #[inline]
    pub(super) fn reserved_count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn set(&self, reserved_count: u64) {
        self.0.store(reserved_count, Relaxed);
    }
}

/// When a new handshake was wished last: nanoseconds, 0 for never.
#[derive(Debug, Default)]
pub(super) struct RekeyWish(AtomicU64);

impl RekeyWish {
    /// True at most once a second, for one of all who ask.
    #[inline]
    pub(super) fn wish(&self, now: Time) -> bool {
        let last = self.0.load(Relaxed);
        (last == 0 || now.saturating_since(Time(last)) >= REKEY_WISH_INTERVAL)
            && self.0.compare_exchange(last, now.0.max(1), Relaxed, Relaxed).is_ok()
    }
}

/// Whether the peer is known to hold the key.
#[derive(Debug)]
pub(super) struct Confirmation(AtomicBool);

impl Confirmation {
    pub(super) fn new(is_confirmed: bool) -> Self {
        Self(AtomicBool::new(is_confirmed))
    }

    #[inline]
    pub(super) fn is_confirmed(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// True for the first of all who confirm.
    #[inline]
    pub(super) fn confirm(&self) -> bool {
        !self.is_confirmed() && !self.0.swap(true, AcqRel)
    }

    /// As after [`Confirmation::new`].
    pub(super) fn reset(&self, is_confirmed: bool) {
        self.0.store(is_confirmed, Relaxed);
    }
}
