//! Finds the XDP program that `cargo xtask build-ebpf` built, for `xdp::object` to embed.

use std::{env, path::PathBuf};

fn main() {
    // From the output folder up to the target folder, wherever that is and however the profile is called.
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = out_dir.ancestors().map(|dir| dir.join("ebpf/gateway-ebpf")).find(|file| file.is_file());
    match object {
        Some(object) => {
            println!("cargo::rustc-env=WGX_XDP_OBJECT={}", object.display());
            println!("cargo::rerun-if-changed={}", object.display());
        }
        None => println!("cargo::error=the XDP program is not built yet: run `cargo xtask build-ebpf`"),
    }
}
