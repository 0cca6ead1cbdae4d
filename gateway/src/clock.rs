//! The one clock: monotonic nanoseconds since the program started, and wall time for what leaves the host.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wireguard::{Now, Time, UnixTime};

/// A copyable clock. All copies of one clock agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now. Its first reading is one second, since 0 means "never" in activity marks.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Monotonic time.
    pub fn monotonic(&self) -> Time {
        Time(1_000_000_000 + self.start.elapsed().as_nanos() as u64)
    }

    /// Monotonic and wall time.
    pub fn now(&self) -> Now {
        // A wall clock before 1970 is no error of ours: timestamps then start at the epoch.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic: self.monotonic(),
            unix: UnixTime { secs: unix.as_secs(), nanos: unix.subsec_nanos() },
        }
    }
}
