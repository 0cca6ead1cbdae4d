//! What became of messages that were not let in.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{drop_reason::DropReason, output::HandshakeCounters};

/// Counted by all threads at once.
#[derive(Default)]
pub(crate) struct AdmissionCounters {
    dropped: [AtomicU64; DropReason::COUNT],
    cookies_sent: AtomicU64,
}

impl AdmissionCounters {
    pub(super) fn dropped(&self, reason: DropReason) {
        self.dropped[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn replied(&self) {
        self.cookies_sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_to(&self, counters: &mut HandshakeCounters) {
        for (sum, dropped) in counters.dropped.iter_mut().zip(&self.dropped) {
            *sum += dropped.load(Ordering::Relaxed);
        }
        counters.cookies_sent += self.cookies_sent.load(Ordering::Relaxed);
    }
}
