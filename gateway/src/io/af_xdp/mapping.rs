//! Memory mappings that unmap themselves.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};

use rustix::io;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A readable and writable mapping, unmapped on drop.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Zeroed memory of the process.
    pub(super) fn anonymous(len: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses the place, so no existing mapping is replaced.
        let start = unsafe {
            mmap_anonymous(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        Self::new(start, len)
    }

    /// A part of a file that is shared with the kernel, such as a socket's ring.
    pub(super) fn shared(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: as above.
        let start = unsafe { mmap(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, fd, offset) }?;
        Self::new(start, len)
    }

    fn new(start: *mut c_void, len: usize) -> io::Result<Self> {
        let start = NonNull::new(start.cast()).ok_or(io::Errno::NOMEM)?;
        Ok(Self { start, len })
    }

    /// The first byte, aligned to a page.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made here with this length and is unmapped once. Its users keep it alive.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
