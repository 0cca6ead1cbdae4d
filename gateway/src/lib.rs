//! The gateway.
#![deny(unsafe_code)]

pub mod xdp;
