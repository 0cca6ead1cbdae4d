//! Where frames lie: one behind the other in chunks, none across two.

use gateway_ebpf::load_layout::{CHUNK_LEN, OFFSET_MAX};

/// The place of the next frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement {
    chunk: u32,
    offset: usize,
}

impl Placement {
    /// The chunk and the first byte of a frame of `len` bytes, `FRAME_LEN_MAX` at most.
    pub fn take(&mut self, len: usize) -> (u32, usize) {
        if self.offset > OFFSET_MAX {
            self.chunk += 1;
            self.offset = 0;
        }
        let place = (self.chunk, self.offset);
        self.offset += len;
        debug_assert!(self.offset <= CHUNK_LEN, "a frame of {len} bytes");
        place
    }

    /// Chunks in use.
    pub fn chunk_count(self) -> u32 {
        self.chunk + 1
    }
}

#[cfg(test)]
mod tests {
    use gateway_ebpf::load_layout::FRAME_LEN_MAX;

    use super::*;

    #[test]
    fn frames_lie_side_by_side_and_in_one_chunk_each() {
        for len in [58, 274, 1302, FRAME_LEN_MAX] {
            let mut placement = Placement::default();
            let mut end = (0, 0);
            for _ in 0..10_000 {
                let (chunk, offset) = placement.take(len);
                assert!(offset + len <= CHUNK_LEN && offset <= OFFSET_MAX, "{len}: {offset}");
                assert!((chunk, offset) == end || (chunk, offset) == (end.0 + 1, 0), "{len}: {end:?}");
                end = (chunk, offset + len);
            }
            assert_eq!(placement.chunk_count(), end.0 + 1);
        }
    }
}
