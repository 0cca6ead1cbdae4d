//! Which blocks of which packets go through the arithmetic together, and in which order.

use std::arch::x86_64::*;

use super::{
    LANES, break_even,
    burst::{BURST_LEN, Burst, Group},
    chacha::Cipher,
    mac,
    memory::{Lanes, PREFETCH_DISTANCE},
    poly1305::OneTimeKey,
    scattered::{Places, Scattered},
    transpose,
};
use crate::{
    Packet,
    backend::{aws_lc, open_one, seal_one},
};

// Where a function of the cipher is called from. The compiler inlines a function with one caller and would make others
// calls, with all their vectors in memory and a `vzeroupper`; so each caller has its own instance.
const KEYS: usize = 0;
const ROWS: usize = 1;
const SCATTERED: usize = 2;

/// What is secret about a group. Nobody wipes it: all of the stack is, after the batch ([`super::memory`]).
struct Secrets {
    cipher: Cipher,
    keys: [OneTimeKey; 2],
    /// The key stream of block 1, a row per packet: computed beside block 0, which makes the one-time keys.
    first_rows: [__m512i; LANES],
}

/// See [`Aead::seal`](crate::Aead::seal).
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn seal(batch: &mut [Packet<'_>]) -> usize {
    let mut sealed_count = 0;
    for batch in batch.chunks_mut(BURST_LEN) {
        let mut burst = Burst::new(batch);
        for mut group in burst.groups() {
            if break_even::group_wins(group.text_lens()) {
                seal_group(&mut group);
                sealed_count += group.len();
            } else {
                sealed_count += group
                    .packets_mut()
                    .map(|packet| seal_one(packet, aws_lc::seal))
                    .filter(|sealed| *sealed)
                    .count();
            }
        }
    }
    sealed_count
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn seal_group(group: &mut Group<'_, '_, '_>) {
    let secrets = Secrets::of(group);
    let lanes = Lanes::new(group.packets_mut().map(|packet| &mut *packet.buffer));
    xor_key_stream(&secrets, &lanes);
    let tags = mac::tags(&lanes, &secrets.keys);
    for (lane, tag) in tags.iter().enumerate().take(lanes.count()) {
        lanes.write_tag(lane, *tag);
    }
}

/// See [`Aead::open`](crate::Aead::open).
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn open(batch: &mut [Packet<'_>], authentic: &mut [bool]) {
    for (batch, authentic) in batch.chunks_mut(BURST_LEN).zip(authentic.chunks_mut(BURST_LEN)) {
        let mut burst = Burst::new(batch);
        for mut group in burst.groups() {
            if break_even::group_wins(group.text_lens()) {
                open_group(&mut group, authentic);
            } else {
                let origins = group.origins();
                for (packet, origin) in group.packets_mut().zip(origins) {
                    authentic[usize::from(*origin)] = open_one(packet, aws_lc::open);
                }
            }
        }
    }
}

/// No byte of a packet is decrypted before its tag was found right.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn open_group(group: &mut Group<'_, '_, '_>, authentic: &mut [bool]) {
    let secrets = Secrets::of(group);
    let origins = group.origins();
    let mut lanes = Lanes::new(group.packets_mut().map(|packet| &mut *packet.buffer));
    let tags = mac::tags(&lanes, &secrets.keys);
    for (lane, tag) in tags.iter().enumerate().take(lanes.count()) {
        // Not a comparison that could stop at the first difference: whole words, once. The outcome is public.
        let difference = *tag ^ lanes.tag(lane);
        authentic[usize::from(origins[lane])] = difference == 0;
        if difference != 0 {
            lanes.wipe(lane);
        }
    }
    xor_key_stream(&secrets, &lanes);
}

/// Encrypts or decrypts all texts. Not inlined, for the reason that [`mac::tags`] is not.
#[inline(never)]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn xor_key_stream(secrets: &Secrets, lanes: &Lanes<'_>) {
    xor_row::<0, KEYS>(lanes, 0, &secrets.first_rows);
    let mut row = 1;
    while row + 2 <= lanes.common_rows() {
        // Block 0 makes the one-time key: row 0 takes block 1.
        lanes.prefetch_rows(row + PREFETCH_DISTANCE);
        lanes.prefetch_rows(row + PREFETCH_DISTANCE + 1);
        let block = row as u32 + 1;
        let key_stream = secrets.cipher.blocks::<2, ROWS>([block, block + 1]);
        xor_row::<0, ROWS>(lanes, row, &transpose::words::<ROWS>(&key_stream[0]));
        xor_row::<1, ROWS>(lanes, row + 1, &transpose::words::<ROWS>(&key_stream[1]));
        row += 2;
    }
    let mut rest = Scattered::new(lanes, row);
    loop {
        match rest.queue() {
            0 => break,
            1..=LANES => xor_places::<1>(secrets, lanes, &rest.take()),
            _ => xor_places::<2>(secrets, lanes, &rest.take()),
        }
    }
}

/// The same row of every lane, the rest of it where a lane ends in it.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn xor_row<const INDEX: usize, const SITE: usize>(
    lanes: &Lanes<'_>,
    row: usize,
    key_stream: &[__m512i; LANES],
) {
    if row < lanes.whole_rows() {
        lanes.xor_whole_rows::<INDEX, SITE>(row, key_stream);
    } else {
        lanes.xor_rows::<INDEX, SITE>(&Places::row(row), key_stream);
    }
}

/// Rows of whatever lanes have them, sixteen to a pass.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn xor_places<const PASSES: usize>(secrets: &Secrets, lanes: &Lanes<'_>, places: &[Places; PASSES]) {
    // One pass and two are different callers, see `KEYS`.
    const { assert!(PASSES == 1 || PASSES == 2) };
    let key_stream = secrets.cipher.scattered_blocks::<PASSES, SCATTERED>(places);
    let rows = transpose::words::<PASSES>(&key_stream[0]);
    if PASSES == 1 {
        lanes.xor_rows::<2, SCATTERED>(&places[0], &rows);
    } else {
        lanes.xor_rows::<0, SCATTERED>(&places[0], &rows);
        lanes.xor_rows::<1, SCATTERED>(&places[1], &transpose::words::<PASSES>(&key_stream[1]));
    }
}

impl Secrets {
    /// Everything that does not depend on the texts.
    #[inline(never)]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn of(group: &Group<'_, '_, '_>) -> Self {
        let cipher = Cipher::new::<KEYS>(group.keys_and_counters());
        let [key_block, first_block] = cipher.blocks::<2, KEYS>([0, 1]);
        let first_rows = transpose::words::<KEYS>(&first_block);
        Self {
            cipher,
            keys: [OneTimeKey::new::<0>(&key_block), OneTimeKey::new::<1>(&key_block)],
            first_rows,
        }
    }
}
