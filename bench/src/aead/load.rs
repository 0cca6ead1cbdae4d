//! The packets that are measured, and the memory they are in.

use std::hint::black_box;

use aead::TAG_LEN;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};

/// Packets in a round: as many as a worker takes from a ring at most.
pub const PACKET_COUNT: usize = 64;
/// Distance between two packets, as in a UMEM with frames of 2 KiB.
const FRAME_LEN: usize = 2048;
/// Where the text starts in a frame: behind XDP's headroom and the headers of Ethernet, IPv4, UDP and `WireGuard`.
const TEXT_OFFSET: usize = 256 + 14 + 20 + 8 + 16;
const PAGE_LEN: usize = 4096;
/// More than the second-level caches of today's processors hold, and less than they share a third one.
const OTHER_DATA_LEN: usize = 6 << 20;
const LINE_LEN: usize = 64;

/// Lengths in bytes of all texts of a round.
pub type Lens = [usize; PACKET_COUNT];

/// Packets of one size.
pub fn equal(len: usize) -> Lens {
    [len; PACKET_COUNT]
}

/// The mix: per eight packets three full ones, and one each of 1200, 512, 208 and 64 bytes and of a size that changes;
/// 848 bytes on average.
pub fn mix() -> Lens {
    std::array::from_fn(|index| match index % 8 {
        0..=2 => 1424,
        3 => 1200,
        4 => 512,
        5 => 208,
        6 => 64,
        _ => [100, 700, 333, 1000][index / 8 % 4],
    })
}

/// Keys, counters, and what the packets are before and after.
pub struct Load {
    /// Lengths of the texts.
    pub lens: Lens,
    /// The distinct keys; packet `index` has key `index % keys.len()`.
    pub keys: Vec<[u8; 32]>,
    /// Whether the core has seen much else since the packets were written.
    pub is_far: bool,
    texts: Vec<Vec<u8>>,
    sealed: Vec<Vec<u8>>,
}

impl Load {
    /// With so many distinct keys.
    pub fn new(lens: &Lens, key_count: usize) -> Self {
        let keys: Vec<[u8; 32]> =
            (0..key_count).map(|index| std::array::from_fn(|at| (index * 41 + at * 7 + 1) as u8)).collect();
        let text = |(index, len): (usize, &usize)| (0..*len).map(|at| (at * 13 + index) as u8).collect();
        let texts: Vec<Vec<u8>> = lens.iter().enumerate().map(text).collect();
        let sealed = texts.iter().enumerate().map(|(index, text)| {
            let mut sealed = text.clone();
            let tag = ChaCha20Poly1305::new((&keys[index % key_count]).into())
                .encrypt_inout_detached(&nonce(index as u64).into(), &[], sealed.as_mut_slice().into())
                .expect("a packet is short");
            sealed.extend_from_slice(&tag);
            sealed
        });
        let sealed = sealed.collect();
        Self { lens: *lens, keys, is_far: false, texts, sealed }
    }

    /// The same packets, but from another core or a network card: in none of the caches that this core has to itself.
    pub fn far(self) -> Self {
        Self { is_far: true, ..self }
    }
}

/// The nonce of transport data.
pub fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// Frames that start at a page.
pub struct Frames {
    memory: Vec<u8>,
    other_data: Vec<u8>,
}

impl Frames {
    /// Room for all packets of a round.
    pub fn new() -> Self {
        Self { memory: vec![0; PACKET_COUNT * FRAME_LEN + PAGE_LEN], other_data: vec![0; OTHER_DATA_LEN] }
    }

    /// Lets other data take the place of the packets in the core's own caches.
    pub fn move_away(&mut self) {
        for line in self.other_data.chunks_exact_mut(LINE_LEN) {
            line[0] = line[0].wrapping_add(1);
        }
        black_box(&mut self.other_data);
    }

    /// The packets' buffers, of text and tag each.
    pub fn buffers(&mut self, lens: &Lens) -> Vec<&mut [u8]> {
        let start = self.memory.as_ptr().align_offset(PAGE_LEN);
        let frames = self.memory[start..].chunks_exact_mut(FRAME_LEN);
        frames.zip(lens).map(|(frame, len)| &mut frame[TEXT_OFFSET..][..len + TAG_LEN]).collect()
    }

    /// Puts in the texts. Afterwards they are in the cache, as what a network card just wrote.
    pub fn fill_with_texts(&mut self, load: &Load) {
        for (buffer, text) in self.buffers(&load.lens).into_iter().zip(&load.texts) {
            buffer[..text.len()].copy_from_slice(text);
        }
    }

    /// Puts in the sealed packets.
    pub fn fill_with_sealed(&mut self, load: &Load) {
        for (buffer, sealed) in self.buffers(&load.lens).into_iter().zip(&load.sealed) {
            buffer.copy_from_slice(sealed);
        }
    }

    /// Whether they hold the sealed packets.
    pub fn are_sealed(&mut self, load: &Load) -> bool {
        self.buffers(&load.lens).into_iter().zip(&load.sealed).all(|(buffer, sealed)| buffer == sealed)
    }

    /// Whether they hold the texts.
    pub fn are_open(&mut self, load: &Load) -> bool {
        let buffers = self.buffers(&load.lens).into_iter();
        buffers.zip(&load.texts).all(|(buffer, text)| buffer[..text.len()] == **text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_has_its_average() {
        assert_eq!(mix().iter().sum::<usize>() / PACKET_COUNT, 848);
    }

    #[test]
    fn frames_are_as_far_apart_as_in_a_umem_and_start_at_a_page() {
        let mut frames = Frames::new();
        let starts: Vec<usize> =
            frames.buffers(&equal(1424)).iter().map(|buffer| buffer.as_ptr().addr()).collect();
        assert_eq!(starts.len(), PACKET_COUNT);
        assert_eq!((starts[0] - TEXT_OFFSET) % PAGE_LEN, 0);
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == FRAME_LEN));
    }
}
