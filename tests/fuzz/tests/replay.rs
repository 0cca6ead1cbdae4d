//! Every target on all inputs that were worth keeping, and on as many new ones as there is time for.

use std::{
    collections::BTreeSet,
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fuzz::{TARGETS, Target};
use proptest::{
    prelude::Rng,
    test_runner::{RngAlgorithm, TestRng},
};

/// Time for new inputs, all targets together.
const BUDGET: Duration = Duration::from_secs(12);
/// New inputs per target at most, so that a fast machine runs what a slow one can run again.
const INPUTS_MAX: u64 = 5000;
const INPUT_LEN_MAX: usize = 1024;
const SEED: [u8; 32] = *b"any fixed seed serves: 32 bytes.";

/// A pseudo-random input: bytes of its own, or a kept input with some bytes changed.
fn new_input(rng: &mut TestRng, kept: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut below = |bound: usize| (rng.next_u64() % bound as u64) as usize;
    if kept.is_empty() || below(3) == 0 {
        return (0..below(INPUT_LEN_MAX)).map(|_| below(256) as u8).collect();
    }
    let mut input = kept[below(kept.len())].1.clone();
    for _ in 0..=below(8) {
        let place = below(input.len() + 1);
        match below(4) {
            0 => input.truncate(place),
            1 => input.insert(place, below(256) as u8),
            2 => input.extend_from_slice(&kept[below(kept.len())].1),
            _ => {
                if let Some(byte) = input.get_mut(place) {
                    *byte = below(256) as u8;
                }
            }
        }
    }
    input
}

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

/// The files of `kind/target`, in order.
fn kept(kind: &str, target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder(kind).join(target.name)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).expect("a readable file"))).collect()
}

/// Runs a target and says which input it was that failed.
fn run(target: &Target, input: &[u8], origin: &str) {
    let name = target.name;
    if panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let file = std::env::temp_dir().join(format!("wgx-fuzz-{name}-{}", std::process::id()));
        fs::write(&file, input).expect("the temporary folder is writable");
        panic!("target {name} fails on {origin}; the input is {}", file.display());
    }
}

#[test]
fn what_was_found_once_holds() {
    for target in TARGETS {
        run(target, &[], "no bytes");
        for (path, input) in kept("corpus", target).iter().chain(&kept("crashes", target)) {
            run(target, input, &path.display().to_string());
        }
    }
}

#[test]
fn pseudo_random_inputs_hold() {
    let share = BUDGET / TARGETS.len() as u32;
    for target in TARGETS {
        let kept = kept("corpus", target);
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
        let start = Instant::now();
        let mut count = 0;
        while count < INPUTS_MAX && start.elapsed() < share {
            run(
                target,
                &new_input(&mut rng, &kept),
                &format!("input {count} of the seed {:?}", SEED.escape_ascii().to_string()),
            );
            count += 1;
        }
        println!("{}: {count} inputs of the seed {:?}", target.name, SEED.escape_ascii().to_string());
    }
}

#[test]
fn table_and_folders_agree() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len(), "two targets have one name");
    let folders = |kind: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(folder(kind)).expect("the folder is there");
        entries
            .map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned())
            .filter(|name| name != "README.md")
            .collect()
    };
    assert_eq!(folders("corpus"), names, "each target has inputs to begin with");
    assert!(folders("crashes").is_subset(&names), "crashes of targets that are no more");
}
