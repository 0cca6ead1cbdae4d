//! The Debian packages that building and testing take, each with a file that shows it is there.

use std::path::Path;

use crate::command::find_program;
use crate::setup::{LLVM, toolchain};

/// How to see that a package is there.
pub enum Probe {
    /// A program on the search path.
    Program(&'static str),
    /// A file; `{llvm}` stands for the folder of our LLVM.
    File(&'static str),
    /// A compiler that can build the XDP program, from wherever.
    BpfCompiler,
}

use Probe::{BpfCompiler, File, Program};

/// Package names; `{v}` stands for the LLVM version.
pub const PACKAGES: &[(&str, Probe)] = &[
    // bpf-linker
    ("llvm-{v}-dev", File("{llvm}/bin/llvm-config")),
    ("libpolly-{v}-dev", File("{llvm}/lib/libPolly.a")),
    ("libzstd-dev", File("/usr/include/zstd.h")),
    // The XDP program's compiler, where there is no nightly with rust-src.
    ("rustc-web", BpfCompiler),
    ("rust-web-src", BpfCompiler),
    // xsk-rs: libxdp and libbpf from source, bindgen
    ("clang-{v}", File("{llvm}/bin/clang")),
    ("libclang1-{v}", File("{llvm}/lib/libclang-{v}.so.1")),
    ("libelf-dev", File("/usr/include/libelf.h")),
    ("zlib1g-dev", File("/usr/include/zlib.h")),
    ("m4", Program("m4")),
    ("make", Program("make")),
    ("gcc", Program("gcc")),
    ("libc6-dev", File("/usr/include/stdio.h")),
    // hwlocality
    ("libhwloc-dev", File("/usr/include/hwloc.h")),
    ("libudev-dev", File("/usr/include/libudev.h")),
    ("pkg-config", Program("pkg-config")),
    // Namespace tests and the demo
    ("iproute2", Program("ip")),
    ("ethtool", Program("ethtool")),
    ("wireguard-go", Program("wireguard-go")),
    ("wireguard-tools", Program("wg")),
    ("iperf3", Program("iperf3")),
    ("iputils-ping", Program("ping")),
    ("nftables", Program("nft")),
    ("tcpdump", Program("tcpdump")),
    ("bpftool", Program("bpftool")),
    ("strace", Program("strace")),
    // Instructions per packet
    ("valgrind", Program("valgrind")),
];

/// What the guest of `interop_kernel` takes beside [`PACKAGES`]: an emulator, and tools to unpack its kernel.
pub const GUEST: &[(&str, Probe)] = &[
    ("qemu-system-x86", Program("qemu-system-x86_64")),
    ("busybox-static", Program("busybox")),
    ("dash", Program("dash")),
    ("kmod", Program("modprobe")),
    ("xz-utils", Program("xz")),
    ("zstd", Program("zstd")),
];

/// A competitor of our AEAD: `bench aead` does without where it is not to be had.
pub const IPSEC_MB: &[(&str, Probe)] = &[("libipsec-mb-dev", File("/usr/include/intel-ipsec-mb.h"))];

/// Samples stacks for `bench profile`.
pub const PROFILER: &[(&str, Probe)] = &[("linux-perf", Program("perf"))];

/// Packages whose contents are not there.
pub fn missing(packages: &[(&'static str, Probe)]) -> Vec<&'static str> {
    packages
        .iter()
        .filter(|(_, probe)| !probe.is_there())
        .map(|(package, _)| &*Box::leak(package.replace("{v}", LLVM).into_boxed_str()))
        .collect()
}

impl Probe {
    fn is_there(&self) -> bool {
        match self {
            Program(name) => find_program(name).is_some(),
            File(path) => {
                Path::new(&path.replace("{llvm}", &toolchain::llvm_prefix()).replace("{v}", LLVM)).exists()
            }
            BpfCompiler => toolchain::candidate().is_some(),
        }
    }
}
