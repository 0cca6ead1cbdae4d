//! The frame as the verifier wants it read: every access compared with the end of the packet.

use core::ptr;

use aya_ebpf::programs::XdpContext;
use gateway_ebpf::parse::Bytes;

/// The linear part of the frame (all of it: the program does not declare multi-buffer support).
pub struct Packet {
    start: usize,
    end: usize,
}

impl Packet {
    /// The frame of this invocation; valid until it returns, as nothing here moves the packet's ends.
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self { start: context.data(), end: context.data_end() }
    }
}

impl Bytes for Packet {
    #[inline(always)]
    fn holds(&self, len: usize) -> bool {
        self.start + len <= self.end
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let first = self.start + offset;
        if first + N > self.end {
            return None;
        }
        // SAFETY: `first..first + N` lies inside the packet: checked here, and again by the kernel's
        // verifier, which refuses the program otherwise. Nobody holds a mutable reference to the packet.
        Some(unsafe { ptr::read_unaligned(first as *const [u8; N]) })
    }
}
