//! The embedded object and its way into the kernel.

use aya::{Ebpf, EbpfLoader};
use gateway_ebpf::layout;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{Error, Result};

/// What `cargo xtask build-ebpf` built (`build.rs` finds it), aligned as an ELF reader wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WGX_XDP_OBJECT"));

/// Creates the maps, with room for so many allowed IPs per family; the program itself is not loaded yet.
pub fn load(allowed_ip_count: u32) -> Result<Ebpf> {
    unlock_memory();
    let mut loader = EbpfLoader::new();
    for map in [layout::ALLOWED_IPV4, layout::ALLOWED_IPV6] {
        loader.map_max_entries(map, allowed_ip_count);
    }
    loader.load(OBJECT).map_err(|error| Error::object(&error))
}

/// Before Linux 5.11 maps count as locked memory. Later kernels do not look, so a refusal does not matter.
pub fn unlock_memory() {
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}
