//! What is refused: any change, any other key, counter or length, and buffers without room for a tag.

use aead::{Aead, Key, Packet, TAG_LEN};

use crate::backends;

/// Two keys, and packets of 33, 100 and 0 bytes of text.
fn sealed(aead: Aead, keys: &[Key; 2]) -> [Vec<u8>; 3] {
    let mut sealed = [33, 100, 0].map(|text_len| vec![5; text_len + TAG_LEN]);
    assert_eq!(aead.seal(&mut batch(keys, &mut sealed)), 3);
    sealed
}

fn batch<'a>(keys: &'a [Key; 2], buffers: &'a mut [Vec<u8>; 3]) -> Vec<Packet<'a>> {
    let buffers = buffers.iter_mut().enumerate();
    buffers.map(|(index, buffer)| Packet { key: &keys[index % 2], counter: 7, buffer }).collect()
}

#[test]
fn a_change_of_any_bit_is_refused_and_neighbours_are_not() {
    let keys = [Key::new(&[1; 32]), Key::new(&[2; 32])];
    for aead in backends() {
        let sealed = sealed(aead, &keys);
        for victim in 0..sealed.len() {
            for bit in 0..8 * sealed[victim].len() {
                let mut buffers = sealed.clone();
                buffers[victim][bit / 8] ^= 1 << (bit % 8);
                let mut authentic = Vec::new();
                aead.open(&mut batch(&keys, &mut buffers), &mut authentic);
                let expected: Vec<bool> = (0..sealed.len()).map(|index| index != victim).collect();
                assert_eq!(authentic, expected, "{} bit {bit} of packet {victim}", aead.name());
            }
        }
    }
}

#[test]
fn wrong_key_counter_or_length_is_refused() {
    let (key, other_key) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
    for aead in backends() {
        let mut sealed = [[5; 40].as_slice(), &[0; TAG_LEN]].concat();
        aead.seal(&mut [Packet { key: &key, counter: 9, buffer: &mut sealed }]);
        let open = |key: &Key, counter: u64, datagram: &[u8]| {
            let (mut datagram, mut authentic) = (datagram.to_vec(), Vec::new());
            aead.open(&mut [Packet { key, counter, buffer: &mut datagram }], &mut authentic);
            authentic
        };
        assert_eq!(open(&key, 9, &sealed), [true]);
        assert_eq!(open(&other_key, 9, &sealed), [false]);
        assert_eq!(open(&key, 9 + (1 << 32), &sealed), [false]);
        for len in 0..sealed.len() {
            assert_eq!(open(&key, 9, &sealed[..len]), [false], "{} truncated to {len}", aead.name());
        }
    }
}

#[test]
fn buffer_without_room_for_the_tag_is_wiped_and_not_counted() {
    let key = Key::new(&[1; 32]);
    for aead in backends() {
        let (mut short, mut good) = ([7; TAG_LEN - 1], [7; TAG_LEN + 1]);
        let sealed_count = aead.seal(&mut [
            Packet { key: &key, counter: 0, buffer: &mut short },
            Packet { key: &key, counter: 1, buffer: &mut good },
            Packet { key: &key, counter: 2, buffer: &mut [] },
        ]);
        assert_eq!(sealed_count, 1);
        assert_eq!(short, [0; TAG_LEN - 1]);
        let mut authentic = Vec::new();
        aead.open(&mut [Packet { key: &key, counter: 1, buffer: &mut good }], &mut authentic);
        assert_eq!(authentic, [true]);
    }
}

#[test]
fn empty_batch_is_nothing() {
    for aead in backends() {
        assert_eq!(aead.seal(&mut []), 0);
        let mut authentic = vec![true];
        aead.open(&mut [], &mut authentic);
        assert!(authentic.is_empty());
    }
}
