//! Finds the load generator's BPF programs that `cargo xtask build-ebpf` built, for `load` to embed.

use std::{
    env,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Without the generator there is nothing to embed, and xtask, which builds the programs, needs that.
    if env::var_os("CARGO_FEATURE_AF_XDP").is_none() {
        return;
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (name, variable) in [("load", "WGX_LOAD_OBJECT"), ("slices", "WGX_SLICES_OBJECT")] {
        let object =
            out_dir.ancestors().map(|dir: &Path| dir.join("ebpf").join(name)).find(|file| file.is_file());
        let Some(object) = object else {
            println!(
                "cargo::error=the load generator's program {name} is not built yet: run `cargo xtask build-ebpf`"
            );
            return;
        };
        println!("cargo::rustc-env={variable}={}", object.display());
        println!("cargo::rerun-if-changed={}", object.display());
    }
}
