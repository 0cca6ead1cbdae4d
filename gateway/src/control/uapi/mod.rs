//! The WireGuard cross-platform userspace protocol, which `wg` and wgctrl speak
//! (<https://www.wireguard.com/xplatform/>).
//!
//! [`request`] and [`mod@format`] are pure functions over text; [`socket`] owns the file that clients look for and
//! [`connection`] the conversation on it. Nothing here touches the device: a parsed request goes to the control
//! loop as a [`Command`].

pub mod connection;
mod error;
pub mod format;
pub mod hex;
pub mod request;
pub mod socket;

pub use connection::Command;
pub use error::UapiError;
