//! RTP-shaped media over plain UDP sockets, and what became of it: loss, order, latency and jitter.
//!
//! The load is open loop. Every packet has an intended send time, given by the [`Schedule`] alone; a sender that
//! is held up sends late but never less, and latency counts from the *intended* time, so that a stall shows in
//! every packet it delayed (no coordinated omission). Both ends read `CLOCK_MONOTONIC`, so they must run on one
//! host, though they may be in different network namespaces.

pub(crate) mod clock;
pub(crate) mod meter;
mod packet;
mod receive;
mod report;
mod schedule;
mod send;
mod socket;

pub use meter::StreamMeter;
pub use packet::{HEADER_LEN, Kind, Packet, PacketError};
pub use receive::{ReceiveOptions, receive};
pub use report::{Flow, Latency, PacketCounts, Percentile, Report, SendReport, Stream};
pub use schedule::{Emission, Profile, Schedule};
pub use send::{SendOptions, send};
pub use socket::{bind, connect, udp_payload_len};
