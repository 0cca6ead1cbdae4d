//! The replay window of RFC 6479: a ring of words in which one word is always spare.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    constants::{REJECT_AFTER_MESSAGES, REPLAY_WINDOW, REPLAY_WINDOW_BITS},
    drop_reason::DropReason,
};

const WORD_BITS: u64 = u64::BITS as u64;
const WORD_COUNT: u64 = REPLAY_WINDOW_BITS / WORD_BITS;

/// Why a counter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The counter was accepted before.
    #[error("counter was seen before")]
    Seen,
    /// The counter is more than 8128 behind the greatest one.
    #[error("counter is behind the window")]
    TooOld,
    /// The counter is not below `REJECT_AFTER_MESSAGES`.
    #[error("counter is beyond the limit")]
    Limit,
}

impl From<ReplayError> for DropReason {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Seen => Self::CounterReplayed,
            ReplayError::TooOld => Self::CounterTooOld,
            ReplayError::Limit => Self::CounterLimit,
        }
    }
}

/// Which of the last 8192 counters were seen. Shared: the window is locked once for a run of counters.
///
/// The words are atomics only so that [`Self::touch`] can read one without the lock; what they mean is up to whoever
/// holds it. The lock comes first: what is put right before the window shares its cache line.
#[derive(Debug)]
#[repr(C)]
pub struct ReplayWindow {
    /// One more than the greatest counter accepted, 0 before the first.
    next: Mutex<u64>,
    seen: [AtomicU64; WORD_COUNT as usize],
}

/// The window, locked.
#[derive(Debug)]
pub struct ReplayGuard<'a> {
    next: MutexGuard<'a, u64>,
    seen: &'a [AtomicU64; WORD_COUNT as usize],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

fn word_index(counter: u64) -> usize {
    ((counter / WORD_BITS) % WORD_COUNT) as usize
}

impl ReplayWindow {
    /// A window that has seen nothing.
    pub const fn new() -> Self {
        Self { next: Mutex::new(0), seen: [const { AtomicU64::new(0) }; WORD_COUNT as usize] }
    }

    /// Locks the window. Only counters of authenticated packets may be shown to it.
    pub fn lock(&self) -> ReplayGuard<'_> {
        // `accept` does not panic, and a poisoned lock would still hold a valid window.
        ReplayGuard { next: self.next.lock().unwrap_or_else(PoisonError::into_inner), seen: &self.seen }
    }

    /// Brings into the cache what [`ReplayGuard::accept`] will ask about `counter`. The result means nothing.
    pub fn touch(&self, counter: u64) -> u64 {
        self.seen[0].load(Relaxed) ^ self.seen[word_index(counter)].load(Relaxed)
    }
}

