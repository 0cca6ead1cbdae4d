//! A stream, cut into lines within one fixed buffer, which is erased behind the reader: the lines are keys.

use zeroize::{Zeroize, Zeroizing};

use crate::control::uapi::request::LINE_LEN_MAX;

/// What is read at once.
pub const CHUNK_LEN: usize = 16 << 10;

/// The buffer.
pub struct Lines {
    buffer: Zeroizing<Vec<u8>>,
    start: usize,
    end: usize,
}

/// What is in the buffer.
pub enum Line<'a> {
    /// A line without its newline.
    Complete(&'a [u8]),
    /// Not a whole line yet: read more.
    Partial,
    /// No newline within the longest line there is: what follows cannot be made sense of. Whether it has arrived
    /// already does not matter, or the outcome would depend on how the stream was cut.
    TooLong,
}

impl Lines {
    pub fn new() -> Self {
        Self { buffer: Zeroizing::new(vec![0; CHUNK_LEN]), start: 0, end: 0 }
    }

    /// Takes the next line out.
    pub fn next_line(&mut self) -> Line<'_> {
        let pending = &self.buffer[self.start..self.end];
        match pending.iter().position(|byte| *byte == b'\n') {
            Some(len) if len <= LINE_LEN_MAX => {
                let start = self.start;
                self.start += len + 1;
                Line::Complete(&self.buffer[start..start + len])
            }
            None if pending.len() <= LINE_LEN_MAX => Line::Partial,
            _ => Line::TooLong,
        }
    }

    /// Whether nothing is left, not even the beginning of a line.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where to read to: never empty, since a pending line is at most [`LINE_LEN_MAX`] long.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.buffer[self.end..].zeroize();
        &mut self.buffer[self.end..]
    }

    /// `len` bytes of [`Lines::space`] were filled.
    pub fn filled(&mut self, len: usize) {
        self.end += len;
    }
}
