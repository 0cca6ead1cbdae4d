//! Other WireGuard implementations as the peer of a `wgx` gateway, in one site of namespaces.
//!
//! Not for load: [`crate::World`] has two clients and is for what `wgx` itself carries.

mod cell;
mod echo;
mod pair;
mod program;
mod remote;
mod state;
mod wire;

pub use cell::Cell;
pub use echo::{Echo, payload_lens};
pub use pair::{Connection, Pair};
pub use program::Program;
pub use remote::RemotePeer;
pub use state::State;
pub use wire::{Recorder, Traffic, message_type};
