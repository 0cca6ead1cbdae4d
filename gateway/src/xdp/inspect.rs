//! What the program did and what the kernel thinks of it.

use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use gateway_ebpf::layout;

use super::{Error, Reason, Result, Steering, maps};

/// What the verifier said about the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Instructions the verifier walked, over all paths; `None` before Linux 5.16.
    pub instruction_count: Option<u32>,
    /// Size of the translated program in bytes.
    pub translated_len: Option<u32>,
}

/// Loads the program, asks what the verifier said, and unloads it.
///
/// # Errors
///
/// As [`Steering::load`].
pub fn verify() -> Result<Verification> {
    Steering::load()?.verification()
}

impl Steering {
    /// What the verifier said when the program was loaded.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub fn verification(&self) -> Result<Verification> {
        let info = self.program()?.info().map_err(|error| Error::program(&error))?;
        Ok(Verification {
            instruction_count: info.verified_instruction_count(),
            translated_len: info.size_translated(),
        })
    }

    /// Frames by reason, summed over the CPUs, for each attached interface by its index.
    ///
    /// # Errors
    ///
    /// The kernel refused to read the map.
    pub fn counters(&self) -> Result<Vec<(u32, [u64; Reason::COUNT])>> {
        self.interfaces
            .iter()
            .map(|(&index, interface)| Ok((index, maps::read_counters(&self.ebpf, interface.value.slot)?)))
            .collect()
    }

    /// Runs the program on a frame (14 bytes at least) as if it came in on queue 0 of the loopback interface.
    ///
    /// Returns the XDP action and the mean time of `repeat` runs (`BPF_PROG_TEST_RUN`; nothing is redirected).
    ///
    /// # Errors
    ///
    /// The kernel does not take the frame.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<(u32, Duration)> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = self.program()?.test_run(options).map_err(|error| Error::program(&error))?;
        Ok((result.return_value, result.duration))
    }

    fn program(&self) -> Result<&Xdp> {
        let program =
            self.ebpf.program(layout::PROGRAM).ok_or(Error::Foreign { missing: layout::PROGRAM })?;
        program.try_into().map_err(|error| Error::program(&error))
    }
}
