//! The parts against independent implementations and by their definitions, at the edges of each. Whole packets are in
//! `aead/tests`.

use std::{arch::x86_64::*, array};

use poly1305::{Poly1305, universal_hash::KeyInit};

use super::{
    LANES,
    burst::Burst,
    chacha::Cipher,
    mac,
    memory::{self, Lanes},
    poly1305::OneTimeKey,
    scattered::{Places, Scattered},
    transpose,
};
use crate::{Key, Packet, TAG_LEN, backend::portable};

/// Lengths on both sides of every multiple that matters.
const LENS: [usize; 30] = [
    0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 79, 80, 81, 112, 127, 128, 129, 191, 192, 193, 255,
    256, 257, 1023, 1024, 1025,
];

#[test]
fn words_are_transposed() {
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn body() {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, vector) in rows.iter_mut().enumerate() {
            *vector = memory::load_u32(&array::from_fn(|column| (100 * row + column) as u32));
        }
        for (column, vector) in transpose::words::<100>(&rows).iter().enumerate() {
            assert_eq!(memory::store_u32(*vector), array::from_fn(|row| (100 * row + column) as u32));
        }
    }
    memory::run_on_avx512("words_are_transposed", body);
}

#[test]
fn double_words_are_transposed() {
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn body() {
        let mut rows = [_mm512_setzero_si512(); LANES / 2];
        for (row, vector) in rows.iter_mut().enumerate() {
            *vector = memory::load_u64(&array::from_fn(|column| (100 * row + column) as u64));
        }
        for (column, vector) in transpose::double_words::<100>(&rows).iter().enumerate() {
            assert_eq!(memory::store_u64(*vector), array::from_fn(|row| (100 * row + column) as u64));
        }
    }
    memory::run_on_avx512("double_words_are_transposed", body);
}

#[test]
fn key_stream_of_any_lanes_and_rows_is_theirs() {
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn body() {
        let keys: [Key; LANES] = array::from_fn(|lane| Key::new(&[lane as u8 + 1; 32]));
        let counter = |lane: usize| u64::MAX / 3 * (lane as u64 % 4);
        let row = |lane: usize, row: usize| {
            let mut stream = [0; 8 * 64];
            portable::seal(&keys[lane], super::super::nonce(counter(lane)), &mut stream);
            let row: [u8; 64] = stream[64 * row..][..64].try_into().expect("64 bytes");
            row
        };
        let cipher = Cipher::new::<101>(keys.iter().enumerate().map(|(lane, key)| (key, counter(lane))));
        let places = [
            Places { lanes: array::from_fn(|at| at as u32), rows: [3; LANES] },
            Places {
                lanes: array::from_fn(|at| (at * 7 % 16) as u32),
                rows: array::from_fn(|at| (at % 8) as u32),
            },
        ];
        let key_stream = cipher.scattered_blocks::<2, 101>(&places);
        for (places, key_stream) in places.iter().zip(&key_stream) {
            for (at, vector) in transpose::words::<101>(key_stream).iter().enumerate() {
                let expected = row(places.lanes[at] as usize, places.rows[at] as usize);
                let (words, _) = expected.as_chunks::<4>();
                assert_eq!(
                    memory::store_u32(*vector),
                    array::from_fn(|word| u32::from_le_bytes(words[word]))
                );
            }
        }
    }
    memory::run_on_avx512("key_stream_of_any_lanes_and_rows_is_theirs", body);
}

/// Poly1305 over a ciphertext as RFC 8439, section 2.8 has it, without associated data.
fn expected_tag(one_time_key: &[u8; 32], text: &[u8]) -> u128 {
    let mut message = text.to_vec();
    message.resize(text.len().next_multiple_of(16) + 8, 0);
    message.extend_from_slice(&(text.len() as u64).to_le_bytes());
    let tag = Poly1305::new(one_time_key.into()).compute_unpadded(&message);
    u128::from_le_bytes(tag.into())
}

/// Asserts that groups of all these messages, each with its one-time key, get the tags they should.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn assert_tags(messages: &[([u8; 32], Vec<u8>)]) {
    for count in [LANES, LANES / 2, 3] {
        for messages in messages.chunks(count) {
            assert_tags_of_group(messages);
        }
    }
}

#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn assert_tags_of_group(messages: &[([u8; 32], Vec<u8>)]) {
    let mut block = [_mm512_setzero_si512(); 16];
    for (index, word) in block.iter_mut().enumerate().take(8) {
        let mut lanes = [0; LANES];
        for (lane, (key, _)) in lanes.iter_mut().zip(messages) {
            *lane = u32::from_le_bytes(key[4 * index..][..4].try_into().expect("four bytes"));
        }
        *word = memory::load_u32(&lanes);
    }
    let keys = [OneTimeKey::new::<0>(&block), OneTimeKey::new::<1>(&block)];
    let mut buffers: Vec<Vec<u8>> =
        messages.iter().map(|(_, text)| [text.as_slice(), &[0xee; TAG_LEN]].concat()).collect();
    let lanes = Lanes::new(buffers.iter_mut().map(Vec::as_mut_slice));
    let expected: Vec<u128> = messages.iter().map(|(key, text)| expected_tag(key, text)).collect();
    assert_eq!(mac::tags(&lanes, &keys)[..messages.len()], expected);
}

