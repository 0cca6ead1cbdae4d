//! A laboratory of network namespaces: clients, a gateway and a server, joined by veth pairs.
//!
//! The namespace tests and `cargo xtask demo` build on it. Nothing here touches the network of the host, and
//! all that is made carries the id of the process that made it, so that it can be removed by name: at the end,
//! on panic, on Ctrl-C, and by the next run when this one was killed.

#![expect(
    clippy::missing_errors_doc,
    reason = "every error is a laboratory that cannot be built or a program that failed: shown, never matched"
)]

pub mod capture;
pub mod client;
pub mod gateway;
pub mod guest;
pub mod interop;
pub mod iperf;
pub mod keys;
pub mod lab;
pub mod losses;
pub mod namespace;
pub mod pcap;
pub mod peer;
pub mod ping;
pub mod process;
pub mod program;
pub mod registry;
pub mod rungs;
pub mod scenario;
pub mod scripted;
pub mod site;
pub mod status;
pub mod straight;
pub mod traffic;
pub mod tunnel;
pub mod uapi;
pub mod wait;
pub mod wg;
pub mod world;

pub use capture::Capture;
pub use client::Client;
pub use gateway::{Gateway, Implementation, Io};
pub use lab::Lab;
pub use losses::Losses;
pub use namespace::Namespace;
pub use process::Process;
pub use scenario::{note, scenario, scenario_with_peer, scenario_with_wgx};
pub use site::Site;
pub use status::Status;
pub use straight::Straight;
pub use tunnel::Tunnel;
pub use uapi::Uapi;
pub use wait::wait_until;
pub use wg::Wg;
pub use world::World;
