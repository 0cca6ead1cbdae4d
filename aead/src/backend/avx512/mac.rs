//! The tags of a group, chunk by chunk: all messages end together, so that unequal lengths cost zeros in front and not
//! a branch per lane.

use std::arch::x86_64::*;

use super::{
    LANES,
    memory::{self, CHUNK_BLOCKS, EndAligned, Lanes, PREFETCH_DISTANCE},
    poly1305::{self, HALF, HIGH_BIT, Limbs, OneTimeKey},
    transpose,
};

/// The tags of the texts, which must be ciphertext by now.
///
/// Not inlined: once per group a call costs nothing, and sealing and opening share the code's room in the cache.
#[inline(never)]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn tags(lanes: &Lanes<'_>, keys: &[OneTimeKey; 2]) -> [u128; LANES] {
    if lanes.count() > HALF { tags_of_halves::<2>(lanes, keys) } else { tags_of_halves::<1>(lanes, keys) }
}

/// `HALVES` is 1 when the upper eight lanes hold no packet, and leaves them zero.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn tags_of_halves<const HALVES: usize>(lanes: &Lanes<'_>, keys: &[OneTimeKey; 2]) -> [u128; LANES] {
    let messages = Messages::new(lanes);
    let whole = messages.texts.whole();
    let mut sums = [[_mm512_setzero_si512(); 3]; 2];
    for chunk in 0..messages.texts.chunks() {
        messages.texts.prefetch_chunk(chunk + PREFETCH_DISTANCE);
        if whole.contains(&chunk) {
            messages.absorb_whole::<0, HALVES>(chunk, &mut sums[0], &keys[0]);
            if HALVES == 2 {
                messages.absorb_whole::<1, HALVES>(chunk, &mut sums[1], &keys[1]);
            }
        } else {
            messages.absorb_edge::<0, HALVES>(chunk, &mut sums[0], &keys[0]);
            if HALVES == 2 {
                messages.absorb_edge::<1, HALVES>(chunk, &mut sums[1], &keys[1]);
            }
        }
    }
    let mut tags = [0; LANES];
    for (tags, (sum, key)) in tags.chunks_exact_mut(HALF).zip(sums.iter().zip(keys)).take(HALVES) {
        let [low, high] = key.tags::<HALVES>(sum);
        for (tag, (low, high)) in tags.iter_mut().zip(low.iter().zip(&high)) {
            *tag = u128::from(*low) | u128::from(*high) << 64;
        }
    }
    tags
}

/// The messages that Poly1305 sees: text, padding and a block with the lengths, and zeros in front.
struct Messages<'a> {
    texts: EndAligned<'a>,
    /// The second half of the last block: bytes of ciphertext. The first, bytes of associated data, is zero.
    text_len: [__m512i; 2],
    /// Blocks of zeros in front, which stay zeros: they get no bit above them.
    lead: [__m512i; 2],
}

impl<'a> Messages<'a> {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn new(lanes: &Lanes<'a>) -> Self {
        let texts = lanes.end_aligned();
        let (text_len, lead) = (halves(texts.len()), halves(texts.lead()));
        Self { texts, text_len, lead }
    }

    /// Absorbs a chunk of the lower eight lanes (`INDEX` 0) or the upper (1).
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn absorb_whole<const INDEX: usize, const SITE: usize>(
        &self,
        chunk: usize,
        sum: &mut Limbs,
        key: &OneTimeKey,
    ) {
        let blocks = transpose::double_words::<SITE>(&self.texts.whole_chunk::<INDEX, SITE>(chunk));
        let high_bits = [_mm512_set1_epi64(HIGH_BIT as i64); CHUNK_BLOCKS];
        poly1305::absorb::<SITE>(sum, &blocks, &high_bits, key);
    }

    /// The same for a chunk that is outside the text in some lane: the first ones, and the last with the lengths.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn absorb_edge<const INDEX: usize, const SITE: usize>(
        &self,
        chunk: usize,
        sum: &mut Limbs,
        key: &OneTimeKey,
    ) {
        let mut blocks = transpose::double_words::<SITE>(&self.texts.part_chunk::<INDEX, SITE>(chunk));
        if chunk + 1 == self.texts.chunks() {
            blocks[2 * CHUNK_BLOCKS - 1] = self.text_len[INDEX];
        }
        let mut high_bits = [_mm512_set1_epi64(HIGH_BIT as i64); CHUNK_BLOCKS];
        for (index, high_bit) in high_bits.iter_mut().enumerate() {
            let block = _mm512_set1_epi64((chunk * CHUNK_BLOCKS + index) as i64);
            let in_message = _mm512_cmpge_epu64_mask(block, self.lead[INDEX]);
            *high_bit = _mm512_maskz_mov_epi64(in_message, *high_bit);
        }
        poly1305::absorb::<SITE>(sum, &blocks, &high_bits, key);
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
