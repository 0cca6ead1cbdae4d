//! The receiver indices in use, and what each stands for.

use std::collections::VecDeque;

use crate::index::{IndexPermutation, IndexSlot, SLOT_COUNT_MAX};

/// Free slots kept unused, so that an index returns only after 2^10 times this many handshakes.
const FREE_SLOTS_MIN: usize = 64;

/// A device stands alone until several gateways share a fleet.
const HOST: u32 = 0;

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// Slots with generations behind the keyed permutation of [`IndexPermutation`].
pub(crate) struct IndexTable<T> {
    permutation: IndexPermutation,
    entries: Vec<Entry<T>>,
    /// Free slots, longest unused first.
    free: VecDeque<u32>,
}

impl<T> IndexTable<T> {
    pub(crate) fn new(key: u64) -> Self {
        Self { permutation: IndexPermutation::new(key), entries: Vec::new(), free: VecDeque::new() }
    }

    pub(crate) fn permutation(&self) -> IndexPermutation {
        self.permutation
    }

    /// Stores `value` under a new index; `None` when all slots are taken.
    pub(crate) fn insert(&mut self, value: T) -> Option<u32> {
        let grow = self.free.len() < FREE_SLOTS_MIN && self.entries.len() < SLOT_COUNT_MAX;
        let slot = if grow {
            self.entries.push(Entry { generation: 0, value: None });
            self.entries.len() as u32 - 1
        } else {
            self.free.pop_front()?
        };
        let entry = &mut self.entries[slot as usize];
        entry.value = Some(value);
        Some(self.permutation.index_of(IndexSlot { host: HOST, slot, generation: entry.generation }))
    }

    pub(crate) fn lookup(&self, index: u32) -> Option<&T> {
        let IndexSlot { host, slot, generation } = self.permutation.slot_of(index);
        let is_ours = |entry: &&Entry<T>| host == HOST && entry.generation == generation;
        self.entries.get(slot as usize).filter(is_ours)?.value.as_ref()
    }

    /// Replaces what a used index stands for; the index keeps its number.
    pub(crate) fn replace(&mut self, index: u32, value: T) {
        if self.lookup(index).is_some() {
            let slot = self.permutation.slot_of(index).slot;
            self.entries[slot as usize].value = Some(value);
        }
    }

    /// Frees an index. A free one is left alone.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        self.lookup(index)?;
        let slot = self.permutation.slot_of(index).slot;
        let entry = &mut self.entries[slot as usize];
        entry.generation = (entry.generation + 1) & self.permutation.generation_mask();
        self.free.push_back(slot);
        entry.value.take()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{IndexTable, SLOT_COUNT_MAX};

    #[test]
    fn freed_index_is_unknown_and_does_not_return_soon() {
        let mut table = IndexTable::new(1);
        let mut seen = HashSet::new();
        for round in 0..10_000 {
            let index = table.insert(round).expect("there is room");
            assert!(seen.insert(index), "index {index:#x} came back in round {round}");
            assert_eq!(table.lookup(index), Some(&round));
            assert_eq!(table.remove(index), Some(round));
            assert_eq!(table.lookup(index), None);
            assert_eq!(table.remove(index), None);
        }
        assert!(table.entries.len() <= 65, "slots are reused");
    }

    #[test]
    fn full_table_gives_no_index_until_one_is_freed() {
        let mut table = IndexTable::new(1);
        let first = table.insert(0).expect("there is room");
        for number in 1..SLOT_COUNT_MAX as u32 {
            assert!(table.insert(number).is_some(), "{number} of {SLOT_COUNT_MAX}");
        }
        assert_eq!(table.insert(0), None);
        assert_eq!(table.lookup(first), Some(&0), "what is there is not disturbed");
        assert_eq!(table.remove(first), Some(0));
        let again = table.insert(7).expect("one is free");
        assert_ne!(again, first, "the slot has another generation");
        assert_eq!(table.lookup(again), Some(&7));
        assert_eq!(table.insert(0), None);
    }

    #[test]
    fn replaced_value_keeps_its_index() {
        let mut table = IndexTable::new(1);
        let index = table.insert('a').expect("there is room");
        table.replace(index, 'b');
        assert_eq!(table.lookup(index), Some(&'b'));
        table.remove(index);
        table.replace(index, 'c');
        assert_eq!(table.lookup(index), None);
    }
}
