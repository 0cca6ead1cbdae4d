//! Who is measured: our backends by the batch, other libraries packet by packet.

use std::time::{Duration, Instant};

use aead::{Aead, Key, Packet, TAG_LEN};
use anyhow::{Result, ensure};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};

use super::{
    Direction,
    load::{Frames, Load, PACKET_COUNT, nonce},
};

/// Timed repetitions of a turn; one more goes first to fetch code and data.
pub const REPETITIONS: usize = 4;

/// Something that seals and opens the packets of a load.
pub trait Implementation {
    /// One turn: what each repetition took for all packets.
    fn turn(&mut self, load: &Load, frames: &mut Frames, direction: Direction) -> Result<Vec<Duration>>;
}

/// A turn of something that works on our frames: `work` returns the time it took.
fn turn(
    load: &Load,
    frames: &mut Frames,
    direction: Direction,
    mut work: impl FnMut(&mut Frames) -> Duration,
) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(REPETITIONS);
    for repetition in 0..=REPETITIONS {
        frames.place(load, direction);
        let time = work(frames);
        if repetition > 0 {
            times.push(time);
        }
        if repetition == REPETITIONS {
            let is_right = match direction {
                Direction::Seal => frames.are_sealed(load),
                Direction::Open => frames.are_open(load),
            };
            let what = if direction == Direction::Seal { "sealed" } else { "opened" };
            ensure!(is_right, "the {what} packets are wrong");
        }
        frames.replace(load, direction);
    }
    Ok(times)
}

/// A backend of the crate `aead`, given so many packets at a time.
pub struct Ours {
    aead: Aead,
    keys: Vec<Key>,
    batch_len: usize,
    authentic: Vec<bool>,
}

impl Ours {
    pub fn new(aead: Aead, load: &Load, batch_len: usize) -> Self {
        let authentic = Vec::with_capacity(PACKET_COUNT);
        Self { aead, keys: load.keys.iter().map(Key::new).collect(), batch_len, authentic }
    }

    fn work(&mut self, load: &Load, frames: &mut Frames, direction: Direction) -> Duration {
        let Self { aead, keys, batch_len, authentic } = self;
        let buffers = frames.buffers(&load.lens).into_iter().enumerate();
        let mut packets: Vec<Packet<'_>> = buffers
            .map(|(index, buffer)| Packet { key: &keys[index % keys.len()], counter: index as u64, buffer })
            .collect();
        let start = Instant::now();
        for batch in packets.chunks_mut(*batch_len) {
            match direction {
                Direction::Seal => _ = aead.seal(batch),
                Direction::Open => aead.open(batch, authentic),
            }
        }
        start.elapsed()
    }
}

impl Implementation for Ours {
    fn turn(&mut self, load: &Load, frames: &mut Frames, direction: Direction) -> Result<Vec<Duration>> {
        turn(load, frames, direction, |frames| self.work(load, frames, direction))
    }
}

/// A library's ChaCha20-Poly1305 with its key expanded.
pub trait Cipher {
    fn new(key: &[u8; 32]) -> Self;
    /// Seals a buffer of text and room for the tag.
    fn seal(&self, nonce: [u8; 12], buffer: &mut [u8]) -> bool;
    /// Opens a buffer of ciphertext and tag.
    fn open(&self, nonce: [u8; 12], buffer: &mut [u8]) -> bool;
}

/// A library, called for each packet.
pub struct OneByOne<C> {
    ciphers: Vec<C>,
}

impl<C: Cipher> OneByOne<C> {
    pub fn new(load: &Load) -> Self {
        Self { ciphers: load.keys.iter().map(C::new).collect() }
    }

    fn work(&self, load: &Load, frames: &mut Frames, direction: Direction) -> Duration {
        let buffers = frames.buffers(&load.lens).into_iter().enumerate();
        let packets: Vec<(&C, u64, &mut [u8])> = buffers
            .map(|(index, buffer)| (&self.ciphers[index % self.ciphers.len()], index as u64, buffer))
            .collect();
        let start = Instant::now();
        for (cipher, counter, buffer) in packets {
            std::hint::black_box(match direction {
                Direction::Seal => cipher.seal(nonce(counter), buffer),
                Direction::Open => cipher.open(nonce(counter), buffer),
            });
        }
        start.elapsed()
    }
}

