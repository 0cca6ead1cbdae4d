//! Addresses as numbers, cut into chunks of six bits.

/// Bits of a chunk.
const CHUNK_LEN: u8 = 6;
/// Chunks are counted from the end of an address, so that hosts fill the nodes they are in: the first chunk lacks four
/// bits, of 32 as of 128.
const MISSING_LEN: u8 = 4;

/// An address as a number, its first bit the highest. Its chunks are called by their level, from 0.
pub(super) trait Bits: Copy + Eq {
    /// Number of chunks.
    const LEVELS: u8;
    /// All bits zero.
    const ZERO: Self;

    /// The chunk at `level`, which is less than [`Bits::LEVELS`].
    fn chunk(self, level: u8) -> u8;

    /// The chunks before `level`, the rest zero.
    fn truncated(self, level: u8) -> Self;

    /// Whether the chunks before `level` are the same.
    fn agrees(self, other: Self, level: u8) -> bool;

    /// Number of chunks from the front that are the same.
    fn common_levels(self, other: Self) -> u8;

    /// With this chunk at `level`, where all bits are zero.
    fn with_chunk(self, level: u8, chunk: u8) -> Self;
}

macro_rules! impl_bits {
    ($integer:ty) => {
        impl Bits for $integer {
            const LEVELS: u8 = (<$integer>::BITS as u8 + MISSING_LEN) / CHUNK_LEN;
            const ZERO: Self = 0;

            #[inline]
            fn chunk(self, level: u8) -> u8 {
                (self >> (CHUNK_LEN * (Self::LEVELS - 1 - level))) as u8 & 0x3f
            }

            fn truncated(self, level: u8) -> Self {
                let rest_len = CHUNK_LEN * (Self::LEVELS - level);
                let rest = Self::MAX.checked_shl(rest_len.into()).unwrap_or(0);
                self & rest
            }

            #[inline]
            fn agrees(self, other: Self, level: u8) -> bool {
                let rest_len = CHUNK_LEN * (Self::LEVELS - level);
                (self ^ other).checked_shr(rest_len.into()).unwrap_or(0) == 0
            }

            fn common_levels(self, other: Self) -> u8 {
                ((self ^ other).leading_zeros() as u8 + MISSING_LEN) / CHUNK_LEN
            }

            fn with_chunk(self, level: u8, chunk: u8) -> Self {
                self | Self::from(chunk) << (CHUNK_LEN * (Self::LEVELS - 1 - level))
            }
        }
    };
}

impl_bits!(u32);
impl_bits!(u128);

/// Where in a trie a prefix is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The level of the chunk in which the prefix ends.
    pub(super) level: u8,
    /// Which of the prefixes that end in that chunk: its bits there, behind a one. From 2 to 127.
    pub(super) index: u8,
}

impl Place {
    /// The place of the first `len` bits; `None` for no bits, which end nowhere.
    pub(super) fn new<B: Bits>(bits: B, len: u8) -> Option<Self> {
        let level = (len.checked_sub(1)? + MISSING_LEN) / CHUNK_LEN;
        let within = len + MISSING_LEN - CHUNK_LEN * level;
        let index = 1 << within | bits.chunk(level) >> (CHUNK_LEN - within);
        Some(Self { level, index })
    }

    /// The prefix at this place whose chunks before are those of `bits`, and its length.
    pub(super) fn prefix<B: Bits>(self, bits: B) -> (B, u8) {
        let within = self.index.ilog2() as u8;
        let chunk = (self.index - (1 << within)) << (CHUNK_LEN - within);
        (bits.with_chunk(self.level, chunk), CHUNK_LEN * self.level + within - MISSING_LEN)
    }
}

/// By chunk: the indices below 64, of all shorter prefixes that contain it.
pub(super) static CONTAINING: [u64; 64] = {
    let mut containing = [0; 64];
    let mut chunk = 0;
    while chunk < 64 {
        let mut index = 32 + chunk / 2;
        while index > 1 {
            containing[chunk] |= 1 << index;
            index /= 2;
        }
        chunk += 1;
    }
    containing
};

#[cfg(test)]
mod tests {
    use super::*;

    fn check_places<B: Bits + std::fmt::Debug>(bits: B, width: u8, truncate: impl Fn(u8) -> B) {
        for len in 1..=width {
            let prefix = truncate(len);
            let place = Place::new(prefix, len).unwrap();
            assert!(place.level < B::LEVELS && (2..128).contains(&place.index), "{place:?}");
            assert_eq!(place.prefix(prefix.truncated(place.level)), (prefix, len));
            let chunk = bits.chunk(place.level);
            let contains = match place.index.checked_sub(64) {
                Some(whole) => whole == chunk,
                None => CONTAINING[usize::from(chunk)] >> place.index & 1 == 1,
            };
            assert!(contains, "{place:?}");
            assert!(bits.agrees(prefix, place.level) && bits.common_levels(prefix) >= place.level);
        }
        assert_eq!(Place::new(bits, 0), None);
    }

    #[test]
    fn every_prefix_has_its_place() {
        let v4 = 0xdead_beef_u32;
        check_places(v4, 32, |len| v4 & u32::MAX << (32 - len));
        let v6 = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128;
        check_places(v6, 128, |len| v6 & u128::MAX << (128 - len));
    }
}
