//! TAI64N timestamps as initiations carry them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The label of the second 1970-01-01 00:00:00 UTC: TAI was ten seconds ahead.
pub const BASE: u64 = 0x4000_0000_0000_000a;

/// Nanoseconds are rounded down to a multiple of this, so that they do not show the sender's clock (kernel
/// `tai64n_now`).
pub const WHITENING_NS: u32 = 1 << 24;

/// A timestamp: seconds and nanoseconds, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub [u8; 12]);

impl Timestamp {
    /// The present, to the nanosecond.
    pub fn now() -> Self {
        Self::at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// A time since 1970.
    pub fn at(since_1970: Duration) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&(BASE + since_1970.as_secs()).to_be_bytes());
        bytes[8..].copy_from_slice(&since_1970.subsec_nanos().to_be_bytes());
        Self(bytes)
    }

    /// Seconds since 1970; negative ones are an error of the sender.
    pub fn unix_seconds(self) -> Option<u64> {
        let label = self.0.first_chunk().copied().map(u64::from_be_bytes);
        label.and_then(|label| label.checked_sub(BASE))
    }

    /// Nanoseconds within the second.
    pub fn nanoseconds(self) -> u32 {
        self.0.last_chunk().copied().map(u32::from_be_bytes).unwrap_or_default()
    }

    /// The time `step` after.
    #[must_use]
    pub fn later_by(self, step: Duration) -> Self {
        let since_1970 = Duration::new(self.unix_seconds().unwrap_or_default(), self.nanoseconds());
        Self::at(since_1970 + step)
    }

    /// The time `step` before.
    #[must_use]
    pub fn earlier_by(self, step: Duration) -> Self {
        let since_1970 = Duration::new(self.unix_seconds().unwrap_or_default(), self.nanoseconds());
        Self::at(since_1970.saturating_sub(step))
    }
}
