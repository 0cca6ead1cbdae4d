//! What the XDP program and user space agree on: the packet parser, the steering decision and the map layouts.
//!
//! One parser runs on both sides of the kernel line, so a frame that was steered into a socket is always
//! one that user space understands. Everything here is safe code without allocation or panics; the packet
//! access that the verifier has to follow lives in the program itself (`main.rs`).
#![no_std]
#![forbid(unsafe_code)]
#![expect(
    clippy::inline_always,
    reason = "a call per header costs the program spills onto its 512-byte stack, and the verifier loses the bounds"
)]

pub mod layout;
pub mod load_layout;
pub mod parse;
pub mod reason;
pub mod slice_layout;
pub mod steer;

pub use reason::Reason;
