//! The table of targets.

mod aead;
mod allowed_ips;
mod cookies;
mod device;
mod engine;
mod frame;
mod handshake;
mod index;
mod netlink;
mod replay_window;
mod text;
mod transport;
mod uapi;

use crate::Target;

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "handshake", run: handshake::run },
    Target { name: "transport", run: transport::run },
    Target { name: "uapi", run: uapi::run },
    Target { name: "device", run: device::run },
    Target { name: "engine", run: engine::run },
    Target { name: "replay_window", run: replay_window::run },
    Target { name: "allowed_ips", run: allowed_ips::run },
    Target { name: "frame", run: frame::run },
    Target { name: "aead", run: aead::run },
    Target { name: "netlink", run: netlink::run },
    Target { name: "index", run: index::run },
    Target { name: "text", run: text::run },
    Target { name: "cookies", run: cookies::run },
];
