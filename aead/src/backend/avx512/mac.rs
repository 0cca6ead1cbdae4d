//! The Poly1305 sums of a group's ciphertexts, chunk by chunk, so that the schedule can put other work in between.

use std::arch::x86_64::*;

use super::{
    LANES,
    memory::{self, CHUNK_BLOCKS, EndAligned, Lanes},
    poly1305::{self, HALF, HIGH_BIT, Limbs, OneTimeKey},
    transpose,
};

/// Sums of sixteen messages up to some chunk.
pub(super) struct Authenticator<'a> {
    texts: EndAligned<'a>,
    /// The second half of the last block: bytes of ciphertext. The first, bytes of associated data, is zero.
    text_len: [__m512i; 2],
    /// Blocks of zeros in front, which stay zeros: they get no bit above them.
    lead: [__m512i; 2],
    sums: [Limbs; 2],
    next_chunk: usize,
}

impl<'a> Authenticator<'a> {
    /// Nothing is read before [`Self::advance`].
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn new(lanes: &Lanes<'a>) -> Self {
        let texts = lanes.end_aligned();
        let text_len = halves(texts.len());
        let lead = halves(texts.lead());
        Self { texts, text_len, lead, sums: [[_mm512_setzero_si512(); 3]; 2], next_chunk: 0 }
    }

    /// Absorbs the chunks before `until`, which must be ciphertext by now. `HALVES` is 1 when the upper eight lanes
    /// hold no packet.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn advance<const HALVES: usize, const SITE: usize>(
        &mut self,
        keys: &[OneTimeKey; 2],
        until: usize,
    ) {
        while self.next_chunk < until.min(self.texts.chunks()) {
            if self.texts.whole().contains(&self.next_chunk) {
                self.absorb_whole::<0, SITE>(keys);
                if HALVES == 2 {
                    self.absorb_whole::<1, SITE>(keys);
                }
            } else {
                self.absorb_edge::<0, SITE>(keys);
                if HALVES == 2 {
                    self.absorb_edge::<1, SITE>(keys);
                }
            }
            self.next_chunk += 1;
        }
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn absorb_whole<const HALF_INDEX: usize, const SITE: usize>(&mut self, keys: &[OneTimeKey; 2]) {
        let chunk = self.texts.whole_chunk::<HALF_INDEX, SITE>(self.next_chunk);
        let high_bits = [_mm512_set1_epi64(HIGH_BIT as i64); CHUNK_BLOCKS];
        let blocks = transpose::double_words::<SITE>(&chunk);
        poly1305::absorb::<SITE>(&mut self.sums[HALF_INDEX], &blocks, &high_bits, &keys[HALF_INDEX]);
    }

    /// Absorbs a chunk that is outside the text in some lane: the first ones, and the last with the lengths.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn absorb_edge<const HALF_INDEX: usize, const SITE: usize>(&mut self, keys: &[OneTimeKey; 2]) {
        let chunk = self.texts.part_chunk::<HALF_INDEX, SITE>(self.next_chunk);
        let mut blocks = transpose::double_words::<SITE>(&chunk);
        if self.next_chunk + 1 == self.texts.chunks() {
            blocks[2 * CHUNK_BLOCKS - 1] = self.text_len[HALF_INDEX];
        }
        let mut high_bits = [_mm512_set1_epi64(HIGH_BIT as i64); CHUNK_BLOCKS];
        for (index, high_bit) in high_bits.iter_mut().enumerate() {
            let block = _mm512_set1_epi64((self.next_chunk * CHUNK_BLOCKS + index) as i64);
            let in_message = _mm512_cmpge_epu64_mask(block, self.lead[HALF_INDEX]);
            *high_bit = _mm512_maskz_mov_epi64(in_message, *high_bit);
        }
        poly1305::absorb::<SITE>(&mut self.sums[HALF_INDEX], &blocks, &high_bits, &keys[HALF_INDEX]);
    }

    /// Absorbs the rest and gives each lane's tag.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn tags<const HALVES: usize, const SITE: usize>(
        mut self,
        keys: &[OneTimeKey; 2],
    ) -> [u128; LANES] {
        self.advance::<HALVES, SITE>(keys, usize::MAX);
        let mut tags = [0; LANES];
        for (tags, (sum, key)) in tags.chunks_exact_mut(HALF).zip(self.sums.iter().zip(keys)).take(HALVES) {
            let [low, high] = key.tags::<SITE>(sum);
            for (tag, (low, high)) in tags.iter_mut().zip(low.iter().zip(&high)) {
                *tag = u128::from(*low) | u128::from(*high) << 64;
            }
        }
        tags
    }
}

/// One number per lane, in two vectors.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn halves(numbers: &[usize; LANES]) -> [__m512i; 2] {
    let mut words = [0; LANES];
    for (word, number) in words.iter_mut().zip(numbers) {
        *word = *number as u64;
    }
    let (halves, _) = words.as_chunks::<HALF>();
    [memory::load_u64(&halves[0]), memory::load_u64(&halves[1])]
}
