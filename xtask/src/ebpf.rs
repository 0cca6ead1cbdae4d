//! `cargo xtask build-ebpf`: objects in `target/ebpf`, which `gateway` and `bench` embed: `gateway-ebpf` steers, `redirect`,
//! `load` and `slices` are for load generators.
//!
//! Cargo decides whether there is anything to do. The program has its own target folder, so that its compiler,
//! flags and profile never invalidate the host build.

use std::{env, fs, path::Path};

use anyhow::{Context, Result};

use crate::command::{cargo, run, search_path, step, target_dir};
use crate::setup::toolchain;

const TARGET: &str = if cfg!(target_endian = "little") { "bpfel-unknown-none" } else { "bpfeb-unknown-none" };

/// One program each.
const OBJECTS: [&str; 4] = ["gateway-ebpf", "redirect", "load", "slices"];

/// Passed to the compiler for the program alone; `build-std` compiles `core` with them too.
const FLAGS: &[&str] = &[
    "-Clinker=bpf-linker",
    // BTF: names and lines in the verifier's log.
    "-Clink-arg=--btf",
    "-Cdebuginfo=2",
    // 32-bit arithmetic instructions; the oldest kernel that takes them (5.1) is older than what AF_XDP needs.
    "-Ctarget-cpu=v3",
];

/// Builds the program if its sources changed.
pub fn build(trace: bool) -> Result<()> {
    let compiler = toolchain::find()?;
    step(&format!("build-ebpf with {}", compiler.description), || {
        let build_dir = target_dir().join("ebpf/build");
        let mut command = cargo();
        command
            .args(["build", "--quiet", "--release", "--package", "gateway-ebpf", "--bins"])
            .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
            .arg(&build_dir)
            .env("RUSTC", &compiler.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
            .env("PATH", path_with_linker());
        // A caller's choice for the host must not reach the program.
        for name in [
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_BUILD_TARGET",
            "RUSTUP_TOOLCHAIN",
        ] {
            command.env_remove(name);
        }
        if trace {
            command.args(["--features", "trace"]);
        }
        run(&mut command)?;
        let built = build_dir.join(TARGET).join("release");
        OBJECTS.iter().try_for_each(|name| install(&built, name))
    })
}

/// Puts the object where `gateway/build.rs` looks, unless the same is there: its time stamp rules a rebuild.
fn install(built: &Path, name: &str) -> Result<()> {
    let built = built.join(name);
    let object = target_dir().join("ebpf").join(name);
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(&object).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let fresh = object.with_extension("new");
    fs::write(&fresh, bytes).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, &object).with_context(|| format!("cannot write {}", object.display()))
}

/// bpf-linker may have been installed a moment ago, into a folder that is not on the caller's path.
fn path_with_linker() -> std::ffi::OsString {
    let paths = env::split_paths(&search_path()).collect::<Vec<_>>();
    env::join_paths(paths.into_iter().chain(toolchain::home_bin())).unwrap_or_else(|_| search_path())
}
