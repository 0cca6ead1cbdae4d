//! `chacha20poly1305`, pure Rust: for processors without anything better, and as the oracle in tests.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};

use crate::{Key, TAG_LEN};

fn cipher(key: &Key) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.bytes().into())
}

/// `None` only for a plaintext beyond the cipher's limit of 256 GiB.
#[inline]
pub(super) fn seal(key: &Key, nonce: [u8; 12], text: &mut [u8]) -> Option<[u8; TAG_LEN]> {
    let nonce = Nonce::from(nonce);
    cipher(key).encrypt_inout_detached(&nonce, &[], text.into()).ok().map(Into::into)
}

/// Verifies before it decrypts.
#[inline]
pub(super) fn open(key: &Key, nonce: [u8; 12], text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
    let nonce = Nonce::from(nonce);
    cipher(key).decrypt_inout_detached(&nonce, &[], text.into(), &Tag::from(*tag)).is_ok()
}
