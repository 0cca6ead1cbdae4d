//! Sessions by receiver index: a radix tree over slots whose nodes snapshots share. Looking one up reads four nodes
//! and writes nothing, not even a reference count, so that look-ups of many packets overlap; a change copies the four
//! nodes on its way and leaves those that workers hold as they are.

use std::sync::Arc;

use wireguard::{IndexPermutation, IndexSlot, Session};

use super::tables::{DataSession, SealingSession};

/// Bits of the slot that a leaf and the branches above it look at: 22 in all.
const LEAF_BITS: u32 = 4;
const BRANCH_BITS: u32 = 6;
const LEAF_LEN: usize = 1 << LEAF_BITS;
const BRANCH_LEN: usize = 1 << BRANCH_BITS;

const _: () = assert!(1 << (LEAF_BITS + 3 * BRANCH_BITS) == wireguard::SLOT_COUNT_MAX);

/// A session that workers may use.
#[derive(Clone, Debug)]
pub struct SessionEntry {
    local_index: u32,
    /// Opens what arrives under the index.
    pub receiving: Arc<DataSession>,
    /// Seals what is sent; only for the session that sends or is the next to.
    pub sending: Option<Arc<SealingSession>>,
}

impl SessionEntry {
    /// The index it receives under.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The protocol's state of the session.
    pub fn session(&self) -> &Arc<Session> {
        &self.receiving.session
    }
}

#[derive(Clone, Debug)]
struct Branch<T>([Option<Arc<T>>; BRANCH_LEN]);

#[derive(Clone, Debug)]
struct Leaf([Option<SessionEntry>; LEAF_LEN]);

impl<T> Default for Branch<T> {
    fn default() -> Self {
        Self([const { None }; BRANCH_LEN])
    }
}

impl Default for Leaf {
    fn default() -> Self {
        Self([const { None }; LEAF_LEN])
    }
}

/// Where in which node a slot is, from the root down.
struct Place {
    root: usize,
    middle: usize,
    lower: usize,
    leaf: usize,
}

impl Place {
    fn of(slot: u32) -> Self {
        let digit = |shift: u32, bits: u32| (slot >> shift) as usize & ((1 << bits) - 1);
        Self {
            root: digit(LEAF_BITS + 2 * BRANCH_BITS, BRANCH_BITS),
            middle: digit(LEAF_BITS + BRANCH_BITS, BRANCH_BITS),
            lower: digit(LEAF_BITS, BRANCH_BITS),
            leaf: digit(0, LEAF_BITS),
        }
    }
}

/// One immutable state of the table. Cloning it shares everything.
#[derive(Clone, Debug)]
pub struct SessionTable {
    permutation: IndexPermutation,
    root: Arc<Branch<Branch<Branch<Leaf>>>>,
}

impl SessionTable {
    /// An empty table for indices that `permutation` makes.
    pub fn new(permutation: IndexPermutation) -> Self {
        Self { permutation, root: Arc::default() }
    }

    /// Replaces each of `indices` by its slot: what [`SessionTable::at`] takes, for a whole batch at once.
    pub fn slots_of(&self, indices: &mut [u32]) {
        self.permutation.slots_of(indices);
    }

    /// The session that receives under `local_index`, whose slot is `slot`.
    pub fn at(&self, slot: u32, local_index: u32) -> Option<&SessionEntry> {
        let place = Place::of(slot);
        let middle = self.root.0[place.root].as_ref()?;
        let lower = middle.0[place.middle].as_ref()?;
        let leaf = lower.0[place.lower].as_ref()?;
        leaf.0[place.leaf].as_ref().filter(|entry| entry.local_index == local_index)
    }

    /// The session that receives under `local_index`.
    pub fn lookup(&self, local_index: u32) -> Option<&SessionEntry> {
        self.at(self.slot_of(local_index), local_index)
    }

    /// Puts a session in its slot, whatever was there.
    pub(super) fn insert(&mut self, receiving: Arc<DataSession>, sending: Option<Arc<SealingSession>>) {
        let local_index = receiving.session.local_index();
        *self.entry(local_index) = Some(SessionEntry { local_index, receiving, sending });
    }

