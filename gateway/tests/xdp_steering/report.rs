//! How a test says that it cannot run here, or what it measured: lines that `cargo xtask test` collects.

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write as _},
};

/// True when the test may go on; else reports that it was skipped and why.
///
/// In CI a skip fails the run (`xtask/src/test/log.rs`), so a test cannot vanish unseen.
#[must_use]
pub fn unless_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    skip(test, "needs root to load an XDP program");
    false
}

/// Reports that the test cannot run here, or not to its end, and why.
pub fn skip(test: &str, why: &str) {
    record(&format!("skipped: {test}: {why}"));
}

/// Adds a line to the report at the end of `cargo xtask test`.
pub fn note(test: &str, text: &str) {
    record(&format!("note: {test}: {text}"));
}

/// One `write` in append mode, so lines of parallel tests do not mix.
fn record(line: &str) {
    eprintln!("{line}");
    if let Some(path) = env::var_os("WGX_TEST_LOG") {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let written: io::Result<()> =
            file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.expect("WGX_TEST_LOG names a file that can be written");
    }
}
