//! Finds the XDP programs that `cargo xtask build-ebpf` built, for `xdp` to embed.

use std::{
    env,
    path::{Path, PathBuf},
};

fn main() {
    // From the output folder up to the target folder, wherever that is and however the profile is called.
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    find(&out_dir, "gateway-ebpf", "WGX_XDP_OBJECT");
    find(&out_dir, "redirect", "WGX_REDIRECT_OBJECT");
}

fn find(out_dir: &Path, name: &str, variable: &str) {
    let object = out_dir.ancestors().map(|dir| dir.join("ebpf").join(name)).find(|file| file.is_file());
    match object {
        Some(object) => {
            println!("cargo::rustc-env={variable}={}", object.display());
            println!("cargo::rerun-if-changed={}", object.display());
        }
        None => println!("cargo::error=the XDP programs are not built yet: run `cargo xtask build-ebpf`"),
    }
}
