//! A fuzzer's bytes as a source of decisions that never runs dry: behind the end there are zeros.

use arbitrary::{Arbitrary, Unstructured};

/// Steps of one input at most, so that a large input is no slow one.
const STEPS_MAX: usize = 256;

/// What is left of an input.
pub struct Input<'a> {
    bytes: Unstructured<'a>,
    steps: usize,
}

impl<'a> Input<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self { bytes: Unstructured::new(data), steps: 0 }
    }

    /// Whether there is something left for a next step.
    pub fn has_step(&mut self) -> bool {
        self.steps += 1;
        self.steps <= STEPS_MAX && !self.bytes.is_empty()
    }

    /// A value of fixed size.
    pub fn value<T: Arbitrary<'a> + Default>(&mut self) -> T {
        self.bytes.arbitrary().unwrap_or_default()
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.bytes.int_in_range(0..=bound - 1).unwrap_or_default()
    }

    /// The next bytes: as many as the input says, at most `max`.
    pub fn bytes(&mut self, max: usize) -> &'a [u8] {
        let len = self.below(max + 1).min(self.bytes.len());
        self.bytes.bytes(len).unwrap_or_default()
    }

    /// All the rest.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes.bytes(self.bytes.len()).unwrap_or_default()
    }

    /// Exactly `len` bytes, zeros where the input ends.
    pub fn padded(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = self.bytes.bytes(len.min(self.bytes.len())).unwrap_or_default().to_vec();
        bytes.resize(len, 0);
        bytes
    }

    /// Changes some bytes, or the length, or nothing.
    pub fn corrupt(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(4) {
            match self.below(4) {
                0 => bytes.truncate(self.below(bytes.len() + 1)),
                1 => bytes.extend(self.bytes(32)),
                _ if bytes.is_empty() => {}
                _ => {
                    let index = self.below(bytes.len());
                    bytes[index] ^= self.value::<u8>();
                }
            }
        }
    }
}
