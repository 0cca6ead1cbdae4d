//! `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` as WireGuard uses it (paper section 5.4): no state about peers or time.

pub(crate) mod initiator;
pub(crate) mod kdf;
pub(crate) mod responder;
mod timestamp;
#[cfg(test)]
mod transcript;
#[cfg(test)]
mod vectors;

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
pub(crate) use timestamp::Timestamp;

use crate::{
    constants::{CONSTRUCTION, IDENTIFIER, TAG_LEN},
    keys::{PresharedKey, PublicKey},
    noise::kdf::{HASH_LEN, SecretHash, hash, kdf},
    x25519::SharedSecret,
};

/// The keys of a session, seen from one side.
pub(crate) struct TransportKeys {
    pub sending: SecretHash,
    pub receiving: SecretHash,
}

/// Chaining key and transcript hash.
#[derive(Clone)]
pub(crate) struct SymmetricState {
    chaining_key: SecretHash,
    hash: [u8; HASH_LEN],
}

impl SymmetricState {
    /// The state before the first message to `responder`.
    fn new(responder: &PublicKey) -> Self {
        let chaining_key = hash(&[CONSTRUCTION]);
        let hash = hash(&[&hash(&[&chaining_key, IDENTIFIER]), responder.as_bytes()]);
        Self { chaining_key: chaining_key.into(), hash }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// Mixes into the chaining key only.
    fn mix_key(&mut self, input: &[u8]) {
        let [chaining_key] = kdf(&self.chaining_key, input);
        self.chaining_key = chaining_key;
    }

    /// Mixes a Diffie-Hellman result into the chaining key and returns the key for the next sealed field.
    fn mix_shared_secret(&mut self, secret: &SharedSecret) -> SecretHash {
        let [chaining_key, key] = kdf(&self.chaining_key, secret.as_slice());
        self.chaining_key = chaining_key;
        key
    }

    /// An ephemeral key goes into both: the chaining key because there is a preshared key (Noise section 9.2).
    fn mix_ephemeral(&mut self, ephemeral: &[u8; 32]) {
        self.mix_key(ephemeral);
        self.mix_hash(ephemeral);
    }

    /// Mixes the preshared key into both and returns the key for the next sealed field.
    fn mix_preshared_key(&mut self, preshared_key: &PresharedKey) -> SecretHash {
        let [chaining_key, temporary, key] = kdf(&self.chaining_key, preshared_key.as_bytes());
        self.chaining_key = chaining_key;
        self.mix_hash(temporary.as_slice());
        key
    }

    /// Seals `plaintext` into `sealed`, which is `TAG_LEN` longer, bound to all that went before.
    fn seal_and_hash(&mut self, key: &SecretHash, plaintext: &[u8], sealed: &mut [u8]) {
        let (body, tag) = sealed.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        // Each handshake key seals one field, so the nonce is always 0.
        let computed = ChaCha20Poly1305::new((&**key).into())
            .encrypt_inout_detached(&[0; 12].into(), &self.hash, body.into())
            .expect("handshake fields are short");
        tag.copy_from_slice(&computed);
        self.mix_hash(sealed);
    }

    /// The reverse of [`Self::seal_and_hash`]; `None` if the tag does not verify.
    fn open_and_hash<const LEN: usize>(&mut self, key: &SecretHash, sealed: &[u8]) -> Option<[u8; LEN]> {
        let (body, tag) = sealed.split_at_checked(LEN)?;
        let mut plaintext: [u8; LEN] = body.try_into().ok()?;
        let tag: [u8; TAG_LEN] = tag.try_into().ok()?;
        ChaCha20Poly1305::new((&**key).into())
            .decrypt_inout_detached(&[0; 12].into(), &self.hash, plaintext.as_mut_slice().into(), &tag.into())
            .ok()?;
        self.mix_hash(sealed);
        Some(plaintext)
    }

    /// The session keys; the first is the initiator's sending key.
    fn split(&self) -> [SecretHash; 2] {
        kdf(&self.chaining_key, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::{
        initiator::{self, InitiatorKeys},
        responder::IncomingInitiation,
        *,
    };
    use crate::{test_vectors::hex32, x25519::Secret};

    #[test]
    fn initial_chaining_key_and_hash_match_the_paper() {
        let chaining_key = hash(&[CONSTRUCTION]);
        assert_eq!(chaining_key, hex32("60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"));
        assert_eq!(
            hash(&[&chaining_key, IDENTIFIER]),
            hex32("2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3")
        );
    }

    struct Side {
        secret: Secret,
        public: PublicKey,
    }

    fn side(byte: u8) -> Side {
        let secret = Secret::from_bytes(&[byte; 32]);
        Side { public: secret.public_key(), secret }
    }

    /// Runs a handshake and returns the keys of initiator and responder.
    fn run(initiator_psk: &PresharedKey, responder_psk: &PresharedKey) -> Option<[TransportKeys; 2]> {
        let (alice, bob) = (side(1), side(2));
        let static_static = alice.secret.agree(&bob.public)?;
        let timestamp = Timestamp::from_bytes([5; 12]);
        let keys = InitiatorKeys { local: &alice.public, remote: &bob.public, static_static: &static_static };
        let (pending, message) =
            initiator::create_initiation(&keys, Secret::from_bytes(&[3; 32]), timestamp, 77)?;
        let incoming = IncomingInitiation::open_static(&message, &bob.secret, &bob.public)?;
        assert_eq!(incoming.initiator(), &alice.public);
        let (verified, received) = incoming.open_timestamp(&bob.secret.agree(&alice.public)?, &message)?;
        assert_eq!(received, timestamp);
        let (response, responder_keys) =
            verified.respond(&Secret::from_bytes(&[4; 32]), responder_psk, 88)?;
        assert_eq!((response.sender_index.get(), response.receiver_index.get()), (88, 77));
        let initiator_keys = pending.consume_response(&alice.secret, initiator_psk, &response)?;
        Some([initiator_keys, responder_keys])
    }

    #[test]
    fn both_sides_derive_the_same_keys() {
        let psk = PresharedKey::from_bytes([9; 32]);
        let [alice, bob] = run(&psk, &psk).expect("the handshake completes");
        assert_eq!(alice.sending, bob.receiving);
        assert_eq!(alice.receiving, bob.sending);
        assert_ne!(alice.sending, alice.receiving);
        let [without, _] =
            run(&PresharedKey::default(), &PresharedKey::default()).expect("the handshake completes");
        assert_ne!(without.sending, alice.sending);
    }

    #[test]
    fn differing_preshared_keys_fail_at_the_response() {
        assert!(run(&PresharedKey::from_bytes([9; 32]), &PresharedKey::default()).is_none());
    }

    #[test]
    fn every_flipped_bit_of_an_initiation_is_refused() {
        use zerocopy::{FromBytes, IntoBytes};
        let (alice, bob) = (side(1), side(2));
        let static_static = alice.secret.agree(&bob.public).expect("high order");
        let keys = InitiatorKeys { local: &alice.public, remote: &bob.public, static_static: &static_static };
        let (_, message) = initiator::create_initiation(
            &keys,
            Secret::from_bytes(&[3; 32]),
            Timestamp::from_bytes([5; 12]),
            77,
        )
        .expect("high order");
        // Indices and macs are not covered by the transcript; the top bit of a point is ignored by Curve25519
        // but is part of the transcript.
        for byte in 8..116 {
            let mut bytes = message.as_bytes().to_vec();
            bytes[byte] ^= 0x80;
            let forged = crate::message::HandshakeInitiation::read_from_bytes(&bytes).expect("length fits");
            let opened = IncomingInitiation::open_static(&forged, &bob.secret, &bob.public)
                .and_then(|incoming| incoming.open_timestamp(&static_static, &forged));
            assert!(opened.is_none(), "byte {byte}");
        }
    }

    /// The pattern as any Noise implementation runs it: the prologue is WireGuard's identifier.
    fn oracle(side: u8, remote: Option<&PublicKey>, psk: &PresharedKey) -> snow::HandshakeState {
        let params = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().expect("a known pattern");
        let private = [side; 32];
        let builder = snow::Builder::with_resolver(params, Box::new(snow::resolvers::DefaultResolver));
        let builder = builder.local_private_key(&private).and_then(|builder| builder.prologue(IDENTIFIER));
        let builder = builder.and_then(|builder| builder.psk(2, psk.as_bytes())).expect("lengths fit");
        let ephemeral = [side + 100; 32];
        let builder = builder.fixed_ephemeral_key_for_testing_only(&ephemeral);
        match remote {
            Some(remote) => builder
                .remote_public_key(remote.as_bytes())
                .and_then(snow::Builder::build_initiator)
                .expect("a whole configuration"),
            None => builder.build_responder().expect("a whole configuration"),
        }
    }

    #[test]
    fn initiator_agrees_with_another_implementation() {
        use zerocopy::IntoBytes;
        let psk = PresharedKey::from_bytes([9; 32]);
        let (alice, bob) = (side(1), side(2));
        let static_static = alice.secret.agree(&bob.public).expect("high order");
        let keys = InitiatorKeys { local: &alice.public, remote: &bob.public, static_static: &static_static };
        let timestamp = Timestamp::from_bytes([5; 12]);
        let (pending, message) =
            initiator::create_initiation(&keys, Secret::from_bytes(&[3; 32]), timestamp, 77)
                .expect("high order");

        let mut responder = oracle(2, None, &psk);
        let mut payload = [0; 200];
        let len = responder.read_message(&message.as_bytes()[8..116], &mut payload).expect("it verifies");
        assert_eq!(payload[..len], [5; 12]);
        assert_eq!(responder.get_remote_static(), Some(&alice.public.as_bytes()[..]));
        let mut response = crate::message::HandshakeResponse {
            message_type: 2.into(),
            sender_index: 88.into(),
            receiver_index: 77.into(),
            ephemeral: [0; 32],
            encrypted_nothing: [0; 16],
            mac1: [0; 16],
            mac2: [0; 16],
        };
        responder.write_message(&[], &mut response.as_mut_bytes()[12..60]).expect("it fits");
        let keys = pending.consume_response(&alice.secret, &psk, &response).expect("it verifies");
        let (sending, receiving) = responder.dangerously_get_raw_split();
        assert_eq!((*keys.sending, *keys.receiving), (sending, receiving));
    }

    #[test]
    fn responder_agrees_with_another_implementation() {
        use zerocopy::{FromBytes, FromZeros, IntoBytes};
        let psk = PresharedKey::from_bytes([9; 32]);
        let (alice, bob) = (side(1), side(2));
        let mut initiator = oracle(1, Some(&bob.public), &psk);
        let mut bytes = [0; 148];
        initiator.write_message(&[5; 12], &mut bytes[8..116]).expect("it fits");
        let message = crate::message::HandshakeInitiation::read_from_bytes(&bytes).expect("length fits");

        let incoming =
            IncomingInitiation::open_static(&message, &bob.secret, &bob.public).expect("it verifies");
        assert_eq!(incoming.initiator(), &alice.public);
        let static_static = bob.secret.agree(&alice.public).expect("high order");
        let (verified, timestamp) = incoming.open_timestamp(&static_static, &message).expect("it verifies");
        assert_eq!(timestamp, Timestamp::from_bytes([5; 12]));
        let (response, keys) = verified.respond(&Secret::from_bytes(&[4; 32]), &psk, 88).expect("high order");
        let mut payload = <[u8; 64]>::new_zeroed();
        let len = initiator.read_message(&response.as_bytes()[12..60], &mut payload).expect("it verifies");
        assert_eq!(len, 0);
        let (receiving, sending) = initiator.dangerously_get_raw_split();
        assert_eq!((*keys.sending, *keys.receiving), (sending, receiving));
    }
}
