//! The peers of a device: by slot, by public key, and in the order in which they were added.

use std::collections::{BTreeMap, VecDeque};

use crate::{PeerId, keys::PublicKey, peer::Peer};

/// All peers. Ordered maps, so that nothing depends on a hash's order.
#[derive(Default)]
pub(crate) struct PeerTable {
    slots: Vec<Option<Box<Peer>>>,
    /// Free slots, longest unused first.
    free: VecDeque<u32>,
    by_key: BTreeMap<PublicKey, PeerId>,
    by_sequence: BTreeMap<u64, PeerId>,
    next_sequence: u64,
}

impl PeerTable {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.slots.get(id.0 as usize)?.as_deref()
    }

    pub(crate) fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.slots.get_mut(id.0 as usize)?.as_deref_mut()
    }

    pub(crate) fn id_of(&self, public_key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(public_key).copied()
    }

    /// In the order of adding.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.by_sequence.values().filter_map(|id| self.peer(*id))
    }

    /// Those added as number `sequence` or later, in the order of adding.
    pub(crate) fn iter_from(&self, sequence: u64) -> impl Iterator<Item = &Peer> {
        self.by_sequence.range(sequence..).filter_map(|(_, id)| self.peer(*id))
    }

    /// In the order of adding; a copy, so that the peers may be changed meanwhile.
    pub(crate) fn ids(&self) -> Vec<PeerId> {
        self.by_sequence.values().copied().collect()
    }

    /// Adds a peer whose key is not there yet. The caller bounds their number.
    pub(crate) fn insert(&mut self, public_key: PublicKey) -> &mut Peer {
        let slot = self.free.pop_front().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        let (id, sequence) = (PeerId(slot), self.next_sequence);
        self.next_sequence += 1;
        self.by_key.insert(public_key, id);
        self.by_sequence.insert(sequence, id);
        self.slots[slot as usize].insert(Box::new(Peer::new(id, sequence, public_key)))
    }

    pub(crate) fn remove(&mut self, id: PeerId) -> Option<Box<Peer>> {
        let peer = self.slots.get_mut(id.0 as usize)?.take()?;
        self.by_key.remove(&peer.public_key);
        self.by_sequence.remove(&peer.sequence);
        self.free.push_back(id.0);
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::PeerTable;
    use crate::keys::PublicKey;

    #[test]
    fn order_is_that_of_adding_even_when_slots_are_reused() {
        let mut table = PeerTable::default();
        let key = |byte| PublicKey::from_bytes([byte; 32]);
        let first = table.insert(key(9)).id;
        table.insert(key(5));
        assert!(table.remove(first).is_some());
        assert!(table.remove(first).is_none());
        assert_eq!(table.insert(key(1)).id, first, "the slot is free again");
        let keys: Vec<_> = table.iter().map(|peer| peer.public_key).collect();
        assert_eq!(keys, [key(5), key(1)]);
        assert_eq!(table.id_of(&key(9)), None);
        assert_eq!(table.len(), 2);
    }
}
