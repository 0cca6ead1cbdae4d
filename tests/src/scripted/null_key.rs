//! X25519 with an all-zero key that can be used: its public key and every agreement with it are zero.
//!
//! A handshake made with it is right in every byte for a receiver that does not refuse points of low order (RFC
//! 7748 section 6.1), so it is refused for that reason alone.

use snow::{
    Error,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::{CryptoResolver, DefaultResolver},
    types::{Cipher, Dh, Hash, Random},
};

/// The private key that stands for the null key.
pub const NULL: [u8; 32] = [0; 32];

/// `snow`'s primitives, with the null key.
#[derive(Default)]
pub struct Resolver(DefaultResolver);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        self.0.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(MaybeNull { inner: self.0.resolve_dh(choice)?, is_null: false }))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        self.0.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        self.0.resolve_cipher(choice)
    }
}

struct MaybeNull {
    inner: Box<dyn Dh>,
    is_null: bool,
}

impl Dh for MaybeNull {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn pub_len(&self) -> usize {
        self.inner.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.inner.priv_len()
    }

    fn set(&mut self, private: &[u8]) {
        self.is_null = private == NULL;
        self.inner.set(private);
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        self.is_null = false;
        self.inner.generate(random)
    }

    fn pubkey(&self) -> &[u8] {
        if self.is_null { &NULL } else { self.inner.pubkey() }
    }

    fn privkey(&self) -> &[u8] {
        self.inner.privkey()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        if self.is_null {
            out[..NULL.len()].fill(0);
            return Ok(());
        }
        self.inner.dh(public, out)
    }
}