impl<C: Cipher> Implementation for OneByOne<C> {
    fn turn(&mut self, load: &Load, frames: &mut Frames, direction: Direction) -> Result<Vec<Duration>> {
        turn(load, frames, direction, |frames| self.work(load, frames, direction))
    }
}

/// ring 0.17.
pub struct Ring(ring::aead::LessSafeKey);

impl Cipher for Ring {
    fn new(key: &[u8; 32]) -> Self {
        let key = ring::aead::UnboundKey::new(&ring::aead::CHACHA20_POLY1305, key);
        Self(ring::aead::LessSafeKey::new(key.expect("the length is right")))
    }

    fn seal(&self, nonce: [u8; 12], buffer: &mut [u8]) -> bool {
        let Some((text, tag_room)) = buffer.split_last_chunk_mut::<TAG_LEN>() else { return false };
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, ring::aead::Aad::empty(), text);
        tag.map(|tag| tag_room.copy_from_slice(tag.as_ref())).is_ok()
    }

    fn open(&self, nonce: [u8; 12], buffer: &mut [u8]) -> bool {
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, ring::aead::Aad::empty(), buffer).is_ok()
    }
}

/// aws-lc-rs, as an application would call it.
pub struct AwsLc(aws_lc_rs::aead::LessSafeKey);

impl Cipher for AwsLc {
    fn new(key: &[u8; 32]) -> Self {
        let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::CHACHA20_POLY1305, key);
        Self(aws_lc_rs::aead::LessSafeKey::new(key.expect("the length is right")))
    }

    fn seal(&self, nonce: [u8; 12], buffer: &mut [u8]) -> bool {
        let Some((text, tag_room)) = buffer.split_last_chunk_mut::<TAG_LEN>() else { return false };
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, aws_lc_rs::aead::Aad::empty(), text);
        tag.map(|tag| tag_room.copy_from_slice(tag.as_ref())).is_ok()
    }

    fn open(&self, nonce: [u8; 12], buffer: &mut [u8]) -> bool {
        let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, aws_lc_rs::aead::Aad::empty(), buffer).is_ok()
    }
}

/// `RustCrypto`'s.
pub struct RustCrypto(ChaCha20Poly1305);

impl Cipher for RustCrypto {
    fn new(key: &[u8; 32]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }

    fn seal(&self, nonce: [u8; 12], buffer: &mut [u8]) -> bool {
        let Some((text, tag_room)) = buffer.split_last_chunk_mut::<TAG_LEN>() else { return false };
        let tag = self.0.encrypt_inout_detached(&nonce.into(), &[], text.into());
        tag.map(|tag| *tag_room = tag.into()).is_ok()
    }

    fn open(&self, nonce: [u8; 12], buffer: &mut [u8]) -> bool {
        let Some((text, tag)) = buffer.split_last_chunk_mut::<TAG_LEN>() else { return false };
        self.0.decrypt_inout_detached(&nonce.into(), &[], text.into(), &(*tag).into()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aead::load;

    /// Seals and opens nothing.
    struct Idle;

    impl Cipher for Idle {
        fn new(_: &[u8; 32]) -> Self {
            Self
        }
        fn seal(&self, _: [u8; 12], _: &mut [u8]) -> bool {
            true
        }
        fn open(&self, _: [u8; 12], _: &mut [u8]) -> bool {
            true
        }
    }

    #[test]
    fn all_compute_the_same_and_what_does_not_is_no_measurement() {
        let load = Load::new(&load::mix(), 3);
        let mut frames = Frames::new();
        let ours = Aead::names().map(|name| Aead::by_name(name).expect("it passes its self-test"));
        let mut all: Vec<Box<dyn Implementation>> =
            ours.map(|aead| Box::new(Ours::new(aead, &load, 5)) as _).collect();
        all.push(Box::new(OneByOne::<Ring>::new(&load)));
        all.push(Box::new(OneByOne::<AwsLc>::new(&load)));
        all.push(Box::new(OneByOne::<RustCrypto>::new(&load)));
        for direction in Direction::ALL {
            for implementation in &mut all {
                let times = implementation.turn(&load, &mut frames, direction).expect("it is right");
                assert_eq!(times.len(), REPETITIONS);
            }
            assert!(OneByOne::<Idle>::new(&load).turn(&load, &mut frames, direction).is_err());
        }
    }
}
