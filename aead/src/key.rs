//! A key with what the backends derive from it, made once per session.

use aws_lc_rs::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use zeroize::Zeroizing;

/// A 256-bit key. Its bytes are wiped when it is dropped and never shown.
pub struct Key {
    bytes: Zeroizing<[u8; 32]>,
    aws_lc: LessSafeKey,
}

impl Key {
    /// Expands `bytes` for every backend.
    pub fn new(bytes: &[u8; 32]) -> Self {
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("the algorithm takes keys of 32 bytes");
        Self { bytes: Zeroizing::new(*bytes), aws_lc: LessSafeKey::new(unbound) }
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    pub(crate) fn aws_lc(&self) -> &LessSafeKey {
        &self.aws_lc
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}
