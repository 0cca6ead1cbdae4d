//! The table of targets.

mod aead;
mod allowed_ips;
mod frame;
mod handshake;
mod replay_window;
mod transport;

use crate::Target;

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "handshake", run: handshake::run },
    Target { name: "transport", run: transport::run },
    Target { name: "replay_window", run: replay_window::run },
    Target { name: "allowed_ips", run: allowed_ips::run },
    Target { name: "frame", run: frame::run },
    Target { name: "aead", run: aead::run },
];
