//! Vectors of RFC 8439 that have the shape of a `WireGuard` packet (nonce of four zero bytes and a counter). The RFC's
//! AEAD examples and Wycheproof's all carry associated data or other nonces, which this crate has no room for; the tags
//! are covered by the self-test and the differential tests.

use crate::{backends, positions::seal_at_every_position};

/// The plaintext of RFC 8439, appendix A.2, test vector 2; its key, nonce and block counter are as used below.
const TEXT: &[u8] =
    b"Any submission to the IETF intended by the Contributor for publication as all or part of an IETF \
Internet-Draft or RFC and any statement made within the context of an IETF activity is considered an \"IETF \
Contribution\". Such statements include oral statements in IETF sessions, as well as written and electronic \
communications made at any time or place, which are addressed to";

/// First and last 16 bytes of its ciphertext.
const CIPHERTEXT_START: [u8; 16] = 0xa3fb_f07d_f3fa_2fde_4f37_6ca2_3e82_7370_u128.to_be_bytes();
const CIPHERTEXT_END: [u8; 16] = 0xba5b_862f_3730_e37c_fdc4_fd80_6c22_f221_u128.to_be_bytes();

/// With no data, Poly1305 sees only the block of two zero lengths, so the tag is (2^128 * r mod 2^130 - 5) + s
/// mod 2^128. This is that sum for the r and s of appendix A.4, test vector 1 (all-zero key and nonce).
const EMPTY_TAG: u128 = 0x4eb9_72c9_a8fb_3a1b_382b_b4d3_6f5f_fad1;

/// The RFC writes the nonce 00 .. 00 02, which is this counter in little-endian.
const COUNTER: u64 = 2 << 56;

#[test]
fn ciphertext_is_that_of_rfc_8439() {
    let mut key = [0; 32];
    key[31] = 1;
    for aead in backends() {
        seal_at_every_position(aead, &key, COUNTER, TEXT, |sealed, position| {
            let ciphertext = &sealed[..TEXT.len()];
            assert!(ciphertext.starts_with(&CIPHERTEXT_START), "{} at {position}", aead.name());
            assert!(ciphertext.ends_with(&CIPHERTEXT_END), "{} at {position}", aead.name());
        });
    }
}

#[test]
fn tag_of_the_empty_packet_follows_from_the_one_time_key_of_rfc_8439() {
    for aead in backends() {
        seal_at_every_position(aead, &[0; 32], 0, &[], |sealed, position| {
            assert_eq!(sealed, EMPTY_TAG.to_be_bytes(), "{} at {position}", aead.name());
        });
    }
}
