//! One packet at a time through `RustCrypto`: slower than assembly, but it runs everywhere and serves as oracle.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};

use crate::{Packet, TAG_LEN};

pub(crate) fn seal(packet: &mut Packet<'_>) {
    let nonce = packet.nonce().into();
    let (plaintext, tag) = packet.buffer.split_last_chunk_mut::<TAG_LEN>().expect("room for the tag");
    let computed = cipher(packet.key.bytes())
        .encrypt_inout_detached(&nonce, b"", plaintext.into())
        .expect("a packet is far below the cipher's limit of 256 GiB");
    tag.copy_from_slice(&computed);
}

/// The tag is verified before anything is decrypted.
pub(crate) fn open(packet: &mut Packet<'_>) -> bool {
    let nonce = packet.nonce().into();
    let Some((ciphertext, tag)) = packet.buffer.split_last_chunk_mut::<TAG_LEN>() else { return false };
    cipher(packet.key.bytes()).decrypt_inout_detached(&nonce, b"", ciphertext.into(), &(*tag).into()).is_ok()
}

fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.into())
}
