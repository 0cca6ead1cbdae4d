//! The key of one session and direction, in the forms the backends want it.

use std::fmt;

use aws_lc_rs::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use zeroize::Zeroizing;

use crate::KEY_LEN;

/// One direction's key of a session, expanded once for every backend.
///
/// All copies are wiped on drop (aws-lc cleanses what it frees). Shared between workers behind an `Arc` or a
/// reference; not `Clone`, so that no copy is made by accident.
pub struct Key {
    /// On the heap, so that moving a `Key` leaves no copy of the bytes behind.
    bytes: Box<Zeroizing<[u8; KEY_LEN]>>,
    aws_lc: LessSafeKey,
}

impl Key {
    /// Expands `bytes`, which stay the caller's to wipe.
    ///
    /// # Panics
    /// Only when memory for the expanded key cannot be allocated.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, bytes)
            .expect("aws-lc refuses ChaCha20-Poly1305 keys only for their length, or out of memory");
        let mut copy = Box::new(Zeroizing::new([0; KEY_LEN]));
        copy.copy_from_slice(bytes);
        Self { bytes: copy, aws_lc: LessSafeKey::new(unbound) }
    }

    /// Brings the key into the cache before a batch needs it. What is returned says nothing of the key.
    pub fn touch(&self) -> u64 {
        std::hint::black_box(self.bytes[0]);
        0
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.bytes
    }

    pub(crate) fn aws_lc(&self) -> &LessSafeKey {
        &self.aws_lc
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_show_the_key() {
        assert_eq!(format!("{:?}", Key::new(&[0xab; KEY_LEN])), "Key(redacted)");
    }

    #[test]
    fn key_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Key>();
    }
}
