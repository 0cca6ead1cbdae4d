//! The producer's side of a transmit ring. xsk-rs 0.11 can only transmit from the address a frame was received
//! at or created with; a packet that grew or lost headers starts elsewhere in its frame. So the ring is mapped
//! a second time here, and xsk-rs's own producer is never used.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::mapping::Mapping;
use super::options::{RingOffsets, ring_offsets};

/// `struct xdp_desc` of `linux/if_xdp.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// Where the packet starts, from the start of the UMEM.
    pub(super) address: u64,
    /// Its length in bytes.
    pub(super) len: u32,
    /// Always 0: one descriptor is one packet.
    pub(super) options: u32,
}

const _: () = assert!(size_of::<Descriptor>() == 16 && offset_of!(Descriptor, len) == 8);

/// `XDP_RING_NEED_WAKEUP`.
const NEED_WAKEUP: u32 = 1;

/// A single-producer ring of descriptors, whose consumer is the kernel.
#[derive(Debug)]
pub(super) struct TxRing {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    descriptors: NonNull<Descriptor>,
    capacity: u32,
    /// What `producer` will be after the next [`TxRing::publish`]; only this side writes it.
    next: u32,
    #[expect(dead_code, reason = "keeps mapped what the pointers point to")]
    mapping: Mapping,
}

// SAFETY: the pointers lead into `mapping`, which moves with them and is not tied to a thread.
unsafe impl Send for TxRing {}

impl TxRing {
    /// Maps the transmit ring of the AF_XDP socket `fd`, made with `capacity` entries.
    pub(super) fn map(fd: BorrowedFd<'_>, capacity: u32) -> std::io::Result<Self> {
        let offsets = ring_offsets(fd)?;
        let len = offsets.descriptors + capacity as usize * size_of::<Descriptor>();
        // `XDP_PGOFF_TX_RING`
        let mapping = Mapping::shared(fd, 0x8000_0000, len)?;
        Ok(Self::over(mapping, &offsets, capacity))
    }

    /// A ring over `mapping`. Its positions are what the memory holds.
    fn over(mapping: Mapping, offsets: &RingOffsets, capacity: u32) -> Self {
        assert!(capacity.is_power_of_two());
        assert!(offsets.descriptors + capacity as usize * size_of::<Descriptor>() <= mapping.len());
        let at = |offset: usize| {
            assert!(offset.is_multiple_of(align_of::<AtomicU32>()) && offset + 4 <= mapping.len());
            // SAFETY: inside the mapping, as just asserted.
            unsafe { mapping.start().add(offset) }.cast::<AtomicU32>()
        };
        let (producer, consumer, flags) = (at(offsets.producer), at(offsets.consumer), at(offsets.flags));
        assert!(offsets.descriptors.is_multiple_of(align_of::<Descriptor>()));
        // SAFETY: inside the mapping, as asserted at the top.
        let descriptors = unsafe { mapping.start().add(offsets.descriptors) }.cast();
        // SAFETY: aligned, inside the mapping, and shared memory of the ring is only accessed atomically.
        let next = unsafe { producer.as_ref() }.load(Ordering::Relaxed);
        Self { producer, consumer, flags, descriptors, capacity, next, mapping }
    }

    /// Writes one descriptor; `false` when the ring is full. The kernel sees it after [`TxRing::publish`].
    pub(super) fn push(&mut self, descriptor: Descriptor) -> bool {
        if self.queued() >= self.capacity {
            return false;
        }
        let slot = (self.next & (self.capacity - 1)) as usize;
        // SAFETY: `slot` is below `capacity`, whose descriptors the mapping holds (asserted in `over`).
        let slot = unsafe { self.descriptors.add(slot) };
        // SAFETY: aligned and inside the mapping. The kernel reads a slot only between publish and consumption,
        // and this one is not published.
        unsafe { slot.write(descriptor) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Hands everything pushed to the kernel.
    pub(super) fn publish(&mut self) {
        // SAFETY: aligned and inside the mapping (`over`).
        unsafe { self.producer.as_ref() }.store(self.next, Ordering::Release);
    }

    /// Descriptors the kernel has not consumed yet, those not yet published included.
    pub(super) fn queued(&self) -> u32 {
        // SAFETY: aligned and inside the mapping (`over`).
        let consumed = unsafe { self.consumer.as_ref() }.load(Ordering::Acquire);
        self.next.wrapping_sub(consumed)
    }

    /// Whether the kernel must be woken to consume the ring.
    pub(super) fn needs_wakeup(&self) -> bool {
        // SAFETY: aligned and inside the mapping (`over`).
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSETS: RingOffsets = RingOffsets { producer: 0, consumer: 64, descriptors: 192, flags: 128 };

    /// A ring of 4 that starts just below the wrap of its 32-bit positions.
    fn ring() -> TxRing {
        let mapping = Mapping::anonymous(4096).unwrap();
        let ring = TxRing::over(mapping, &OFFSETS, 4);
        let start = u32::MAX - 1;
        // SAFETY: both are in the mapping `ring` owns.
        unsafe { ring.producer.as_ref() }.store(start, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { ring.consumer.as_ref() }.store(start, Ordering::Relaxed);
        TxRing { next: start, ..ring }
    }

    fn consume(ring: &TxRing, count: u32) {
        // SAFETY: in the mapping `ring` owns.
        unsafe { ring.consumer.as_ref() }.fetch_add(count, Ordering::Release);
    }

    fn descriptor(address: u64) -> Descriptor {
        Descriptor { address, len: 60, options: 0 }
    }

    #[test]
    fn a_full_ring_refuses_until_the_kernel_consumes() {
        let mut ring = ring();
        for address in 0..4 {
            assert!(ring.push(descriptor(address)));
        }
        assert!(!ring.push(descriptor(4)));
        ring.publish();
        assert_eq!(ring.queued(), 4);
        consume(&ring, 1);
        assert!(ring.push(descriptor(4)));
        assert!(!ring.push(descriptor(5)));
    }

    #[test]
    fn positions_wrap() {
        let mut ring = ring();
        for address in 0..100 {
            assert!(ring.push(descriptor(address)));
            ring.publish();
            let slot = (u32::MAX - 1).wrapping_add(address as u32) & 3;
            // SAFETY: one of the ring's four slots.
            let slot = unsafe { ring.descriptors.add(slot as usize) };
            // SAFETY: nothing else accesses the ring.
            assert_eq!(unsafe { slot.read() }, descriptor(address));
            consume(&ring, 1);
            assert_eq!(ring.queued(), 0);
        }
    }

    #[test]
    fn the_kernel_s_flag_asks_for_a_wakeup() {
        let ring = ring();
        assert!(!ring.needs_wakeup());
        // SAFETY: in the mapping `ring` owns.
        unsafe { ring.flags.as_ref() }.store(NEED_WAKEUP, Ordering::Relaxed);
        assert!(ring.needs_wakeup());
    }
}
