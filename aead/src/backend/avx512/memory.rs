//! All of this backend's unsafe code: loads, stores, and the two calls that enter functions compiled for AVX-512.
//!
//! Every function here is safe to call with any arguments. Whole vectors go through one range check for all lanes at
//! once; whatever may reach beyond a packet goes through masked instructions, which touch no byte that is masked out.
#![allow(
    unsafe_code,
    reason = "vector loads and stores take raw pointers; docs/src/unsafe.md lists this file"
)]

use std::{
    arch::{is_x86_feature_detected, x86_64::*},
    marker::PhantomData,
    mem::MaybeUninit,
    ops::Range,
};

use super::{LANES, scattered::Places, schedule};
use crate::{KEY_LEN, Packet, TAG_LEN};

/// Bytes in a vector, and in a ChaCha20 block.
pub(super) const ROW_LEN: usize = 64;

/// Bytes in a Poly1305 block.
pub(super) const MAC_BLOCK_LEN: usize = 16;

/// Poly1305 blocks in a row.
pub(super) const CHUNK_BLOCKS: usize = ROW_LEN / MAC_BLOCK_LEN;

/// How many rows ahead of the arithmetic memory is asked for. Packets come from a NIC or another core, not from our
/// first-level cache, and sixteen of them are more streams than the processor follows by itself.
pub(super) const PREFETCH_DISTANCE: usize = 4;

/// Proof that this processor has every instruction that the backend is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features(());

impl Features {
    /// Asks the processor, once per process (the standard library remembers).
    pub(crate) fn detect() -> Option<Self> {
        let detected = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("bmi2");
        detected.then_some(Self(()))
    }
}

/// Bytes of stack that sealing or opening uses at most, this module's functions counted and none that they call
/// elsewhere: `cargo xtask asm` adds up the release build's, and fails when they are more. Others are
/// not as tight.
const STACK_LEN: usize = if cfg!(debug_assertions) { 16 << 10 } else { 11 << 10 };

