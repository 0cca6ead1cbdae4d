//! What a session lets through, and how long.

use super::*;
use crate::constants::REPLAY_WINDOW;

const INNER: &[u8] = b"an inner packet of no particular form";

fn session(initiator: bool) -> Session {
    let keys = [[1; 32], [2; 32]];
    let (sending, receiving) = if initiator { (0, 1) } else { (1, 0) };
    Session::new(SessionParameters {
        peer: PeerId(0),
        activity: Arc::default(),
        local_index: u32::from(initiator),
        remote_index: u32::from(!initiator),
        created_at: Time(0),
        initiator,
        sending_key: keys[sending].into(),
        receiving_key: keys[receiving].into(),
    })
}

fn at(secs: u64) -> Time {
    Time(0) + Duration::from_secs(secs)
}

#[test]
fn sealed_packet_opens_once() {
    let (alice, bob) = (session(true), session(false));
    let sealed = alice.seal(INNER, 48, at(1)).expect("a fresh session seals");
    assert_eq!(sealed.len(), TRANSPORT_OVERHEAD + 48);
    let mut datagram = sealed.clone();
    let range = bob.open(&mut datagram, at(1)).expect("it opens");
    assert_eq!(&datagram[range.clone()][..INNER.len()], INNER);
    assert!(datagram[range][INNER.len()..].iter().all(|&byte| byte == 0), "padding is zero");
    assert_eq!(bob.open(&mut sealed.clone(), at(1)), Err(DropReason::CounterReplayed));
}

#[test]
fn keepalive_is_32_bytes_and_opens_to_nothing() {
    let (alice, bob) = (session(true), session(false));
    let mut keepalive = bob.seal(&[], 0, at(0)).expect("a fresh session seals");
    assert_eq!(keepalive.len(), 32);
    assert!(alice.open(&mut keepalive, at(0)).expect("it opens").is_empty());
}

#[test]
fn any_flipped_bit_is_refused_and_leaves_the_window_alone() {
    let (alice, bob) = (session(true), session(false));
    let sealed = alice.seal(INNER, 48, at(0)).expect("a fresh session seals");
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(bob.open(&mut forged, at(0)).is_err(), "bit {bit}");
    }
    assert!(bob.open(&mut sealed.clone(), at(0)).is_ok());
}

#[test]
fn truncated_datagrams_are_refused() {
    let (alice, bob) = (session(true), session(false));
    let sealed = alice.seal(INNER, 48, at(0)).expect("a fresh session seals");
    for len in 0..sealed.len() {
        assert!(bob.open(&mut sealed[..len].to_vec(), at(0)).is_err(), "{len} bytes");
    }
}

#[test]
fn session_ends_at_180_seconds_in_both_directions() {
    let (alice, bob) = (session(true), session(false));
    assert_eq!(alice.created_at(), at(0));
    let mut sealed = alice.seal(INNER, 48, at(179)).expect("still young");
    assert_eq!(alice.seal(INNER, 48, at(180)), None);
    assert_eq!(bob.open(&mut sealed, at(180)), Err(DropReason::SessionExpired));
    assert!(bob.open(&mut sealed, at(179)).is_ok());
}

#[test]
fn counters_stop_at_the_limit_and_never_wrap() {
    let alice = session(true);
    alice.set_next_counter(REJECT_AFTER_MESSAGES - 2);
    assert_eq!(alice.reserve(3, at(0)), None);
    assert_eq!(alice.reserve(2, at(0)), Some(REJECT_AFTER_MESSAGES - 2));
    for _ in 0..REPLAY_WINDOW * 2 {
        assert_eq!(alice.reserve(u32::MAX, at(0)), None);
        assert_eq!(alice.reserve(1, at(0)), None);
    }
    assert!(!alice.may_send(at(0)));
}

#[test]
fn counter_at_the_limit_is_refused_before_decryption() {
    let (alice, bob) = (session(true), session(false));
    let mut sealed = alice.seal(INNER, 48, at(0)).expect("a fresh session seals");
    sealed[8..16].copy_from_slice(&REJECT_AFTER_MESSAGES.to_le_bytes());
    assert_eq!(bob.open(&mut sealed, at(0)), Err(DropReason::CounterLimit));
}

#[test]
fn only_the_initiator_wants_a_new_handshake_by_age() {
    let (alice, bob) = (session(true), session(false));
    assert!(!alice.wants_rekey_on_send(at(120)));
    assert!(alice.wants_rekey_on_send(at(121)));
    assert!(!alice.wants_rekey_on_send(at(121)), "one wish a second");
    assert!(alice.wants_rekey_on_send(at(122)));
    assert!(!alice.wants_rekey_on_receive(at(165)));
    assert!(alice.wants_rekey_on_receive(at(166)));
    assert!(!alice.wants_rekey_on_receive(at(166)), "one wish a second");
    assert!(!bob.wants_rekey_on_send(at(179)) && !bob.wants_rekey_on_receive(at(179)));
    bob.set_next_counter(REKEY_AFTER_MESSAGES);
    assert!(!bob.wants_rekey_on_send(at(0)), "no more than the limit");
    bob.set_next_counter(REKEY_AFTER_MESSAGES + 1);
    assert!(bob.wants_rekey_on_send(at(0)));
    assert!(!bob.wants_rekey_on_send(at(0)), "one wish a second, also in the first");
}

#[test]
fn responder_is_confirmed_exactly_once() {
    let (alice, bob) = (session(true), session(false));
    assert!(alice.is_confirmed() && !alice.confirm());
    assert!(!bob.is_confirmed());
    assert!(bob.confirm());
    assert!(!bob.confirm() && bob.is_confirmed());
    bob.retract_confirmation();
    assert!(bob.confirm(), "the queue was full: again");
    alice.retract_confirmation();
    assert!(!alice.confirm());
}

#[test]
fn keys_are_not_printed() {
    assert!(!format!("{:?}", session(true)).contains("key"));
}
