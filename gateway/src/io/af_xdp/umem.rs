//! Memory cut into frames of equal length: registered with AF_XDP sockets, or plain for the other ports.

use std::fmt;
use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use xsk_rs::FrameDesc;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};

use super::super::frame::Frame;
use super::mapping::Mapping;
use super::ring_len;

/// The size of huge page asked for: the default of x86-64 and of most arm64 kernels.
const HUGE_PAGE_LEN: usize = 2 << 20;

/// What the memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Shared with the kernel's AF_XDP sockets.
    Registered,
    /// Ordinary memory: the UDP rung and tests.
    Plain,
}

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub enum UmemError {
    /// The size makes no sense.
    #[error(
        "{frame_count} frames of {frame_len} bytes: frames are 2048 or 4096 bytes long, and there is at least one"
    )]
    Size {
        /// Bytes per frame.
        frame_len: u32,
        /// Number of frames.
        frame_count: u32,
    },
    /// The kernel refused.
    #[error(
        "registering {mebibytes} MiB of packet memory failed: {reason}; it needs CAP_NET_RAW, and CAP_IPC_LOCK \
         or a high `ulimit -l`"
    )]
    Refused {
        /// Size of the region.
        mebibytes: u64,
        /// What the kernel or libxdp said.
        reason: String,
    },
}

/// The memory of a region and its owner. Frames are handed out once, by [`Umem::new`].
pub struct Umem {
    id: u32,
    frame_len: usize,
    frame_count: u32,
    base: NonNull<u8>,
    memory: Memory,
}

/// What keeps the region mapped.
enum Memory {
    Registered {
        umem: xsk_rs::Umem,
        /// One per frame, by index: what a fill ring takes.
        descriptors: Box<[FrameDesc]>,
    },
    Plain(#[expect(dead_code, reason = "owns the region that `base` points to")] Mapping),
}

// SAFETY: the region is plain bytes. `base` is only dereferenced through a `Frame`, of which there is one per
// piece of the region, so two threads never reach the same bytes; xsk-rs's handle is a mutex and a mapping.
unsafe impl Send for Umem {}
// SAFETY: as above: `&Umem` gives access to nothing but the bytes of a `Frame` that the caller holds.
unsafe impl Sync for Umem {}

impl fmt::Debug for Umem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Umem")
            .field("frame_len", &self.frame_len)
            .field("frame_count", &self.frame_count)
            .finish_non_exhaustive()
    }
}

impl Umem {
    /// A region of `frame_count` frames of `frame_len` bytes, and the tokens of all of them.
    ///
    /// # Errors
    /// [`UmemError`]: an impossible size, or the kernel refuses to register so much memory.
    pub fn new(
        frame_len: u32,
        frame_count: u32,
        backing: Backing,
    ) -> Result<(Arc<Self>, Vec<Frame>), UmemError> {
        static NEXT_ID: AtomicU32 = AtomicU32::new(0);
        let size_error = UmemError::Size { frame_len, frame_count };
        let count = match NonZeroU32::new(frame_count) {
            Some(count) if matches!(frame_len, 2048 | 4096) => count,
            _ => return Err(size_error),
        };
        let (memory, base) = match backing {
            Backing::Registered => registered(frame_len, count)?,
            Backing::Plain => plain(frame_len, frame_count)?,
        };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let frames = (0..frame_count).map(|index| Frame::new(id, index, frame_len as u16)).collect();
        let umem = Self { id, frame_len: frame_len as usize, frame_count, base, memory };
        Ok((Arc::new(umem), frames))
    }

    /// Bytes per frame.
    pub fn frame_len(&self) -> usize {
        self.frame_len
    }

    /// Number of frames.
    pub fn frame_count(&self) -> u32 {
        self.frame_count
    }

    pub(in crate::io) fn id(&self) -> u32 {
        self.id
    }

    /// The handle sockets are made with; `None` for plain memory.
    pub(super) fn registered(&self) -> Option<&xsk_rs::Umem> {
        match &self.memory {
            Memory::Registered { umem, .. } => Some(umem),
            Memory::Plain(_) => None,
        }
    }

    /// What a fill ring takes for `frame`; consuming the token passes the frame to the kernel.
    ///
    /// # Panics
    /// On plain memory, which has no rings.
    pub(super) fn descriptor(&self, frame: &Frame) -> FrameDesc {
        match &self.memory {
            Memory::Registered { descriptors, .. } => descriptors[frame.index() as usize],
            Memory::Plain(_) => unreachable!("plain memory has no rings"),
        }
    }

