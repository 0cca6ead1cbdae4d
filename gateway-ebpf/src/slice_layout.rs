//! Names and values of the maps of the program that takes down time slices.
//!
//! Values have no padding and no pointers. Times are nanoseconds of `CLOCK_MONOTONIC`, numbers in the host's order.

/// Name of the program that sees every switch of threads.
pub const SWITCH_PROGRAM: &str = "wgx_sched_switch";
/// The tracepoint it belongs to (`trace_sched_switch`, kernel/sched/core.c).
pub const SWITCH_TRACEPOINT: &str = "sched_switch";
/// Name of the program that a clock runs on each CPU, every [`CLOCK_PERIOD_NS`].
pub const CLOCK_PROGRAM: &str = "wgx_clock";
/// Between two runs of the clock.
pub const CLOCK_PERIOD_NS: u64 = 1_000_000;
/// By so much the clock is late at least when the CPU stood still.
pub const STANDSTILL_MIN_NS: u64 = 100_000;
/// Array of a [`Watch`] per CPU.
pub const WATCHES: &str = "WATCHES";
/// Array of [`TimeSlice`]s, those of a CPU in their order.
pub const TIME_SLICES: &str = "TIME_SLICES";

/// Processes whose own slices are left out.
pub const OWN_MAX: usize = 2;
/// Bytes of a thread's name (`TASK_COMM_LEN`, include/linux/sched.h).
pub const NAME_LEN: usize = 16;
/// Shorter slices are left out.
pub const SLICE_MIN_NS: u64 = 20_000;

/// What is taken down on one CPU, and how far that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Watch {
    /// Since when the thread that runs now has had the CPU, as far as is known.
    pub since_ns: u64,
    /// When the clock ran last; 0 before it ran at all.
    pub clock_ns: u64,
    /// Slices seen, with those there was no room for.
    pub seen: u32,
    /// The first of this CPU's slices,
    pub first: u32,
    /// and how many there is room for.
    pub room: u32,
    /// Processes whose own slices are left out; 0 is none.
    pub own: [u32; OWN_MAX],
    /// Always 0.
    pub reserved: u32,
}

/// A thread's time on a CPU, from one switch to the next; or one in which the CPU stood still, without a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct TimeSlice {
    /// From when,
    pub from_ns: u64,
    /// until when.
    pub until_ns: u64,
    /// The thread's name, with zeros behind it.
    pub name: [u8; NAME_LEN],
}

const _: () = assert!(size_of::<Watch>() == 40 && size_of::<TimeSlice>() == 32);
