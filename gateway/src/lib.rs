//! wgx: a WireGuard gateway on the NIC queues. The library behind the program of that name, so that tests and
//! benchmarks can drive its parts.
#![deny(unsafe_code)]

pub mod cli;
pub mod config;
pub mod topology;
