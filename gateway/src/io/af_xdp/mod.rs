//! AF_XDP sockets: one per (interface, queue), all on shared memory. The one place that names xsk-rs.
#![expect(unsafe_code, reason = "memory shared with the kernel; each block names the invariant it rests on")]

mod bind;
mod link;
mod mapping;
mod monitor;
mod options;
mod tx_ring;
pub mod umem;

pub use bind::BindError;
pub use link::{AfXdpLink, CopyMode};
pub use monitor::{LinkMonitor, LinkStatistics};
pub use options::KernelStatistics;

/// Entries of the rings. Powers of two.
///
/// A veth ring holds 256 packets and a NIC's 512 to 4096: twice the common size absorbs a worker that was
/// away for a scheduling quantum. Latency under overload is bounded by these, too.
pub mod ring_len {
    /// Received packets waiting for the worker.
    pub const RX: u32 = 2048;
    /// Packets waiting for the kernel to send them.
    pub const TX: u32 = 2048;
    /// Frames waiting to receive into: as many as may wait in the receive ring.
    pub const FILL: u32 = 2048;
    /// Sent frames on their way back: as many as may be under way.
    pub const COMPLETION: u32 = 2048;
}

/// Frames one link takes at most: what fills its rings.
pub const LINK_FRAME_COUNT: u32 = ring_len::FILL + ring_len::TX;

/// Descriptors moved between user space and a ring at once, and packets a poll of the NAPI instance may take.
const BURST: usize = 64;

/// An error of xsk-rs with the system error it hides in its source.
fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
