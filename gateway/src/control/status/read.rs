//! The asking side, for `wgx status` and tests.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{STATUS_DIR, Status};

/// Longest wait for a gateway that does not answer.
const READ_MAX: Duration = Duration::from_secs(10);
/// A megabyte per thousand peers, for all peers there can be.
const STATUS_LEN_MAX: u64 = 256 << 20;

/// Asks the gateway called `name`.
///
/// # Errors
/// None of that name runs, we are not root, or it does not answer.
pub fn read_status(name: &str) -> Result<Status> {
    read_from(Path::new(STATUS_DIR), name)
}

/// The names of all gateways that run on this host, in order.
///
/// # Errors
/// The directory is there and cannot be read: we are not root.
pub fn running_instances() -> Result<Vec<String>> {
    instances_in(Path::new(STATUS_DIR))
}

pub(in crate::control) fn read_from(dir: &Path, name: &str) -> Result<Status> {
    let path = dir.join(format!("{name}.sock"));
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            bail!("no gateway called {name} runs: nobody listens on {}", path.display())
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot ask at {}: are you root?", path.display()));
        }
    };
    stream.set_read_timeout(Some(READ_MAX))?;
    let mut text = String::new();
    Read::by_ref(&mut stream)
        .take(STATUS_LEN_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("gateway {name} does not answer on {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("gateway {name} is of another version than this program"))
}

pub(in crate::control) fn instances_in(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot look into {}: are you root?", dir.display()));
        }
    };
    let mut names: Vec<String> = entries
        .flatten()
        // A file that nobody listens on is what a killed gateway left.
        .filter(|entry| UnixStream::connect(entry.path()).is_ok())
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".sock")?.to_owned()))
        .collect();
    names.sort_unstable();
    Ok(names)
}
