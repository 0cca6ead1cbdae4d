//! Every backend against another implementation, on every length, in guarded memory; and what is to be refused.
//!
//! Random cases: `WGX_AEAD_CASES` says how many packets (else 100 thousand), `WGX_AEAD_SEED` the number of the first
//! batch (else 0). A batch that fails is named with its number: `WGX_AEAD_SEED=number WGX_AEAD_CASES=1` runs it alone.

mod check;
mod guarded;
mod oracle;
mod random;
mod refused;

use std::{
    collections::BTreeSet,
    env,
    fs::OpenOptions,
    io::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use aead::Aead;
use check::{Batch, Expected, Plain};
use guarded::{Guarded, Placement};
use random::{BATCH_MAX, TEXT_MAX};

/// Random packets unless `WGX_AEAD_CASES` says otherwise: a few seconds.
const CASES: u64 = 100_000;

fn backends() -> Vec<Aead> {
    Aead::names().map(|name| Aead::by_name(name).expect("listed backends pass their self-test")).collect()
}

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{variable} is {value:?}: give a number"))
    })
}

/// What the cases reached.
#[derive(Default)]
struct Reached {
    packets: u64,
    forged: u64,
    text_lens: BTreeSet<usize>,
    batch_lens: BTreeSet<usize>,
}

impl Reached {
    fn add(&mut self, batch: &Batch, forged_count: usize) {
        self.packets += batch.packets.len() as u64;
        self.forged += forged_count as u64;
        self.text_lens.extend(batch.packets.iter().map(|plain| plain.text.len()));
        self.batch_lens.insert(batch.packets.len());
    }
}

/// Checks batches on all processors from `first` on until there were `cases` packets.
fn check_random(first: u64, cases: u64) -> Reached {
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let reached = Mutex::new(Reached::default());
    // Once: each runs its self-test, which takes longer than a batch.
    let backends = backends();
    let work = || {
        let mut memory = Guarded::new(BATCH_MAX);
        let mut own = Reached::default();
        while done.load(Ordering::Relaxed) < cases {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let batch = random::batch(number);
            done.fetch_add(batch.packets.len() as u64, Ordering::Relaxed);
            let expected = Expected::of(&batch);
            for aead in &backends {
                if let Err(wrong) = expected.check(*aead, &mut memory) {
                    panic!("WGX_AEAD_SEED={number} WGX_AEAD_CASES=1: {wrong}");
                }
            }
            own.add(&batch, expected.forged_count());
        }
        let mut all = reached.lock().expect("no thread panicked with it");
        all.packets += own.packets;
        all.forged += own.forged;
        all.text_lens.append(&mut own.text_lens);
        all.batch_lens.append(&mut own.batch_lens);
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    reached.into_inner().expect("no thread panicked with it")
}

/// Adds a line to the report of `cargo xtask test`: which backends there are depends on the processor.
fn note(text: &str) {
    println!("{text}");
    if let Some(path) = env::var_os("WGX_TEST_LOG") {
        let mut log = OpenOptions::new().append(true).create(true).open(path).expect("a file for the report");
        writeln!(log, "note: random_batches_of_packets: {text}").expect("a file that can be written");
    }
}

#[test]
fn random_batches_are_sealed_and_opened_as_by_another_implementation() {
    let cases = number("WGX_AEAD_CASES", CASES);
    let reached = check_random(number("WGX_AEAD_SEED", 0), cases);
    note(&format!(
        "{} packets, {} of them forged, {} lengths, {} sizes of batches, on each of {}",
        reached.packets,
        reached.forged,
        reached.text_lens.len(),
        reached.batch_lens.len(),
        Aead::names().collect::<Vec<_>>().join(", ")
    ));
    assert!(reached.packets >= cases);
    if cases >= CASES {
        assert!(reached.text_lens.iter().copied().eq(0..=TEXT_MAX), "not every length came up");
        assert!(reached.batch_lens.iter().copied().eq(1..=BATCH_MAX), "not every size of a batch came up");
        assert!(reached.forged > reached.packets / 10 && reached.forged < reached.packets / 2);
    }
}

#[test]
fn every_length_is_sealed_and_opened_as_by_another_implementation() {
    let backends = backends();
    let mut memory = Guarded::new(BATCH_MAX);
    let keys: Vec<[u8; 32]> = (0..16).map(|index| [index; 32]).collect();
    for text_len in 0..=TEXT_MAX {
        // Sixteen of a length and one that is as different as it can be.
        let lens = [text_len; 16].into_iter().chain([TEXT_MAX - text_len]);
        let packets = lens.enumerate().map(|(index, text_len)| Plain {
            key_index: index % keys.len(),
            counter: (text_len * 17 + index) as u64,
            text: (0..text_len).map(|at| (at * 31 + index) as u8).collect(),
            placement: if index % 2 == 0 { Placement::FromEnd(0) } else { Placement::FromStart(0) },
            tampering: None,
        });
        let batch = Batch { keys: keys.clone(), packets: packets.collect() };
        let expected = Expected::of(&batch);
        for aead in &backends {
            if let Err(wrong) = expected.check(*aead, &mut memory) {
                panic!("{wrong}");
            }
        }
    }
}
