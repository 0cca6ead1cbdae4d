//! A core to measure on.

use anyhow::Result;
use rustix::process::setpriority_process;

/// The highest priority there is below real time.
const NICE: i32 = -20;

/// Moves this thread to a CPU, by the kernel's number, and ahead of what else runs there.
///
/// # Errors
/// There is no such CPU, or it is not ours to use.
pub fn claim_core(cpu: u32) -> Result<()> {
    gateway::topology::pin::pin_current(cpu)?;
    // Without the right to, a trial that was held up says so itself.
    let _ = setpriority_process(None, NICE);
    Ok(())
}
