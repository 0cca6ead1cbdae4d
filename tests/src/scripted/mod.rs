//! A WireGuard party that sends exactly the right and exactly the wrong bytes, and sees every byte that comes back.
//!
//! Nothing here is shared with the crate `wireguard`: the handshake is the Noise implementation `snow`, the rest is
//! composed of the primitives of `RustCrypto`. A mistake of ours would otherwise agree with itself.

pub mod bed;
pub mod cases;
pub mod client;
pub mod inner;
pub mod layout;
pub mod macs;
pub mod noise;
pub mod null_key;
pub mod socket;
pub mod timestamp;
pub mod transport;

pub use bed::{Bed, Service};
pub use cases::Case;
pub use client::Client;
pub use noise::{IncomingInitiation, Initiation, Secrets};
pub use socket::{Datagram, Wire};
pub use timestamp::Timestamp;
pub use transport::Session;
