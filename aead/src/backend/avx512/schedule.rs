//! Which blocks of which packets go through the arithmetic together, and in which order.

use std::arch::x86_64::*;

use super::{
    LANES, break_even,
    burst::{BURST_LEN, Burst, Group},
    chacha::Cipher,
    mac::Authenticator,
    memory::{self, Lanes},
    poly1305::{HALF, OneTimeKey},
    scattered::{Places, Scattered},
    transpose,
};
use crate::{
    Packet,
    backend::{aws_lc, open_one, seal_one},
};

/// How far authentication stays behind encryption, in rows: the bytes are in the cache by then and not in the store
/// buffer, from which a load that straddles two stores cannot be served.
const LAG: usize = 2;

// Where in the schedule a function is called from. The compiler inlines a function of one caller, and would make others
// calls, through memory and with `vzeroupper`: so each place has its own instance.
const SEAL_KEYS: usize = 0;
const SEAL_ROWS: usize = 1;
const SEAL_SCATTERED: usize = 2;
const SEAL_TAGS: usize = 3;
const OPEN_KEYS: usize = 4;
const OPEN_ROWS: usize = 5;
const OPEN_SCATTERED: usize = 6;
const OPEN_TAGS: usize = 7;
const SEAL_HALF_TAGS: usize = 8;
const OPEN_HALF_TAGS: usize = 9;

/// What is secret about a group. One for a burst, overwritten by each group in turn and wiped at the end.
struct Secrets {
    cipher: Cipher,
    keys: [OneTimeKey; 2],
    /// The key stream of block 1, a row per packet: computed beside block 0, which makes the one-time keys.
    first_rows: [__m512i; LANES],
}

