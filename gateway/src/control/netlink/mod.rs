//! What the kernel knows of the network, followed as it changes.
//!
//! [`watch`] keeps a [`Network`](crate::dataplane::network::Network) up to date, [`decode`] turns messages into
//! its parts, and [`upkeep`] keeps the neighbours resolved that the fast path sends to.

pub mod decode;
#[cfg(test)]
pub mod test_netns;
pub mod upkeep;
pub mod watch;

pub use upkeep::Upkeep;
pub use watch::{Neighbours, NetworkWatch};
