//! Reads callgrind's output (valgrind manual, "Callgrind Format Specification"), written without any compression of
//! names and positions: `--compress-strings=no --compress-pos=no`.

use std::collections::BTreeMap;

/// Whether the instructions of this function and of all it calls are not the engine's: the cipher's, which is C and
/// assembly, or those of the benchmark's own ports.
fn is_foreign(callee: &str) -> bool {
    callee.starts_with("aws_lc_") || is_port(callee)
}

fn is_port(function: &str) -> bool {
    function.contains("PlayedLink")
}

/// C and assembly, cipher and libc alike, have no paths in their names.
fn is_rust(function: &str) -> bool {
    function.contains("::")
}

/// Sources of the cipher's dispatch, some of it inlined into the engine.
fn is_cipher_source(source: &str) -> bool {
    source.starts_with("aead/src/") || source.starts_with("aws-lc-rs-")
}

/// Instructions of one part of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Instructions of the engine and of what it calls, but the cipher and the benchmark's own.
    pub engine: u64,
    /// Of these, those of Rust by where they were written, wherever the compiler put them: files of ours from the root
    /// of the repository, crates of others as a whole.
    pub by_source: BTreeMap<String, u64>,
}

/// Why a part of callgrind's output makes no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A line is not as the format has it.
    #[error("line {number} of callgrind's output is not understood: {line:?}")]
    Line {
        /// Counted from one.
        number: usize,
        /// The line.
        line: String,
    },
    /// Nothing was collected.
    #[error("callgrind collected nothing: is the function it shall collect in still called `measured`?")]
    Empty,
}

impl Profile {
    /// The profile in `text`; `root` is the repository's.
    ///
    /// # Errors
    /// `text` is no output of callgrind, or holds no cost.
    pub fn parse(text: &str, root: &str) -> Result<Self, ProfileError> {
        let mut profile = Self::default();
        let (mut function, mut file, mut callee) = ("", "", "");
        let (mut is_header, mut is_call) = (true, false);
        let (mut all, mut foreign) = (0, 0);
        for (index, line) in text.lines().enumerate() {
            let wrong = || ProfileError::Line { number: index + 1, line: line.to_owned() };
            if let Some((key, value)) = line.split_once('=') {
                match key {
                    "fn" => function = value,
                    "fl" | "fi" | "fe" => file = value,
                    "cfn" => callee = value,
                    "calls" => is_call = true,
                    // Names of objects, and what the header says with a sign of equality in it.
                    _ => continue,
                }
                is_header = false;
                continue;
            }
            if is_header || line.is_empty() || line.starts_with("totals:") {
                continue;
            }
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).ok_or_else(wrong)?;
            if std::mem::take(&mut is_call) {
                if is_foreign(callee) && is_rust(function) && !is_port(function) {
                    foreign += cost;
                }
                continue;
            }
            all += cost;
            if !is_rust(function) || is_port(function) {
                continue;
            }
            let source = source_name(file, root);
            if is_cipher_source(&source) {
                foreign += cost;
            } else {
                *profile.by_source.entry(source).or_default() += cost;
            }
        }
        profile.engine =
            u64::checked_sub(all, foreign).filter(|engine| *engine > 0).ok_or(ProfileError::Empty)?;
        Ok(profile)
    }
}

/// A name that is the same on every machine.
fn source_name(file: &str, root: &str) -> String {
    if let Some(ours) = file.strip_prefix(root) {
        return ours.trim_start_matches('/').to_owned();
    }
    if file.starts_with("/rustc/") {
        return "core, alloc and std".to_owned();
    }
    match file.split_once("/registry/src/") {
        // REGISTRY/CRATE-VERSION/FILE
        Some((_, path)) => path.split('/').nth(1).unwrap_or(path).to_owned(),
        None => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
# callgrind format
version: 1
desc: Trigger: --dump-after=measured

positions: line
events: Ir
summary: 1000

ob=/home/me/wgx/target/release/wgx-path
fl=/home/me/wgx/bench/path/src/count.rs
fn=wgx_path::count::measured
cfn=gateway::dataplane::worker::Worker::turn
calls=1 0
10 990
11 10

fl=/home/me/wgx/gateway/src/dataplane/worker.rs
fn=gateway::dataplane::worker::Worker::turn
10 100
fi=/rustc/59807616/library/core/src/num/uint_macros.rs
20 7
fi=/home/me/.cargo/registry/src/mirror/arc-swap-1.9.3/src/lib.rs
21 5
fi=/home/me/wgx/aead/src/backend/mod.rs
22 3
cfn=aws_lc_0_47_0_EVP_AEAD_CTX_open_gather
calls=2 0
23 600
fe=/home/me/wgx/gateway/src/dataplane/worker.rs
cfn=<bench_path::port::PlayedLink as gateway::io::LinkPort>::receive
calls=1 0
24 200
cfn=__memcpy_avx_unaligned_erms
calls=1 0
25 75

fn=aws_lc_0_47_0_EVP_AEAD_CTX_open_gather
1 50
cfn=aead_chacha20_poly1305_open_gather
calls=2 0
1 550

fn=aead_chacha20_poly1305_open_gather
1 450
cfn=aws_lc_0_47_0_CRYPTO_memcmp
calls=2 0
1 100

fn=aws_lc_0_47_0_CRYPTO_memcmp
1 100

fn=<bench_path::port::PlayedLink as gateway::io::LinkPort>::receive
1 120
cfn=__memcpy_avx_unaligned_erms
calls=1 0
1 80

fn=__memcpy_avx_unaligned_erms
1 155
totals: 1000
";

    #[test]
    fn cipher_and_ports_are_left_out_with_all_they_call() {
        let profile = Profile::parse(OUTPUT, "/home/me/wgx").unwrap();
        // 1000, less 600 of the cipher, 200 of the port and 3 of the cipher's dispatch.
        assert_eq!(profile.engine, 197);
        let expected = [
            ("arc-swap-1.9.3", 5),
            ("bench/path/src/count.rs", 10),
            ("core, alloc and std", 7),
            ("gateway/src/dataplane/worker.rs", 100),
        ];
        assert_eq!(profile.by_source, expected.map(|(source, cost)| (source.to_owned(), cost)).into());
    }

    #[test]
    fn a_line_that_is_no_cost_is_named() {
        let error = Profile::parse(&OUTPUT.replace("11 10", "11 ten"), "/").unwrap_err();
        assert_eq!(error.to_string(), "line 15 of callgrind's output is not understood: \"11 ten\"");
    }

    #[test]
    fn nothing_collected_is_an_error() {
        assert!(matches!(Profile::parse("version: 1\ntotals: 0\n", "/"), Err(ProfileError::Empty)));
    }
}