/// See [`Aead::seal`](crate::Aead::seal).
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn seal(batch: &mut [Packet<'_>]) -> usize {
    let mut secrets = Secrets::zero();
    let mut sealed_count = 0;
    for batch in batch.chunks_mut(BURST_LEN) {
        let mut burst = Burst::new(batch);
        for mut group in burst.groups() {
            if break_even::group_wins(group.text_lens()) {
                seal_group(&mut secrets, &mut group);
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
    secrets.wipe();
    sealed_count
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn seal_group(secrets: &mut Secrets, group: &mut Group<'_, '_, '_>) {
    secrets.derive::<SEAL_KEYS>(group);
    let lanes = Lanes::new(group.packets_mut().map(|packet| &mut *packet.buffer));
    let mut authenticator = Authenticator::new(&lanes);

    let next_row = xor_first_row::<SEAL_KEYS>(secrets, &lanes);
    let mut row = next_row;
    while row + 2 <= lanes.common_rows() {
        xor_two_rows::<SEAL_ROWS>(secrets, &lanes, row);
        authenticator.advance::<2, SEAL_ROWS>(&secrets.keys, row.saturating_sub(LAG));
        row += 2;
    }
    xor_scattered_rows::<SEAL_SCATTERED>(secrets, &lanes, row);

    let tags = if lanes.count() > HALF {
        authenticator.tags::<2, SEAL_TAGS>(&secrets.keys)
    } else {
        authenticator.tags::<1, SEAL_HALF_TAGS>(&secrets.keys)
    };
    for (lane, tag) in tags.iter().enumerate().take(lanes.count()) {
        lanes.write_tag(lane, *tag);
    }
}

/// See [`Aead::open`](crate::Aead::open).
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn open(batch: &mut [Packet<'_>], authentic: &mut [bool]) {
    let mut secrets = Secrets::zero();
    for (batch, authentic) in batch.chunks_mut(BURST_LEN).zip(authentic.chunks_mut(BURST_LEN)) {
        let mut burst = Burst::new(batch);
        for mut group in burst.groups() {
            if break_even::group_wins(group.text_lens()) {
                open_group(&mut secrets, &mut group, authentic);
            } else {
                let origins = group.origins();
                for (packet, origin) in group.packets_mut().zip(origins) {
                    authentic[usize::from(*origin)] = open_one(packet, aws_lc::open);
                }
            }
        }
    }
    secrets.wipe();
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn open_group(secrets: &mut Secrets, group: &mut Group<'_, '_, '_>, authentic: &mut [bool]) {
    secrets.derive::<OPEN_KEYS>(group);
    let origins = group.origins();
    let mut lanes = Lanes::new(group.packets_mut().map(|packet| &mut *packet.buffer));
    let authenticator = Authenticator::new(&lanes);
    let tags = if lanes.count() > HALF {
        authenticator.tags::<2, OPEN_TAGS>(&secrets.keys)
    } else {
        authenticator.tags::<1, OPEN_HALF_TAGS>(&secrets.keys)
    };
    for (lane, tag) in tags.iter().enumerate().take(lanes.count()) {
        // Not a comparison that could stop at the first difference: whole words, once. The outcome is public.
        let difference = *tag ^ lanes.tag(lane);
        authentic[usize::from(origins[lane])] = difference == 0;
        if difference != 0 {
            lanes.wipe(lane);
        }
    }

    let mut row = xor_first_row::<OPEN_KEYS>(secrets, &lanes);
    while row + 2 <= lanes.common_rows() {
        xor_two_rows::<OPEN_ROWS>(secrets, &lanes, row);
        row += 2;
    }
    xor_scattered_rows::<OPEN_SCATTERED>(secrets, &lanes, row);
}

/// Returns the next row.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn xor_first_row<const SITE: usize>(secrets: &Secrets, lanes: &Lanes<'_>) -> usize {
    xor_row::<0, SITE>(lanes, 0, &secrets.first_rows);
    1
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn xor_two_rows<const SITE: usize>(secrets: &Secrets, lanes: &Lanes<'_>, row: usize) {
    // Block 0 makes the one-time key: row 0 takes block 1.
    let block = row as u32 + 1;
    let key_stream = secrets.cipher.blocks::<2, SITE>([block, block + 1]);
    xor_row::<0, SITE>(lanes, row, &transpose::words::<SITE>(&key_stream[0]));
    xor_row::<1, SITE>(lanes, row + 1, &transpose::words::<SITE>(&key_stream[1]));
}

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
        lanes.xor_rows::<INDEX, 1, SITE>(&Places::row(row), key_stream);
    }
}

/// The rows from `row` on that not every lane has, sixteen or 32 at a time from whatever lanes have them.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn xor_scattered_rows<const SITE: usize>(secrets: &Secrets, lanes: &Lanes<'_>, row: usize) {
    let mut rest = Scattered::new(lanes, row);
    loop {
        match rest.queue() {
            0 => break,
            1..=LANES => xor_places::<1, SITE>(secrets, lanes, &rest.take()),
            _ => xor_places::<2, SITE>(secrets, lanes, &rest.take()),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn xor_places<const PASSES: usize, const SITE: usize>(
    secrets: &Secrets,
    lanes: &Lanes<'_>,
    places: &[Places; PASSES],
) {
    let key_stream = secrets.cipher.scattered_blocks::<PASSES, SITE>(places);
    lanes.xor_rows::<0, PASSES, SITE>(&places[0], &transpose::words::<SITE>(&key_stream[0]));
    if PASSES == 2 {
        lanes.xor_rows::<1, PASSES, SITE>(&places[1], &transpose::words::<SITE>(&key_stream[1]));
    }
}

impl Secrets {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn zero() -> Self {
        Self {
            cipher: Cipher::zero(),
            keys: [OneTimeKey::zero(), OneTimeKey::zero()],
            first_rows: [_mm512_setzero_si512(); LANES],
        }
    }

    /// Everything that does not depend on the texts.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn derive<const SITE: usize>(&mut self, group: &Group<'_, '_, '_>) {
        self.cipher = Cipher::new::<SITE>(group.keys_and_counters());
        let [key_block, first_block] = self.cipher.blocks::<2, SITE>([0, 1]);
        self.first_rows = transpose::words::<SITE>(&first_block);
        self.keys = [OneTimeKey::new::<0>(&key_block), OneTimeKey::new::<1>(&key_block)];
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    fn wipe(&mut self) {
        self.cipher.wipe();
        for key in &mut self.keys {
            key.wipe();
        }
        memory::wipe(&mut self.first_rows);
    }
}
