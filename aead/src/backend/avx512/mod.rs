//! ChaCha20-Poly1305 across packets, with AVX-512 and IFMA: a packet per lane.

mod break_even;
mod burst;
mod chacha;
mod mac;
mod memory;
mod poly1305;
mod scattered;
mod schedule;
mod transpose;

pub(crate) use memory::Features;

/// Packets that go through the arithmetic together: as many as there are 32-bit lanes in a vector.
const LANES: usize = 16;
