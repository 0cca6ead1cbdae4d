//! Transport data (paper section 5.4.6): sealing under any counter, with any contents.

use anyhow::{Result, anyhow, ensure};
use chacha20poly1305::{
    ChaCha20Poly1305,
    aead::{Aead as _, KeyInit as _},
};

use super::layout::{self, COUNTER, KEEPALIVE_LEN, SENDER_INDEX, TRANSPORT, TRANSPORT_HEADER_LEN};

/// Plaintexts are padded to a multiple of this.
const PADDING_MULTIPLE: usize = 16;

/// One side of a session. Nothing stops it from using a counter twice.
#[derive(Clone)]
pub struct Session {
    sending: [u8; 32],
    receiving: [u8; 32],
    /// Our index: the gateway's messages name it.
    pub local_index: u32,
    /// The gateway's index: our messages name it.
    pub remote_index: u32,
    /// The counter [`Session::seal`] uses next.
    pub next_counter: u64,
}

impl Session {
    pub(super) fn new(sending: [u8; 32], receiving: [u8; 32], local_index: u32, remote_index: u32) -> Self {
        Self { sending, receiving, local_index, remote_index, next_counter: 0 }
    }

    /// Seals a packet, padded, under the next counter.
    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut padded = packet.to_vec();
        padded.resize(packet.len().next_multiple_of(PADDING_MULTIPLE), 0);
        self.next_counter += 1;
        self.seal_at(self.next_counter - 1, &padded)
    }

    /// Seals an empty packet under the next counter.
    pub fn keepalive(&mut self) -> Vec<u8> {
        self.seal(&[])
    }

    /// Seals exactly these bytes under this counter.
    pub fn seal_at(&self, counter: u64, plaintext: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(TRANSPORT_HEADER_LEN + plaintext.len() + 16);
        message.extend(TRANSPORT.to_le_bytes());
        message.extend(self.remote_index.to_le_bytes());
        message.extend(counter.to_le_bytes());
        let sealed = ChaCha20Poly1305::new(&self.sending.into()).encrypt(&nonce(counter).into(), plaintext);
        message.extend(sealed.expect("packets are short"));
        message
    }

    /// Opens a message of the gateway; the plaintext still has its padding.
    pub fn open(&self, message: &[u8]) -> Result<(u64, Vec<u8>)> {
        ensure!(layout::kind(message) == TRANSPORT, "type {:#x} is no data", layout::kind(message));
        ensure!(message.len() >= KEEPALIVE_LEN, "data of {} bytes", message.len());
        let index = layout::number(message, SENDER_INDEX);
        ensure!(index == self.local_index, "data for index {index:#x}, not for our {:#x}", self.local_index);
        let counter = u64::from_le_bytes(message[COUNTER].try_into()?);
        let plaintext = ChaCha20Poly1305::new(&self.receiving.into())
            .decrypt(&nonce(counter).into(), &message[TRANSPORT_HEADER_LEN..])
            .map_err(|_| anyhow!("the tag of packet {counter} is wrong"))?;
        Ok((counter, plaintext))
    }
}

/// Four zero bytes, then the counter.
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}
