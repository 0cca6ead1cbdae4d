//! Poly1305 (RFC 8439, section 2.5) with a message per lane, eight lanes to a vector, in radix 2^44.
//!
//! A number modulo p = 2^130 - 5 is three limbs of 44, 44 and 42 bits, each in its own vector. IFMA multiplies 52-bit
//! numbers and adds the low or the high 52 bits of the product; the high half of a product of weight 2^44i has weight
//! 2^(44i + 52), so it goes to the next limb after a shift by 8 (by 10 from the last one, of 42 bits). What goes beyond
//! 2^130 comes back times 5, and products of weight 2^132 times 20, which the multiplier has ready.
//!
//! Bounds: after [`carry`] limbs are below 2^44, 2^44 + 2^20 and 2^42. A limb to be multiplied is such a limb plus a
//! message's, below 2^45 + 2^20; a multiplier's, times 20, below 2^49. So each product's high half is below 2^43, and
//! twelve of them below 2^47; the twelve low halves stay below 2^56. Shifted and added, all is below 2^58.

use std::arch::x86_64::*;

use super::{
    LANES,
    memory::{self, CHUNK_BLOCKS},
};

/// Lanes of 64 bits in a vector: a group of [`LANES`] packets takes two halves.
pub(super) const HALF: usize = LANES / 2;

const MASK_44: u64 = (1 << 44) - 1;
const MASK_42: u64 = (1 << 42) - 1;

/// The bit above each block of the message, 2^128, in the limb of weight 2^88.
pub(super) const HIGH_BIT: u64 = 1 << (128 - 88);

/// Eight numbers modulo p.
pub(super) type Limbs = [__m512i; 3];

/// Eight numbers to multiply with: the limbs, and 20 times the last two.
#[derive(Clone, Copy)]
struct Multiplier {
    limbs: Limbs,
    times_20: [__m512i; 2],
}

/// The one-time keys of eight messages.
#[derive(Clone, Copy)]
pub(super) struct OneTimeKey {
    /// r, r^2, r^3, r^4.
    powers: [Multiplier; CHUNK_BLOCKS],
    /// s, which is added at the end: low and high 64 bits.
    pad: [__m512i; 2],
}

/// Eight sums of products: low and high halves by limb.
#[derive(Clone, Copy)]
struct Products {
    low: Limbs,
    high: Limbs,
}

impl OneTimeKey {
    /// The keys of lanes `8 * UPPER..8 * UPPER + 8` from block 0 of the key stream, word by word.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn new<const UPPER: usize>(block: &[__m512i; 16]) -> Self {
        let r = [joined::<UPPER>(block[0], block[1]), joined::<UPPER>(block[2], block[3])];
        let low = _mm512_and_si512(r[0], _mm512_set1_epi64(0x0fff_fffc_0fff_ffff));
        let high = _mm512_and_si512(r[1], _mm512_set1_epi64(0x0fff_fffc_0fff_fffc));
        let first = Multiplier::new(split::<UPPER>(low, high, _mm512_setzero_si512()));
        let second = first.times::<UPPER>(&first);
        let pad = [joined::<UPPER>(block[4], block[5]), joined::<UPPER>(block[6], block[7])];
        Self { powers: [first, second, second.times::<UPPER>(&first), second.times::<UPPER>(&second)], pad }
    }

    /// Adds the pad to the messages' sums: the tags, low and high 64 bits.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn tags<const SITE: usize>(&self, sum: &Limbs) -> [[u64; HALF]; 2] {
        let [low, high] = reduced::<SITE>(*sum);
        let tag_low = _mm512_add_epi64(low, self.pad[0]);
        let carry = _mm512_cmplt_epu64_mask(tag_low, low);
        let tag_high = _mm512_add_epi64(high, self.pad[1]);
        let tag_high = _mm512_mask_add_epi64(tag_high, carry, tag_high, _mm512_set1_epi64(1));
        [memory::store_u64(tag_low), memory::store_u64(tag_high)]
    }
}

impl Multiplier {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn new(limbs: Limbs) -> Self {
        let times_20 = |limb| _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb));
        Self { limbs, times_20: [times_20(limbs[1]), times_20(limbs[2])] }
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn times<const SITE: usize>(&self, other: &Self) -> Self {
        let mut products = Products::zero();
        products.add_product::<SITE>(&self.limbs, other);
        Self::new(carry::<SITE>(&products))
    }
}

impl Products {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn zero() -> Self {
        Self { low: [_mm512_setzero_si512(); 3], high: [_mm512_setzero_si512(); 3] }
    }

    /// The limb of weight 2^44i of `a` times that of weight 2^44j of `b` goes to limb i + j, or to i + j - 3 times 20.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn add_product<const SITE: usize>(&mut self, a: &Limbs, b: &Multiplier) {
        self.add_terms::<SITE>(a[2], [b.times_20[0], b.times_20[1], b.limbs[0]]);
        self.add_terms::<SITE>(a[1], [b.times_20[1], b.limbs[0], b.limbs[1]]);
        self.add_terms::<SITE>(a[0], b.limbs);
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn add_terms<const SITE: usize>(&mut self, a: __m512i, b: Limbs) {
        for (limb, b) in b.iter().enumerate() {
            self.low[limb] = _mm512_madd52lo_epu64(self.low[limb], a, *b);
            self.high[limb] = _mm512_madd52hi_epu64(self.high[limb], a, *b);
        }
    }
}

