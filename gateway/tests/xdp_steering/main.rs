//! The XDP program in the kernel: what it does with frames, and how it comes to interfaces (needs root).

mod attach;
#[path = "../../../gateway-ebpf/tests/frames/mod.rs"]
mod frames;
mod namespace;
mod program;
mod report;
