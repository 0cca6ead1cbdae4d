//! Batches of packets against another implementation of ChaCha20-Poly1305, for every backend.

use std::{ops::Range, sync::LazyLock};

use aead::{Aead, Key, Packet, TAG_LEN};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use wireguard::nonce;

use crate::input::Input;

static BACKENDS: LazyLock<Vec<Aead>> =
    LazyLock::new(|| Aead::names().filter_map(|name| Aead::by_name(name).ok()).collect());

const BATCH_MAX: usize = 72;
const TEXT_MAX: usize = 2048;
/// What is around a packet, for as many bytes as a vector has.
const AROUND: [u8; 64] = [0xa7; 64];

struct Plain {
    key: [u8; 32],
    counter: u64,
    text: Vec<u8>,
    /// Bytes of [`AROUND`] in front, so that packets start at any alignment.
    offset: usize,
    damage: Damage,
}

/// What is done to a sealed packet on its way.
#[derive(Clone, Copy)]
enum Damage {
    None,
    Flipped { place: usize, bits: u8 },
    Truncated(usize),
    Extended(usize),
    OtherCounter(u64),
    TagOfFirst,
}

impl Plain {
    fn read(input: &mut Input, previous: Option<&Self>) -> Self {
        // A fuzzer cannot write many long texts: they repeat a short one. Equal lengths take other ways than unequal.
        let text_len = match (previous, input.below(3)) {
            (Some(previous), 0) => previous.text.len(),
            (_, 1) => input.below(273),
            _ => input.below(TEXT_MAX + 1),
        };
        let pattern = input.bytes(16);
        let text = pattern.iter().chain([&0]).copied().cycle().take(text_len).collect();
        let damage = match input.below(16) {
            0 | 1 => Damage::Flipped { place: input.below(text_len + TAG_LEN), bits: input.value() },
            2 => Damage::Truncated(input.below(text_len + TAG_LEN + 1)),
            3 => Damage::Extended(input.below(80)),
            4 => Damage::OtherCounter(input.value()),
            5 => Damage::TagOfFirst,
            _ => Damage::None,
        };
        Self { key: [input.value(); 32], counter: input.value(), text, offset: input.below(64), damage }
    }

    fn sealed(&self) -> Vec<u8> {
        let mut buffer = self.text.clone();
        let tag = ChaCha20Poly1305::new(&self.key.into())
            .encrypt_inout_detached(&nonce(self.counter).into(), &[], buffer.as_mut_slice().into())
            .expect("a packet is short");
        buffer.extend_from_slice(&tag);
        buffer
    }

    /// The packet as it arrives, and the counter that it says it has.
    fn arrival(&self, sealed: &[u8], first: &[u8]) -> (Vec<u8>, u64) {
        let mut bytes = sealed.to_vec();
        let mut counter = self.counter;
        match self.damage {
            Damage::None => {}
            Damage::Flipped { place, bits } => bytes[place] ^= bits,
            Damage::Truncated(len) => bytes.truncate(len),
            Damage::Extended(count) => bytes.resize(sealed.len() + count, 0),
            Damage::OtherCounter(other) => counter = other,
            Damage::TagOfFirst => {
                let tag: Option<&[u8; TAG_LEN]> = first.last_chunk();
                if let (Some(tag), Some(room)) = (tag, bytes.last_chunk_mut()) {
                    *room = *tag;
                }
            }
        }
        (bytes, counter)
    }

    /// Memory around `bytes`, and where in it they are.
    fn place(&self, bytes: &[u8]) -> (Vec<u8>, Range<usize>) {
        let front = &AROUND[..self.offset];
        ([front, bytes, &AROUND].concat(), self.offset..self.offset + bytes.len())
    }
}

/// Seals a batch, damages some of it, and opens it, with each backend.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut batch: Vec<Plain> = Vec::new();
    while batch.len() < BATCH_MAX && input.has_step() {
        batch.push(Plain::read(&mut input, batch.last()));
    }
    let sealed: Vec<Vec<u8>> = batch.iter().map(Plain::sealed).collect();
    for aead in &*BACKENDS {
        check_seal(*aead, &batch, &sealed);
        check_open(*aead, &batch, &sealed);
    }
}

fn packets<'a>(
    keys: &'a [Key],
    counters: impl Iterator<Item = u64>,
    memory: &'a mut [(Vec<u8>, Range<usize>)],
) -> Vec<Packet<'a>> {
    let batch = keys.iter().zip(counters).zip(memory);
    batch
        .map(|((key, counter), (memory, place))| Packet { key, counter, buffer: &mut memory[place.clone()] })
        .collect()
}

fn check_surroundings(aead: Aead, memory: &[u8], place: &Range<usize>) {
    let (front, behind) = (&memory[..place.start], &memory[place.end..]);
    assert_eq!(front, &AROUND[..front.len()], "{} wrote in front of a packet", aead.name());
    assert_eq!(behind, AROUND, "{} wrote behind a packet", aead.name());
}

fn check_seal(aead: Aead, batch: &[Plain], sealed: &[Vec<u8>]) {
    let keys: Vec<Key> = batch.iter().map(|plain| Key::new(&plain.key)).collect();
    let mut memory: Vec<_> =
        batch.iter().map(|plain| plain.place(&[plain.text.as_slice(), &[0xee; TAG_LEN]].concat())).collect();
    let counters = batch.iter().map(|plain| plain.counter);
    assert_eq!(aead.seal(&mut packets(&keys, counters, &mut memory)), batch.len());
    for (sealed, (memory, place)) in sealed.iter().zip(&memory) {
        assert_eq!(memory[place.clone()], **sealed, "{} seals {} bytes wrong", aead.name(), place.len());
        check_surroundings(aead, memory, place);
    }
}

fn check_open(aead: Aead, batch: &[Plain], sealed: &[Vec<u8>]) {
    let keys: Vec<Key> = batch.iter().map(|plain| Key::new(&plain.key)).collect();
    let first = sealed.first().map_or(&[][..], Vec::as_slice);
    let arrivals: Vec<(Vec<u8>, u64)> =
        batch.iter().zip(sealed).map(|(plain, sealed)| plain.arrival(sealed, first)).collect();
    let mut memory: Vec<_> =
        batch.iter().zip(&arrivals).map(|(plain, (bytes, _))| plain.place(bytes)).collect();
    let mut authentic = vec![true; 3];
    let counters = arrivals.iter().map(|(_, counter)| *counter);
    aead.open(&mut packets(&keys, counters, &mut memory), &mut authentic);
    assert_eq!(authentic.len(), batch.len());
    for (index, plain) in batch.iter().enumerate() {
        let ((arrived, counter), (memory, place)) = (&arrivals[index], &memory[index]);
        let is_whole = *arrived == sealed[index] && *counter == plain.counter;
        assert_eq!(authentic[index], is_whole, "{}: packet {index} of {}", aead.name(), batch.len());
        let buffer = &memory[place.clone()];
        if is_whole {
            assert_eq!(buffer[..plain.text.len()], plain.text, "{}", aead.name());
        } else {
            assert!(buffer.iter().all(|byte| *byte == 0), "{} gives away what is forged", aead.name());
        }
        check_surroundings(aead, memory, place);
    }
}