/// See [`Aead::seal`](crate::Aead::seal).
pub(super) fn seal(features: Features, batch: &mut [Packet<'_>]) -> usize {
    // SAFETY: a `Features` exists only where `detect` found all that the function enables.
    without_trace(features, || unsafe { schedule::seal(batch) })
}

/// See [`Aead::open`](crate::Aead::open); `authentic` is as long as `batch`.
pub(super) fn open(features: Features, batch: &mut [Packet<'_>], authentic: &mut [bool]) {
    // SAFETY: a `Features` exists only where `detect` found all that the function enables.
    without_trace(features, || unsafe { schedule::open(batch, authentic) });
}

/// Calls `kernels` and overwrites their stack: keys, powers and key stream are kept there, by us and by the compiler,
/// which has more of them than registers.
#[inline]
fn without_trace<R>(_: Features, kernels: impl FnOnce() -> R) -> R {
    let outcome = kernels();
    // SAFETY: a `Features` exists only where `detect` found all that the function enables.
    unsafe { wipe_stack() };
    // Something is left to do, so that the call before is none that gives up this frame first: it has to start where
    // the kernels started.
    std::hint::black_box(&outcome);
    outcome
}

/// Overwrites the [`STACK_LEN`] bytes below the caller's frame, in a way that the compiler cannot leave out.
///
/// In numbers and not in vectors, or it would align its frame and leave out what is above: so not 16 bytes, and there
/// the kernels keep registers of their caller.
#[inline(never)]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
fn wipe_stack() {
    let mut below = [const { MaybeUninit::<u64>::uninit() }; STACK_LEN / size_of::<u64>()];
    // SAFETY: neither type has bytes that would have to have a value.
    let (first, vectors, last) = unsafe { below.align_to_mut::<MaybeUninit<__m512i>>() };
    for number in first.iter_mut().chain(last) {
        // SAFETY: a reference to a number.
        unsafe { std::ptr::write_volatile(number, MaybeUninit::zeroed()) };
    }
    for vector in vectors {
        // SAFETY: a reference to a vector.
        unsafe { std::ptr::write_volatile(vector, MaybeUninit::zeroed()) };
    }
}

/// The packets of one group, one per lane. Lanes without a packet are as packets without text.
///
/// Invariant: `text[lane]` points to `len[lane]` bytes followed, in lanes below `count`, by [`TAG_LEN`] bytes,
/// exclusively borrowed for `'a`; lanes from `count` on point to the first one's text; and `whole_rows` times [`ROW_LEN`] is at most every lane's `len`.
pub(super) struct Lanes<'a> {
    text: [*mut u8; LANES],
    len: [usize; LANES],
    count: usize,
    whole_rows: usize,
    common_rows: usize,
    buffers: PhantomData<&'a mut [u8]>,
}

impl<'a> Lanes<'a> {
    /// Takes up to [`LANES`] buffers, each of a text and [`TAG_LEN`] bytes.
    ///
    /// # Panics
    /// On more buffers, or one that has no room for a tag: the caller has sorted those out.
    #[inline]
    pub(super) fn new(buffers: impl Iterator<Item = &'a mut [u8]>) -> Self {
        let mut lanes = Self {
            text: [std::ptr::null_mut(); LANES],
            len: [0; LANES],
            count: 0,
            whole_rows: 0,
            common_rows: 0,
            buffers: PhantomData,
        };
        for buffer in buffers {
            lanes.len[lanes.count] = buffer.len().checked_sub(TAG_LEN).expect("room for a tag");
            lanes.text[lanes.count] = buffer.as_mut_ptr();
            lanes.count += 1;
        }
        // Nothing is read there, but it should be memory, see `clamped`.
        let somewhere = lanes.text[0];
        lanes.text[lanes.count..].fill(somewhere);
        lanes.count_rows();
        lanes
    }

    #[inline]
    fn count_rows(&mut self) {
        let shortest = self.len.iter().fold(usize::MAX, |shortest, len| shortest.min(*len));
        self.whole_rows = shortest / ROW_LEN;
        self.common_rows = shortest.div_ceil(ROW_LEN);
    }

    /// How many lanes hold a packet: the first ones.
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of text in each lane.
    #[inline]
    pub(super) fn len(&self) -> &[usize; LANES] {
        &self.len
    }

    /// How many rows of 64 bytes every lane has in full.
    #[inline]
    pub(super) fn whole_rows(&self) -> usize {
        self.whole_rows
    }

    /// How many rows of 64 bytes every lane has, in full or in part.
    #[inline]
    pub(super) fn common_rows(&self) -> usize {
        self.common_rows
    }

    /// XORs `key_stream` to the row at `index` of each lane.
    ///
    /// # Panics
    /// Unless every lane has the whole row.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn xor_whole_rows<const INDEX: usize, const SITE: usize>(
        &self,
        index: usize,
        key_stream: &[__m512i; LANES],
    ) {
        assert!(index < self.whole_rows, "row {index} of {}", self.whole_rows);
        let offset = index * ROW_LEN;
        let mut rows = *key_stream;
        // All are loaded before the first is stored: a store whose address is not known yet would hold up the loads
        // behind it.
        for (row, text) in rows.iter_mut().zip(&self.text) {
            // SAFETY: below `whole_rows`, as asserted, all 64 bytes are inside the lane's text.
            let text = unsafe { _mm512_loadu_si512(text.wrapping_add(offset).cast()) };
            *row = _mm512_xor_si512(*row, text);
        }
        for (row, text) in rows.iter().zip(&self.text) {
            // SAFETY: as for the load; the text is exclusively ours.
            unsafe { _mm512_storeu_si512(text.wrapping_add(offset).cast(), *row) };
        }
    }

    /// Asks for the row at `index` of each lane, if every lane has it whole, for later.
    #[inline]
    pub(super) fn prefetch_rows(&self, index: usize) {
        if index < self.whole_rows {
            for text in &self.text {
                prefetch(text.wrapping_add(index * ROW_LEN));
            }
        }
    }

    /// XORs `key_stream` to one row of any lane each, as far as the lane has it.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn xor_rows<const INDEX: usize, const SITE: usize>(
        &self,
        places: &Places,
        key_stream: &[__m512i; LANES],
    ) {
        let mut rows = *key_stream;
        for (row, (lane, index)) in rows.iter_mut().zip(places.lanes.iter().zip(&places.rows)) {
            let (lane, offset) = self.clamped(*lane, *index);
            let mask = first_bytes(self.len[lane] - offset);
            // SAFETY: the mask selects only bytes below the lane's `len`.
            let text = unsafe { _mm512_maskz_loadu_epi8(mask, self.text[lane].wrapping_add(offset).cast()) };
            *row = _mm512_xor_si512(*row, text);
        }
        for (row, (lane, index)) in rows.iter().zip(places.lanes.iter().zip(&places.rows)) {
            let (lane, offset) = self.clamped(*lane, *index);
            let at = self.text[lane].wrapping_add(offset);
            let len = self.len[lane] - offset;
            // A masked store costs several times a whole one, and loads behind it wait for it.
            if len >= ROW_LEN {
                // SAFETY: there are 64 bytes of text at `offset`, and they are exclusively ours.
                unsafe { _mm512_storeu_si512(at.cast(), *row) };
            } else {
                let mask = first_bytes(len);
                // SAFETY: the mask selects only bytes below the lane's `len`; they are exclusively ours.
                unsafe { _mm512_mask_storeu_epi8(at.cast(), mask, *row) };
            }
        }
    }

    /// A lane, and where in it the row at `index` starts or, if that is outside, where the text ends. A masked access
    /// far out would touch nothing either, but finding out that a page is not mapped takes hundreds of cycles.
    #[inline]
    fn clamped(&self, lane: u32, index: u32) -> (usize, usize) {
        let lane = lane as usize;
        (lane, (index as usize * ROW_LEN).min(self.len[lane]))
    }

    /// Writes the tag behind the text of `lane`.
    ///
    /// # Panics
    /// When there is no packet in that lane.
    #[inline]
    pub(super) fn write_tag(&self, lane: usize, tag: u128) {
        assert!(lane < self.count);
        // SAFETY: packets have `TAG_LEN` bytes behind their `len` bytes of text.
        let at = unsafe { self.text[lane].add(self.len[lane]) };
        // SAFETY: those bytes are exclusively ours; any alignment is allowed.
        unsafe { at.cast::<u128>().write_unaligned(tag.to_le()) };
    }

    /// The tag behind the text of `lane`.
    ///
    /// # Panics
    /// When there is no packet in that lane.
    #[inline]
    pub(super) fn tag(&self, lane: usize) -> u128 {
        assert!(lane < self.count);
        // SAFETY: packets have `TAG_LEN` bytes behind their `len` bytes of text.
        let at = unsafe { self.text[lane].add(self.len[lane]) };
        // SAFETY: those bytes are ours to read; any alignment is allowed.
        u128::from_le(unsafe { at.cast::<u128>().read_unaligned() })
    }

    /// Fills the whole buffer of `lane` with zeros, and leaves a lane without text.
    ///
    /// # Panics
    /// When there is no packet in that lane.
    #[cold]
    pub(super) fn wipe(&mut self, lane: usize) {
        assert!(lane < self.count);
        // SAFETY: text and tag of a packet are contiguous and exclusively ours.
        unsafe { self.text[lane].write_bytes(0, self.len[lane] + TAG_LEN) };
        self.len[lane] = 0;
        self.count_rows();
    }

    /// The texts as Poly1305 takes them. Lanes without a packet repeat the first one's, for nobody to look at: as
    /// empty texts they would leave no chunk whole.
    #[inline]
    pub(super) fn end_aligned(&self) -> EndAligned<'a> {
        let mut len = self.len;
        let first_len = len[0];
        len[self.count..].fill(first_len);

        let (mut longest, mut shortest) = (0, usize::MAX);
        let mut lead = len;
        for blocks in &mut lead {
            *blocks = blocks.div_ceil(MAC_BLOCK_LEN) + 1;
            (longest, shortest) = (longest.max(*blocks), shortest.min(*blocks));
        }
        let chunks = longest.div_ceil(CHUNK_BLOCKS);
        for lead in &mut lead {
            *lead = chunks * CHUNK_BLOCKS - *lead;
        }
        let whole_from = (chunks * CHUNK_BLOCKS - shortest).div_ceil(CHUNK_BLOCKS);
        let mut text = [std::ptr::null(); LANES];
        for (text, start) in text.iter_mut().zip(&self.text) {
            *text = start.cast_const();
        }
        EndAligned { text, len, lead, whole: whole_from..chunks - 1, chunks, buffers: PhantomData }
    }
}

