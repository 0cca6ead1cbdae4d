//! Opening things inside a network namespace: what is opened there stays there, wherever it is used.

use std::{fs, os::fd::AsFd as _, path::Path, thread};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `work` on a thread inside the namespace; on this one without a name.
///
/// # Errors
/// There is no such namespace, or no right to enter it.
pub fn within<T: Send>(name: Option<&str>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(name) = name else { return work() };
    let path = Path::new("/run/netns").join(name);
    let file = fs::File::open(&path).with_context(|| format!("cannot open namespace {}", path.display()))?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter namespace {name}"))?;
            work()
        });
        inside.join().map_err(|_| anyhow!("code in namespace {name} panicked"))?
    })
}
