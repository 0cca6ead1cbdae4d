//! The embedded object and its way into the kernel.

use aya::Ebpf;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{Error, Result};

/// What `cargo xtask build-ebpf` built (`build.rs` finds it), aligned as an ELF reader wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WGX_XDP_OBJECT"));

/// Creates the maps; the program itself is not loaded yet.
pub fn load() -> Result<Ebpf> {
    // Before Linux 5.11 maps count as locked memory. Later kernels do not look, so a refusal does not matter.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    Ebpf::load(OBJECT).map_err(|error| Error::object(&error))
}
