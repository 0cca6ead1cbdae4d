//! `CLOCK_MONOTONIC` in nanoseconds: one clock for every process and namespace of a host.

use rustix::io::Errno;
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * NANOSECONDS_PER_SECOND + now.tv_nsec as u64
}

/// Sleeps until the clock shows `deadline_ns`, or until a signal arrives: callers look at the clock again.
pub fn sleep_until(deadline_ns: u64) {
    let request = Timespec {
        tv_sec: (deadline_ns / NANOSECONDS_PER_SECOND) as i64,
        tv_nsec: (deadline_ns % NANOSECONDS_PER_SECOND) as i64,
    };
    match clock_nanosleep_absolute(ClockId::Monotonic, &request) {
        Ok(()) | Err(Errno::INTR) => {}
        Err(error) => unreachable!("CLOCK_MONOTONIC and a normalized time are always valid: {error}"),
    }
}
