//! A whole session from fixed keys, to the byte, as two other implementations make it (`tests/vectors`).

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::{
    Timestamp, TransportKeys,
    initiator::{self, InitiatorKeys},
    kdf::mac,
    responder::IncomingInitiation,
};
use crate::{
    PeerId,
    activity::Activity,
    cookie::ReceiverKeys,
    keys::PresharedKey,
    padding::padded_len,
    session::{Session, SessionParameters},
    test_vectors::hex,
    time::{Time, UnixTime},
    x25519::Secret,
};

const TRANSCRIPT: &str = include_str!("../../tests/vectors/session.txt");
const INITIATOR_INDEX: u32 = 0x0123_4567;
const RESPONDER_INDEX: u32 = 0x89ab_cdef;

/// `first`, `first + step` and so on.
fn counting<const LEN: usize>(first: u8, step: u8) -> [u8; LEN] {
    std::array::from_fn(|n| first.wrapping_add(step.wrapping_mul(n as u8)))
}

#[track_caller]
fn check(name: &str, message: &str, datagram: &[u8]) {
    let mut lines = TRANSCRIPT.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|words| words[..2] == [name, message]).expect("the transcript has it");
    assert_eq!(datagram, hex(line[2]), "{name} {message}");
}

fn inner(source: u8, destination: u8, len: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, len, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([10, 0, 0, source, 10, 0, 0, destination]);
    packet.extend((0..len - 20).map(|n| len.wrapping_add(n)));
    packet
}

fn session(keys: TransportKeys, [local_index, remote_index]: [u32; 2], initiator: bool) -> Session {
    Session::new(SessionParameters {
        peer: PeerId(0),
        activity: Arc::new(Activity::default()),
        local_index,
        remote_index,
        created_at: Time(0),
        initiator,
        sending_key: keys.sending,
        receiving_key: keys.receiving,
    })
}

fn reproduce(name: &str, psk: [u8; 32]) {
    let psk = PresharedKey::from_bytes(psk);
    let (alice, bob) = (Secret::from_bytes(&counting(0x10, 1)), Secret::from_bytes(&counting(0x40, 3)));
    let (alice_public, bob_public) = (alice.public_key(), bob.public_key());
    let (to_alice, to_bob) = (ReceiverKeys::new(&alice_public), ReceiverKeys::new(&bob_public));
    let static_static = alice.agree(&bob_public).expect("high order");
    let keys = InitiatorKeys { local: &alice_public, remote: &bob_public, static_static: &static_static };
    let timestamp = Timestamp::whitened(UnixTime { secs: 1_700_000_000, nanos: 0x12ff_ffff });
    let ephemeral = Secret::from_bytes(&counting(0x70, 5));
    let (pending, mut initiation) =
        initiator::create_initiation(&keys, ephemeral, timestamp, INITIATOR_INDEX).expect("high order");
    to_bob.write_mac1(initiation.as_mut_bytes());
    check(name, "initiation", initiation.as_bytes());

    let cookie = counting(0x33, 1);
    let reply = to_bob.seal_cookie(&cookie, counting(0x55, 1), &initiation.mac1, INITIATOR_INDEX);
    check(name, "cookie_reply", reply.as_bytes());
    let mut again = initiation.clone();
    again.mac2 = mac(&cookie, &[&initiation.as_bytes()[..132]]);
    check(name, "initiation_with_cookie", again.as_bytes());

    let incoming = IncomingInitiation::open_static(&initiation, &bob, &bob_public).expect("it verifies");
    let (verified, _) = incoming.open_timestamp(&static_static, &initiation).expect("it verifies");
    let ephemeral = Secret::from_bytes(&counting(0xa0, 7));
    let (mut response, bob_keys) = verified.respond(&ephemeral, &psk, RESPONDER_INDEX).expect("high order");
    to_alice.write_mac1(response.as_mut_bytes());
    check(name, "response", response.as_bytes());

    let alice_keys = pending.consume_response(&alice, &psk, &response).expect("it verifies");
    let alice = session(alice_keys, [INITIATOR_INDEX, RESPONDER_INDEX], true);
    let bob = session(bob_keys, [RESPONDER_INDEX, INITIATOR_INDEX], false);
    let seal = |session: &Session, packet: &[u8]| {
        session.seal(packet, padded_len(packet.len(), 1420), Time(0)).expect("a new session sends")
    };
    check(name, "first_data", &seal(&alice, &inner(1, 2, 84)));
    check(name, "first_answer", &seal(&bob, &inner(2, 1, 96)));
    check(name, "keepalive", &seal(&alice, &[]));
    check(name, "answering_keepalive", &seal(&bob, &[]));
}

#[test]
fn session_without_preshared_key_is_that_of_the_transcript() {
    reproduce("plain", [0; 32]);
}

#[test]
fn session_with_preshared_key_is_that_of_the_transcript() {
    reproduce("preshared_key", counting(0xd0, 11));
}
