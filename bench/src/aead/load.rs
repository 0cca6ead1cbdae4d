//! The packets that are measured, and the memory they are in.

use std::hint::black_box;

use aead::TAG_LEN;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};

use super::Direction;

/// Packets in a round: as many as a worker takes from a ring at most.
pub const PACKET_COUNT: usize = 64;
/// Distance between two packets, as in a UMEM with frames of 2 KiB.
const FRAME_LEN: usize = 2048;
/// Where the text starts in a frame: behind XDP's headroom and the headers of Ethernet, IPv4, UDP and `WireGuard`.
const TEXT_OFFSET: usize = 256 + 14 + 20 + 8 + 16;
/// Frames in the memory that far packets lie in: 100 MiB, more than any cache holds and more pages than the processor
/// remembers the places of.
const FRAME_COUNT: usize = (100 << 20) / FRAME_LEN;
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

/// How far from the core packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In order, in the caches of the core, which has just written them.
    Near,
    /// In no order, in none of the caches that the core has to itself, but in the one that all share.
    SharedCache,
    /// In no order, in none of the caches.
    Memory,
}

/// Keys, counters, and what the packets are before and after.
pub struct Load {
    /// Lengths of the texts.
    pub lens: Lens,
    /// The distinct keys; packet `index` has key `index % keys.len()`.
    pub keys: Vec<[u8; 32]>,
    /// Where the packets are when it is their turn.
    pub whereabouts: Whereabouts,
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
        Self { lens: *lens, keys, whereabouts: Whereabouts::Near, texts, sealed }
    }

    /// The same packets elsewhere.
    pub fn at(self, whereabouts: Whereabouts) -> Self {
        Self { whereabouts, ..self }
    }

    /// What the packets are before they are sealed or opened.
    fn before(&self, direction: Direction) -> &[Vec<u8>] {
        match direction {
            Direction::Seal => &self.texts,
            Direction::Open => &self.sealed,
        }
    }
}

/// The frames of packets that came one after the other into memory that nobody had used before.
const IN_ORDER: [usize; PACKET_COUNT] = {
    let mut places = [0; PACKET_COUNT];
    let mut place = 0;
    while place < PACKET_COUNT {
        places[place] = place;
        place += 1;
    }
    places
};

/// The numbers below `count` in no order, the same whenever it is asked (Fisher and Yates, with the generator of
/// Knuth's MMIX).
fn shuffled(count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).collect();
    let mut state = 1_u64;
    for last in (1..count).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        numbers.swap(last, (state >> 33) as usize % (last + 1));
    }
    numbers
}

/// The nonce of transport data.
pub fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// A frame where a UMEM has it: two to a page.
#[derive(Clone)]
#[repr(align(2048))]
struct Frame([u8; FRAME_LEN]);

const _: () = assert!(size_of::<Frame>() == FRAME_LEN);

/// Frames, and which of them the packets are in.
pub struct Frames {
    memory: Vec<Frame>,
    /// All frames in the order in which far packets come to lie in them. The processor cannot guess it; it is the same
    /// in every run.
    scattered: Vec<usize>,
    /// Where in `scattered` those of the next packets are.
    next: usize,
    /// The packets' frames.
    places: [usize; PACKET_COUNT],
    other_data: Vec<u8>,
}

impl Frames {
    /// All of them, with no packets.
    pub fn new() -> Self {
        Self {
            memory: vec![Frame([0; FRAME_LEN]); FRAME_COUNT],
            scattered: shuffled(FRAME_COUNT),
            next: 0,
            places: IN_ORDER,
            other_data: vec![0; OTHER_DATA_LEN],
        }
    }

    /// Before the rounds of one load and direction: packets that are to come from memory are written long before they
    /// are used.
    pub fn start(&mut self, load: &Load, direction: Direction) {
        self.next = 0;
        if load.whereabouts == Whereabouts::Memory {
            for _ in 0..FRAME_COUNT / PACKET_COUNT {
                self.advance();
                self.write(load, direction);
            }
        }
    }

