//! Keys: public ones that may be shown, secret ones that are erased when dropped and never printed.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::x25519;

/// Bytes of every key of WireGuard.
pub const KEY_LEN: usize = 32;

/// A peer's static Curve25519 public key. Prints as base64, the way `wg` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// Any 32 bytes are a public key; low-order points are refused at the handshake.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// The key as it goes over the wire.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Our static Curve25519 private key, clamped as RFC 7748 section 5 says.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; KEY_LEN]);

impl PrivateKey {
    /// Clamps `bytes`, so that what reads back is what is used.
    pub const fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
        bytes[0] &= 0b1111_1000;
        bytes[31] = (bytes[31] & 0b0111_1111) | 0b0100_0000;
        Self(bytes)
    }

    /// The clamped secret: for `wg show private-key` only.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The public key that belongs to it.
    pub fn public_key(&self) -> PublicKey {
        x25519::Secret::from_private_key(self).public_key()
    }
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for PrivateKey {}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

/// 32 secret bytes: a symmetric key, the result of an agreement, the seed of a key.
///
/// They stay in one place until they are erased, wherever their owner is moved to: a list that grows, a channel and
/// a box leave copies behind of what was held inline.
#[derive(Clone, Default)]
pub struct SecretBytes(Box<Zeroizing<[u8; KEY_LEN]>>);

impl SecretBytes {
    /// A copy of `bytes`, which the caller still has to erase.
    pub fn from_slice(bytes: &[u8; KEY_LEN]) -> Self {
        let mut secret = Self::default();
        secret.copy_from_slice(bytes);
        secret
    }
}

impl From<[u8; KEY_LEN]> for SecretBytes {
    fn from(mut bytes: [u8; KEY_LEN]) -> Self {
        let secret = Self::from_slice(&bytes);
        bytes.zeroize();
        secret
    }
}

impl Deref for SecretBytes {
    type Target = [u8; KEY_LEN];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for SecretBytes {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(&**other).into()
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(redacted)")
    }
}

/// The symmetric key that two peers may share beside their key pairs. All zeros is the same as none.
#[derive(Clone, Default)]
pub struct PresharedKey(Option<SecretBytes>);

impl PresharedKey {
    /// Any 32 bytes; zeros clear the key.
    pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
        let key = Self::from_slice(&bytes);
        bytes.zeroize();
        key
    }

    /// As [`PresharedKey::from_bytes`], without a copy on the way.
    pub fn from_slice(bytes: &[u8; KEY_LEN]) -> Self {
        if bool::from(bytes.ct_eq(&[0; KEY_LEN])) {
            return Self(None);
        }
        Self(Some(SecretBytes::from_slice(bytes)))
    }

    /// The secret: for the handshake and `wg show preshared-keys` only.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        self.0.as_ref().map_or(&[0; KEY_LEN], |key| key)
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::{PresharedKey, PrivateKey, PublicKey, SecretBytes};

    #[test]
    fn private_key_is_clamped_when_set() {
        let key = PrivateKey::from_bytes([0xff; 32]);
        assert_eq!(key.as_bytes()[0], 0xf8);
        assert_eq!(key.as_bytes()[31], 0x7f);
        assert_eq!(PrivateKey::from_bytes([0; 32]).as_bytes()[31], 0x40);
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", PrivateKey::from_bytes([0x41; 32])), "PrivateKey(redacted)");
        assert_eq!(format!("{:?}", PresharedKey::from_bytes([0x41; 32])), "PresharedKey(redacted)");
        assert_eq!(format!("{:?}", SecretBytes::from([0x41; 32])), "SecretBytes(redacted)");
    }

    #[test]
    fn a_preshared_key_of_zeros_is_none() {
        assert!(!PresharedKey::from_bytes([0; 32]).is_set());
        assert_eq!(PresharedKey::default().as_bytes(), &[0; 32]);
        let key = PresharedKey::from_bytes([7; 32]);
        assert!(key.is_set());
        assert_eq!(key.as_bytes(), &[7; 32]);
    }

    #[test]
    fn a_preshared_key_stays_where_it_is_when_its_owner_moves() {
        let mut keys = vec![PresharedKey::from_bytes([7; 32])];
        let place = std::ptr::from_ref(keys[0].as_bytes());
        keys.extend((0..100).map(|_| PresharedKey::default()));
        assert_eq!(std::ptr::from_ref(keys[0].as_bytes()), place);
    }

    #[test]
    fn secret_bytes_are_compared_as_a_whole() {
        let bytes = std::array::from_fn(|index| index as u8);
        assert_eq!(SecretBytes::from(bytes), SecretBytes::from_slice(&bytes));
        let mut other = SecretBytes::from(bytes);
        other[31] ^= 1;
        assert_ne!(SecretBytes::from(bytes), other);
    }

    #[test]
    fn public_key_prints_as_wg_prints_it() {
        let text = format!("{}", PublicKey::from_bytes([0; 32]));
        assert_eq!(text, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        assert_eq!(format!("{:?}", PublicKey::from_bytes([0; 32])), format!("PublicKey({text})"));
    }
}
