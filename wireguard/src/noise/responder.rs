//! The responder's side of the handshake: message 1 in, message 2 out.
//!
//! Each step hands out what the next decision needs (who is it, is it a replay) and consumes itself, so that no
//! step can be left out.

use zerocopy::{FromZeros, byteorder::little_endian::U32};

use crate::{
    keys::{PresharedKey, PublicKey},
    message::{HandshakeInitiation, HandshakeResponse, TYPE_HANDSHAKE_RESPONSE},
    noise::{SymmetricState, Timestamp, TransportKeys},
    x25519::{Secret, SharedSecret},
};

/// An initiation of which the sender's claimed identity is known, but not yet proven.
pub(crate) struct IncomingInitiation {
    state: SymmetricState,
    initiator: PublicKey,
}

/// An initiation that its initiator has made; it may still be a replay.
pub(crate) struct VerifiedInitiation {
    state: SymmetricState,
    initiator: PublicKey,
    ephemeral: PublicKey,
    initiator_index: u32,
}

impl IncomingInitiation {
    /// Opens the initiator's static public key. Check mac1 before: this is the first curve arithmetic.
    pub(crate) fn open_static(
        message: &HandshakeInitiation,
        static_secret: &Secret,
        static_public: &PublicKey,
    ) -> Option<Self> {
        let mut state = SymmetricState::new(static_public);
        state.mix_ephemeral(&message.ephemeral);
        let shared = static_secret.agree(&PublicKey::from_bytes(message.ephemeral))?;
        let key = state.mix_shared_secret(&shared);
        let initiator = PublicKey::from_bytes(state.open_and_hash(&key, &message.encrypted_static)?);
        Some(Self { state, initiator })
    }

    /// Who this claims to be.
    pub(crate) fn initiator(&self) -> &PublicKey {
        &self.initiator
    }

    /// Opens the timestamp, which proves the initiator's identity.
    pub(crate) fn open_timestamp(
        mut self,
        static_static: &SharedSecret,
        message: &HandshakeInitiation,
    ) -> Option<(VerifiedInitiation, Timestamp)> {
        let key = self.state.mix_shared_secret(static_static);
        let timestamp = Timestamp::from_bytes(self.state.open_and_hash(&key, &message.encrypted_timestamp)?);
        let verified = VerifiedInitiation {
            state: self.state,
            initiator: self.initiator,
            ephemeral: PublicKey::from_bytes(message.ephemeral),
            initiator_index: message.sender_index.get(),
        };
        Some((verified, timestamp))
    }
}

impl VerifiedInitiation {
    /// Makes message 2, its macs still zero, and the keys of the session.
    pub(crate) fn respond(
        mut self,
        ephemeral: &Secret,
        preshared_key: &PresharedKey,
        sender_index: u32,
    ) -> Option<(HandshakeResponse, TransportKeys)> {
        let mut message = HandshakeResponse::new_zeroed();
        message.message_type = U32::new(TYPE_HANDSHAKE_RESPONSE);
        message.sender_index = U32::new(sender_index);
        message.receiver_index = U32::new(self.initiator_index);
        message.ephemeral = *ephemeral.public_key().as_bytes();

        let state = &mut self.state;
        state.mix_ephemeral(&message.ephemeral);
        state.mix_key(ephemeral.agree(&self.ephemeral)?.as_slice());
        state.mix_key(ephemeral.agree(&self.initiator)?.as_slice());
        let key = state.mix_preshared_key(preshared_key);
        state.seal_and_hash(&key, &[], &mut message.encrypted_nothing);
        let [receiving, sending] = state.split();
        Some((message, TransportKeys { sending, receiving }))
    }
}
