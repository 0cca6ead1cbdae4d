//! ChaCha20-Poly1305 (RFC 8439) over a batch of packets, in place. Not a general AEAD: the nonce and the
//! associated data are those of `WireGuard`'s transport data messages.
//!
//! - **Nonce**: four zero bytes, then the packet's 64-bit counter, little-endian (`WireGuard` paper, 5.4.6).
//! - **Associated data**: always empty.
//! - **Layout**: ciphertext, then [`TAG_LEN`] bytes of tag, both inside the packet's buffer.
//!
//! A whole batch goes through one call, each packet with its own key, counter and length, so that a backend may
//! spread the packets over the lanes of one SIMD pass. The backend is chosen once, by [`Aead::detect`], and the
//! [`Aead`] handle is a small `Copy` value: there is no call through a pointer per packet.
//!
//! ```
//! use aead::{Aead, Key, Packet, TAG_LEN};
//!
//! let aead = Aead::detect();
//! let key = Key::new(&[7; 32]);
//! let mut datagram = [b"hello".as_slice(), &[0; TAG_LEN]].concat();
//! aead.seal(&mut [Packet { key: &key, counter: 0, buffer: &mut datagram }]);
//!
//! let mut authentic = Vec::new();
//! aead.open(&mut [Packet { key: &key, counter: 0, buffer: &mut datagram }], &mut authentic);
//! assert_eq!(authentic, [true]);
//! assert_eq!(datagram[..5], *b"hello");
//! ```
#![deny(unsafe_code)]

mod backend;
mod key;
mod self_test;

use backend::Backend;
pub use key::Key;
pub use self_test::SelfTestError;

/// Length in bytes of a ChaCha20-Poly1305 key.
pub const KEY_LEN: usize = 32;

/// Length in bytes of the Poly1305 tag behind each ciphertext.
pub const TAG_LEN: usize = 16;

/// One packet of a batch: whose key, which nonce, and the bytes to work on in place.
pub struct Packet<'a> {
    /// The session's key for this direction.
    pub key: &'a Key,
    /// The transport message's counter, which becomes the nonce. Sealing two packets with the same key and
    /// counter gives both plaintexts away: the caller reserves counters and never reuses one.
    pub counter: u64,
    /// For [`Aead::seal`] the plaintext and then [`TAG_LEN`] bytes whose content does not matter;
    /// for [`Aead::open`] ciphertext and then tag.
    pub buffer: &'a mut [u8],
}

/// A backend that passed its known-answer test. Copy it to every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aead {
    backend: Backend,
}

/// Why [`Aead::by_name`] gave no backend.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No backend has that name.
    #[error("unknown AEAD backend {name:?}: use one of {}", Aead::names().collect::<Vec<_>>().join(", "))]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// The backend exists but not for this processor.
    #[error(
        "AEAD backend {name:?} needs a processor that this machine does not have ({needed}): use one of {}",
        Aead::names().collect::<Vec<_>>().join(", ")
    )]
    Unsupported {
        /// The name that was asked for.
        name: String,
        /// What the processor would have to be.
        needed: &'static str,
    },
    /// The backend exists but gives wrong answers on this machine.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
}

impl Aead {
    /// The fastest backend that passes its self-test on this machine. Takes about a millisecond: call it once.
    ///
    /// # Panics
    /// When no backend passes, the portable one included. That is a miscompiled program or a broken processor,
    /// and going on would put packets on the wire that are not encrypted as they should be.
    pub fn detect() -> Self {
        let mut failures = Vec::new();
        for backend in Backend::available() {
            let aead = Self { backend };
            match aead.self_test() {
                Ok(()) => return aead,
                Err(failure) => failures.push(failure.to_string()),
            }
        }
        panic!("no AEAD backend computes ChaCha20-Poly1305 correctly here: {}", failures.join("; "));
    }

    /// The backend called `name` (one of [`Aead::names`]), after its self-test.
    ///
    /// # Errors
    /// [`BackendError::Unknown`] or [`BackendError::Unsupported`] for any other name, [`BackendError::SelfTest`] when
    /// its answers are wrong.
    pub fn by_name(name: &str) -> Result<Self, BackendError> {
        let backend = Backend::available().find(|backend| backend.name() == name);
        let backend = backend.ok_or_else(|| match Self::lacking(name) {
            Some(needed) => BackendError::Unsupported { name: name.to_owned(), needed },
            None => BackendError::Unknown { name: name.to_owned() },
        })?;
        let aead = Self { backend };
        aead.self_test()?;
        Ok(aead)
    }

    /// The names [`Aead::by_name`] takes on this machine, fastest first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Backend::available().map(Backend::name)
    }

    /// What the backend called `name` needs of a processor, if there is such a backend and this machine cannot run it.
    pub fn lacking(name: &str) -> Option<&'static str> {
        Backend::needs(name).filter(|_| Self::names().all(|available| available != name))
    }

    /// The name of this backend, as shown to operators.
    pub fn name(&self) -> &'static str {
        self.backend.name()
    }

    /// Seals and opens a batch of known answers, and makes sure that forgeries are refused.
    ///
    /// # Errors
    /// The first wrong answer.
    pub fn self_test(&self) -> Result<(), SelfTestError> {
        self_test::run(
            self.name(),
            |batch| self.backend.seal(batch),
            |batch, authentic| self.backend.open(batch, authentic),
        )
    }

    /// Encrypts every packet in place and writes its tag into the last [`TAG_LEN`] bytes of its buffer.
    /// Returns how many packets were sealed.
    ///
    /// That is all of them, unless the caller broke the contract: a buffer shorter than [`TAG_LEN`] has no room
    /// for a tag, is filled with zeros and left out of the count. Whatever happens, no buffer still holds
    /// plaintext afterwards.
    pub fn seal(&self, batch: &mut [Packet<'_>]) -> usize {
        self.backend.seal(batch)
    }

    /// Checks every packet's tag (in constant time) and decrypts the authentic ones in place.
    ///
    /// `authentic` is cleared, then gets one entry per packet, in order; keep it between calls and nothing is
    /// allocated. Where it says `true`, all of the buffer but its last [`TAG_LEN`] bytes is plaintext. Where it
    /// says `false`, the packet is forged, damaged or shorter than [`TAG_LEN`], and its whole buffer is zeros:
    /// what was not authenticated is never released as plaintext. A refused packet does not touch its neighbours.
    pub fn open(&self, batch: &mut [Packet<'_>], authentic: &mut Vec<bool>) {
        authentic.clear();
        authentic.resize(batch.len(), false);
        self.backend.open(batch, authentic);
    }
}
