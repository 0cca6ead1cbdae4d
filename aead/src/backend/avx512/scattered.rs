//! The rows at the ends of packets of unequal lengths, gathered so that a pass of the cipher has no idle lanes.

use std::arch::x86_64::*;

use super::{
    LANES,
    memory::{Lanes, ROW_LEN},
};

/// Walks over all rows of a group from some row on, packet by packet.
pub(super) struct Scattered<'l> {
    text_lens: &'l [usize; LANES],
    first_row: usize,
    lane: usize,
    row: usize,
    remaining: usize,
}

/// Sixteen rows of a group, or fewer: then the last ones are rows that no packet has.
pub(super) struct Places {
    /// Lane of each row's packet.
    pub(super) lanes: [u32; LANES],
    rows: [u32; LANES],
}

impl<'l> Scattered<'l> {
    /// The rows from `first_row` on.
    pub(super) fn new(lanes: &'l Lanes<'_>, first_row: usize) -> Self {
        let text_lens = lanes.len();
        let rows = |len: &usize| len.div_ceil(ROW_LEN).saturating_sub(first_row);
        Self { text_lens, first_row, lane: 0, row: first_row, remaining: text_lens.iter().map(rows).sum() }
    }

    /// How many rows are left.
    pub(super) fn len(&self) -> usize {
        self.remaining
    }

    /// The next sixteen, or what is left.
    pub(super) fn take(&mut self) -> Places {
        let mut places = Places { lanes: [0; LANES], rows: [u32::MAX - 1; LANES] };
        let count = self.remaining.min(LANES);
        for (lane, row) in places.lanes.iter_mut().zip(&mut places.rows).take(count) {
            while self.row * ROW_LEN >= self.text_lens[self.lane] {
                self.lane += 1;
                self.row = self.first_row;
            }
            (*lane, *row) = (self.lane as u32, self.row as u32);
            self.row += 1;
        }
        self.remaining -= count;
        places
    }
}

impl Places {
    /// The block of the key stream for each row: block 0 makes the one-time key.
    pub(super) fn blocks(&self) -> [u32; LANES] {
        self.rows.map(|row| row + 1)
    }

    /// XORs a row of key stream to each place.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2,bmi2")]
    pub(super) fn xor(&self, lanes: &Lanes<'_>, key_stream: &[__m512i; LANES]) {
        for (key_stream, (lane, row)) in key_stream.iter().zip(self.lanes.iter().zip(&self.rows)) {
            lanes.xor_row(*lane as usize, *row as usize, *key_stream);
        }
    }
}
