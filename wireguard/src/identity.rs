//! Our static key and what follows from it.

use crate::{
    cookie::ReceiverKeys,
    keys::{PrivateKey, PublicKey},
    x25519::Secret,
};

/// Computed once when the private key is set, and shared with all who do handshakes.
pub(crate) struct Identity {
    pub private_key: PrivateKey,
    pub secret: Secret,
    pub public_key: PublicKey,
    /// Keys of mac1 of messages to us, and of our cookie replies.
    pub receiver_keys: ReceiverKeys,
}

impl Identity {
    pub(crate) fn new(private_key: PrivateKey) -> Self {
        let secret = Secret::from_private_key(&private_key);
        let public_key = secret.public_key();
        Self { private_key, secret, public_key, receiver_keys: ReceiverKeys::new(&public_key) }
    }
}