/// The texts of a group padded to the same length, in chunks of four Poly1305 blocks: zeros in front (`lead` blocks),
/// then the text, zeros up to a full block, and one block's room for the lengths at the very end.
///
/// Invariant: `text[lane]` points to `len[lane]` bytes, borrowed for `'a`; bytes `64 * chunk - 16 * lead ..` of each lane's text exist
/// for 64 bytes, for each chunk in `whole`.
pub(super) struct EndAligned<'a> {
    text: [*const u8; LANES],
    len: [usize; LANES],
    lead: [usize; LANES],
    whole: Range<usize>,
    chunks: usize,
    buffers: PhantomData<&'a [u8]>,
}

impl EndAligned<'_> {
    /// Chunks per lane; at least one.
    #[inline]
    pub(super) fn chunks(&self) -> usize {
        self.chunks
    }

    /// The chunks that lie inside the text in every lane.
    #[inline]
    pub(super) fn whole(&self) -> Range<usize> {
        self.whole.clone()
    }

    /// Bytes of text in each lane.
    #[inline]
    pub(super) fn len(&self) -> &[usize; LANES] {
        &self.len
    }

    /// Blocks in front of the text in each lane.
    #[inline]
    pub(super) fn lead(&self) -> &[usize; LANES] {
        &self.lead
    }

    /// Asks for a chunk of all lanes, where they have it whole, for later.
    #[inline]
    pub(super) fn prefetch_chunk(&self, chunk: usize) {
        if self.whole.contains(&chunk) {
            for (text, lead) in self.text.iter().zip(&self.lead) {
                prefetch(text.wrapping_add(chunk * ROW_LEN).wrapping_sub(lead * MAC_BLOCK_LEN));
            }
        }
    }

    /// A chunk of the lower eight lanes (`HALF_INDEX` 0) or the upper (1).
    ///
    /// # Panics
    /// Unless the chunk is in [`Self::whole`].
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn whole_chunk<const HALF_INDEX: usize, const SITE: usize>(
        &self,
        chunk: usize,
    ) -> [__m512i; LANES / 2] {
        assert!(self.whole.contains(&chunk), "chunk {chunk} of {:?}", self.whole);
        let mut rows = [_mm512_setzero_si512(); LANES / 2];
        for (index, row) in rows.iter_mut().enumerate() {
            let lane = HALF_INDEX * (LANES / 2) + index;
            let at =
                self.text[lane].wrapping_add(chunk * ROW_LEN).wrapping_sub(self.lead[lane] * MAC_BLOCK_LEN);
            // SAFETY: chunks in `whole`, as asserted, lie inside the text in every lane.
            *row = unsafe { _mm512_loadu_si512(at.cast()) };
        }
        rows
    }

    /// Any chunk of the lower eight lanes (`HALF_INDEX` 0) or the upper (1), with zeros where there is no text.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn part_chunk<const HALF_INDEX: usize, const SITE: usize>(
        &self,
        chunk: usize,
    ) -> [__m512i; LANES / 2] {
        let mut rows = [_mm512_setzero_si512(); LANES / 2];
        for (index, row) in rows.iter_mut().enumerate() {
            let lane = HALF_INDEX * (LANES / 2) + index;
            let (from, lead) = (chunk * ROW_LEN, self.lead[lane] * MAC_BLOCK_LEN);
            let mask = first_bytes((self.len[lane] + lead).saturating_sub(from))
                & !first_bytes(lead.saturating_sub(from));
            let at = self.text[lane].wrapping_add(from).wrapping_sub(lead);
            // SAFETY: the mask selects only bytes from the first of the text to the last.
            *row = unsafe { _mm512_maskz_loadu_epi8(mask, at.cast()) };
        }
        rows
    }
}

