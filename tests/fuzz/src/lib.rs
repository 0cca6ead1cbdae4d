//! Fuzz targets: what must hold for any bytes whatever. Each is a plain function, so that libFuzzer
//! (`cargo xtask fuzz`) and an ordinary test (`tests/replay.rs`) run the same code.
//!
//! A target panics when something does not hold. Its input is read as a sequence of steps until it is used up, so
//! that most mutations of an interesting input are interesting too.

mod input;
#[path = "../../../gateway/tests/laboratory/mod.rs"]
#[allow(unused, unreachable_pub, missing_docs, reason = "the engine's tests own it and use all of it")]
mod laboratory;
#[path = "../../../wireguard/tests/simulation/node.rs"]
#[allow(unused, unreachable_pub, missing_docs, reason = "the device's tests own it and use all of it")]
mod simulation;
mod targets;

pub use targets::TARGETS;

/// A property of any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its folders in `corpus` and `crashes`, and of `cargo xtask fuzz NAME`.
    pub name: &'static str,
    /// Panics when the property does not hold for these bytes.
    pub run: fn(&[u8]),
}

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
