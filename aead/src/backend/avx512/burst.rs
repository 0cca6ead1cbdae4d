//! Up to 64 packets of a batch, put in an order in which neighbours are about equally long.

use zeroize::Zeroize;

use super::LANES;
use crate::{Key, Packet, TAG_LEN};

/// How many packets are ordered at a time: four groups. More would sort better and need more memory.
pub(super) const BURST_LEN: usize = 64;

/// Lengths are told apart by blocks of the key stream, and not at all beyond this many.
const MAX_ROWS: usize = 31;

/// Packets by length, the longest first.
pub(super) struct Burst<'s, 'p> {
    slots: [Option<&'s mut Packet<'p>>; BURST_LEN],
    /// Where each was in the batch.
    origins: [u8; BURST_LEN],
    count: usize,
}

impl<'s, 'p> Burst<'s, 'p> {
    /// Takes at most [`BURST_LEN`] packets. Those without room for a tag are wiped and left out.
    pub(super) fn new(batch: &'s mut [Packet<'p>]) -> Self {
        let first_len = batch.first().map_or(0, |packet| packet.buffer.len());
        let mut ends = [0_u8; MAX_ROWS + 1];
        let mut uniform = first_len >= TAG_LEN;
        for packet in batch.iter() {
            uniform &= packet.buffer.len() == first_len;
        }
        let mut burst = Self { slots: [const { None }; BURST_LEN], origins: [0; BURST_LEN], count: 0 };
        if uniform {
            burst.count = batch.len();
            for (origin, packet) in batch.iter_mut().enumerate() {
                burst.origins[origin] = origin as u8;
                burst.slots[origin] = Some(packet);
            }
            return burst;
        }
        for text_len in batch.iter().filter_map(|packet| packet.buffer.len().checked_sub(TAG_LEN)) {
            ends[class(text_len)] += 1;
        }
        let mut start = 0;
        for place in &mut ends {
            start += std::mem::replace(place, start);
        }
        for (origin, packet) in batch.iter_mut().enumerate() {
            let Some(text_len) = packet.buffer.len().checked_sub(TAG_LEN) else {
                packet.buffer.zeroize();
                continue;
            };
            let place = &mut ends[class(text_len)];
            burst.origins[usize::from(*place)] = origin as u8;
            burst.slots[usize::from(*place)] = Some(packet);
            *place += 1;
            burst.count += 1;
        }
        burst
    }

    /// The packets in groups of at most [`LANES`].
    #[inline]
    pub(super) fn groups(&mut self) -> impl Iterator<Item = Group<'_, 's, 'p>> {
        let slots = self.slots[..self.count].chunks_mut(LANES);
        slots.zip(self.origins.chunks(LANES)).map(|(slots, origins)| Group { slots, origins })
    }
}

/// Up to [`LANES`] packets of a burst that are about equally long.
pub(super) struct Group<'b, 's, 'p> {
    /// All of them taken.
    slots: &'b mut [Option<&'s mut Packet<'p>>],
    origins: &'b [u8],
}

impl<'b, 'p> Group<'b, '_, 'p> {
    /// How many packets there are; at least one.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Length of each text.
    pub(super) fn text_lens(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().flatten().map(|packet| packet.buffer.len() - TAG_LEN)
    }

    /// Key and nonce of each packet.
    pub(super) fn keys_and_counters(&self) -> impl Iterator<Item = (&'p Key, u64)> {
        self.slots.iter().flatten().map(|packet| (packet.key, packet.counter))
    }

    pub(super) fn packets_mut(&mut self) -> impl Iterator<Item = &mut Packet<'p>> {
        self.slots.iter_mut().flatten().map(|packet| &mut **packet)
    }

    /// Where each packet was in the batch that the burst was made of.
    pub(super) fn origins(&self) -> &'b [u8] {
        self.origins
    }
}

/// Longest first: 0 for [`MAX_ROWS`] blocks and more, [`MAX_ROWS`] for none.
fn class(text_len: usize) -> usize {
    MAX_ROWS - text_len.div_ceil(64).min(MAX_ROWS)
}
