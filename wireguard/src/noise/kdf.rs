//! BLAKE2s, keyed BLAKE2s, and HKDF over HMAC-BLAKE2s (paper section 5.4; RFC 7693, RFC 2104, RFC 5869).

use blake2::{
    Blake2s256, Blake2sMac, Digest,
    digest::{FixedOutput, KeyInit, Mac, Update, consts::U16},
};
use hmac::SimpleHmac;

use crate::keys::SecretBytes;

/// Output of BLAKE2s-256, and the size of all keys.
pub(crate) const HASH_LEN: usize = 32;

/// A secret of hash length, erased when dropped.
pub(crate) type SecretHash = SecretBytes;

/// BLAKE2s-256 of the concatenation of `parts`.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; HASH_LEN] {
    let mut hasher = Blake2s256::new();
    for part in parts {
        Update::update(&mut hasher, part);
    }
    hasher.finalize_fixed().into()
}

/// Keyed BLAKE2s with 16 bytes of output, the MAC of mac1, mac2 and cookies. Keys have at most 32 bytes.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("keys have at most 32 bytes");
    for part in parts {
        Mac::update(&mut mac, part);
    }
    mac.finalize_fixed().into()
}

/// HMAC-BLAKE2s-256: the construction with two pads, not the keyed mode of the hash.
fn hmac(key: &[u8; HASH_LEN], parts: &[&[u8]]) -> SecretHash {
    let mut hmac =
        <SimpleHmac<Blake2s256> as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        Mac::update(&mut hmac, part);
    }
    <[u8; HASH_LEN]>::from(hmac.finalize_fixed()).into()
}

/// The first `N` outputs of HKDF with `key` as salt and `input` as keying material.
pub(crate) fn kdf<const N: usize>(key: &[u8; HASH_LEN], input: &[u8]) -> [SecretHash; N] {
    let extracted = hmac(key, &[input]);
    let mut outputs: [SecretHash; N] = std::array::from_fn(|_| SecretHash::default());
    for index in 0..N {
        let number = [index as u8 + 1];
        outputs[index] = if index == 0 {
            hmac(&extracted, &[&number])
        } else {
            hmac(&extracted, &[outputs[index - 1].as_slice(), &number])
        };
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_vectors::hex32;

    /// RFC 7693 appendix B.
    #[test]
    fn hash_matches_the_rfc() {
        let expected = hex32("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
        assert_eq!(hash(&[b"abc"]), expected);
        assert_eq!(hash(&[b"a", b"", b"bc"]), expected);
    }

    /// HMAC by its definition in RFC 2104 over the hash of the test above.
    #[test]
    fn hmac_is_the_construction_with_two_pads() {
        let key: [u8; 32] = std::array::from_fn(|index| index as u8);
        let message = b"message of any length";
        let mut pads = [[0x36; 64], [0x5c; 64]];
        for pad in &mut pads {
            for (byte, key_byte) in pad.iter_mut().zip(key) {
                *byte ^= key_byte;
            }
        }
        let inner = hash(&[&pads[0], message]);
        assert_eq!(*hmac(&key, &[message]), hash(&[&pads[1], &inner]));
    }

    #[test]
    fn kdf_chains_each_output_into_the_next() {
        let key = [7; 32];
        let [first, second, third] = kdf::<3>(&key, b"input");
        let extracted = hmac(&key, &[b"input"]);
        assert_eq!(*first, *hmac(&extracted, &[&[1]]));
        assert_eq!(*second, *hmac(&extracted, &[&first[..], &[2]]));
        assert_eq!(*third, *hmac(&extracted, &[&second[..], &[3]]));
        let [alone] = kdf::<1>(&key, b"input");
        assert_eq!(alone, first);
    }

    /// The rows of wireguard-go's `device/kdf_test.go`: key, input, and the three outputs. HMAC fills short keys up
    /// with zeros, so they may be filled up here too.
    #[test]
    fn kdf_matches_wireguard_go() {
        let rows: [(&[u8], &[u8], [&str; 3]); 3] = [
            (
                b"test-key",
                b"test-input",
                [
                    "6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633",
                    "df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a",
                    "fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24",
                ],
            ),
            (
                b"wireguard",
                b"wireguard",
                [
                    "491d43bbfdaa8750aaf535e334ecbfe5129967cd64635101c566d4caefda96e8",
                    "1e71a379baefd8a79aa4662212fcafe19a23e2b609a3db7d6bcba8f560e3d25f",
                    "31e1ae48bddfbe5de38f295e5452b1909a1b4e38e183926af3780b0c1e1f0160",
                ],
            ),
            (
                b"",
                b"",
                [
                    "8387b46bf43eccfcf349552a095d8315c4055beb90208fb1be23b894bc2ed5d0",
                    "58a0e5f6faefccf4807bff1f05fa8a9217945762040bcec2f4b4a62bdfe0e86e",
                    "0ce6ea98ec548f8e281e93e32db65621c45eb18dc6f0a7ad94178610a2f7338e",
                ],
            ),
        ];
        for (short_key, input, expected) in rows {
            let mut key = [0; 32];
            key[..short_key.len()].copy_from_slice(short_key);
            assert_eq!(kdf::<3>(&key, input).map(|output| *output), expected.map(hex32));
        }
    }
}