#[test]
fn tags_of_extreme_keys_and_texts_are_those_of_poly1305() {
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn body() {
        let mut one = [0; 32];
        one[0] = 1;
        let mut messages = Vec::new();
        for key in [[0; 32], one, [0xff; 32], array::from_fn(|at| (at * 73) as u8)] {
            for byte in [0, 1, 0x80, 0xff] {
                messages.extend(LENS.map(|len| (key, vec![byte; len])));
            }
        }
        assert_tags(&messages);
        // Neighbours of other lengths than a sorted burst has.
        messages.sort_by_key(|(key, text)| (text.len() * 31 + usize::from(key[5])) % 257);
        assert_tags(&messages);
    }
    memory::run_on_avx512("tags_of_extreme_keys_and_texts_are_those_of_poly1305", body);
}

#[test]
fn sums_around_the_modulus_are_reduced() {
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn body() {
        // With r = 1 the tag is the sum of the blocks, each with 2^128 above it: of two blocks of text and the
        // lengths, 3 * 2^128 + first + second + 32 * 2^64. These come to 2^130 - 20 and so on up to 2^130 + 19.
        let mut key = [0; 32];
        key[0] = 1;
        let messages: Vec<_> = (0..40_u128)
            .map(|step| {
                let first = 1_u128 << 127;
                let second = (1_u128 << 127).wrapping_sub(32 << 64).wrapping_sub(20).wrapping_add(step);
                (key, [first.to_le_bytes(), second.to_le_bytes()].concat())
            })
            .collect();
        assert_tags(&messages);
        // The pad carries out of the low half and out of the top.
        let padded: Vec<_> = messages
            .into_iter()
            .map(|(mut key, text)| {
                key[16..].fill(0xff);
                (key, text)
            })
            .collect();
        assert_tags(&padded);
    }
    memory::run_on_avx512("sums_around_the_modulus_are_reduced", body);
}

#[test]
fn every_uneven_row_is_taken_once() {
    for offset in 0..LENS.len() {
        let mut buffers: Vec<Vec<u8>> = (0..LANES - offset % 3)
            .map(|lane| vec![0; LENS[(offset + 7 * lane) % LENS.len()] + TAG_LEN])
            .collect();
        if offset % 2 == 0 {
            buffers.sort_by_key(|buffer| std::cmp::Reverse(buffer.len()));
        }
        let rows: Vec<usize> = buffers.iter().map(|buffer| (buffer.len() - TAG_LEN).div_ceil(64)).collect();
        let lanes = Lanes::new(buffers.iter_mut().map(Vec::as_mut_slice));
        let mut scattered = Scattered::new(&lanes, 2);
        let mut taken = Vec::new();
        while scattered.queue() > 0 {
            let [places] = scattered.take::<1>();
            taken.extend(
                places.lanes.into_iter().zip(places.rows).filter(|(lane, row)| {
                    rows.get(*lane as usize).is_some_and(|rows| (*row as usize) < *rows)
                }),
            );
        }
        taken.sort_unstable();
        let expected: Vec<(u32, u32)> = (0_u32..)
            .zip(&rows)
            .flat_map(|(lane, rows)| (2..*rows as u32).map(move |row| (lane, row)))
            .collect();
        assert_eq!(taken, expected);
    }
}

#[test]
fn burst_is_sorted_by_rows_and_remembers_where_packets_were() {
    let key = Key::new(&[1; 32]);
    let mut buffers: Vec<Vec<u8>> = (0..64).map(|at| vec![7; at * 41 % 67 * 33]).collect();
    let lens: Vec<usize> = buffers.iter().map(Vec::len).collect();
    let mut batch: Vec<Packet<'_>> =
        (0..).zip(&mut buffers).map(|(counter, buffer)| Packet { key: &key, counter, buffer }).collect();
    let mut burst = Burst::new(&mut batch);
    let mut seen = Vec::new();
    let mut last_rows = usize::MAX;
    for mut group in burst.groups() {
        assert!((1..=LANES).contains(&group.len()));
        let origins = group.origins();
        for (packet, origin) in group.packets_mut().zip(origins) {
            assert_eq!(packet.counter, u64::from(*origin));
            let rows = (packet.buffer.len() - TAG_LEN).div_ceil(64).min(31);
            assert!(rows <= last_rows);
            last_rows = rows;
            seen.push(usize::from(*origin));
        }
    }
    seen.sort_unstable();
    let expected: Vec<usize> = (0..64).filter(|at| lens[*at] >= TAG_LEN).collect();
    assert_eq!(seen, expected);
    for buffer in buffers.iter().filter(|buffer| buffer.len() < TAG_LEN) {
        assert!(buffer.iter().all(|byte| *byte == 0), "left out, and wiped");
    }
}
