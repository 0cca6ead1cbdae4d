//! Every backend against the others and against tampering, over all lengths a datagram can have.

use aead::{Aead, Authentic, BATCH_LEN_MAX, BackendError, Key, Packet, TAG_LEN};
use proptest::prelude::*;

fn backends() -> impl Iterator<Item = Aead> {
    Aead::names().map(|name| Aead::by_name(name).unwrap())
}

/// One packet as drawn: key, counter, plaintext and how far its buffer is shifted from alignment.
#[derive(Clone, Debug)]
struct Drawn {
    key: [u8; 32],
    counter: u64,
    plaintext: Vec<u8>,
    shift: usize,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (any::<[u8; 32]>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..=2048), 0usize..16)
        .prop_map(|(key, counter, plaintext, shift)| Drawn { key, counter, plaintext, shift })
}

fn with_batch<T>(drawn: &[Drawn], buffers: &mut [Vec<u8>], run: impl FnOnce(&mut [Packet<'_>]) -> T) -> T {
    let keys: Vec<Key> = drawn.iter().map(|packet| Key::new(&packet.key)).collect();
    let mut batch: Vec<Packet<'_>> = drawn
        .iter()
        .zip(buffers)
        .zip(&keys)
        .map(|((packet, buffer), key)| Packet { key, counter: packet.counter, buffer: &mut buffer[packet.shift..] })
        .collect();
    run(&mut batch)
}

fn buffers(drawn: &[Drawn]) -> Vec<Vec<u8>> {
    drawn
        .iter()
        .map(|packet| {
            let mut buffer = vec![0; packet.shift];
            buffer.extend(&packet.plaintext);
            buffer.resize(buffer.len() + TAG_LEN, 0);
            buffer
        })
        .collect()
}

fn sealed(aead: Aead, drawn: &[Drawn]) -> Vec<Vec<u8>> {
    let mut buffers = buffers(drawn);
    with_batch(drawn, &mut buffers, |batch| aead.seal(batch));
    buffers
}

fn open(aead: Aead, drawn: &[Drawn], buffers: &mut [Vec<u8>]) -> Authentic {
    with_batch(drawn, buffers, |batch| aead.open(batch))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn backends_seal_alike_and_open_each_other_s(drawn in prop::collection::vec(drawn(), 1..=BATCH_LEN_MAX)) {
        let reference = sealed(Aead::by_name("portable").unwrap(), &drawn);
        for aead in backends() {
            prop_assert_eq!(&sealed(aead, &drawn), &reference, "{}", aead.name());
            let mut buffers = reference.clone();
            let authentic = open(aead, &drawn, &mut buffers);
            prop_assert_eq!(authentic.count(), drawn.len());
            for (packet, buffer) in drawn.iter().zip(&buffers) {
                prop_assert_eq!(&buffer[packet.shift..buffer.len() - TAG_LEN], &packet.plaintext);
            }
        }
    }

    #[test]
    fn only_the_tampered_packet_is_refused(
        drawn in prop::collection::vec(drawn(), 1..=16),
        victim: prop::sample::Index,
        byte: prop::sample::Index,
        flip in 1u8..,
    ) {
        for aead in backends() {
            let mut buffers = sealed(aead, &drawn);
            let victim = victim.index(drawn.len());
            let shift = drawn[victim].shift;
            let at = shift + byte.index(buffers[victim].len() - shift);
            buffers[victim][at] ^= flip;
            let authentic = open(aead, &drawn, &mut buffers);
            for (index, packet) in drawn.iter().enumerate() {
                prop_assert_eq!(authentic.contains(index), index != victim, "{}", aead.name());
                let opened = &buffers[index][packet.shift..buffers[index].len() - TAG_LEN];
                if index != victim {
                    prop_assert_eq!(opened, &packet.plaintext);
                } else if packet.plaintext.len() >= 16 {
                    prop_assert_ne!(opened, &packet.plaintext);
                }
            }
        }
    }

    #[test]
    fn another_counter_or_key_refuses(packet in drawn(), other_key: [u8; 32]) {
        for aead in backends() {
            let sealed = sealed(aead, std::slice::from_ref(&packet));
            let wrong_counter = Drawn { counter: packet.counter ^ 1, ..packet.clone() };
            let wrong_key = Drawn { key: other_key, ..packet.clone() };
            for wrong in [wrong_counter, wrong_key] {
                let refused = open(aead, &[wrong], &mut sealed.clone());
                prop_assert!(!refused.contains(0), "{}", aead.name());
            }
        }
    }
}

#[test]
fn buffers_shorter_than_a_tag_are_not_authentic() {
    let key = Key::new(&[7; 32]);
    for aead in backends() {
        for len in 0..TAG_LEN {
            let mut buffer = vec![0; len];
            let authentic = aead.open(&mut [Packet { key: &key, counter: 0, buffer: &mut buffer }]);
            assert_eq!(authentic.count(), 0, "{} at {len} bytes", aead.name());
        }
    }
}

#[test]
fn unknown_names_are_refused_and_known_ones_kept() {
    assert_eq!(Aead::by_name("rot13"), Err(BackendError::Unknown));
    for name in Aead::names() {
        assert_eq!(Aead::by_name(name).unwrap().name(), name);
    }
    assert_eq!(Aead::detect().unwrap().name(), Aead::names().next().unwrap());
}

#[test]
fn keys_are_not_shown() {
    assert_eq!(format!("{:?}", Key::new(&[0xab; 32])), "Key(..)");
}
