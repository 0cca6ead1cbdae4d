//! TAI64N timestamps, the replay protection of initiations.

use crate::time::UnixTime;

/// TAI64 label of the Unix epoch: 2^62 and the 10 leap seconds before it.
const UNIX_EPOCH: u64 = 0x4000_0000_0000_000a;
/// Nanoseconds are rounded down to about 16.8 ms, so that the clock does not give away how busy we are.
const WHITENING_MASK: u32 = (1 << 24) - 1;

/// 8 bytes of seconds and 4 of nanoseconds, big-endian: compares as it reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp([u8; 12]);

impl Timestamp {
    pub(crate) fn whitened(time: UnixTime) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&UNIX_EPOCH.saturating_add(time.secs).to_be_bytes());
        bytes[8..].copy_from_slice(&(time.nanos & !WHITENING_MASK).to_be_bytes());
        Self(bytes)
    }

    pub(crate) const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;
    use crate::time::UnixTime;

    #[test]
    fn unix_epoch_has_the_label_of_tai64() {
        let bytes = *Timestamp::whitened(UnixTime { secs: 0, nanos: 0 }).as_bytes();
        assert_eq!(bytes, [0x40, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0]);
    }

    #[test]
    fn nanoseconds_are_rounded_down_to_16_8_milliseconds() {
        let at = |secs, nanos| Timestamp::whitened(UnixTime { secs, nanos });
        assert_eq!(at(7, (1 << 24) - 1), at(7, 0));
        assert!(at(7, 1 << 24) > at(7, 0));
        assert!(at(8, 0) > at(7, 999_999_999));
    }
}
