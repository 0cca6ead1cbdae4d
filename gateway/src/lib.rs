//! wgx: a WireGuard gateway on the NIC queues. The library behind the program of that name, so that tests and
//! benchmarks can drive its parts.
#![deny(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod handshake;
pub mod io;
#[cfg(test)]
#[path = "../tests/xdp_steering/report.rs"]
#[allow(dead_code, reason = "measurements are noted by other tests")]
mod report;
pub mod runtime;
pub mod topology;
pub mod xdp;
