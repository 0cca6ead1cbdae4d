//! The cell in every order in which threads can meet, and with all that processors may put off or do early.
//!
//! On x86 a fence left out or a mark set too late shows in one of a million meetings, or never. Loom tries every meeting
//! that the memory model of the language allows, with words enough to be torn.

// The names that `cell` takes from the module it is in.
use loom::sync::atomic;

#[path = "cell.rs"]
#[allow(clippy::duplicate_mod, reason = "once of atomics, once of their model")]
#[expect(dead_code, reason = "what brings it into the cache is not modelled")]
mod cell;

use cell::HeardCell;
use loom::sync::Arc;
use loom::thread;

const WORD_COUNT: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard([u64; WORD_COUNT]);

/// Lets another thread go on.
struct Backoff;

impl Backoff {
    fn new() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "as crossbeam's")]
    fn snooze(&self) {
        thread::yield_now();
    }
}

/// A value whose words tell it.
fn heard(number: u64) -> Heard {
    Heard([number, number + 10])
}

/// Of value 0.
fn cell() -> Arc<HeardCell> {
    let cell = HeardCell::default();
    cell.store(heard(0));
    Arc::new(cell)
}

#[test]
fn a_reader_sees_whole_values_and_none_again_after_a_later_one() {
    loom::model(|| {
        let cell = cell();
        let read = Arc::clone(&cell);
        // Loom runs the one who spawned first, and what is read after that may be as old as the memory model allows.
        // Not the other way round: a load of the writer's own hides from loom (0.7) that the reader was there before.
        let reader = thread::spawn(move || [read.load(), read.load()]);
        cell.store(heard(1));
        let seen = reader.join().unwrap();
        let possible = [[0, 0], [0, 1], [1, 1]].map(|numbers| numbers.map(heard));
        assert!(possible.contains(&seen), "{seen:?}");
    });
}

#[test]
fn of_two_who_replace_the_same_value_one_does() {
    loom::model(|| {
        let cell = cell();
        let other = Arc::clone(&cell);
        let writer = thread::spawn(move || other.replace(heard(0), heard(1)));
        let ours = cell.replace(heard(0), heard(2));
        let theirs = writer.join().unwrap();
        assert!(ours != theirs, "{ours} {theirs}");
        assert_eq!(cell.load(), heard(if ours { 2 } else { 1 }));
    });
}