    /// Puts the next packets where those of `load` should be.
    pub fn place(&mut self, load: &Load, direction: Direction) {
        match load.whereabouts {
            Whereabouts::Near => {
                self.places = IN_ORDER;
                self.write(load, direction);
            }
            Whereabouts::SharedCache => {
                self.advance();
                self.write(load, direction);
                self.move_away();
            }
            Whereabouts::Memory => self.advance(),
        }
    }

    /// After the packets were used: those of memory are made anew, for when all other frames had their turn.
    pub fn replace(&mut self, load: &Load, direction: Direction) {
        if load.whereabouts == Whereabouts::Memory {
            self.write(load, direction);
        }
    }

    /// Goes on to the frames that were not used for longest.
    fn advance(&mut self) {
        for place in &mut self.places {
            *place = self.scattered[self.next];
            self.next = (self.next + 1) % FRAME_COUNT;
        }
    }

    /// Writes the packets. Afterwards they are in the cache, as what another core just wrote. The rest of a frame is
    /// written with it where that is to take the place of other packets.
    fn write(&mut self, load: &Load, direction: Direction) {
        for (place, packet) in self.places.iter().zip(load.before(direction)) {
            let frame = &mut self.memory[*place].0;
            if load.whereabouts == Whereabouts::Memory {
                frame.fill(0);
            }
            frame[TEXT_OFFSET..][..packet.len()].copy_from_slice(packet);
        }
    }

    /// Lets other data take the place of the packets in the core's own caches.
    fn move_away(&mut self) {
        for line in self.other_data.chunks_exact_mut(LINE_LEN) {
            line[0] = line[0].wrapping_add(1);
        }
        black_box(&mut self.other_data);
    }

    /// The packets' buffers, of text and tag each.
    pub fn buffers(&mut self, lens: &Lens) -> Vec<&mut [u8]> {
        let frames = self.memory.get_disjoint_mut(self.places).expect("no two packets have the same frame");
        frames
            .into_iter()
            .zip(lens)
            .map(|(frame, len)| &mut frame.0[TEXT_OFFSET..][..len + TAG_LEN])
            .collect()
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

    fn starts(frames: &mut Frames, load: &Load) -> Vec<usize> {
        frames.place(load, Direction::Seal);
        assert!(frames.are_open(load), "the texts are there before they are sealed");
        frames.buffers(&load.lens).iter().map(|buffer| buffer.as_ptr().addr() - TEXT_OFFSET).collect()
    }

    #[test]
    fn near_packets_lie_in_order_and_stay_there() {
        let (mut frames, load) = (Frames::new(), Load::new(&equal(1424), 1));
        let first = starts(&mut frames, &load);
        assert_eq!(first[0] % FRAME_LEN, 0);
        assert!(first.windows(2).all(|pair| pair[1] - pair[0] == FRAME_LEN));
        assert_eq!(starts(&mut frames, &load), first);
    }

    #[test]
    fn other_packets_lie_in_no_order_and_come_back_to_a_frame_after_all_others() {
        let mut frames = Frames::new();
        for whereabouts in [Whereabouts::SharedCache, Whereabouts::Memory] {
            let load = Load::new(&equal(1424), 1).at(whereabouts);
            frames.start(&load, Direction::Seal);
            let first = starts(&mut frames, &load);
            let neighbours =
                first.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 16 * FRAME_LEN).count();
            assert!(neighbours < PACKET_COUNT / 4, "{neighbours} lie beside the one before");
            for buffer in frames.buffers(&load.lens) {
                buffer.fill(1);
            }
            frames.replace(&load, Direction::Seal);
            let batches = FRAME_COUNT / PACKET_COUNT;
            let others: Vec<usize> = (1..batches).flat_map(|_| starts(&mut frames, &load)).collect();
            assert!(others.iter().all(|start| !first.contains(start)));
            assert_eq!(starts(&mut frames, &load), first);
        }
    }
}
