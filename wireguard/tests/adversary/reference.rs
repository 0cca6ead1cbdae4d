//! The reference model: which inner packets may come out where.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
};

use wireguard::{InnerHeader, PublicKey, padded_len};

use crate::{eavesdropper::MARKER_TAG, node::number_of};

struct Packet {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

/// What was sent, what came, and who may send as whom.
#[derive(Default)]
pub struct Reference {
    sent: HashMap<u64, Packet>,
    delivered: HashSet<u64>,
    keys: HashMap<PublicKey, usize>,
    /// Whose packets with this source a node takes.
    owners: HashMap<(usize, Ipv4Addr), PublicKey>,
}

impl Reference {
    /// A marker that no other packet has.
    pub fn marker(&self, random: u32) -> u64 {
        let low = random.wrapping_add(self.sent.len() as u32 * 0x1_0001);
        let number = u64::from(u32::from_be_bytes(MARKER_TAG)) << 32 | u64::from(low);
        if self.sent.contains_key(&number) { self.marker(random.wrapping_add(1)) } else { number }
    }

    pub fn own_key(&mut self, node: usize, key: PublicKey) {
        self.keys.insert(key, node);
    }

    pub fn allow(&mut self, node: usize, source: Ipv4Addr, key: PublicKey) {
        self.owners.insert((node, source), key);
    }

    /// A peer is gone: its addresses are nobody's.
    pub fn disallow(&mut self, node: usize, key: PublicKey) {
        self.owners.retain(|(at, _), owner| *at != node || *owner != key);
    }

    pub fn disallow_all(&mut self, node: usize) {
        self.owners.retain(|(at, _), _| *at != node);
    }

    /// Which node's packets with this source `node` takes.
    pub fn owner(&self, node: usize, source: Ipv4Addr) -> Option<usize> {
        self.keys.get(self.owners.get(&(node, source))?).copied()
    }

    pub fn sent(&mut self, bytes: &[u8], from: usize, to: usize) {
        self.sent.insert(number_of(bytes), Packet { bytes: bytes.to_vec(), from, to });
    }

    pub fn is_delivered(&self, marker: u64) -> bool {
        self.delivered.contains(&marker)
    }

    pub fn delivered_count(&self) -> usize {
        self.delivered.len()
    }

    /// Checks what came out at `node` of a datagram of `datagram_len` bytes with outer `tos`.
    ///
    /// # Errors
    /// Says why it may not.
    pub fn delivered(
        &mut self,
        node: usize,
        bytes: &[u8],
        (datagram_len, tos): (usize, u8),
    ) -> Result<(), String> {
        let marker = number_of(bytes);
        let packet = self.sent.get(&marker).ok_or("a packet that nobody sent")?;
        let header = InnerHeader::parse(bytes).ok_or("no whole packet")?;
        if packet.bytes != bytes {
            return Err("the packet has changed".into());
        }
        if packet.to != node {
            return Err(format!("a packet to node {} came out at {node}", packet.to));
        }
        let std::net::IpAddr::V4(source) = header.source else { return Err("the wrong family".into()) };
        if self.owner(node, source) != Some(packet.from) {
            return Err(format!("P11: node {} may not send as {source}", packet.from));
        }
        if datagram_len != 32 + padded_len(bytes.len(), 1420) || header.ecn != tos {
            return Err(format!("P9: {} bytes in {datagram_len}, TOS {tos}", bytes.len()));
        }
        if !self.delivered.insert(marker) {
            return Err("P4: a packet came twice".into());
        }
        Ok(())
    }
}
