//! `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` in both roles, by the crate `snow`.

use std::fmt;

use anyhow::{Context, Result, anyhow, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use snow::{Builder, HandshakeState};

use super::{
    Session, Timestamp,
    layout::{
        INITIATION, INITIATION_LEN, MAC_LEN, RESPONSE, RESPONSE_LEN, RESPONSE_RECEIVER_INDEX, SENDER_INDEX,
        kind, number,
    },
    macs::{self, Mac},
    null_key,
};

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// What one side knows before a handshake. The debug form shows public keys only.
#[derive(Clone)]
pub struct Secrets {
    private: [u8; 32],
    /// Our public key.
    pub public: [u8; 32],
    /// The other side's public key.
    pub remote: [u8; 32],
    /// The preshared key; zero for none.
    pub preshared: [u8; 32],
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets")
            .field("public", &text(&self.public))
            .field("remote", &text(&self.remote))
            .finish_non_exhaustive()
    }
}

impl Secrets {
    /// A fresh key pair for handshakes with the owner of `remote`.
    pub fn generate(remote: [u8; 32]) -> Result<Self> {
        let pair = builder()?.generate_keypair()?;
        let key = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).map_err(|_| anyhow!("a key has 32 bytes"));
        Ok(Self { private: key(pair.private)?, public: key(pair.public)?, remote, preshared: [0; 32] })
    }

    /// The null key in the place of a static key.
    pub fn null(remote: [u8; 32]) -> Self {
        Self { private: null_key::NULL, public: [0; 32], remote, preshared: [0; 32] }
    }

    fn builder(&self) -> Result<Builder<'_>> {
        let builder = builder()?.local_private_key(&self.private)?.psk(2, &self.preshared)?;
        Ok(builder.prologue(PROLOGUE)?)
    }
}

/// A key as `wg` writes it.
pub fn text(key: &[u8; 32]) -> String {
    BASE64_STANDARD.encode(key)
}

/// A key out of the form `wg` writes.
pub fn key(text: &str) -> Result<[u8; 32]> {
    let bytes = BASE64_STANDARD.decode(text).context("a key is base64")?;
    bytes.try_into().map_err(|_| anyhow!("a key has 32 bytes"))
}

fn builder<'a>() -> Result<Builder<'a>> {
    Ok(Builder::with_resolver(PATTERN.parse()?, Box::new(null_key::Resolver::default())))
}

/// An initiation of ours.
pub struct Initiation {
    /// The whole message, with mac1 and without mac2; tests change it at will.
    pub message: Vec<u8>,
    state: HandshakeState,
}

impl Initiation {
    /// A right one.
    pub fn new(secrets: &Secrets, timestamp: Timestamp, sender_index: u32) -> Result<Self> {
        let state = secrets.builder()?.remote_public_key(&secrets.remote)?.build_initiator()?;
        Self::write(state, secrets, timestamp, sender_index)
    }

    /// One that is right but for its ephemeral key, which is null.
    pub fn with_null_ephemeral(secrets: &Secrets, timestamp: Timestamp, sender_index: u32) -> Result<Self> {
        let builder = secrets.builder()?.remote_public_key(&secrets.remote)?;
        let state = builder.fixed_ephemeral_key_for_testing_only(&null_key::NULL).build_initiator()?;
        Self::write(state, secrets, timestamp, sender_index)
    }

    fn write(
        mut state: HandshakeState,
        secrets: &Secrets,
        timestamp: Timestamp,
        sender_index: u32,
    ) -> Result<Self> {
        let mut message = vec![0; INITIATION_LEN - 2 * MAC_LEN];
        message[..4].copy_from_slice(&INITIATION.to_le_bytes());
        message[4..8].copy_from_slice(&sender_index.to_le_bytes());
        let written = state.write_message(&timestamp.0, &mut message[8..])?;
        ensure!(written == message.len() - 8, "an initiation of {written} bytes");
        macs::append(&mut message, &secrets.remote, None);
        Ok(Self { message, state })
    }

    /// Our index.
    pub fn sender_index(&self) -> u32 {
        number(&self.message, SENDER_INDEX)
    }

