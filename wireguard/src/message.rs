//! The four messages to the byte (paper section 5.4), and how they are told apart.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::little_endian::{U32, U64},
};

use crate::constants::TAG_LEN;

/// First field of a handshake initiation: the type byte and three zero bytes as one little-endian number.
pub const TYPE_HANDSHAKE_INITIATION: u32 = 1;
/// First field of a handshake response.
pub const TYPE_HANDSHAKE_RESPONSE: u32 = 2;
/// First field of a cookie reply.
pub const TYPE_COOKIE_REPLY: u32 = 3;
/// First field of a transport packet.
pub const TYPE_TRANSPORT: u32 = 4;

/// Message 1: initiator to responder.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct HandshakeInitiation {
    /// [`TYPE_HANDSHAKE_INITIATION`].
    pub message_type: U32,
    /// The initiator's index.
    pub sender_index: U32,
    /// The initiator's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The initiator's static public key, sealed.
    pub encrypted_static: [u8; 32 + TAG_LEN],
    /// TAI64N timestamp, sealed.
    pub encrypted_timestamp: [u8; 12 + TAG_LEN],
    /// Proof that the sender knows the receiver's public key.
    pub mac1: [u8; 16],
    /// Proof of address ownership, or zeros.
    pub mac2: [u8; 16],
}

/// Message 2: responder to initiator.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct HandshakeResponse {
    /// [`TYPE_HANDSHAKE_RESPONSE`].
    pub message_type: U32,
    /// The responder's index.
    pub sender_index: U32,
    /// The initiator's index, from its initiation.
    pub receiver_index: U32,
    /// The responder's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// Nothing, sealed.
    pub encrypted_nothing: [u8; TAG_LEN],
    /// Proof that the sender knows the receiver's public key.
    pub mac1: [u8; 16],
    /// Proof of address ownership, or zeros.
    pub mac2: [u8; 16],
}

/// Message 3: a responder under load asks for proof of address.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CookieReply {
    /// [`TYPE_COOKIE_REPLY`].
    pub message_type: U32,
    /// Sender index of the message that is answered.
    pub receiver_index: U32,
    /// Nonce of `XChaCha20-Poly1305`.
    pub nonce: [u8; 24],
    /// The cookie, sealed with mac1 of the message that is answered.
    pub encrypted_cookie: [u8; 16 + TAG_LEN],
}

/// Head of message 4; sealed inner packet and tag follow.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TransportHeader {
    /// [`TYPE_TRANSPORT`].
    pub message_type: U32,
    /// The receiver's index of the session.
    pub receiver_index: U32,
    /// Nonce of the packet.
    pub counter: U64,
}

const fn size_must_be<T>(size: usize) -> usize {
    assert!(size_of::<T>() == size, "layout differs from the paper");
    size
}

/// Bytes of a handshake initiation.
pub const HANDSHAKE_INITIATION_LEN: usize = size_must_be::<HandshakeInitiation>(148);
/// Bytes of a handshake response.
pub const HANDSHAKE_RESPONSE_LEN: usize = size_must_be::<HandshakeResponse>(92);
/// Bytes of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = size_must_be::<CookieReply>(64);
/// Bytes before the sealed inner packet.
pub const TRANSPORT_HEADER_LEN: usize = size_must_be::<TransportHeader>(16);
/// Bytes that a transport packet adds to the padded inner packet.
pub const TRANSPORT_OVERHEAD: usize = TRANSPORT_HEADER_LEN + TAG_LEN;
/// Bytes of the shortest transport packet, a keepalive.
pub const TRANSPORT_LEN_MIN: usize = TRANSPORT_OVERHEAD;

impl TransportHeader {
    /// The head of a packet to `receiver_index`.
    pub const fn new(receiver_index: u32, counter: u64) -> Self {
        Self {
            message_type: U32::new(TYPE_TRANSPORT),
            receiver_index: U32::new(receiver_index),
            counter: U64::new(counter),
        }
    }
}

/// What a datagram claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Message 1, 148 bytes.
    HandshakeInitiation,
    /// Message 2, 92 bytes.
    HandshakeResponse,
    /// Message 3, 64 bytes.
    CookieReply,
    /// Message 4, 32 bytes or more.
    Transport,
}

