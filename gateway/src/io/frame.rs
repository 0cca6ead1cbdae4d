//! Frames: move-only tokens for pieces of a [`Umem`], and the pool a worker keeps the free ones in.

use std::sync::Arc;

use super::af_xdp::umem::Umem;

/// Where the data of a reserved frame starts: room for the headers that are put before it. As much as the
/// kernel leaves before a received packet (`XDP_PACKET_HEADROOM`).
pub const FRAME_HEADROOM: usize = 256;

/// A piece of a [`Umem`] and the packet in it. Whoever holds the token is the only one who may touch the bytes:
/// it can be neither copied nor made, only passed on, and giving it to a ring or a pool consumes it.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    umem_id: u32,
    index: u32,
    /// Length of the whole frame, in bytes.
    whole_len: u16,
    /// Where the packet starts in the frame.
    offset: u16,
    /// Length of the packet.
    len: u16,
}

impl Frame {
    /// Only a [`Umem`] makes frames, one per piece.
    pub(super) fn new(umem_id: u32, index: u32, whole_len: u16) -> Self {
        let offset = FRAME_HEADROOM as u16;
        Self { umem_id, index, whole_len, offset, len: 0 }
    }

    /// Length of the packet, in bytes.
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// Whether there is no packet in the frame.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes before the packet.
    pub fn headroom(&self) -> usize {
        self.offset.into()
    }

    /// Bytes from the start of the packet to the end of the frame.
    pub fn capacity(&self) -> usize {
        usize::from(self.whole_len - self.offset)
    }

    /// Takes `count` bytes off the front of the packet; `false`, and no change, when it has fewer.
    pub fn trim_front(&mut self, count: usize) -> bool {
        let fits = count <= self.len();
        if fits {
            self.offset += count as u16;
            self.len -= count as u16;
        }
        fits
    }

    /// Puts `count` bytes, whatever the frame holds there, before the packet; `false`, and no change, when
    /// there is less headroom.
    pub fn grow_front(&mut self, count: usize) -> bool {
        let fits = count <= self.headroom();
        if fits {
            self.offset -= count as u16;
            self.len += count as u16;
        }
        fits
    }

    /// Sets the length of the packet, cutting its end off or adding what the frame holds there; `false`, and
    /// no change, when the frame is too short.
    pub fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.capacity();
        if fits {
            self.len = len as u16;
        }
        fits
    }

    pub(super) fn umem_id(&self) -> u32 {
        self.umem_id
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Places the packet: used by rings, which learn offset and length from the kernel.
    pub(super) fn place(&mut self, offset: usize, len: usize) -> bool {
        let fits = offset + len <= usize::from(self.whole_len);
        if fits {
            self.offset = offset as u16;
            self.len = len as u16;
        }
        fits
    }
}

/// The free frames of one worker, and access to the bytes of all its frames.
#[derive(Debug)]
pub struct FramePool {
    umem: Arc<Umem>,
    free: Vec<Frame>,
}

impl FramePool {
    /// A pool that starts with `frames`, which must be of `umem`.
    ///
    /// # Panics
    /// On a frame of another [`Umem`].
    pub fn new(umem: Arc<Umem>, frames: Vec<Frame>) -> Self {
        assert!(frames.iter().all(|frame| frame.umem_id == umem.id()), "a frame belongs to one umem");
        Self { umem, free: frames }
    }

    /// An empty frame, its data at [`FRAME_HEADROOM`]; `None` when all are in use.
    pub fn reserve(&mut self) -> Option<Frame> {
        let mut frame = self.free.pop()?;
        frame.offset = FRAME_HEADROOM as u16;
        frame.len = 0;
        Some(frame)
    }

    /// Gives a frame back.
    pub fn release(&mut self, frame: Frame) {
        debug_assert_eq!(frame.umem_id, self.umem.id());
        self.free.push(frame);
    }

    /// Number of free frames.
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// The memory the frames are pieces of.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// The packet in `frame`.
    ///
    /// # Panics
    /// On a frame of another [`Umem`].
    pub fn data<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.umem.packet(frame)
    }

    /// The packet in `frame`, to be changed.
    ///
    /// # Panics
    /// On a frame of another [`Umem`].
    pub fn data_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.umem.packet_mut(frame)
    }

    /// The packets of several frames at once, to be changed.
    ///
    /// # Panics
    /// On a frame of another [`Umem`].
    pub fn data_mut_each<'a>(&'a self, frames: &'a mut [Frame]) -> impl Iterator<Item = &'a mut [u8]> {
        frames.iter_mut().map(|frame| self.umem.packet_mut(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::super::af_xdp::umem::Backing;
    use super::*;
    use proptest::prelude::*;

    fn pool(frame_count: u32) -> FramePool {
        let (umem, frames) = Umem::new(2048, frame_count, Backing::Plain).unwrap();
        FramePool::new(umem, frames)
    }

    #[test]
    fn an_exhausted_pool_gives_nothing_until_a_frame_comes_back() {
        let mut pool = pool(2);
        let first = pool.reserve().unwrap();
        let _second = pool.reserve().unwrap();
        assert_eq!(pool.reserve(), None);
        pool.release(first);
        assert!(pool.reserve().is_some());
    }

    #[test]
    #[should_panic(expected = "belongs to another umem")]
    fn a_frame_of_another_umem_is_refused() {
        let (mut one, other) = (pool(1), pool(1));
        let frame = one.reserve().unwrap();
        other.data(&frame);
    }

    #[test]
    fn frames_do_not_overlap() {
        let mut pool = pool(4);
        let mut frames: Vec<Frame> = (0..4).map(|_| pool.reserve().unwrap()).collect();
        for (value, frame) in frames.iter_mut().enumerate() {
            assert!(frame.grow_front(FRAME_HEADROOM) && frame.set_len(2048));
            pool.data_mut(frame).fill(value as u8);
        }
        for (value, bytes) in pool.data_mut_each(&mut frames).enumerate() {
            assert!(bytes.iter().all(|byte| *byte == value as u8));
        }
    }

    proptest! {
        #[test]
        fn a_packet_never_leaves_its_frame(
            steps in proptest::collection::vec((0u8..3, 0usize..5000), 0..40),
        ) {
            let mut pool = pool(1);
            let mut frame = pool.reserve().unwrap();
            for (kind, count) in steps {
                let before = (frame.offset, frame.len);
                let done = match kind {
                    0 => frame.trim_front(count),
                    1 => frame.grow_front(count),
                    _ => frame.set_len(count),
                };
                prop_assert!(done || before == (frame.offset, frame.len));
                prop_assert!(usize::from(frame.offset) + frame.len() <= 2048);
                prop_assert_eq!(pool.data(&frame).len(), frame.len());
            }
        }
    }
}
