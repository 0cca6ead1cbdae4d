//! Keys stay in memory, and in this process: no core dumps, no swap, no going on with half of the threads.

use anyhow::{Context, Result};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, capabilities};

/// Keeps keys out of core dumps and off the disk, and makes a panic of any thread the end of all: a gateway that
/// has lost a worker would drop one queue's packets in silence. To be called before keys are read.
///
/// # Errors
/// The kernel refuses `PR_SET_DUMPABLE`.
pub(super) fn protect_process() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot switch off core dumps")?;
    if let Err(why) = lock_memory() {
        tracing::warn!("keys may be written to swap: {why}; give wgx CAP_IPC_LOCK, or have no swap");
    }
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    Ok(())
}

/// Locks all memory, now and later, as it is touched. Without the capability a limit would apply, and allocations
/// beyond it fail: worse than swap.
fn lock_memory() -> Result<()> {
    let held = capabilities(None).context("cannot read this process's capabilities")?;
    anyhow::ensure!(held.effective.contains(CapabilitySet::IPC_LOCK), "CAP_IPC_LOCK is missing");
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .context("mlockall(2) failed")
}
