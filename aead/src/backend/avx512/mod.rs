//! ChaCha20-Poly1305 across packets, with AVX-512 and IFMA: a packet per lane.
//!
//! A packet of 64 bytes has too few blocks for a vector, and the blocks of one Poly1305 sum wait for each other. Those
//! of sixteen packets do neither, whatever their keys. So the schedule is vertical:
//!
//! 1. A [`burst`] of up to 64 packets is sorted by length, in linear time, and cut into groups of sixteen.
//! 2. The cipher runs over the same block of all lanes: word `w` of sixteen states is a vector. Block 0, which makes
//!    the one-time keys, and block 1 come first; then two blocks at a time.
//! 3. Rows that not every lane has are gathered from the lanes that do, by permuting the words of keys and nonces, so
//!    that lengths of 64 to 1424 bytes in one burst leave few lanes idle ([`scattered`]). A group with fewer than
//!    sixteen packets is all such rows: 8 packets of 1424 bytes take 12 passes of the cipher, not 24.
//! 4. Poly1305 takes a message per lane of 64 bits, four blocks a step with r to r^4, all messages ending together
//!    ([`mac`]): shorter ones have zeros in front, which add nothing.
//! 5. Sealing encrypts, then computes tags; opening computes and compares the tags of a group before it decrypts.
//!
//! Two blocks at a time, because a quarter round is a chain of twelve instructions and one block has only four of them
//! side by side: at two cycles each (Zen 5) that was 530 cycles for a pass of 960 instructions. With eight side by side
//! a pass takes 440 and that includes a row's tag. The 32 words just fit the registers, as no step of a round needs
//! another.
//!
//! On a virtual machine with an AMD EPYC (Zen 5), nanoseconds per packet to seal and to open, the best of 1000 batches
//! of 64 packets with 64 keys, and how many times faster than ring 0.17 in the same run:
//!
//! | bytes | 64 | 208 | 512 | 1228 | 1424 | mixed |
//! |---|---|---|---|---|---|---|
//! | seal | 32, 6.4x | 66, 3.8x | 91, 3.8x | 185, 3.6x | 200, 3.6x | 153, 3.3x |
//! | open | 32, 6.6x | 66, 3.9x | 93, 4.2x | 187, 4.2x | 206, 3.6x | 150, 3.7x |
//!
//! What did not help there: computing tags beside the cipher, a few rows behind it (8 % slower at 1424 bytes than
//! one after the other; both keep the execution units busy by themselves). What hurt: masked accesses to pages that
//! are not mapped, even with an empty mask (hundreds of cycles each), and masked stores where whole ones would do.
//!
//! Packets come from a network card or from another core. Sixteen of them are more streams than the processor follows by
//! itself, so the tags, and the cipher where it comes first, ask for memory four rows ahead. In the gateway the tag of a
//! packet of 1228 bytes took 247 to 307 ns before and 118 to 192 ns since, in single runs (`cargo xtask bench profile`, `perf
//! record` beside `cargo xtask bench trial decrypt`). Packets of 1424 bytes from memory, in no order, take 321 ns to open
//! with it and 400 without, 298 and 333 to seal; from the cache that all cores share 243 and 261, and 265 and 267 (`cargo
//! xtask bench aead`, medians of ten runs each, in turns). Near ones take up to 3 % more with it.
//!
//! Constant time: lengths and counters decide what is done; keys, texts and tags do not, neither by branch nor by
//! address. Whether a tag was right is public. Keys, powers and key stream are on the stack only, where we and the
//! compiler keep them, and after each batch as much of it as the kernels use is overwritten. In registers they stay until
//! something else is computed; so does on the stack what a signal's handler finds there.
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