    /// Checks the response in all its parts.
    pub fn complete(mut self, secrets: &Secrets, response: &[u8]) -> Result<Session> {
        ensure!(kind(response) == RESPONSE, "type {:#x} is no response", kind(response));
        ensure!(response.len() == RESPONSE_LEN, "a response of {} bytes", response.len());
        ensure!(macs::mac1_is_right(response, &secrets.public), "mac1 of the response is wrong");
        let index = number(response, RESPONSE_RECEIVER_INDEX);
        ensure!(index == self.sender_index(), "the response is to index {index:#x}");
        let payload_len = self
            .state
            .read_message(&response[12..RESPONSE_LEN - 2 * MAC_LEN], &mut [0; 64])
            .context("the response is not authentic")?;
        ensure!(payload_len == 0, "the response carries {payload_len} bytes");
        let (sending, receiving) = self.state.dangerously_get_raw_split();
        Ok(Session::new(sending, receiving, self.sender_index(), number(response, SENDER_INDEX)))
    }
}

/// An initiation of the gateway, opened.
pub struct IncomingInitiation {
    /// What it says of the time.
    pub timestamp: Timestamp,
    /// The gateway's index.
    pub sender_index: u32,
    state: HandshakeState,
}

impl IncomingInitiation {
    /// Checks an initiation in all its parts, except mac2.
    pub fn open(secrets: &Secrets, message: &[u8]) -> Result<Self> {
        ensure!(kind(message) == INITIATION, "type {:#x} is no initiation", kind(message));
        ensure!(message.len() == INITIATION_LEN, "an initiation of {} bytes", message.len());
        ensure!(macs::mac1_is_right(message, &secrets.public), "mac1 of the initiation is wrong");
        let mut state = secrets.builder()?.build_responder()?;
        let mut payload = [0; 64];
        let payload_len = state
            .read_message(&message[8..INITIATION_LEN - 2 * MAC_LEN], &mut payload)
            .context("the initiation is not authentic")?;
        ensure!(state.get_remote_static() == Some(&secrets.remote), "the initiation is from another key");
        let timestamp = payload[..payload_len].try_into().context("a timestamp has 12 bytes")?;
        Ok(Self { timestamp: Timestamp(timestamp), sender_index: number(message, SENDER_INDEX), state })
    }

    /// The response and our side of the session.
    pub fn respond(
        mut self,
        secrets: &Secrets,
        sender_index: u32,
        cookie: Option<&Mac>,
    ) -> Result<(Vec<u8>, Session)> {
        let mut message = vec![0; RESPONSE_LEN - 2 * MAC_LEN];
        message[..4].copy_from_slice(&RESPONSE.to_le_bytes());
        message[4..8].copy_from_slice(&sender_index.to_le_bytes());
        message[8..12].copy_from_slice(&self.sender_index.to_le_bytes());
        let written = self.state.write_message(&[], &mut message[12..])?;
        ensure!(written == message.len() - 12, "a response of {written} bytes");
        macs::append(&mut message, &secrets.remote, cookie);
        let (receiving, sending) = self.state.dangerously_get_raw_split();
        Ok((message, Session::new(sending, receiving, sender_index, self.sender_index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_roles_agree_on_the_session() {
        let mut alice = Secrets::generate([0; 32]).unwrap();
        let mut bob = Secrets::generate(alice.public).unwrap();
        alice.remote = bob.public;
        (alice.preshared, bob.preshared) = ([5; 32], [5; 32]);

        let timestamp = Timestamp::now();
        let initiation = Initiation::new(&alice, timestamp, 7).unwrap();
        let incoming = IncomingInitiation::open(&bob, &initiation.message).unwrap();
        assert_eq!((incoming.timestamp, incoming.sender_index), (timestamp, 7));
        let (response, bobs) = incoming.respond(&bob, 8, None).unwrap();
        let mut alices = initiation.complete(&alice, &response).unwrap();
        assert_eq!(bobs.open(&alices.seal(b"there")).unwrap(), (0, b"there\0\0\0\0\0\0\0\0\0\0\0".to_vec()));
        assert_eq!(alices.open(&bobs.seal_at(9, b"back")).unwrap(), (9, b"back".to_vec()));
    }

    /// The point of the null key: who does not refuse it takes the handshake for a right one.
    #[test]
    fn handshake_with_null_keys_is_right_for_who_does_not_refuse_them() {
        let bob = Secrets::generate([0; 32]).unwrap();
        let null = Secrets::null(bob.public);
        let initiation = Initiation::new(&null, Timestamp::now(), 7).unwrap();
        assert!(IncomingInitiation::open(&bob, &initiation.message).is_ok());
        let alice = Secrets::generate(bob.public).unwrap();
        let initiation = Initiation::with_null_ephemeral(&alice, Timestamp::now(), 7).unwrap();
        let bob = Secrets { remote: alice.public, ..bob };
        assert!(IncomingInitiation::open(&bob, &initiation.message).is_ok());
    }
}
