//! Time as an argument: the crate never reads a clock.

use std::{ops::Add, time::Duration};

/// Nanoseconds on a monotonic clock since an arbitrary epoch.
///
/// All threads that touch one device must use one clock. 0 is a valid time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Time passed since `earlier`, zero if that is in the future.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Time since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime {
    /// Whole seconds.
    pub secs: u64,
    /// Nanoseconds of the second, below 1,000,000,000.
    pub nanos: u32,
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// For everything that measures.
    pub monotonic: Time,
    /// For handshake timestamps and for showing the last handshake.
    pub unix: UnixTime,
}
