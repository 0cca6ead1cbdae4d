//! The marks in every order in which two threads can meet, as loom has them meet: threads that run into each other by
//! chance seldom show that something is read and written in two steps.

// The name that `marks` takes from the module it is in.
use loom::sync::atomic;

#[path = "marks.rs"]
#[allow(clippy::duplicate_mod, reason = "once of atomics, once of their model")]
#[expect(dead_code, reason = "what no other thread can come between is not modelled")]
mod marks;

use loom::sync::Arc;
use loom::thread;

use crate::constants::REJECT_AFTER_MESSAGES;
use crate::time::Time;
use marks::{Confirmation, NonceCounter, RekeyWish};

/// What two threads get from `shared`, in each order.
fn asked_by_two<S: Send + Sync + 'static, T: Send + 'static>(
    shared: fn() -> S,
    ask: fn(&S) -> T,
    check: fn(&S, [T; 2]),
) {
    loom::model(move || {
        let shared = Arc::new(shared());
        let other = Arc::clone(&shared);
        let thread = thread::spawn(move || ask(&other));
        let ours = ask(&shared);
        check(&shared, [ours, thread.join().unwrap()]);
    });
}

#[test]
fn no_nonce_is_reserved_twice() {
    let reserve = |nonces: &NonceCounter| nonces.reserve(64);
    asked_by_two(NonceCounter::default, reserve, |nonces, firsts| {
        assert!([[0, 64], [64, 0]].map(|firsts| firsts.map(Some)).contains(&firsts), "{firsts:?}");
        assert_eq!(nonces.reserved_count(), 128);
    });
}

#[test]
fn the_last_nonces_are_reserved_once() {
    let all_but_two = || {
        let nonces = NonceCounter::default();
        nonces.set(REJECT_AFTER_MESSAGES - 2);
        nonces
    };
    asked_by_two(
        all_but_two,
        |nonces| nonces.reserve(2),
        |nonces, firsts| {
            assert_eq!(firsts.iter().flatten().collect::<Vec<_>>(), [&(REJECT_AFTER_MESSAGES - 2)]);
            assert_eq!(nonces.reserved_count(), REJECT_AFTER_MESSAGES);
        },
    );
}

#[test]
fn of_two_threads_one_wishes_a_handshake() {
    let wished_at_1 = || {
        let wish = RekeyWish::default();
        assert!(wish.wish(Time(1)));
        wish
    };
    for shared in [RekeyWish::default, wished_at_1] {
        let wish = |wish: &RekeyWish| wish.wish(Time(2_000_000_000));
        asked_by_two(shared, wish, |_, [ours, theirs]| assert!(ours != theirs, "{ours} {theirs}"));
    }
}

#[test]
fn of_two_threads_one_confirms() {
    let unconfirmed = || Confirmation::new(false);
    asked_by_two(unconfirmed, Confirmation::confirm, |held, [ours, theirs]| {
        assert!(ours != theirs && held.is_confirmed(), "{ours} {theirs}");
    });
}
