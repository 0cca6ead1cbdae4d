//! What an eavesdropper may see: rules for every datagram on the wire, from its bytes alone.

use std::collections::{HashMap, HashSet};

use wireguard::{MessageType, PublicKey, Time, cookie::ReceiverKeys};

use crate::node::{kind, secs};

const MTU: usize = 1420;
/// First half of the marker in each inner packet; what is searched for on the wire.
pub const MARKER_TAG: [u8; 4] = *b"\xa7W\x9dX";

/// All that was seen, as far as rules need it.
#[derive(Default)]
pub struct Eavesdropper {
    receivers: Vec<(PublicKey, ReceiverKeys)>,
    sender_indices: HashSet<u32>,
    last_counter: HashMap<(usize, u32), u64>,
    last_initiation: HashMap<(usize, PublicKey), Time>,
    answered: HashSet<(usize, u32)>,
    pub datagrams: u64,
}

impl Eavesdropper {
    /// Public keys are public: the eavesdropper knows them all.
    pub fn know(&mut self, key: PublicKey) {
        if self.receivers.iter().all(|(known, _)| *known != key) {
            self.receivers.push((key, ReceiverKeys::new(&key)));
        }
    }

    /// The node has forgotten when it sent initiations: it was restarted, was down, or its key or peers changed.
    pub fn forget(&mut self, node: usize) {
        self.last_initiation.retain(|(from, _), _| *from != node);
        self.answered.retain(|(from, _)| *from != node);
    }

    /// Checks a datagram when it is sent.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn see(&mut self, at: Time, from: usize, datagram: &[u8], tos: u8) -> Result<(), String> {
        self.datagrams += 1;
        if MessageType::classify(datagram).is_err() {
            return Err(format!("P1: node {from} sent {} bytes that are no message", datagram.len()));
        }
        if datagram.windows(4).any(|window| window == MARKER_TAG) {
            return Err(format!("P8: node {from} sent plaintext"));
        }
        match kind(datagram) {
            MessageType::HandshakeInitiation => self.initiation(at, from, datagram, tos),
            MessageType::HandshakeResponse => self.response(from, datagram, tos),
            MessageType::CookieReply if tos != 0 => Err("P3: a cookie reply has TOS 0".into()),
            MessageType::CookieReply => Ok(()),
            MessageType::Transport => self.transport(from, datagram, tos),
        }
    }

    fn initiation(&mut self, at: Time, from: usize, datagram: &[u8], tos: u8) -> Result<(), String> {
        self.handshake(from, datagram, tos)?;
        let receiver = self.receiver(datagram).ok_or("P2: mac1 is nobody's")?;
        if let Some(last) = self.last_initiation.insert((from, receiver), at)
            && at.saturating_since(last) < secs(5)
        {
            return Err(format!("P6.6: node {from} initiates after {:?}", at.saturating_since(last)));
        }
        Ok(())
    }

    fn response(&mut self, from: usize, datagram: &[u8], tos: u8) -> Result<(), String> {
        self.handshake(from, datagram, tos)?;
        self.receiver(datagram).ok_or("P2: mac1 is nobody's")?;
        if !self.answered.insert((from, word(datagram, 8))) {
            return Err(format!("P2: node {from} answers one initiation twice"));
        }
        Ok(())
    }

    fn handshake(&mut self, from: usize, datagram: &[u8], tos: u8) -> Result<(), String> {
        if tos != 0x88 {
            return Err(format!("P3: handshake of node {from} with TOS {tos:#x}"));
        }
        if !self.sender_indices.insert(word(datagram, 4)) {
            return Err(format!("P11: node {from} uses a sender index again"));
        }
        Ok(())
    }

    fn receiver(&self, datagram: &[u8]) -> Option<PublicKey> {
        self.receivers.iter().find(|(_, keys)| keys.verify_mac1(datagram)).map(|(key, _)| *key)
    }

    fn transport(&mut self, from: usize, datagram: &[u8], tos: u8) -> Result<(), String> {
        let padded = datagram.len() - 32;
        if !padded.is_multiple_of(16) && padded != MTU {
            return Err(format!("P9: {padded} bytes are not padded"));
        }
        if tos > 3 || (padded == 0 && tos != 0) {
            return Err(format!("P9: TOS {tos:#x} leaks what is inside"));
        }
        let counter = u64::from_le_bytes(datagram[8..16].try_into().expect("eight bytes"));
        match self.last_counter.insert((from, word(datagram, 4)), counter) {
            Some(last) if counter <= last => {
                Err(format!("P4: node {from} uses nonce {counter} after {last} of the same session"))
            }
            None if counter != 0 => Err(format!("P4: the first nonce is {counter}")),
            _ => Ok(()),
        }
    }
}

fn word(datagram: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(datagram[at..at + 4].try_into().expect("four bytes"))
}