    /// The token of the frame that holds `address`, which a ring just gave back with a packet of `len` bytes;
    /// `None` when the kernel names memory outside the region.
    pub(super) fn returned(&self, address: usize, len: usize) -> Option<Frame> {
        let (index, offset) = (address / self.frame_len, address % self.frame_len);
        let index = u32::try_from(index).ok().filter(|index| *index < self.frame_count)?;
        let mut frame = Frame::new(self.id, index, self.frame_len as u16);
        frame.place(offset, len).then_some(frame)
    }

    /// Where `frame`'s packet starts in the region: what a transmit descriptor names.
    pub(super) fn address(&self, frame: &Frame) -> u64 {
        u64::from(frame.index()) * self.frame_len as u64 + frame.headroom() as u64
    }

    pub(in crate::io) fn packet<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let start = self.start_of(frame);
        // SAFETY: `start_of` is inside the region, and so is the packet's end, as a frame keeps offset + length
        // within its own length. The borrowed token rules out any `&mut` to these bytes, and the kernel does
        // not write to a frame whose token is in user space.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), frame.len()) }
    }

    pub(in crate::io) fn packet_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let start = self.start_of(frame);
        // SAFETY: as in `packet`; the token is borrowed mutably, and there is one per piece of the region.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), frame.len()) }
    }

    fn start_of(&self, frame: &Frame) -> NonNull<u8> {
        assert!(frame.umem_id() == self.id, "a frame belongs to another umem");
        // SAFETY: the frame is of this region (asserted), whose tokens have indices below `frame_count` and
        // offsets up to `frame_len`: the sum stays inside the allocation or one past its end.
        unsafe { self.base.add(frame.index() as usize * self.frame_len + frame.headroom()) }
    }
}

fn registered(frame_len: u32, frame_count: NonZeroU32) -> Result<(Memory, NonNull<u8>), UmemError> {
    let refused = |reason: String| UmemError::Refused {
        mebibytes: (u64::from(frame_len) * u64::from(frame_count.get())) >> 20,
        reason,
    };
    let queue = |len| QueueSize::new(len).map_err(|error| refused(error.to_string()));
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(frame_len).map_err(|error| refused(error.to_string()))?)
        .fill_queue_size(queue(ring_len::FILL)?)
        .comp_queue_size(queue(ring_len::COMPLETION)?)
        .build()
        .map_err(|error| refused(error.to_string()))?;
    // Huge pages spare TLB misses where an operator set some aside; nobody has to.
    let is_whole_huge_pages = (frame_len as usize * frame_count.get() as usize).is_multiple_of(HUGE_PAGE_LEN);
    let on_huge_pages =
        is_whole_huge_pages.then(|| xsk_rs::Umem::new(config, frame_count, true).ok()).flatten();
    let is_huge = on_huge_pages.is_some();
    let (umem, descriptors) = match on_huge_pages {
        Some(opened) => opened,
        None => xsk_rs::Umem::new(config, frame_count, false)
            .map_err(|error| refused(super::with_source(&error)))?,
    };
    tracing::debug!(frame_count, frame_len, huge_pages = is_huge, "registered packet memory");
    let first = descriptors[0];
    // SAFETY: the descriptor is of this region, and no socket exists yet, so nothing else reaches its bytes.
    let data = unsafe { umem.data(&first) };
    // The region is a mapping made by mmap(2): its pointer has crossed the foreign interface, so its
    // provenance is exposed, and a descriptor's address counts from the region's start.
    let base =
        std::ptr::with_exposed_provenance_mut(data.contents().as_ptr().expose_provenance() - first.addr());
    let base = NonNull::new(base).ok_or_else(|| refused("libxdp gave no memory".into()))?;
    Ok((Memory::Registered { umem, descriptors: descriptors.into() }, base))
}

fn plain(frame_len: u32, frame_count: u32) -> Result<(Memory, NonNull<u8>), UmemError> {
    let len = frame_len as usize * frame_count as usize;
    let mapping = Mapping::anonymous(len)
        .map_err(|error| UmemError::Refused { mebibytes: len as u64 >> 20, reason: error.to_string() })?;
    let base = mapping.start();
    Ok((Memory::Plain(mapping), base))
}
