//! ChaCha20-Poly1305 across packets, with AVX-512 and IFMA: a packet per lane.
#![allow(clippy::wildcard_imports, reason = "intrinsics: their names say where they come from, and are many")]

mod break_even;
mod burst;
mod chacha;
mod mac;
mod memory;
mod poly1305;
mod scattered;
mod schedule;
#[cfg(test)]
mod tests;
mod transpose;

use super::{aws_lc, open_each, seal_each};
use crate::{Packet, TAG_LEN};
pub(crate) use memory::Features;

/// Packets that go through the arithmetic together: as many as there are 32-bit lanes in a vector.
const LANES: usize = 16;

/// See [`Aead::seal`](crate::Aead::seal).
pub(super) fn seal(features: Features, batch: &mut [Packet<'_>]) -> usize {
    if is_better_taken_singly(batch) { seal_each(batch, aws_lc::seal) } else { memory::seal(features, batch) }
}

/// See [`Aead::open`](crate::Aead::open); `authentic` is as long as `batch`.
pub(super) fn open(features: Features, batch: &mut [Packet<'_>], authentic: &mut [bool]) {
    if is_better_taken_singly(batch) {
        open_each(batch, authentic, aws_lc::open);
    } else {
        memory::open(features, batch, authentic);
    }
}

/// Decides for small batches before anything is set up for a group. Larger ones are decided group by group.
fn is_better_taken_singly(batch: &[Packet<'_>]) -> bool {
    batch.len() <= LANES
        && !break_even::group_wins(batch.iter().map(|packet| packet.buffer.len().saturating_sub(TAG_LEN)))
}
