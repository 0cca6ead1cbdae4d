//! Transposes between one packet per lane (arithmetic) and one packet per vector (memory).

use std::arch::x86_64::*;

use super::LANES;

/// Transposes a 16 by 16 matrix of 32-bit words.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn words<const SITE: usize>(rows: &[__m512i; LANES]) -> [__m512i; LANES] {
    // Four rows at a time, within each 128-bit quarter: quads[4 * r + c] holds column 4 * quarter + c of rows 4r..4r+4.
    let mut quads = *rows;
    for (quad, row) in quads.as_chunks_mut::<4>().0.iter_mut().zip(rows.as_chunks::<4>().0) {
        let low = [_mm512_unpacklo_epi32(row[0], row[1]), _mm512_unpacklo_epi32(row[2], row[3])];
        let high = [_mm512_unpackhi_epi32(row[0], row[1]), _mm512_unpackhi_epi32(row[2], row[3])];
        *quad = [
            _mm512_unpacklo_epi64(low[0], low[1]),
            _mm512_unpackhi_epi64(low[0], low[1]),
            _mm512_unpacklo_epi64(high[0], high[1]),
            _mm512_unpackhi_epi64(high[0], high[1]),
        ];
    }
    let mut columns = quads;
    for column in 0..4 {
        let quarters =
            quarters::<SITE>(quads[column], quads[4 + column], quads[8 + column], quads[12 + column]);
        columns[column] = quarters[0];
        columns[4 + column] = quarters[1];
        columns[8 + column] = quarters[2];
        columns[12 + column] = quarters[3];
    }
    columns
}

/// Transposes an 8 by 8 matrix of 64-bit words.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn double_words<const SITE: usize>(rows: &[__m512i; LANES / 2]) -> [__m512i; LANES / 2] {
    let even = quarters::<SITE>(
        _mm512_unpacklo_epi64(rows[0], rows[1]),
        _mm512_unpacklo_epi64(rows[2], rows[3]),
        _mm512_unpacklo_epi64(rows[4], rows[5]),
        _mm512_unpacklo_epi64(rows[6], rows[7]),
    );
    let odd = quarters::<SITE>(
        _mm512_unpackhi_epi64(rows[0], rows[1]),
        _mm512_unpackhi_epi64(rows[2], rows[3]),
        _mm512_unpackhi_epi64(rows[4], rows[5]),
        _mm512_unpackhi_epi64(rows[6], rows[7]),
    );
    [even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]]
}

/// Transposes a 4 by 4 matrix of 128-bit quarters.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn quarters<const SITE: usize>(a: __m512i, b: __m512i, c: __m512i, d: __m512i) -> [__m512i; 4] {
    let low = [_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d)];
    let high = [_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(c, d)];
    [
        _mm512_shuffle_i32x4::<0x88>(low[0], low[1]),
        _mm512_shuffle_i32x4::<0xdd>(low[0], low[1]),
        _mm512_shuffle_i32x4::<0x88>(high[0], high[1]),
        _mm512_shuffle_i32x4::<0xdd>(high[0], high[1]),
    ]
}
