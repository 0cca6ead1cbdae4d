//! Batches of random packets, each made from a number, so that one that fails can be run again alone.

use std::sync::LazyLock;

use proptest::{
    prelude::Rng,
    test_runner::{RngAlgorithm, TestRng},
};

use crate::{
    check::{Batch, Plain, Tampering},
    guarded::Placement,
    oracle,
};

/// Packets in a batch at most.
pub const BATCH_MAX: usize = 128;
/// Longest text in bytes.
pub const TEXT_MAX: usize = 2048;

/// Texts are pieces of this: making random bytes would take longer than sealing them.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut noise = vec![0; 1 << 16];
    TestRng::from_seed(RngAlgorithm::ChaCha, &[1; 32]).fill_bytes(&mut noise);
    noise
});

/// The decisions that make up one batch.
struct Decisions(TestRng);

impl Decisions {
    fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn key(&mut self) -> [u8; 32] {
        let mut key = [0; 32];
        self.0.fill_bytes(&mut key);
        match self.below(32) {
            0 => [0; 32],
            1 => [0xff; 32],
            _ => key,
        }
    }

    fn counter(&mut self) -> u64 {
        let around = self.pick(&[0, 1 << 32, 1 << 63, u64::MAX]);
        match self.below(3) {
            0 => self.0.next_u64(),
            1 => around,
            _ => around.wrapping_add(self.below(64) as u64).wrapping_sub(32),
        }
    }

    fn placement(&mut self) -> Placement {
        // At the guard page itself, or at any alignment.
        let offset = if self.one_in(2) { 0 } else { self.below(64) };
        if self.one_in(2) { Placement::FromStart(offset) } else { Placement::FromEnd(offset) }
    }

    fn tampering(&mut self) -> Tampering {
        match self.below(8) {
            0 | 1 => Tampering::Bit(self.below(8 * TEXT_MAX)),
            2 => Tampering::TagBit(self.below(128)),
            3 => Tampering::SwappedTags,
            4 => Tampering::Truncated(1 + self.below(80)),
            5 => Tampering::Extended(1 + self.below(80)),
            6 => Tampering::Counter(1 << self.below(64)),
            _ => Tampering::Key(1 + self.below(4)),
        }
    }

    /// The lengths of all texts of a batch: what is alike goes through other code than what is not.
    fn text_lens(&mut self, count: usize) -> Vec<usize> {
        let (kind, first, second) = (self.below(6), self.below(TEXT_MAX + 1), self.below(TEXT_MAX + 1));
        (0..count)
            .map(|_| match kind {
                0 => first,
                1 => self.pick(&[first, second]),
                2 => (first + self.below(140)).min(TEXT_MAX),
                3 => self.below(273),
                _ => self.below(TEXT_MAX + 1),
            })
            .collect()
    }

    fn text(&mut self, len: usize, key: &[u8; 32], counter: u64) -> Vec<u8> {
        match self.below(16) {
            // Carries go all the way through Poly1305 where the ciphertext is all ones.
            0 => oracle::text_of(key, counter, &vec![0xff; len]),
            1 => oracle::text_of(key, counter, &vec![0; len]),
            2 => vec![self.pick(&[0, 0xff]); len],
            _ => {
                let start = self.below(NOISE.len() - len);
                NOISE[start..start + len].to_vec()
            }
        }
    }
}

/// The batch of that number: always the same.
pub fn batch(number: u64) -> Batch {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let mut decisions = Decisions(TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let count = 1 + decisions.below(BATCH_MAX);
    let key_count = decisions.pick(&[1, 4, count]);
    let keys: Vec<[u8; 32]> = (0..=key_count).map(|_| decisions.key()).collect();
    // From all authentic to all forged.
    let forged_in_ten = decisions.pick(&[0, 1, 3, 10]);
    let text_lens = decisions.text_lens(count);
    let packets = text_lens.into_iter().enumerate().map(|(index, text_len)| {
        let (key_index, counter) = (index % key_count, decisions.counter());
        let text = decisions.text(text_len, &keys[key_index], counter);
        let tampering = (decisions.below(10) < forged_in_ten).then(|| decisions.tampering());
        Plain { key_index, counter, text, placement: decisions.placement(), tampering }
    });
    let packets = packets.collect();
    Batch { keys, packets }
}
