//! Transport datagrams between two ends of a session: replayed, reordered, damaged, invented.

use std::{collections::BTreeSet, sync::Arc};

use wireguard::{
    Activity, PeerId, Session, SessionParameters, Time,
    constants::{REJECT_AFTER_TIME, REPLAY_WINDOW},
};

use crate::input::Input;

/// Bytes of keys: what Alice and Bob seal with, and what nobody does.
const ALICE: u8 = 1;
const BOB: u8 = 2;
const NOBODY: u8 = 3;

fn session(initiator: bool, sending: u8, receiving: u8) -> Session {
    Session::new(SessionParameters {
        peer: PeerId(0),
        activity: Arc::<Activity>::default(),
        local_index: 0x1000 + u32::from(initiator),
        remote_index: 0x1000 + u32::from(!initiator),
        created_at: Time(0),
        initiator,
        sending_key: [sending; 32].into(),
        receiving_key: [receiving; 32].into(),
    })
}

/// A datagram that was sealed, and what is in it.
struct Sealed {
    datagram: Vec<u8>,
    inner: Vec<u8>,
}

/// Only what was sealed comes out, each once, and nothing within the window is refused.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (alice, bob) = (session(true, ALICE, BOB), session(false, BOB, ALICE));
    // Fuzzers learn what is compared, sealed datagrams included: to Bob, noise may turn out to be genuine.
    let stranger = session(false, BOB, NOBODY);
    let mut sealed: Vec<Sealed> = Vec::new();
    let mut opened = BTreeSet::new();
    while input.has_step() {
        match input.below(8) {
            0 | 1 => seal(&mut input, &alice, &mut sealed),
            // Jumps over nonces, as if so many datagrams were lost.
            2 => assert!(alice.reserve(u32::from(input.value::<u16>()), Time(0)).is_some()),
            3 => {
                let mut noise = input.bytes(128).to_vec();
                let before = noise.clone();
                assert!(stranger.open(&mut noise, Time(0)).is_err(), "noise was opened");
                assert_eq!(noise, before, "a refused datagram was changed");
            }
            _ if sealed.is_empty() => {}
            _ => deliver(&mut input, &bob, &sealed, &mut opened),
        }
    }
}

fn seal(input: &mut Input, alice: &Session, sealed: &mut Vec<Sealed>) {
    let inner = input.bytes(100).to_vec();
    let padded_len = input.below(128);
    let datagram = alice.seal(&inner, padded_len, Time(0)).expect("a fresh session seals");
    sealed.push(Sealed { datagram, inner });
}

fn deliver(input: &mut Input, bob: &Session, sealed: &[Sealed], opened: &mut BTreeSet<u64>) {
    let Sealed { datagram, inner } = &sealed[input.below(sealed.len())];
    let mut received = datagram.clone();
    let is_late = input.below(16) == 15;
    input.corrupt(&mut received);
    let counter = u64::from_le_bytes(datagram[8..16].try_into().expect("eight bytes"));
    let greatest = opened.last().copied().unwrap_or_default();
    let is_intact = received == *datagram;
    let is_acceptable =
        is_intact && !is_late && !opened.contains(&counter) && counter + REPLAY_WINDOW >= greatest;
    let now = if is_late { Time(0) + REJECT_AFTER_TIME } else { Time(0) };
    let outcome = bob.open(&mut received, now);
    assert_eq!(outcome.is_ok(), is_acceptable, "counter {counter} behind {greatest}: {outcome:?}");
    if let Ok(range) = outcome {
        let (plain, padding) = received[range].split_at(inner.len());
        assert_eq!(plain, inner);
        assert!(padding.iter().all(|byte| *byte == 0), "padding is zero");
        opened.insert(counter);
    }
}