    /// Gives the session of `local_index`, if it is there, another key to send with.
    pub(super) fn set_sending(&mut self, local_index: u32, sending: Option<Arc<SealingSession>>) {
        if self.lookup(local_index).is_some()
            && let Some(entry) = self.entry(local_index)
        {
            entry.sending = sending;
        }
    }

    /// Empties the slot of `local_index` if that session is still there.
    pub(super) fn remove(&mut self, local_index: u32) -> Option<SessionEntry> {
        self.lookup(local_index)?;
        self.entry(local_index).take()
    }

    fn slot_of(&self, local_index: u32) -> u32 {
        let IndexSlot { slot, .. } = self.permutation.slot_of(local_index);
        slot
    }

    /// The slot of `local_index` in nodes that are this table's alone.
    fn entry(&mut self, local_index: u32) -> &mut Option<SessionEntry> {
        let place = Place::of(self.slot_of(local_index));
        let root = Arc::make_mut(&mut self.root);
        let middle = Arc::make_mut(root.0[place.root].get_or_insert_default());
        let lower = Arc::make_mut(middle.0[place.middle].get_or_insert_default());
        let leaf = Arc::make_mut(lower.0[place.lower].get_or_insert_default());
        &mut leaf.0[place.leaf]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use wireguard::{Activity, PeerId, SessionParameters, Time};

    use super::super::tables::PeerEntry;
    use super::*;

    fn permutation() -> IndexPermutation {
        IndexPermutation::new(0x5eed)
    }

    fn index(slot: u32, generation: u32) -> u32 {
        permutation().index_of(IndexSlot { host: 0, slot, generation })
    }

    fn session(local_index: u32) -> Arc<DataSession> {
        let activity = Arc::new(Activity::default());
        let session = Session::new(SessionParameters {
            peer: PeerId(0),
            activity: Arc::clone(&activity),
            local_index,
            remote_index: 0,
            created_at: Time(1),
            initiator: true,
            sending_key: [1; 32].into(),
            receiving_key: [2; 32].into(),
        });
        Arc::new(DataSession::new(Arc::new(session), Arc::new(PeerEntry::new(PeerId(0), activity))))
    }

    #[test]
    fn a_snapshot_does_not_see_later_changes() {
        let mut table = SessionTable::new(permutation());
        let (stays, leaves, comes) = (index(1, 0), index(2, 0), index(3, 0));
        table.insert(session(stays), None);
        table.insert(session(leaves), None);
        let before = table.clone();
        table.remove(leaves);
        table.insert(session(comes), None);
        assert!(before.lookup(leaves).is_some() && before.lookup(comes).is_none());
        assert!(table.lookup(leaves).is_none() && table.lookup(comes).is_some());
        let held = |table: &SessionTable| Arc::as_ptr(&table.lookup(stays).unwrap().receiving);
        assert_eq!(held(&before), held(&table));
    }

    #[test]
    fn another_generation_of_a_slot_is_not_found() {
        let mut table = SessionTable::new(permutation());
        table.insert(session(index(7, 3)), None);
        assert!(table.lookup(index(7, 2)).is_none());
        assert!(table.remove(index(7, 2)).is_none());
        table.set_sending(index(7, 2), None);
        assert!(table.lookup(index(7, 3)).is_some());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert,
        Remove,
    }

    proptest! {
        #[test]
        fn the_table_is_a_map_of_slots(
            steps in proptest::collection::vec(
                (prop_oneof![Just(Step::Insert), Just(Step::Remove)], 0u32..40, 0u32..3, any::<bool>()), 0..120,
            ),
        ) {
            let mut table = SessionTable::new(permutation());
            let mut model = BTreeMap::new();
            for (step, slot, generation, is_far) in steps {
                // Far apart they share no leaf, no branch.
                let slot = if is_far { slot * 100_003 } else { slot };
                let local_index = index(slot, generation);
                match step {
                    Step::Insert => {
                        table.insert(session(local_index), None);
                        model.insert(slot, local_index);
                    }
                    Step::Remove => {
                        let is_there = model.get(&slot) == Some(&local_index);
                        prop_assert_eq!(table.remove(local_index).is_some(), is_there);
                        if is_there {
                            model.remove(&slot);
                        }
                    }
                }
                for (slot, local_index) in &model {
                    let found = table.at(*slot, *local_index).map(|entry| entry.session().local_index());
                    prop_assert_eq!(found, Some(*local_index));
                }
            }
        }
    }
}
