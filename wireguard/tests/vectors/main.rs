//! A whole session to the byte, by two implementations that share nothing: the script beside this file, which only
//! needs Python, and `snow` here. `wireguard/src/noise/transcript.rs` compares the crate itself.

use std::{path::Path, process::Command};

use blake2::{
    Blake2s256, Blake2sMac, Digest,
    digest::{FixedOutput, KeyInit, Mac, consts::U16},
};
use chacha20poly1305::{AeadInOut, XChaCha20Poly1305};
use snow::{HandshakeState, TransportState};

const TRANSCRIPT: &str = include_str!("session.txt");
const TIMESTAMP: [u8; 12] = [0x40, 0, 0, 0, 0x65, 0x53, 0xf1, 0x0a, 0x12, 0, 0, 0];
const INITIATOR_INDEX: [u8; 4] = 0x0123_4567_u32.to_le_bytes();
const RESPONDER_INDEX: [u8; 4] = 0x89ab_cdef_u32.to_le_bytes();

/// `first`, `first + step` and so on.
fn counting<const LEN: usize>(first: u8, step: u8) -> [u8; LEN] {
    std::array::from_fn(|n| first.wrapping_add(step.wrapping_mul(n as u8)))
}

fn expected(session: &str, message: &str) -> &'static str {
    let mut lines = TRANSCRIPT.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.find(|words| words[..2] == [session, message]).expect("the transcript has it")[2]
}

#[track_caller]
fn check(session: &str, message: &str, datagram: &[u8]) {
    let digits = expected(session, message);
    let bytes: Vec<u8> = (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..][..2], 16).expect("hexadecimal digits"))
        .collect();
    assert_eq!(datagram, bytes, "{session} {message}");
}

fn hash(label: &[u8], key: &[u8]) -> [u8; 32] {
    Blake2s256::new().chain_update(label).chain_update(key).finalize().into()
}

fn mac(key: &[u8], data: &[u8]) -> [u8; 16] {
    let mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("the key is short");
    mac.chain_update(data).finalize_fixed().into()
}

fn with_macs(body: &[u8], receiver: &[u8], cookie: Option<&[u8]>) -> Vec<u8> {
    let mut datagram = body.to_vec();
    datagram.extend(mac(&hash(b"mac1----", receiver), &datagram));
    let mac2 = cookie.map_or([0; 16], |cookie| mac(cookie, &datagram));
    datagram.extend(mac2);
    datagram
}

fn inner(source: u8, destination: u8, len: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, len, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([10, 0, 0, source, 10, 0, 0, destination]);
    packet.extend((0..len - 20).map(|n| len.wrapping_add(n)));
    packet.resize(usize::from(len).next_multiple_of(16), 0);
    packet
}

fn data(state: &mut TransportState, receiver: [u8; 4], counter: u64, padded: &[u8]) -> Vec<u8> {
    let mut datagram = [&[4, 0, 0, 0], &receiver[..], &counter.to_le_bytes()].concat();
    let mut sealed = vec![0; padded.len() + 16];
    let len = state.write_message(padded, &mut sealed).expect("it fits");
    datagram.extend(&sealed[..len]);
    datagram
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 200];
    let len = state.write_message(payload, &mut message).expect("it fits");
    message.truncate(len);
    message
}

fn public(private: &[u8; 32]) -> Vec<u8> {
    use snow::resolvers::{CryptoResolver, DefaultResolver};
    let mut dh = DefaultResolver.resolve_dh(&snow::params::DHChoice::Curve25519).expect("it is built in");
    dh.set(private);
    dh.pubkey().to_vec()
}

fn cookie_reply(responder: &[u8], mac1: &[u8], cookie: &[u8; 16]) -> Vec<u8> {
    let nonce: [u8; 24] = counting(0x55, 1);
    let key = hash(b"cookie--", responder);
    let mut sealed = cookie.to_vec();
    let tag = XChaCha20Poly1305::new((&key).into())
        .encrypt_inout_detached(&nonce.into(), mac1, sealed.as_mut_slice().into())
        .expect("a cookie is short");
    [&[3, 0, 0, 0], &INITIATOR_INDEX[..], &nonce, &sealed, &tag].concat()
}

fn reproduce(session: &str, psk: &[u8; 32]) {
    let (initiator, responder) = (counting(0x10, 1), counting(0x40, 3));
    let (initiator_ephemeral, responder_ephemeral) = (counting::<32>(0x70, 5), counting::<32>(0xa0, 7));
    let (initiator_public, responder_public) = (public(&initiator), public(&responder));
    let cookie = counting(0x33, 1);
    let builder = |private, ephemeral| {
        snow::Builder::new("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().expect("a pattern"))
            .prologue(b"WireGuard v1 zx2c4 Jason@zx2c4.com")
            .and_then(|builder| builder.local_private_key(private))
            .and_then(|builder| builder.psk(2, psk))
            .map(|builder| builder.fixed_ephemeral_key_for_testing_only(ephemeral))
            .expect("good keys")
    };
    let mut alice = builder(&initiator, &initiator_ephemeral)
        .remote_public_key(&responder_public)
        .and_then(snow::Builder::build_initiator)
        .expect("good keys");
    let mut bob = builder(&responder, &responder_ephemeral).build_responder().expect("good keys");

    let message = write(&mut alice, &TIMESTAMP);
    let body = [&[1, 0, 0, 0], &INITIATOR_INDEX[..], &message].concat();
    let initiation = with_macs(&body, &responder_public, None);
    check(session, "initiation", &initiation);
    check(session, "cookie_reply", &cookie_reply(&responder_public, &initiation[116..132], &cookie));
    check(session, "initiation_with_cookie", &with_macs(&body, &responder_public, Some(&cookie)));
    bob.read_message(&message, &mut [0; 64]).expect("it verifies");

    let message = write(&mut bob, &[]);
    let body = [&[2, 0, 0, 0], &RESPONDER_INDEX[..], &INITIATOR_INDEX, &message].concat();
    check(session, "response", &with_macs(&body, &initiator_public, None));
    alice.read_message(&message, &mut [0; 64]).expect("it verifies");

    let mut alice = alice.into_transport_mode().expect("the handshake is done");
    let mut bob = bob.into_transport_mode().expect("the handshake is done");
    check(session, "first_data", &data(&mut alice, RESPONDER_INDEX, 0, &inner(1, 2, 84)));
    check(session, "first_answer", &data(&mut bob, INITIATOR_INDEX, 0, &inner(2, 1, 96)));
    check(session, "keepalive", &data(&mut alice, RESPONDER_INDEX, 1, &[]));
    check(session, "answering_keepalive", &data(&mut bob, INITIATOR_INDEX, 1, &[]));
}

#[test]
fn snow_makes_the_session_without_preshared_key() {
    reproduce("plain", &[0; 32]);
}

#[test]
fn snow_makes_the_session_with_preshared_key() {
    reproduce("preshared_key", &counting(0xd0, 11));
}

#[test]
fn script_prints_the_transcript() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/session.py");
    let output = Command::new("python3").arg(&script).output().expect("python3 must be installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), TRANSCRIPT);
}
