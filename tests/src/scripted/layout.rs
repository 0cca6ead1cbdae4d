//! Where things are in the four messages (paper section 5.4), for tests that change single bytes.

use std::ops::Range;

/// Type of a handshake initiation.
pub const INITIATION: u32 = 1;
/// Type of a handshake response.
pub const RESPONSE: u32 = 2;
/// Type of a cookie reply.
pub const COOKIE_REPLY: u32 = 3;
/// Type of transport data.
pub const TRANSPORT: u32 = 4;

/// Bytes of an initiation.
pub const INITIATION_LEN: usize = 148;
/// Bytes of a response.
pub const RESPONSE_LEN: usize = 92;
/// Bytes of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Bytes of a keepalive, the shortest transport message.
pub const KEEPALIVE_LEN: usize = 32;
/// Bytes before the ciphertext of a transport message.
pub const TRANSPORT_HEADER_LEN: usize = 16;
/// Bytes of mac1 and of mac2.
pub const MAC_LEN: usize = 16;

/// The sender's index in an initiation or a response.
pub const SENDER_INDEX: usize = 4;
/// The receiver's index in a response; in a cookie reply and in transport data it is at [`SENDER_INDEX`].
pub const RESPONSE_RECEIVER_INDEX: usize = 8;
/// The counter of transport data.
pub const COUNTER: Range<usize> = 8..16;
/// The ephemeral key of an initiation.
pub const EPHEMERAL: Range<usize> = 8..40;
/// The sealed static key of an initiation.
pub const ENCRYPTED_STATIC: Range<usize> = 40..88;
/// The sealed timestamp of an initiation.
pub const ENCRYPTED_TIMESTAMP: Range<usize> = 88..116;

/// The little-endian number at `offset`; 0 where the message ends before.
pub fn number(message: &[u8], offset: usize) -> u32 {
    message
        .get(offset..offset + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_le_bytes)
        .unwrap_or_default()
}

/// The type with its reserved bytes.
pub fn kind(message: &[u8]) -> u32 {
    number(message, 0)
}

/// mac1 of a handshake message: the last but one 16 bytes.
pub fn mac1(message: &[u8]) -> Option<[u8; MAC_LEN]> {
    message.get(message.len().checked_sub(2 * MAC_LEN)?..message.len() - MAC_LEN)?.try_into().ok()
}

/// mac2 of a handshake message: the last 16 bytes.
pub fn mac2(message: &[u8]) -> Option<[u8; MAC_LEN]> {
    message.last_chunk().copied()
}