impl ReplayGuard<'_> {
    /// Takes note of `counter` if it is new and not too old.
    ///
    /// # Errors
    /// The packet must be dropped; the window is unchanged.
    pub fn accept(&mut self, counter: u64) -> Result<(), ReplayError> {
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(ReplayError::Limit);
        }
        // Below the limit, `counter + 1 + REPLAY_WINDOW` cannot overflow.
        if counter + 1 + REPLAY_WINDOW < *self.next {
            return Err(ReplayError::TooOld);
        }
        let bit = 1 << (counter % WORD_BITS);
        let word = &self.seen[word_index(counter)];
        if counter >= *self.next {
            self.advance_to(counter);
        } else if word.load(Relaxed) & bit != 0 {
            return Err(ReplayError::Seen);
        }
        // The lock is held: a plain addition, not a locked instruction.
        word.store(word.load(Relaxed) | bit, Relaxed);
        Ok(())
    }

    /// Clears the words that the window enters and makes `counter` the greatest.
    fn advance_to(&mut self, counter: u64) {
        // Before the first packet all words are clear, so any starting word serves.
        let current_word = self.next.saturating_sub(1) / WORD_BITS;
        let target_word = counter / WORD_BITS;
        for step in 1..=(target_word - current_word).min(WORD_COUNT) {
            self.seen[((current_word + step) % WORD_COUNT) as usize].store(0, Relaxed);
        }
        *self.next = counter + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = REPLAY_WINDOW + 1;

    fn accepts(window: &ReplayWindow, counter: u64) -> bool {
        window.lock().accept(counter).is_ok()
    }

    /// The sequence of the kernel's `selftest/counter.c`, as (counter, accepted).
    #[test]
    fn window_follows_the_kernels_selftest() {
        let sequence = [
            (0, true),
            (1, true),
            (1, false),
            (9, true),
            (8, true),
            (7, true),
            (7, false),
            (LIMIT, true),
            (LIMIT - 1, true),
            (LIMIT - 1, false),
            (LIMIT - 2, true),
            (2, true),
            (2, false),
            (LIMIT + 16, true),
            (3, false),
            (LIMIT + 16, false),
            (LIMIT * 4, true),
            (LIMIT * 4 - (LIMIT - 1), true),
            (10, false),
            (LIMIT * 4 - LIMIT, false),
            (LIMIT * 4 - (LIMIT + 1), false),
            (LIMIT * 4 - (LIMIT - 2), true),
            (LIMIT * 4 + 1 - LIMIT, false),
            (0, false),
            (REJECT_AFTER_MESSAGES, false),
            (REJECT_AFTER_MESSAGES - 1, true),
            (REJECT_AFTER_MESSAGES, false),
            (REJECT_AFTER_MESSAGES - 1, false),
            (REJECT_AFTER_MESSAGES - 2, true),
            (REJECT_AFTER_MESSAGES + 1, false),
            (REJECT_AFTER_MESSAGES + 2, false),
            (REJECT_AFTER_MESSAGES - 2, false),
            (REJECT_AFTER_MESSAGES - 3, true),
            (0, false),
        ];
        let window = ReplayWindow::new();
        for (step, (counter, accepted)) in sequence.into_iter().enumerate() {
            assert_eq!(accepts(&window, counter), accepted, "step {step}, counter {counter}");
        }
    }

    #[test]
    fn full_window_is_accepted_in_any_order_once() {
        /// Counters that are all accepted, and then one more with its verdict.
        type Round = (Vec<u64>, Option<(u64, bool)>);
        let orders: [Round; 6] = [
            ((1..=REPLAY_WINDOW).collect(), Some((0, true))),
            ((2..=REPLAY_WINDOW + 1).collect(), Some((1, true))),
            ((0..=REPLAY_WINDOW).rev().collect(), None),
            ((1..=REPLAY_WINDOW + 1).rev().collect(), Some((0, false))),
            ((1..=REPLAY_WINDOW).rev().collect(), Some((REPLAY_WINDOW + 1, true))),
            ((1..=REPLAY_WINDOW).rev().collect(), Some((0, true))),
        ];
        for (round, (counters, last)) in orders.into_iter().enumerate() {
            let window = ReplayWindow::new();
            for counter in &counters {
                assert!(accepts(&window, *counter), "round {round}, counter {counter}");
            }
            if let Some((counter, accepted)) = last {
                assert_eq!(accepts(&window, counter), accepted, "round {round}, then {counter}");
            }
            for counter in &counters {
                assert!(!accepts(&window, *counter), "round {round}, counter {counter} again");
            }
        }
    }

    #[test]
    fn refused_counter_leaves_the_window_alone() {
        let window = ReplayWindow::new();
        assert_eq!(window.lock().accept(20_000), Ok(()));
        assert_eq!(window.lock().accept(20_000 - 8129), Err(ReplayError::TooOld));
        assert_eq!(window.lock().accept(u64::MAX), Err(ReplayError::Limit));
        assert_eq!(window.lock().accept(20_000), Err(ReplayError::Seen));
        assert_eq!(window.lock().accept(20_000 - 8128), Ok(()));
    }

    /// Strides around the sizes of a word, the window and the bitmap.
    fn strides() -> impl Strategy<Value = Vec<i64>> {
        let stride = prop_oneof![
            -3i64..80,
            -8200i64..8200,
            Just(64),
            Just(8128),
            Just(-8128),
            Just(8192),
            Just(-8129),
            0i64..100_000
        ];
        proptest::collection::vec(stride, 1..400)
    }

    proptest! {
        #[test]
        fn window_agrees_with_the_set_of_all_counters(strides in strides(), start in 0u64..20_000) {
            let window = ReplayWindow::new();
            let mut seen = HashSet::new();
            let (mut counter, mut greatest) = (start, 0);
            for stride in strides {
                counter = counter.saturating_add_signed(stride);
                let expected =
                    !seen.contains(&counter) && greatest <= counter.saturating_add(REPLAY_WINDOW);
                prop_assert_eq!(accepts(&window, counter), expected, "counter {}", counter);
                if expected {
                    seen.insert(counter);
                    greatest = greatest.max(counter);
                }
            }
        }
    }
}
