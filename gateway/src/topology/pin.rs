//! Pinning a thread to one CPU.

use core_affinity::CoreId;
use thiserror::Error;

use super::CPU_NUMBER_MAX;

/// The kernel refused, or the CPU cannot be named.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PinError {
    /// Beyond what `cpu_set_t` can hold.
    #[error(
        "cannot pin a thread to CPU {cpu}: CPUs above {CPU_NUMBER_MAX} are not supported, choose others with --cores"
    )]
    TooHigh {
        /// The kernel's number.
        cpu: u32,
    },
    /// Not in the set this process may use, or gone offline since the start.
    #[error(
        "cannot pin a thread to CPU {cpu}: it is offline or outside this process's cpuset, choose others with --cores"
    )]
    Refused {
        /// The kernel's number.
        cpu: u32,
    },
}

/// Pins the calling thread to the CPU with this kernel number.
///
/// # Errors
///
/// The thread stays as it was. A worker that cannot have its core must not start: its neighbours' latency
/// would depend on where the scheduler puts it.
pub fn pin_current(cpu: u32) -> Result<(), PinError> {
    if cpu > CPU_NUMBER_MAX {
        return Err(PinError::TooHigh { cpu });
    }
    // The id is the kernel's number, never a position in `core_affinity::get_core_ids`: that list leaves out
    // isolated CPUs, so positions and numbers differ exactly where pinning matters.
    if core_affinity::set_for_current(CoreId { id: cpu as usize }) {
        Ok(())
    } else {
        Err(PinError::Refused { cpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::cpu;

    #[test]
    fn a_pinned_thread_runs_on_its_cpu_only() {
        let last = cpu::read().expect("cpus").last().expect("at least one CPU").number;
        std::thread::spawn(move || {
            pin_current(last).expect("pin");
            assert_eq!(rustix::thread::sched_getcpu(), last as usize);
            let allowed = rustix::thread::sched_getaffinity(None).expect("affinity");
            assert_eq!(allowed.count(), 1);
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn cpus_that_do_not_exist_are_refused() {
        assert_eq!(pin_current(1023), Err(PinError::Refused { cpu: 1023 }));
        assert_eq!(pin_current(1024), Err(PinError::TooHigh { cpu: 1024 }));
    }
}
