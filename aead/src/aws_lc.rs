//! One packet at a time through AWS-LC's assembly.

use aws_lc_rs::aead::{Aad, Nonce};

use crate::{Packet, TAG_LEN};

pub(crate) fn seal(packet: &mut Packet<'_>) {
    let nonce = Nonce::assume_unique_for_key(packet.nonce());
    let (plaintext, tag) = packet.buffer.split_last_chunk_mut::<TAG_LEN>().expect("room for the tag");
    let computed = packet.key.aws_lc().seal_in_place_separate_tag(nonce, Aad::empty(), plaintext);
    tag.copy_from_slice(computed.expect("a packet is far below the cipher's limit of 256 GiB").as_ref());
}

/// AWS-LC decrypts while it authenticates and wipes the output when the tag differs.
pub(crate) fn open(packet: &mut Packet<'_>) -> bool {
    let nonce = Nonce::assume_unique_for_key(packet.nonce());
    packet.key.aws_lc().open_in_place(nonce, Aad::empty(), packet.buffer).is_ok()
}
