//! Backends against each other: for any batch they give the same bytes, and refuse exactly what was damaged.

use aead::{Aead, Key, Packet, TAG_LEN};
use proptest::prelude::*;

/// Everything about a batch that the outcome may depend on.
#[derive(Debug, Clone)]
struct Item {
    key_index: usize,
    counter: u64,
    text: Vec<u8>,
    /// Bytes in front of the packet in its allocation, so that packets start at any alignment.
    offset: usize,
    /// Which byte of the sealed packet (modulo its length) to change, and how.
    tampering: Option<(usize, u8)>,
}

fn item() -> impl Strategy<Value = Item> {
    // Short packets are where block boundaries are; long ones cost most of the time.
    let text_len = prop_oneof![3 => 0..=272_usize, 1 => 0..=2048_usize];
    let text = text_len.prop_flat_map(|text_len| prop::collection::vec(any::<u8>(), text_len));
    let tampering = prop::option::weighted(0.3, (any::<usize>(), 1..=255_u8));
    (0..8_usize, any::<u64>(), text, 0..64_usize, tampering).prop_map(
        |(key_index, counter, text, offset, tampering)| Item { key_index, counter, text, offset, tampering },
    )
}

fn backends() -> Vec<Aead> {
    Aead::names().map(|name| Aead::by_name(name).expect("listed backends pass their self-test")).collect()
}

/// The batch's packets over `memory`, one allocation each, starting at the items' offsets.
fn batch<'a>(keys: &'a [Key], items: &[Item], memory: &'a mut [Vec<u8>]) -> Vec<Packet<'a>> {
    items
        .iter()
        .zip(memory)
        .map(|(item, memory)| Packet {
            key: &keys[item.key_index],
            counter: item.counter,
            buffer: &mut memory[item.offset..],
        })
        .collect()
}

fn unsealed(items: &[Item]) -> Vec<Vec<u8>> {
    // The room for the tag holds garbage: it must not matter.
    items
        .iter()
        .map(|item| [&vec![0xee; item.offset], item.text.as_slice(), &[0xdd; TAG_LEN]].concat())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn backends_agree_and_only_damaged_packets_are_refused(
        key_bytes in prop::array::uniform8(any::<[u8; 32]>()),
        items in prop::collection::vec(item(), 1..=128),
    ) {
        let keys = key_bytes.each_ref().map(Key::new);
        let sealed: Vec<Vec<Vec<u8>>> = backends().iter().map(|aead| {
            let mut memory = unsealed(&items);
            assert_eq!(aead.seal(&mut batch(&keys, &items, &mut memory)), items.len());
            memory
        }).collect();
        for other in &sealed[1..] {
            prop_assert_eq!(other, &sealed[0]);
        }
        for (item, memory) in items.iter().zip(&sealed[0]) {
            prop_assert!(memory[..item.offset].iter().all(|&byte| byte == 0xee), "wrote before the packet");
        }

        let mut damaged = sealed[0].clone();
        for (item, memory) in items.iter().zip(&mut damaged) {
            if let Some((at, change)) = item.tampering {
                let packet = &mut memory[item.offset..];
                let at = at % packet.len();
                packet[at] ^= change;
            }
        }
        for aead in backends() {
            let mut memory = damaged.clone();
            let mut authentic = vec![true; 3];
            aead.open(&mut batch(&keys, &items, &mut memory), &mut authentic);
            prop_assert_eq!(authentic.len(), items.len());
            for ((item, memory), authentic) in items.iter().zip(&memory).zip(authentic) {
                let packet = &memory[item.offset..];
                prop_assert_eq!(authentic, item.tampering.is_none(), "{}", aead.name());
                if authentic {
                    prop_assert_eq!(&packet[..item.text.len()], item.text.as_slice());
                } else {
                    prop_assert!(packet.iter().all(|&byte| byte == 0), "{} released bytes", aead.name());
                }
            }
        }
    }
}

#[test]
fn backends_agree_on_every_length_up_to_a_large_frame() {
    let keys: Vec<Key> = (0..16).map(|index| Key::new(&[index; 32])).collect();
    let items: Vec<Item> = (0..=2048)
        .map(|text_len| Item {
            key_index: text_len % keys.len(),
            counter: text_len as u64,
            text: (0..text_len).map(|at| (at * 31) as u8).collect(),
            offset: text_len % 7,
            tampering: None,
        })
        .collect();
    for chunk in items.chunks(128) {
        let sealed: Vec<Vec<Vec<u8>>> = backends()
            .iter()
            .map(|aead| {
                let mut memory = unsealed(chunk);
                aead.seal(&mut batch(&keys, chunk, &mut memory));
                memory
            })
            .collect();
        assert!(sealed.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn a_change_of_any_byte_is_refused_and_neighbours_are_not() {
    let keys = [Key::new(&[1; 32]), Key::new(&[2; 32])];
    let items: Vec<Item> = [33, 100, 0]
        .into_iter()
        .enumerate()
        .map(|(index, text_len)| Item {
            key_index: index % 2,
            counter: 7,
            text: vec![index as u8; text_len],
            offset: 1,
            tampering: None,
        })
        .collect();
    for aead in backends() {
        let mut sealed = unsealed(&items);
        aead.seal(&mut batch(&keys, &items, &mut sealed));
        for victim in 0..items.len() {
            for at in items[victim].offset..sealed[victim].len() {
                let mut memory = sealed.clone();
                memory[victim][at] ^= 1;
                let mut authentic = Vec::new();
                aead.open(&mut batch(&keys, &items, &mut memory), &mut authentic);
                let expected: Vec<bool> = (0..items.len()).map(|index| index != victim).collect();
                assert_eq!(authentic, expected, "{} byte {at} of packet {victim}", aead.name());
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
