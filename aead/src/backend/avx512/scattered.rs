//! The rows at the ends of packets of unequal lengths, gathered so that a pass of the cipher has few idle lanes.

use super::{
    LANES,
    memory::{Lanes, ROW_LEN},
};

/// Rows in two passes of the cipher.
const PASSES_LEN: usize = 2 * LANES;

/// Every lane once.
const EACH: [u32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Walks over all rows of a group from some row on: row by row, and in each over the lanes down to the last that has
/// it. The lanes are sorted by length, so all of these do, except among packets too long to be told apart.
pub(super) struct Scattered {
    row_counts: [usize; LANES],
    row: usize,
    /// Lanes that may have the row.
    lane_count: usize,
    /// Rows to come: lane and row of each, at most [`PASSES_LEN`] at a time and what the last row had beyond that.
    lanes: [u32; PASSES_LEN + LANES],
    rows: [u32; PASSES_LEN + LANES],
    queued: usize,
}

/// Sixteen rows of a group. If there are fewer, the last ones are rows that no packet has.
#[derive(Clone, Copy)]
pub(super) struct Places {
    /// Lane of each row's packet.
    pub(super) lanes: [u32; LANES],
    /// Which row of that packet.
    pub(super) rows: [u32; LANES],
}

impl Places {
    /// The same row of every lane.
    #[inline]
    pub(super) fn row(row: usize) -> Self {
        Self { lanes: EACH, rows: [row as u32; LANES] }
    }
}

impl Scattered {
    /// The rows from `first_row` on.
    #[inline]
    pub(super) fn new(lanes: &Lanes<'_>, first_row: usize) -> Self {
        let mut scattered = Self {
            row_counts: *lanes.len(),
            row: first_row,
            lane_count: lanes.count(),
            lanes: [0; PASSES_LEN + LANES],
            rows: [0; PASSES_LEN + LANES],
            queued: 0,
        };
        for count in &mut scattered.row_counts {
            *count = count.div_ceil(ROW_LEN);
        }
        scattered
    }

    /// How many rows are left, or [`PASSES_LEN`] if there are more.
    #[inline]
    pub(super) fn queue(&mut self) -> usize {
        while self.queued < PASSES_LEN {
            while self.lane_count > 0 && self.row_counts[self.lane_count - 1] <= self.row {
                self.lane_count -= 1;
            }
            if self.lane_count == 0 {
                break;
            }
            // All sixteen, as one store; those that are too many are overwritten or ignored.
            self.lanes[self.queued..self.queued + LANES].copy_from_slice(&EACH);
            self.rows[self.queued..self.queued + LANES].copy_from_slice(&[self.row as u32; LANES]);
            self.queued += self.lane_count;
            self.row += 1;
        }
        self.queued.min(PASSES_LEN)
    }

    /// The next rows, as many as `P` passes take.
    #[inline]
    pub(super) fn take<const P: usize>(&mut self) -> [Places; P] {
        const NO_ROW: u32 = u32::MAX - 1;
        let mut all = [Places { lanes: [0; LANES], rows: [NO_ROW; LANES] }; P];
        self.rows[self.queued.min(PASSES_LEN)..PASSES_LEN].fill(NO_ROW);
        for (places, (lanes, rows)) in
            all.iter_mut().zip(self.lanes.as_chunks().0.iter().zip(self.rows.as_chunks().0))
        {
            (places.lanes, places.rows) = (*lanes, *rows);
        }
        self.lanes.copy_within(P * LANES.., 0);
        self.rows.copy_within(P * LANES.., 0);
        self.queued = self.queued.saturating_sub(P * LANES);
        all
    }
}
