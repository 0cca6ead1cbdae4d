//! The program that libFuzzer drives: one target, named by the environment variable `WGX_FUZZ_TARGET`.
#![no_main]

use std::sync::LazyLock;

use fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("WGX_FUZZ_TARGET").unwrap_or_default();
    fuzz::target(&name).unwrap_or_else(|| panic!("there is no target {name:?}: set WGX_FUZZ_TARGET"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
