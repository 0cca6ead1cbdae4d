//! Which packets of a batch are authentic.

use crate::BATCH_LEN_MAX;

/// A set of positions in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a packet must not be used before it is known to be authentic"]
pub struct Authentic(u128);

const _: () = assert!(BATCH_LEN_MAX <= u128::BITS as usize);

impl Authentic {
    pub(crate) fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    /// Whether the packet at `index` of the batch is authentic.
    pub fn contains(&self, index: usize) -> bool {
        index < BATCH_LEN_MAX && self.0 >> index & 1 == 1
    }

    /// Number of authentic packets.
    pub fn count(&self) -> usize {
        self.0.count_ones() as usize
    }
}
