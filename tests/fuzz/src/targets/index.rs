//! Receiver indices as a permutation: no two places share an index, and each index leads back.

use std::collections::BTreeMap;

use wireguard::{HOST_BITS_MAX, IndexPermutation, IndexSlot, SLOT_BITS, SLOT_COUNT_MAX};

use crate::input::Input;

/// Maps places to indices and any indices to places, for one key.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let host_bits = input.below(HOST_BITS_MAX as usize + 4) as u32;
    let permutation = IndexPermutation::for_fleet(input.value(), host_bits);
    let host_bits = host_bits.min(HOST_BITS_MAX);
    let generation_bits = 32 - SLOT_BITS - host_bits;
    assert_eq!(permutation.generation_bits(), generation_bits);
    let mut places = BTreeMap::new();
    while input.has_step() {
        let index = if input.value() {
            input.value()
        } else {
            // Neighbours of each other, which a bad permutation would confuse first.
            let place = IndexSlot {
                host: input.value::<u8>().into(),
                slot: input.value::<u8>().into(),
                generation: input.value::<u8>().into(),
            };
            let within = IndexSlot {
                host: place.host % (1 << host_bits),
                slot: place.slot,
                generation: place.generation % (1 << generation_bits),
            };
            let index = permutation.index_of(place);
            assert_eq!(permutation.slot_of(index), within, "{place:?}");
            index
        };
        let place = permutation.slot_of(index);
        assert_eq!(permutation.index_of(place), index);
        assert!((place.slot as usize) < SLOT_COUNT_MAX && place.host < 1 << host_bits);
        let key = (place.host, place.slot, place.generation);
        assert_eq!(*places.entry(key).or_insert(index), index, "two indices of {place:?}");
    }
}
