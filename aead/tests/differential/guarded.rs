//! Buffers with a page on either side that nobody may touch: one byte too far ends the test with a fault.
#![allow(unsafe_code, reason = "pages that fault take mmap, and slices of them raw pointers")]

use std::{ops::Range, ptr::NonNull};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// What is around a buffer in its page.
const SURROUNDING: u8 = 0xc5;

/// Where a buffer lies in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// So many bytes behind the guard page in front.
    FromStart(usize),
    /// So many bytes before the guard page behind.
    FromEnd(usize),
}

/// Pages to hold one buffer each, a guard page before and after every one.
pub struct Guarded {
    base: NonNull<u8>,
    page_len: usize,
    /// The buffer within each page.
    buffers: Vec<Range<usize>>,
    /// A page nothing was placed in, to compare with.
    untouched: Vec<u8>,
}

impl Guarded {
    /// Room for `count` buffers of a page at most.
    pub fn new(count: usize) -> Self {
        let page_len = rustix::param::page_size();
        let len = (2 * count + 1) * page_len;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of others.
        let base =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE) };
        let base =
            NonNull::new(base.expect("memory for the guarded pages").cast()).expect("not at address 0");
        let mut guarded =
            Self { base, page_len, buffers: vec![0..0; count], untouched: vec![SURROUNDING; page_len] };
        for index in 0..count {
            let page = guarded.page_start(index).as_ptr();
            // SAFETY: the page is inside the mapping, and nothing refers to it yet.
            unsafe { mprotect(page.cast(), page_len, MprotectFlags::READ | MprotectFlags::WRITE) }
                .expect("pages of our own");
            guarded.page_mut(index).fill(SURROUNDING);
        }
        guarded
    }

    fn page_start(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.buffers.len());
        // SAFETY: page `2 * index + 1` of the `2 * count + 1` mapped ones.
        unsafe { self.base.add((2 * index + 1) * self.page_len) }
    }

    fn page(&self, index: usize) -> &[u8] {
        // SAFETY: a readable page of ours, borrowed like `self`.
        unsafe { std::slice::from_raw_parts(self.page_start(index).as_ptr(), self.page_len) }
    }

    fn page_mut(&mut self, index: usize) -> &mut [u8] {
        // SAFETY: a writable page of ours, exclusively borrowed like `self`.
        unsafe { std::slice::from_raw_parts_mut(self.page_start(index).as_ptr(), self.page_len) }
    }

    /// Makes `bytes` the buffer at `index`. What was there before is gone.
    pub fn place(&mut self, index: usize, placement: Placement, bytes: &[u8]) {
        let start = match placement {
            Placement::FromStart(offset) => offset,
            Placement::FromEnd(offset) => self.page_len - offset - bytes.len(),
        };
        let range = start..start + bytes.len();
        let previous = std::mem::replace(&mut self.buffers[index], range.clone());
        let page = self.page_mut(index);
        page[previous].fill(SURROUNDING);
        page[range].copy_from_slice(bytes);
    }

    /// The buffer at `index`.
    pub fn buffer(&self, index: usize) -> &[u8] {
        &self.page(index)[self.buffers[index].clone()]
    }

    /// The first `count` buffers.
    pub fn buffers_mut(&mut self, count: usize) -> Vec<&mut [u8]> {
        let whole = (0..count).map(|index| (self.page_start(index), self.buffers[index].clone()));
        // SAFETY: writable pages of ours, each in one slice only, exclusively borrowed like `self`.
        let page =
            |start: NonNull<u8>| unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.page_len) };
        whole.map(|(start, range)| &mut page(start)[range]).collect()
    }

    /// Whether the page around the buffer at `index` is as it was.
    pub fn is_surrounding_untouched(&self, index: usize) -> bool {
        let (page, range) = (self.page(index), &self.buffers[index]);
        page[..range.start] == self.untouched[..range.start]
            && page[range.end..] == self.untouched[range.end..]
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let len = (2 * self.buffers.len() + 1) * self.page_len;
        // SAFETY: the mapping is ours, and no slice of it outlives `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), len) };
        assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// Reads from the kernel's list of mappings whether the byte at `address` may be touched.
fn is_accessible(address: usize) -> bool {
    let mappings = std::fs::read_to_string("/proc/self/maps").expect("Linux shows a process its mappings");
    mappings.lines().any(|line| {
        let mut words = line.split_whitespace();
        let (range, permissions) = (words.next().expect("a range"), words.next().expect("permissions"));
        let (start, end) = range.split_once('-').expect("start and end");
        let number = |digits| usize::from_str_radix(digits, 16).expect("hexadecimal");
        (number(start)..number(end)).contains(&address) && !permissions.starts_with("---")
    })
}

#[test]
fn every_guarded_buffer_touches_pages_that_fault() {
    let mut guarded = Guarded::new(3);
    for index in 0..3 {
        guarded.place(index, Placement::FromStart(0), b"front");
        let start = guarded.buffer(index).as_ptr().addr();
        assert!(is_accessible(start) && !is_accessible(start - 1));
        guarded.place(index, Placement::FromEnd(0), b"back");
        let end = guarded.buffer(index).as_ptr_range().end.addr();
        assert!(is_accessible(end - 1) && !is_accessible(end));
    }
}

#[test]
fn a_byte_written_beside_a_guarded_buffer_is_seen() {
    for offset in [9, 14] {
        let mut guarded = Guarded::new(1);
        guarded.place(0, Placement::FromStart(10), b"text");
        assert!(guarded.is_surrounding_untouched(0));
        guarded.page_mut(0)[offset] ^= 1;
        assert!(!guarded.is_surrounding_untouched(0));
    }
}
