//! Receiver indices: a keyed permutation of (host, slot, generation), so that a look-up is an array access, a
//! stranger can neither guess an index nor tell that two belong together, and gateways that share the key can tell
//! whose packet it is.
//!
//! The permutation is Speck32/64 (Beaulieu et al., 2013), a block cipher of just this width. It hides an order,
//! not a secret: packets are authenticated by their AEAD alone.

use std::fmt;

/// Bits of the slot number: four live indices for each of 2^20 peers.
pub const SLOT_BITS: u32 = 22;
/// Most bits of the host number: what is left must tell apart the users of one slot over time.
pub const HOST_BITS_MAX: u32 = 6;
/// Slots of a device.
pub const SLOT_COUNT_MAX: usize = 1 << SLOT_BITS;

const ROUND_COUNT: usize = 22;

/// Indices that [`IndexPermutation::slots_of`] works on at once: 16 bits each in a vector of 256.
const LANES: usize = 16;

/// What an index stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IndexSlot {
    /// Number of the gateway in its fleet; 0 for one that stands alone.
    pub host: u32,
    /// Place in that gateway's table of indices, below [`SLOT_COUNT_MAX`] and dense.
    pub slot: u32,
    /// How often the slot was used before, modulo 2^[`IndexPermutation::generation_bits`].
    pub generation: u32,
}

/// The permutation of one device, or of a fleet that shares its key. Cheap to copy: workers keep their own.
///
/// From the lowest bit up, what is permuted is the slot, the generation and the host.
#[derive(Clone, Copy)]
pub struct IndexPermutation {
    round_keys: [u16; ROUND_COUNT],
    host_bits: u32,
}

impl IndexPermutation {
    /// Expands a random key, for a gateway that stands alone.
    pub fn new(key: u64) -> Self {
        Self::for_fleet(key, 0)
    }

    /// Expands the random key of a fleet of up to 2^`host_bits` gateways; more than [`HOST_BITS_MAX`] are cut off.
    pub fn for_fleet(key: u64, host_bits: u32) -> Self {
        let mut round_key = key as u16;
        let mut expansion = [(key >> 16) as u16, (key >> 32) as u16, (key >> 48) as u16];
        let mut round_keys = [0; ROUND_COUNT];
        for (round, slot) in round_keys.iter_mut().enumerate() {
            *slot = round_key;
            let word = &mut expansion[round % 3];
            *word = round_key.wrapping_add(word.rotate_right(7)) ^ round as u16;
            round_key = round_key.rotate_left(2) ^ *word;
        }
        Self { round_keys, host_bits: host_bits.min(HOST_BITS_MAX) }
    }

    /// Bits of the generation, which tells apart the users of one slot over time.
    pub const fn generation_bits(&self) -> u32 {
        32 - SLOT_BITS - self.host_bits
    }

    /// The index that goes over the wire. Bits beyond the widths are cut off.
    pub fn index_of(&self, place: IndexSlot) -> u32 {
        let upper = (u64::from(place.host) << self.generation_bits())
            | u64::from(place.generation & self.generation_mask());
        self.permute(((upper as u32) << SLOT_BITS) | (place.slot & (SLOT_COUNT_MAX as u32 - 1)))
    }

    /// What an index from the wire stands for, if it is of this fleet: compare host and generation.
    pub fn slot_of(&self, index: u32) -> IndexSlot {
        let plain = self.unpermute(index);
        let upper = plain >> SLOT_BITS;
        IndexSlot {
            host: upper >> self.generation_bits(),
            slot: plain & (SLOT_COUNT_MAX as u32 - 1),
            generation: upper & self.generation_mask(),
        }
    }

    /// The slots of many indices at once: replaces each of `indices` by [`IndexSlot::slot`]. The steps of one index
    /// depend on each other, those of many fill the lanes of a vector.
    pub fn slots_of(&self, indices: &mut [u32]) {
        if let [index] = indices {
            *index = self.slot_of(*index).slot;
            return;
        }
        for lanes in indices.chunks_mut(LANES) {
            let (mut high, mut low) = ([0u16; LANES], [0u16; LANES]);
            for (lane, index) in lanes.iter().enumerate() {
                (high[lane], low[lane]) = ((index >> 16) as u16, *index as u16);
            }
            for round_key in self.round_keys.iter().rev() {
                low = std::array::from_fn(|lane| (low[lane] ^ high[lane]).rotate_right(2));
                high = std::array::from_fn(|lane| {
                    (high[lane] ^ round_key).wrapping_sub(low[lane]).rotate_left(7)
                });
            }
            for (lane, index) in lanes.iter_mut().enumerate() {
                *index = ((u32::from(high[lane]) << 16) | u32::from(low[lane])) & (SLOT_COUNT_MAX as u32 - 1);
            }
        }
    }

