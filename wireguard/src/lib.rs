//! WireGuard, sans-IO: no sockets, no clock, no threads.
//!
//! [`Device`] does handshakes, timers and peers for one owner; [`Session`] seals and opens packets for any number
//! of threads. Time, randomness and addresses are arguments. What is deliberately absent: reading a clock,
//! talking to a network, batch encryption (crate `aead`), and anything that knows of interfaces.
//!
//! Sources: the WireGuard paper (Donenfeld, 2017-2020), the Noise framework revision 34, RFC 6479, and the Linux
//! kernel's `drivers/net/wireguard` where the paper leaves something open.

#![forbid(unsafe_code)]

mod activity;
mod admission;
pub mod constants;
pub mod cookie;
mod curve_work;
mod device;
mod drop_reason;
mod endpoint;
mod identity;
mod index;
mod index_table;
mod inner;
mod keypairs;
mod keys;
pub mod message;
mod noise;
mod output;
mod padding;
mod peer;
mod peer_table;
mod prefix_table;
mod replay;
mod session;
#[cfg(test)]
mod test_vectors;
mod time;
mod timers;
mod x25519;

pub use activity::Activity;
pub use admission::{Admission, Admitted, Incoming};
pub use curve_work::{CurveResult, CurveWork};
pub use device::{
    AllowedIpAction, ApplyError, Device, DeviceChange, PeerChange, PeerStatus, PrivateKeyChange,
};
pub use drop_reason::DropReason;
pub use endpoint::{Endpoint, LocalAddress};
pub use index::{HOST_BITS_MAX, IndexPermutation, IndexSlot, SLOT_BITS, SLOT_COUNT_MAX};
pub use inner::InnerHeader;
pub use keys::{KEY_LEN, PresharedKey, PrivateKey, PublicKey, SecretBytes};
pub use message::{MessageError, MessageType};
pub use output::{AllowedIpChange, HandshakeCounters, Output, SessionEvent};
pub use padding::padded_len;
pub use prefix_table::{AllowedIps, PrefixTable};
pub use replay::{ReplayError, ReplayGuard, ReplayWindow};
pub use session::{Session, SessionParameters, nonce};
pub use time::{Now, Time, UnixTime};

/// A peer's slot in its device. Dense, so it may index an array; reused some time after its peer is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);