/// Why a datagram is no WireGuard message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than the type field.
    #[error("{0} bytes are too short for a WireGuard message")]
    Truncated(usize),
    /// Unknown type, or reserved bytes that are not zero.
    #[error("{0:#010x} is not the type of a WireGuard message")]
    UnknownType(u32),
    /// The type does not have this length.
    #[error("{message_type:?} cannot be {len} bytes long")]
    WrongLength {
        /// The type.
        message_type: MessageType,
        /// Bytes of the datagram.
        len: usize,
    },
}

impl MessageType {
    /// Looks at type, reserved bytes and length only; nothing is authenticated.
    ///
    /// # Errors
    /// The datagram must be dropped without an answer.
    pub fn classify(datagram: &[u8]) -> Result<Self, MessageError> {
        let len = datagram.len();
        let Some((number, _)) = datagram.split_first_chunk::<4>() else {
            return Err(MessageError::Truncated(len));
        };
        let (message_type, fits) = match u32::from_le_bytes(*number) {
            TYPE_HANDSHAKE_INITIATION => (Self::HandshakeInitiation, len == HANDSHAKE_INITIATION_LEN),
            TYPE_HANDSHAKE_RESPONSE => (Self::HandshakeResponse, len == HANDSHAKE_RESPONSE_LEN),
            TYPE_COOKIE_REPLY => (Self::CookieReply, len == COOKIE_REPLY_LEN),
            TYPE_TRANSPORT => (Self::Transport, len >= TRANSPORT_LEN_MIN),
            number => return Err(MessageError::UnknownType(number)),
        };
        if fits { Ok(message_type) } else { Err(MessageError::WrongLength { message_type, len }) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagram(message_type: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&message_type.to_le_bytes());
        bytes
    }

    #[test]
    fn each_type_has_its_own_length() {
        let cases = [
            (1, 148, MessageType::HandshakeInitiation),
            (2, 92, MessageType::HandshakeResponse),
            (3, 64, MessageType::CookieReply),
            (4, 32, MessageType::Transport),
        ];
        for (number, len, message_type) in cases {
            assert_eq!(MessageType::classify(&datagram(number, len)), Ok(message_type));
            let shorter = MessageType::classify(&datagram(number, len - 1));
            assert_eq!(shorter, Err(MessageError::WrongLength { message_type, len: len - 1 }));
        }
        assert!(MessageType::classify(&datagram(1, 149)).is_err());
        assert_eq!(MessageType::classify(&datagram(4, 1452)), Ok(MessageType::Transport));
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        for index in 1..4 {
            let mut bytes = datagram(4, 32);
            bytes[index] = 1;
            assert!(matches!(MessageType::classify(&bytes), Err(MessageError::UnknownType(_))));
        }
        assert_eq!(MessageType::classify(&[4, 0, 0]), Err(MessageError::Truncated(3)));
        assert_eq!(MessageType::classify(&datagram(5, 32)), Err(MessageError::UnknownType(5)));
        assert_eq!(MessageType::classify(&datagram(0, 32)), Err(MessageError::UnknownType(0)));
    }

    proptest! {
        #[test]
        fn any_bytes_survive_the_layout(bytes in proptest::collection::vec(any::<u8>(), 148)) {
            let initiation = HandshakeInitiation::read_from_bytes(&bytes).expect("length fits");
            prop_assert_eq!(initiation.as_bytes(), &bytes[..]);
            prop_assert_eq!(&initiation.mac2[..], &bytes[132..]);
            let response = HandshakeResponse::read_from_bytes(&bytes[..92]).expect("length fits");
            prop_assert_eq!(response.as_bytes(), &bytes[..92]);
            prop_assert_eq!(&response.receiver_index.get().to_le_bytes()[..], &bytes[8..12]);
            let cookie = CookieReply::read_from_bytes(&bytes[..64]).expect("length fits");
            prop_assert_eq!(cookie.as_bytes(), &bytes[..64]);
            let header = TransportHeader::read_from_bytes(&bytes[..16]).expect("length fits");
            prop_assert_eq!(&header.counter.get().to_le_bytes()[..], &bytes[8..16]);
        }

        #[test]
        fn classify_accepts_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MessageType::classify(&bytes);
        }
    }
}