    pub(crate) const fn generation_mask(&self) -> u32 {
        (1 << self.generation_bits()) - 1
    }

    fn permute(&self, block: u32) -> u32 {
        let (mut high, mut low) = ((block >> 16) as u16, block as u16);
        for round_key in self.round_keys {
            high = high.rotate_right(7).wrapping_add(low) ^ round_key;
            low = low.rotate_left(2) ^ high;
        }
        (u32::from(high) << 16) | u32::from(low)
    }

    fn unpermute(&self, block: u32) -> u32 {
        let (mut high, mut low) = ((block >> 16) as u16, block as u16);
        for round_key in self.round_keys.into_iter().rev() {
            low = (low ^ high).rotate_right(2);
            high = (high ^ round_key).wrapping_sub(low).rotate_left(7);
        }
        (u32::from(high) << 16) | u32::from(low)
    }
}

impl fmt::Debug for IndexPermutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IndexPermutation(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The published vector of Speck32/64.
    #[test]
    fn permutation_is_speck() {
        let permutation = IndexPermutation::new(0x1918_1110_0908_0100);
        assert_eq!(permutation.permute(0x6574_694c), 0xa868_42f2);
        assert_eq!(permutation.unpermute(0xa868_42f2), 0x6574_694c);
    }

    #[test]
    fn neighbouring_slots_have_unrelated_indices() {
        let permutation = IndexPermutation::new(0x0123_4567_89ab_cdef);
        let index = |slot| permutation.index_of(IndexSlot { host: 0, slot, generation: 0 });
        let flipped: u32 = (0..1000).map(|slot| (index(slot) ^ index(slot + 1)).count_ones()).sum();
        assert!((15_000..17_000).contains(&flipped), "{flipped} of 32000 bits differ");
    }

    #[test]
    fn gateway_that_stands_alone_is_host_0() {
        let permutation = IndexPermutation::new(7);
        assert_eq!(permutation.generation_bits(), 10);
        assert!((0..1000).all(|index| permutation.slot_of(index).host == 0));
    }

    #[test]
    fn gateways_of_a_fleet_tell_whose_index_it_is() {
        let permutation = IndexPermutation::for_fleet(7, 3);
        for host in 0..8 {
            let index = permutation.index_of(IndexSlot { host, slot: 5, generation: 127 });
            assert_eq!(permutation.slot_of(index), IndexSlot { host, slot: 5, generation: 127 });
        }
    }

    proptest! {
        #[test]
        fn index_leads_back_to_its_slot(key: u64, host_bits in 0..=HOST_BITS_MAX, host: u32, slot in 0..SLOT_COUNT_MAX as u32, generation: u32) {
            let permutation = IndexPermutation::for_fleet(key, host_bits);
            let place = IndexSlot {
                host: host & ((1 << host_bits) - 1),
                slot,
                generation: generation & permutation.generation_mask(),
            };
            prop_assert_eq!(permutation.slot_of(permutation.index_of(place)), place);
        }

        #[test]
        fn many_indices_lead_to_the_same_slots_as_each(key: u64, indices in proptest::collection::vec(any::<u32>(), 0..80)) {
            let permutation = IndexPermutation::new(key);
            let mut slots = indices.clone();
            permutation.slots_of(&mut slots);
            let expected: Vec<u32> = indices.iter().map(|index| permutation.slot_of(*index).slot).collect();
            prop_assert_eq!(slots, expected);
        }

        #[test]
        fn any_index_is_some_slots(key: u64, host_bits in 0..=HOST_BITS_MAX, index: u32) {
            let permutation = IndexPermutation::for_fleet(key, host_bits);
            prop_assert_eq!(permutation.index_of(permutation.slot_of(index)), index);
        }
    }
}
