//! The other implementation: `RustCrypto`'s `chacha20poly1305`, called for itself and not through our backend of it.

use aead::TAG_LEN;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};

/// Ciphertext and tag of one packet.
pub fn seal(key: &[u8; 32], counter: u64, text: &[u8]) -> Vec<u8> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let mut sealed = Vec::with_capacity(text.len() + TAG_LEN);
    sealed.extend_from_slice(text);
    let tag = ChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(&nonce.into(), &[], sealed.as_mut_slice().into())
        .expect("a packet is short");
    sealed.extend_from_slice(&tag);
    sealed
}

/// The text whose ciphertext is `ciphertext`.
pub fn text_of(key: &[u8; 32], counter: u64, ciphertext: &[u8]) -> Vec<u8> {
    // The key stream is its own inverse.
    let mut text = seal(key, counter, ciphertext);
    text.truncate(ciphertext.len());
    text
}
