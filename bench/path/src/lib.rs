//! The gateway's engine on plain memory, with any number of clients: what is measured of a packet's path without NIC
//! and kernel.
#![forbid(unsafe_code)]

pub mod port;
pub mod rig;
pub mod stages;
pub mod traffic;
pub mod world;
