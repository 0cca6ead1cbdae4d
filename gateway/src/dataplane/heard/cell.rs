//! A sequence lock of plain words (Boehm, "Can seqlocks get along with programming language memory models?", MSPC
//! 2012).
//!
//! A cell that copies values as a whole would do but for speed: what copies through memory waits for the line, and with
//! it all that comes after, where loads of words overlap with those of other peers.

use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::atomic::{AtomicU64, fence};
use super::{Backoff, Heard, WORD_COUNT};

/// A [`Heard`] that changes, as a whole.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(in crate::dataplane) struct HeardCell {
    /// Odd while a writer is at it.
    sequence: AtomicU64,
    words: [AtomicU64; WORD_COUNT],
}

impl HeardCell {
    /// Brings it into the cache. The result means nothing.
    pub(in crate::dataplane) fn touch(&self) -> u64 {
        self.sequence.load(Relaxed)
    }

    #[inline]
    pub(in crate::dataplane) fn load(&self) -> Heard {
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

    pub(in crate::dataplane) fn store(&self, heard: Heard) {
        self.update(|_| Some(heard));
    }

    /// Puts `new` where `old` is; `false` when it was another by now.
    pub(in crate::dataplane) fn replace(&self, old: Heard, new: Heard) -> bool {
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
