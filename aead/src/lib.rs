//! ChaCha20-Poly1305 (RFC 8439) over a batch of packets, as WireGuard uses it: a nonce of four zero bytes and a
//! little-endian counter, no additional data (WireGuard paper, section 5.4.6).
//!
//! A batch is one call whatever its packets' keys and lengths, so that a backend may put blocks of different
//! packets into the lanes of one vector pass. The backend is chosen once, by [`Aead::detect`] or
//! [`Aead::by_name`], and proves itself on known answers first. What is deliberately absent: nonce bookkeeping
//! and message framing (crate `wireguard`), and any key agreement.
#![deny(unsafe_code)]

mod authentic;
mod aws_lc;
mod key;
mod known_answers;
mod portable;

pub use authentic::Authentic;
pub use key::Key;

/// Bytes of a Poly1305 tag.
pub const TAG_LEN: usize = 16;

/// Packets in one batch, at most.
pub const BATCH_LEN_MAX: usize = 128;

/// One packet of a batch.
#[derive(Debug)]
pub struct Packet<'a> {
    /// The key to seal or open with.
    pub key: &'a Key,
    /// The counter that makes the nonce. Never to be used twice to seal under one key: the caller's duty.
    pub counter: u64,
    /// To seal: plaintext, then [`TAG_LEN`] bytes of room. To open: ciphertext, then the tag.
    pub buffer: &'a mut [u8],
}

impl Packet<'_> {
    fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        nonce
    }
}

/// A backend, chosen once; cheap to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aead(Backend);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    AwsLc,
    Portable,
}

/// Backends from the fastest to the one that runs everywhere.
const BACKENDS: [Backend; 2] = [Backend::AwsLc, Backend::Portable];

impl Backend {
    const fn name(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc",
            Self::Portable => "portable",
        }
    }
}

/// Why a backend cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// No backend has this name.
    #[error("no AEAD backend has that name; there are: aws-lc, portable")]
    Unknown,
    /// The backend computed a wrong answer on this machine.
    #[error("the AEAD backend {0} fails its self-test on this machine; choose another with --aead")]
    SelfTest(&'static str),
}

impl Aead {
    /// The fastest backend that passes its self-test.
    ///
    /// # Errors
    /// [`BackendError::SelfTest`] when none does.
    pub fn detect() -> Result<Self, BackendError> {
        let candidates = BACKENDS.map(Self);
        candidates
            .into_iter()
            .find(|aead| aead.self_test().is_ok())
            .ok_or(BackendError::SelfTest(Backend::Portable.name()))
    }

    /// The backend of that name, after its self-test.
    ///
    /// # Errors
    /// [`BackendError`]: unknown, or wrong on this machine.
    pub fn by_name(name: &str) -> Result<Self, BackendError> {
        let backend = BACKENDS.into_iter().find(|backend| backend.name() == name).ok_or(BackendError::Unknown)?;
        Self(backend).self_test().map(|()| Self(backend))
    }

    /// The names [`Aead::by_name`] takes, fastest first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BACKENDS.into_iter().map(Backend::name)
    }

    /// The backend's name.
    pub const fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Seals and opens known answers.
    ///
    /// # Errors
    /// [`BackendError::SelfTest`] when an answer differs.
    pub fn self_test(&self) -> Result<(), BackendError> {
        if known_answers::hold(*self) { Ok(()) } else { Err(BackendError::SelfTest(self.name())) }
    }

    /// Encrypts every packet in place and writes its tag behind it.
    ///
    /// # Panics
    /// On a buffer shorter than [`TAG_LEN`] or more than [`BATCH_LEN_MAX`] packets: both are the caller's to
    /// size, never the network's.
    pub fn seal(&self, batch: &mut [Packet<'_>]) {
        assert!(batch.len() <= BATCH_LEN_MAX, "{} packets in one batch", batch.len());
        match self.0 {
            Backend::AwsLc => batch.iter_mut().for_each(aws_lc::seal),
            Backend::Portable => batch.iter_mut().for_each(portable::seal),
        }
    }

    /// Verifies every packet and decrypts those that are authentic, in place. What is left in the buffer of
    /// any other packet is unspecified but never its plaintext. A buffer shorter than [`TAG_LEN`] is not
    /// authentic.
    ///
    /// # Panics
    /// On more than [`BATCH_LEN_MAX`] packets.
    pub fn open(&self, batch: &mut [Packet<'_>]) -> Authentic {
        assert!(batch.len() <= BATCH_LEN_MAX, "{} packets in one batch", batch.len());
        let open = match self.0 {
            Backend::AwsLc => aws_lc::open,
            Backend::Portable => portable::open,
        };
        let mut authentic = Authentic::default();
        for (index, packet) in batch.iter_mut().enumerate() {
            if packet.buffer.len() >= TAG_LEN && open(packet) {
                authentic.insert(index);
            }
        }
        authentic
    }
}