/// Asks for a line of memory that will be read soon.
#[inline]
fn prefetch(at: *const u8) {
    // SAFETY: a hint, which may name any address: it never faults and changes nothing but caches.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// A mask of the first `count` of 64 bytes.
#[inline]
#[target_feature(enable = "bmi2")]
fn first_bytes(count: usize) -> u64 {
    _bzhi_u64(u64::MAX, count.min(ROW_LEN) as u32)
}

/// The 32 bytes of a key, in the lower half.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn load_key(key: &[u8; KEY_LEN]) -> __m512i {
    // SAFETY: a reference to 32 bytes.
    _mm512_zextsi256_si512(unsafe { _mm256_loadu_si256(key.as_ptr().cast()) })
}

/// Eight numbers, one per lane.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn load_u64(numbers: &[u64; LANES / 2]) -> __m512i {
    // SAFETY: a reference to 64 bytes.
    unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) }
}

/// Sixteen numbers, one per lane.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn load_u32(numbers: &[u32; LANES]) -> __m512i {
    // SAFETY: a reference to 64 bytes.
    unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) }
}

/// The inverse of [`load_u64`].
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn store_u64(vector: __m512i) -> [u64; LANES / 2] {
    let mut numbers = [0; LANES / 2];
    // SAFETY: a reference to 64 bytes.
    unsafe { _mm512_storeu_si512(numbers.as_mut_ptr().cast(), vector) };
    numbers
}

/// The inverse of [`load_u32`].
#[cfg(test)]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
pub(super) fn store_u32(vector: __m512i) -> [u32; LANES] {
    let mut numbers = [0; LANES];
    // SAFETY: a reference to 64 bytes.
    unsafe { _mm512_storeu_si512(numbers.as_mut_ptr().cast(), vector) };
    numbers
}

/// Runs the body of a test where the processor can, and says so where it cannot. The body must need no more than
/// [`Features`], which its author sees to.
#[cfg(test)]
pub(super) fn run_on_avx512(test: &str, body: unsafe fn()) {
    if Features::detect().is_some() {
        // SAFETY: all features are there.
        unsafe { body() }
        return;
    }
    let line = format!("skipped: {test}: needs AVX-512 IFMA\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("WGX_TEST_LOG") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        std::io::Write::write_all(&mut file.expect("WGX_TEST_LOG can be opened"), line.as_bytes())
            .expect("WGX_TEST_LOG can be written");
    }
}