/// `sum` times r^4 plus a chunk: the four blocks times r^4, r^3, r^2 and r, the sum added to the first.
///
/// `blocks` are low and high 64 bits of the four blocks in turn, `high_bits` the bit above each.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn absorb<const SITE: usize>(
    sum: &mut Limbs,
    blocks: &[__m512i; 2 * CHUNK_BLOCKS],
    high_bits: &[__m512i; CHUNK_BLOCKS],
    key: &OneTimeKey,
) {
    let mut products = Products::zero();
    // Only the first block waits for the previous chunk, so it comes last.
    for index in [3, 2, 1, 0] {
        let mut limbs = split::<SITE>(blocks[2 * index], blocks[2 * index + 1], high_bits[index]);
        if index == 0 {
            for (limb, sum) in limbs.iter_mut().zip(sum.iter()) {
                *limb = _mm512_add_epi64(*limb, *sum);
            }
        }
        products.add_product::<SITE>(&limbs, &key.powers[CHUNK_BLOCKS - 1 - index]);
    }
    *sum = carry::<SITE>(&products);
}

/// Words of 32 bits to 64, of the lower or the upper eight lanes.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn joined<const UPPER: usize>(low: __m512i, high: __m512i) -> __m512i {
    let lanes = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    let lanes = _mm512_add_epi32(lanes, _mm512_set1_epi32(UPPER as i32 * HALF as i32));
    _mm512_permutex2var_epi32(low, lanes, high)
}

/// Limbs of a number of 128 bits, with `high_bit` added to the last.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn split<const SITE: usize>(low: __m512i, high: __m512i, high_bit: __m512i) -> Limbs {
    let mask = _mm512_set1_epi64(MASK_44 as i64);
    [
        _mm512_and_si512(low, mask),
        _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), mask),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), high_bit),
    ]
}

/// Moves what is above a limb's bits to the next limb, once around.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn carry<const SITE: usize>(products: &Products) -> Limbs {
    let Products { low, high } = products;
    let mask_44 = _mm512_set1_epi64(MASK_44 as i64);
    let mask_42 = _mm512_set1_epi64(MASK_42 as i64);
    let middle = _mm512_add_epi64(low[1], _mm512_slli_epi64::<8>(high[0]));
    let last = _mm512_add_epi64(low[2], _mm512_slli_epi64::<8>(high[1]));
    let middle = _mm512_add_epi64(middle, _mm512_srli_epi64::<44>(low[0]));
    let last = _mm512_add_epi64(last, _mm512_srli_epi64::<44>(middle));
    let beyond = _mm512_add_epi64(_mm512_slli_epi64::<10>(high[2]), _mm512_srli_epi64::<42>(last));
    let first = _mm512_add_epi64(_mm512_and_si512(low[0], mask_44), times_5(beyond));
    [
        _mm512_and_si512(first, mask_44),
        _mm512_add_epi64(_mm512_and_si512(middle, mask_44), _mm512_srli_epi64::<44>(first)),
        _mm512_and_si512(last, mask_42),
    ]
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn times_5(limb: __m512i) -> __m512i {
    _mm512_add_epi64(limb, _mm512_slli_epi64::<2>(limb))
}

/// The one representative below p, as low and high 64 bits of 128 (what is above is not wanted).
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn reduced<const SITE: usize>(limbs: Limbs) -> [__m512i; 2] {
    let mask_44 = _mm512_set1_epi64(MASK_44 as i64);
    let mask_42 = _mm512_set1_epi64(MASK_42 as i64);
    let [mut first, mut middle, mut last] = limbs;
    // The first turn may carry out of the top and come back as 5; then nothing is left for the second to overflow with.
    for _ in 0..2 {
        last = _mm512_add_epi64(last, _mm512_srli_epi64::<44>(middle));
        middle = _mm512_and_si512(middle, mask_44);
        first = _mm512_add_epi64(first, times_5(_mm512_srli_epi64::<42>(last)));
        last = _mm512_and_si512(last, mask_42);
        middle = _mm512_add_epi64(middle, _mm512_srli_epi64::<44>(first));
        first = _mm512_and_si512(first, mask_44);
    }
    // Plus 5 reaches 2^130 exactly when the number is p or more; that sum less 2^130 is then the number less p.
    let less_first = _mm512_add_epi64(first, _mm512_set1_epi64(5));
    let less_middle = _mm512_add_epi64(middle, _mm512_srli_epi64::<44>(less_first));
    let less_last = _mm512_add_epi64(last, _mm512_srli_epi64::<44>(less_middle));
    let too_large = _mm512_cmpgt_epu64_mask(less_last, mask_42);
    let first = _mm512_mask_and_epi64(first, too_large, less_first, mask_44);
    let middle = _mm512_mask_and_epi64(middle, too_large, less_middle, mask_44);
    let last = _mm512_mask_and_epi64(last, too_large, less_last, mask_42);
    [
        _mm512_or_si512(first, _mm512_slli_epi64::<44>(middle)),
        _mm512_or_si512(_mm512_srli_epi64::<20>(middle), _mm512_slli_epi64::<24>(last)),
    ]
}
