//! Names and values of the maps of the load generator's programs.
//!
//! Values have no padding and no pointers: the generator maps the long arrays into its memory, and copies the others.
//! Times are nanoseconds of `CLOCK_MONOTONIC`, numbers in the host's order.

use crate::parse::{ETHERNET_LEN, IPV4_LEN, UDP_LEN};

/// Name of the XDP program that makes frames.
pub const GENERATE_PROGRAM: &str = "wgx_generate";
/// Names of the classifiers that take down what arrives, by the number of the interface.
pub const CAPTURE_PROGRAMS: [&str; TARGETS_MAX as usize] = ["wgx_capture_0", "wgx_capture_1"];
/// Array of one [`Sending`].
pub const SENDING: &str = "SENDING";
/// Array of [`Departure`]s, in the order in which they are due.
pub const DEPARTURES: &str = "DEPARTURES";
/// Array of chunks of [`CHUNK_LEN`] bytes, in which the frames of departures are.
pub const CHUNKS: &str = "CHUNKS";
/// Interfaces that frames leave by, by number.
pub const TARGETS: &str = "TARGETS";
/// Array of a [`Capturing`] per CPU.
pub const CAPTURING: &str = "CAPTURING";
/// Array of [`Arrival`]s, those of a CPU in their order.
pub const ARRIVALS: &str = "ARRIVALS";
/// Array of [`KEPT_LEN`] bytes: whole frames of some arrivals.
pub const KEPT: &str = "KEPT";

/// Most interfaces.
pub const TARGETS_MAX: u32 = 2;
/// Longest frame: Ethernet header, and an MTU of 1500 bytes.
pub const FRAME_LEN_MAX: usize = ETHERNET_LEN + 1500;
/// Bytes of a chunk. No frame crosses from one into the next.
pub const CHUNK_LEN: usize = 1 << 16;
/// Where in a chunk the last frame may start, whatever its length: what the verifier wants to see.
pub const OFFSET_MAX: usize = CHUNK_LEN - FRAME_LEN_MAX;
/// Bytes of each arrival that are taken down: Ethernet, IPv4 and UDP headers without options, and 16 bytes of payload.
pub const HEAD_LEN: usize = ETHERNET_LEN + IPV4_LEN + UDP_LEN + 16;
/// Bytes of a frame that is kept.
pub const KEPT_LEN: usize = 2048;

/// How often one invocation looks at the clock before it gives its frame back unused. The verifier walks every turn.
pub const TURNS: u32 = 512;

/// How far the generator is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Sending {
    /// When sending starts.
    pub start_ns: u64,
    /// After this nothing is sent.
    pub deadline_ns: u64,
    /// Departures there are.
    pub count: u32,
    /// The next one.
    pub next: u32,
    /// Frames that no interface took.
    pub failed: u32,
    /// Not 0 once the deadline has passed before the last departure.
    pub ended: u32,
}

/// A frame that is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Departure {
    /// When it is due, from the start on.
    pub due_ns: u64,
    /// When it was sent; the program writes it.
    pub sent_ns: u64,
    /// In which chunk it is,
    pub chunk: u32,
    /// from which byte on: [`OFFSET_MAX`] at most.
    pub offset: u32,
    /// Its length: [`FRAME_LEN_MAX`] at most.
    pub len: u32,
    /// The interface it leaves by.
    pub target: u32,
}

/// How far the capture is on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Capturing {
    /// UDP packets seen, with those there was no room for.
    pub seen: u64,
    /// The first of this CPU's arrivals,
    pub first: u32,
    /// and how many there is room for.
    pub room: u32,
    /// Of so many one is kept; 0 keeps none.
    pub keep_every: u32,
    /// Where the first is kept.
    pub first_kept: u32,
}

/// A frame that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Arrival {
    /// When.
    pub at_ns: u64,
    /// Its length.
    pub len: u32,
    /// The number of the interface.
    pub interface: u16,
    /// Its first bytes.
    pub head: [u8; HEAD_LEN],
}

const _: () = assert!(size_of::<Sending>() == 32 && size_of::<Departure>() == 32);
const _: () = assert!(size_of::<Capturing>() == 24 && size_of::<Arrival>() == 72);
