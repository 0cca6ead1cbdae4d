//! ChaCha20 (RFC 8439, section 2.3) with a packet per lane: word `w` of sixteen packets' states is one vector.

use std::arch::x86_64::*;

use super::{LANES, memory, scattered::Places, transpose};
use crate::Key;

/// The four words "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

const DOUBLE_ROUNDS: usize = 10;

/// The sixteen words of a block in sixteen lanes.
type Words = [__m512i; 16];

/// Keys and nonces of sixteen packets.
pub(super) struct Cipher {
    key: [__m512i; 8],
    /// The counter of the packet, low word first; the nonce's first word is zero.
    nonce: [__m512i; 2],
}

impl Cipher {
    /// Takes the key and the counter of each packet. The lanes behind the last packet get a key of zeros.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn new<'a, const SITE: usize>(packets: impl Iterator<Item = (&'a Key, u64)>) -> Self {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, (key, counter)) in rows.iter_mut().zip(packets) {
            *row = _mm512_mask_set1_epi64(memory::load_key(key.bytes()), 1 << 4, counter as i64);
        }
        let [k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, ..] = transpose::words::<SITE>(&rows);
        Self { key: [k0, k1, k2, k3, k4, k5, k6, k7], nonce: [n0, n1] }
    }

    /// The key stream of one block per lane and stream, word by word: of the lane's own packet, block
    /// `blocks[stream]`.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn blocks<const STREAMS: usize, const SITE: usize>(
        &self,
        blocks: [u32; STREAMS],
    ) -> [Words; STREAMS] {
        let mut initial = [[_mm512_setzero_si512(); 16]; STREAMS];
        for (initial, block) in initial.iter_mut().zip(&blocks) {
            *initial = initial_state(&self.key, &self.nonce, _mm512_set1_epi32(*block as i32));
        }
        key_stream::<STREAMS, SITE>(&initial)
    }

    /// The same for any packets' rows: in each place, the key stream of that row of that lane's packet.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn scattered_blocks<const STREAMS: usize, const SITE: usize>(
        &self,
        places: &[Places; STREAMS],
    ) -> [Words; STREAMS] {
        let mut initial = [[_mm512_setzero_si512(); 16]; STREAMS];
        for (initial, places) in initial.iter_mut().zip(places) {
            let lanes = memory::load_u32(&places.lanes);
            let (mut key, mut nonce) = (self.key, self.nonce);
            for word in &mut key {
                *word = _mm512_permutexvar_epi32(lanes, *word);
            }
            for word in &mut nonce {
                *word = _mm512_permutexvar_epi32(lanes, *word);
            }
            // Block 0 makes the one-time key: row 0 takes block 1.
            let block = _mm512_add_epi32(memory::load_u32(&places.rows), _mm512_set1_epi32(1));
            *initial = initial_state(&key, &nonce, block);
        }
        key_stream::<STREAMS, SITE>(&initial)
    }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn initial_state(key: &[__m512i; 8], nonce: &[__m512i; 2], block: __m512i) -> Words {
    let mut words = [_mm512_setzero_si512(); 16];
    for (word, constant) in words[..4].iter_mut().zip(&CONSTANTS) {
        *word = _mm512_set1_epi32(*constant as i32);
    }
    words[4..12].copy_from_slice(key);
    words[12] = block;
    words[14..].copy_from_slice(nonce);
    words
}

/// The block function.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn key_stream<const STREAMS: usize, const SITE: usize>(initial: &[Words; STREAMS]) -> [Words; STREAMS] {
    let mut states = *initial;
    for _ in 0..DOUBLE_ROUNDS {
        quarter_rounds::<0, STREAMS, SITE>(&mut states);
        quarter_rounds::<1, STREAMS, SITE>(&mut states);
    }
    for (state, initial) in states.iter_mut().zip(initial) {
        for (word, initial) in state.iter_mut().zip(initial) {
            *word = _mm512_add_epi32(*word, *initial);
        }
    }
    states
}

/// Four quarter rounds of each state, down the columns (`DIAGONAL` 0) or the diagonals (1).
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn quarter_rounds<const DIAGONAL: usize, const STREAMS: usize, const SITE: usize>(
    states: &mut [Words; STREAMS],
) {
    step::<0, 12, 16, DIAGONAL, STREAMS, SITE>(states);
    step::<8, 4, 12, DIAGONAL, STREAMS, SITE>(states);
    step::<0, 12, 8, DIAGONAL, STREAMS, SITE>(states);
    step::<8, 4, 7, DIAGONAL, STREAMS, SITE>(states);
}

/// A quarter of all the quarter rounds: word `SUM` plus the one of `TURNED`'s partner, and so on. One quarter round is
/// a chain of twelve instructions that wait for each other, so the same step of all of them goes side by side.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn step<
    const SUM: usize,
    const TURNED: usize,
    const BITS: i32,
    const DIAGONAL: usize,
    const STREAMS: usize,
    const SITE: usize,
>(
    states: &mut [Words; STREAMS],
) {
    // The row that is added: b for a, d for c.
    let addend = if SUM == 0 { 4 } else { 12 };
    for state in states.iter_mut() {
        for column in 0..4 {
            state[at::<DIAGONAL>(SUM, column)] =
                _mm512_add_epi32(state[at::<DIAGONAL>(SUM, column)], state[at::<DIAGONAL>(addend, column)]);
        }
    }
    for state in states.iter_mut() {
        for column in 0..4 {
            let turned = at::<DIAGONAL>(TURNED, column);
            state[turned] =
                _mm512_rol_epi32::<BITS>(_mm512_xor_si512(state[turned], state[at::<DIAGONAL>(SUM, column)]));
        }
    }
}

/// The index of the word in the row that starts at `row`, in the quarter round of `column`.
const fn at<const DIAGONAL: usize>(row: usize, column: usize) -> usize {
    row + (column + DIAGONAL * (row / 4)) % 4
}
