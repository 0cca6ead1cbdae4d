//! The two halves of the BPF toolchain: a compiler with the sources of `core`, and bpf-linker.
//!
//! bpf-linker reads the compiler's bitcode, so its LLVM must not be older than the compiler's.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{command, find_program, output};
use crate::setup::LLVM;

/// The bpf-linker that setup installs.
pub const LINKER_VERSION: &str = "0.13.0";

/// A compiler that can build for the BPF target with `-Z build-std=core`.
pub struct BpfCompiler {
    /// The program.
    pub rustc: PathBuf,
    /// What to call it in messages.
    pub description: String,
}

/// Where Debian puts our LLVM.
pub fn llvm_prefix() -> String {
    format!("/usr/lib/llvm-{LLVM}")
}

/// What `cargo install bpf-linker` needs to find our LLVM: llvm-sys reads one, bpf-linker the other.
pub fn linker_environment() -> [(String, String); 2] {
    [("LLVM_PREFIX".into(), llvm_prefix()), (format!("LLVM_SYS_{LLVM}1_PREFIX"), llvm_prefix())]
}

/// The compiler for the XDP program: a rustup nightly with rust-src if its LLVM suits, else Debian's.
pub fn find() -> Result<BpfCompiler> {
    candidate().context(
        "no compiler for the XDP program: neither a rustup nightly with rust-src (`rustup toolchain install \
         nightly --component rust-src`) nor Debian's rustc-web with rust-web-src",
    )
}

/// As [`find`], without an opinion about its absence.
pub fn candidate() -> Option<BpfCompiler> {
    nightly().or_else(debian)
}

fn nightly() -> Option<BpfCompiler> {
    let rustc =
        PathBuf::from(output(command("rustup").args(["which", "rustc", "--toolchain", "nightly"]))?.trim());
    let sysroot = rustc.parent()?.parent()?;
    has_core_sources(sysroot).then_some(())?;
    let version = output(command(rustc.to_str()?).arg("-vV"))?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let suits = major(llvm)? <= major(LLVM)?;
    suits.then(|| BpfCompiler { description: format!("rustup's nightly (LLVM {llvm})"), rustc })
}

fn debian() -> Option<BpfCompiler> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    (rustc.exists() && has_core_sources(Path::new("/usr")))
        .then(|| BpfCompiler { rustc, description: "Debian's rustc-web".into() })
}

fn has_core_sources(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// Makes sure that bpf-linker is there, is ours, and finds its libLLVM when it runs.
pub fn check_linker() -> Result<()> {
    let Some(linker) = find_program("bpf-linker").or_else(|| {
        let installed = home_bin()?.join("bpf-linker");
        installed.exists().then_some(installed)
    }) else {
        bail!("bpf-linker is missing");
    };
    let linker = linker.display().to_string();
    let Some(version) = output(command(&linker).arg("--version")) else {
        bail!("{linker} does not run (built for an LLVM that is no longer there?)");
    };
    // The same minor version only: the command line differs between them.
    let wanted = LINKER_VERSION.rsplit_once('.').map_or(LINKER_VERSION, |(minor, _)| minor);
    if !version.trim().starts_with(&format!("bpf-linker {wanted}.")) {
        bail!("{linker} is {}, not {LINKER_VERSION}", version.trim());
    }
    Ok(())
}

/// Where `cargo install` puts programs.
pub fn home_bin() -> Option<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    Some(cargo_home.join("bin"))
}
