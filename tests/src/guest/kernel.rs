//! The guest's kernel: unpacked once by `cargo xtask setup` into a cache outside the checkout.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// What the guest loads; each brings the modules it depends on.
pub const MODULES: [&str; 9] = [
    "virtio_net",
    "wireguard",
    // Loss, delay, duplication and reordering; the rest is what it takes to have them on arrival too.
    "sch_netem",
    "sch_ingress",
    "cls_matchall",
    "act_mirred",
    "ifb",
    "veth",
    "dummy",
];

/// The name folders of kernels begin with.
const PREFIX: &str = "linux-";

/// A kernel with its modules, ready to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// Where a kernel of this release belongs.
    pub fn at(cache: &Path, release: &str) -> Self {
        Self { folder: cache.join(format!("{PREFIX}{release}")) }
    }

    /// The newest kernel in the cache.
    pub fn installed() -> Result<Self> {
        let cache = cache()?;
        let mut releases: Vec<String> = fs::read_dir(&cache)
            .map(|entries| {
                entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
            })
            .unwrap_or_default();
        releases.retain(|name| name.starts_with(PREFIX));
        releases.sort_by_key(|name| version_key(name));
        let newest = releases.last();
        let newest = newest.with_context(|| format!("there is no kernel in {}", cache.display()))?;
        let kernel = Self { folder: cache.join(newest) };
        ensure!(kernel.image().is_file(), "{} is missing", kernel.image().display());
        Ok(kernel)
    }

    /// The folder of the kernel.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What `uname -r` says in the guest.
    pub fn release(&self) -> &str {
        let name = self.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(PREFIX).unwrap_or(name)
    }

    /// What qemu boots: ELF, or compressed as the distribution ships it.
    pub fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    /// The folder of the modules, uncompressed; by name they are in the order they load in.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }
}

/// Where kernels are kept: with the user's caches, outside the checkout.
pub fn cache() -> Result<PathBuf> {
    let caches = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .context("there is no place for a cache: neither HOME nor XDG_CACHE_HOME is set")?;
    Ok(caches.join("wgx").join("guest"))
}

/// Sorts `6.12.9` before `6.12.10`: the numbers of a version or of a name that holds one.
pub fn version_key(text: &str) -> Vec<u64> {
    text.split(|letter: char| !letter.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let mut names = ["linux-6.12.107+deb12", "linux-6.12.9+deb12", "linux-6.12.9+deb13"];
        names.sort_by_key(|name| version_key(name));
        assert_eq!(names, ["linux-6.12.9+deb12", "linux-6.12.9+deb13", "linux-6.12.107+deb12"]);
    }

    #[test]
    fn a_kernel_is_named_after_its_release() {
        let kernel = Kernel::at(Path::new("/cache"), "6.12.1-cloud");
        assert_eq!(kernel.release(), "6.12.1-cloud");
        assert_eq!(kernel.image(), Path::new("/cache/linux-6.12.1-cloud/image"));
    }
}
