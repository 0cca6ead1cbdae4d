//! When one pass over several packets beats taking them one after the other.
//!
//! The passes of a group cost the same however many of its lanes are taken, so few packets are faster singly: one of
//! any length, two of most, three of 208 bytes. And one long packet among short ones makes the others wait: their lanes idle
//! while the chunks of its tag are computed, each after the last. The estimate is a sum of steps, each in nanoseconds
//! of a Zen 5 core at 3.6 GHz; only proportions matter, and they were within 10 % of what `cargo xtask bench aead`
//! shows for batches of 1 to 8 packets of 64, 208, 512, 1228 and 1424 bytes.

use super::{
    LANES,
    memory::{CHUNK_BLOCKS, MAC_BLOCK_LEN, ROW_LEN},
};

/// One packet alone, besides its rows.
const SINGLE: usize = 190;

/// A row of 64 bytes of a packet alone.
const SINGLE_ROW: usize = 27;

/// A group: gathering keys, key blocks and first rows, powers, tags.
const GROUP: usize = 580;

/// A chunk of the tags of up to eight packets, and of more.
const CHUNK: [usize; 2] = [26, 40];

/// Two passes of the cipher, each over [`LANES`] rows.
const TWO_PASSES: usize = 210;

/// Whether packets with texts of these lengths are faster as a group.
#[inline]
pub(super) fn group_wins(text_lens: impl Iterator<Item = usize>) -> bool {
    let (mut count, mut rows, mut longest) = (0, 0, 0_usize);
    for text_len in text_lens {
        count += 1;
        rows += text_len.div_ceil(ROW_LEN);
        longest = longest.max(text_len);
    }
    let chunks = (longest.div_ceil(MAC_BLOCK_LEN) + 1).div_ceil(CHUNK_BLOCKS);
    // First rows are computed with the key blocks.
    let pairs = rows.saturating_sub(count).div_ceil(2 * LANES);
    let together = GROUP + chunks * CHUNK[usize::from(count > LANES / 2)] + pairs * TWO_PASSES;
    together < count * SINGLE + rows * SINGLE_ROW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_packets_are_taken_singly_and_many_together() {
        for text_len in [0, 64, 208, 512, 1228, 1424, 9000] {
            assert!(!group_wins([text_len].into_iter()), "one of {text_len}");
            assert!(group_wins([text_len; 4].into_iter()), "four of {text_len}");
            assert!(group_wins([text_len; LANES].into_iter()), "a full group of {text_len}");
        }
    }

    #[test]
    fn one_jumbo_packet_does_not_hold_up_short_ones() {
        let mut text_lens = [64; LANES];
        assert!(group_wins(text_lens.into_iter()));
        text_lens[0] = 1 << 16;
        assert!(!group_wins(text_lens.into_iter()));
    }
}
