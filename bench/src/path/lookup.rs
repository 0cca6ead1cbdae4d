//! What `wgx-path lookup` measures of structures for longest-prefix matches.

use serde::{Deserialize, Serialize};

/// One structure with one set of prefixes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    /// What it is.
    pub structure: String,
    /// Address family: `v4` or `v6`.
    pub family: String,
    /// What prefixes there are.
    pub prefixes: String,
    /// How many.
    pub count: usize,
    /// Nanoseconds per look-up of addresses drawn from all prefixes alike.
    pub uniform_ns: f64,
    /// Nanoseconds per look-up of the addresses of 64 flows.
    pub hot_ns: f64,
    /// Bytes of memory per prefix.
    pub bytes_per_prefix: f64,
    /// Milliseconds to insert all, one after the other.
    pub build_ms: f64,
    /// Microseconds to change one prefix and give readers a snapshot of the result, while they hold the one before.
    pub update_us: f64,
}
