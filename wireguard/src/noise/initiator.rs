//! The initiator's side of the handshake: message 1 out, message 2 in.

use zerocopy::{FromZeros, byteorder::little_endian::U32};

use crate::{
    keys::{PresharedKey, PublicKey},
    message::{HandshakeInitiation, HandshakeResponse, TYPE_HANDSHAKE_INITIATION},
    noise::{SymmetricState, Timestamp, TransportKeys},
    x25519::{Secret, SharedSecret},
};

/// Static keys of both sides, as an initiator knows them.
pub(crate) struct InitiatorKeys<'a> {
    pub local: &'a PublicKey,
    pub remote: &'a PublicKey,
    pub static_static: &'a SharedSecret,
}

/// What an initiator keeps until the response arrives.
pub(crate) struct Initiation {
    ephemeral: Secret,
    state: SymmetricState,
}

/// Makes message 1, its macs still zero. `None` if the peer's key is of low order: nothing may be sent.
pub(crate) fn create_initiation(
    keys: &InitiatorKeys<'_>,
    ephemeral: Secret,
    timestamp: Timestamp,
    sender_index: u32,
) -> Option<(Initiation, HandshakeInitiation)> {
    let mut message = HandshakeInitiation::new_zeroed();
    message.message_type = U32::new(TYPE_HANDSHAKE_INITIATION);
    message.sender_index = U32::new(sender_index);
    message.ephemeral = *ephemeral.public_key().as_bytes();

    let mut state = SymmetricState::new(keys.remote);
    state.mix_ephemeral(&message.ephemeral);
    let key = state.mix_shared_secret(&ephemeral.agree(keys.remote)?);
    state.seal_and_hash(&key, keys.local.as_bytes(), &mut message.encrypted_static);
    let key = state.mix_shared_secret(keys.static_static);
    state.seal_and_hash(&key, timestamp.as_bytes(), &mut message.encrypted_timestamp);
    Some((Initiation { ephemeral, state }, message))
}

impl Initiation {
    /// Verifies message 2. On `None` nothing has changed: the true response may still come.
    pub(crate) fn consume_response(
        &self,
        static_secret: &Secret,
        preshared_key: &PresharedKey,
        message: &HandshakeResponse,
    ) -> Option<TransportKeys> {
        let remote_ephemeral = PublicKey::from_bytes(message.ephemeral);
        let mut state = self.state.clone();
        state.mix_ephemeral(&message.ephemeral);
        state.mix_key(self.ephemeral.agree(&remote_ephemeral)?.as_slice());
        state.mix_key(static_secret.agree(&remote_ephemeral)?.as_slice());
        let key = state.mix_preshared_key(preshared_key);
        state.open_and_hash::<0>(&key, &message.encrypted_nothing)?;
        let [sending, receiving] = state.split();
        Some(TransportKeys { sending, receiving })
    }
}
