//! aws-lc-rs: assembly for one packet at a time, good on every x86-64 and `AArch64`.

use aws_lc_rs::aead::{Aad, Nonce};

use crate::{Key, TAG_LEN};

/// `None` only for a plaintext beyond the cipher's limit of 256 GiB.
#[inline]
pub(super) fn seal(key: &Key, nonce: [u8; 12], text: &mut [u8]) -> Option<[u8; TAG_LEN]> {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.aws_lc().seal_in_place_separate_tag(nonce, Aad::empty(), text).ok()?;
    tag.as_ref().try_into().ok()
}

/// Decrypts and authenticates in one pass, so `text` is already written to when the tag turns out wrong:
/// aws-lc then wipes it, before anyone sees it.
#[inline]
pub(super) fn open(key: &Key, nonce: [u8; 12], text: &mut [u8], tag: &[u8; TAG_LEN]) -> bool {
    let nonce = Nonce::assume_unique_for_key(nonce);
    key.aws_lc().open_in_place_separate_tag(nonce, Aad::empty(), tag, text).is_ok()
}
