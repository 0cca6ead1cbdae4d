//! A path-compressed trie of six bits a step, whose nodes are shared between clones.
//!
//! A node holds the prefixes that end in the chunk of its level, and the nodes that go on behind one: both packed,
//! found by counting the ones in a bitmap (tree bitmap: Eatherton, Varghese, Dittia, SIGCOMM CCR 2004). Nodes lie side
//! by side in their parent's array, so a step of a look-up is one access to memory. A node without a prefix has two
//! children at least, and a child's chunks before its level begin with its parent's: levels may be left out between.

use std::iter::once;
use std::sync::Arc;

use super::bits::{Bits, CONTAINING, Place};

#[derive(Clone, Debug)]
struct Node<B, V> {
    /// Which prefixes end with the whole chunk, by chunk: among them all hosts.
    whole_map: u64,
    /// Which prefixes end within the chunk, by [`Place::index`].
    part_map: u64,
    /// Behind which chunks another node follows.
    child_map: u64,
    /// The chunks before `level`.
    bits: B,
    level: u8,
    /// Of `whole_map`, then of `part_map`.
    values: Arc<[V]>,
    children: Arc<[Node<B, V>]>,
}

/// A map from prefixes to values. A clone shares everything until one of both changes.
#[derive(Clone, Debug)]
pub(super) struct Trie<B, V> {
    /// The value of the prefix of no bits.
    default: Option<V>,
    root: Option<Node<B, V>>,
    len: usize,
}

impl<B, V> Default for Trie<B, V> {
    fn default() -> Self {
        Self { default: None, root: None, len: 0 }
    }
}

impl<B: Bits, V> Node<B, V> {
    fn new(bits: B, level: u8) -> Self {
        let bits = bits.truncated(level);
        Self {
            whole_map: 0,
            part_map: 0,
            child_map: 0,
            bits,
            level,
            values: Arc::default(),
            children: Arc::default(),
        }
    }

    /// The value of the longest prefix that ends here and contains `chunk`.
    #[inline]
    fn longest(&self, chunk: u8) -> Option<&V> {
        if self.whole_map >> chunk & 1 == 1 {
            return self.values.get(rank(self.whole_map, chunk));
        }
        let containing = self.part_map & CONTAINING[usize::from(chunk)];
        let index = containing.checked_ilog2()?;
        self.values.get(self.value_rank(index as u8))
    }

    fn has_value(&self, index: u8) -> bool {
        match index.checked_sub(64) {
            Some(chunk) => self.whole_map >> chunk & 1 == 1,
            None => self.part_map >> index & 1 == 1,
        }
    }

    fn value(&self, index: u8) -> Option<&V> {
        self.has_value(index).then(|| &self.values[self.value_rank(index)])
    }

    /// Number of values before that of `index`.
    #[inline]
    fn value_rank(&self, index: u8) -> usize {
        match index.checked_sub(64) {
            Some(chunk) => rank(self.whole_map, chunk),
            None => self.whole_map.count_ones() as usize + rank(self.part_map, index),
        }
    }

    fn flip_value(&mut self, index: u8) {
        match index.checked_sub(64) {
            Some(chunk) => self.whole_map ^= 1 << chunk,
            None => self.part_map ^= 1 << index,
        }
    }

    #[inline]
    fn child(&self, chunk: u8) -> Option<&Self> {
        let is_there = self.child_map >> chunk & 1 == 1;
        is_there.then(|| &self.children[rank(self.child_map, chunk)])
    }
}

/// Number of ones below bit `index`.
#[inline]
fn rank(map: u64, index: u8) -> usize {
    (map & ((1 << index) - 1)).count_ones() as usize
}

impl<B: Bits, V> Trie<B, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of the longest prefix of `address`.
    #[inline]
    pub(super) fn lookup(&self, address: B) -> Option<&V> {
        let mut longest = self.default.as_ref();
        let mut next = self.root.as_ref();
        while let Some(node) = next
            && node.bits.agrees(address, node.level)
        {
            let chunk = address.chunk(node.level);
            longest = node.longest(chunk).or(longest);
            next = node.child(chunk);
        }
        longest
    }

    /// The value of exactly this prefix, whose bits beyond `len` are zero.
    pub(super) fn exact(&self, bits: B, len: u8) -> Option<&V> {
        match Place::new(bits, len) {
            Some(place) => self.node(bits, place.level)?.value(place.index),
            None => self.default.as_ref(),
        }
    }

    /// The node of this level and of these chunks before it.
    fn node(&self, bits: B, level: u8) -> Option<&Node<B, V>> {
        let mut next = self.root.as_ref();
        while let Some(node) = next
            && node.level < level
        {
            next = node.child(bits.chunk(node.level));
        }
        next.filter(|node| node.level == level && node.bits == bits.truncated(level))
    }

    /// All prefixes, in lexicographic order: a prefix before those it contains.
    pub(super) fn iter(&self) -> impl Iterator<Item = (B, u8, &V)> {
        // Places yet to be looked at, the next one last. What is at 1 is no prefix of its own.
        let mut stack: Vec<(&Node<B, V>, u8)> = self.root.iter().map(|root| (root, 1)).collect();
        let rest = std::iter::from_fn(move || {
            loop {
                let (node, index) = stack.pop()?;
                match index.checked_sub(64) {
                    Some(chunk) => stack.extend(node.child(chunk).map(|child| (child, 1))),
                    None => stack.extend([(node, 2 * index + 1), (node, 2 * index)]),
                }
                if let Some(value) = node.value(index) {
                    let (bits, len) = Place { level: node.level, index }.prefix(node.bits);
                    return Some((bits, len, value));
                }
            }
        });
        self.default.iter().map(|value| (B::ZERO, 0, value)).chain(rest)
    }

    /// Number of arrays, of values or of nodes, that the other trie does not have too.
    pub(super) fn unshared_array_count(&self, other: &Self) -> usize {
        self.root.as_ref().map_or(0, |root| root.unshared_array_count(other))
    }
}

impl<B: Bits, V> Node<B, V> {
    fn unshared_array_count(&self, other: &Trie<B, V>) -> usize {
        let held = other.node(self.bits, self.level);
        let has_values = held.is_some_and(|held| Arc::ptr_eq(&held.values, &self.values));
        let own_values = usize::from(!has_values && !self.values.is_empty());
        if self.children.is_empty() || held.is_some_and(|held| Arc::ptr_eq(&held.children, &self.children)) {
            return own_values;
        }
        own_values + 1 + self.children.iter().map(|child| child.unshared_array_count(other)).sum::<usize>()
    }
}

#[cfg(test)]
impl<B: Bits, V> Trie<B, V> {
    /// Whether no node is there for nothing.
    pub(super) fn is_compressed(&self) -> bool {
        self.root.as_ref().is_none_or(Node::is_compressed)
    }
}

#[cfg(test)]
impl<B: Bits, V> Node<B, V> {
    fn is_compressed(&self) -> bool {
        let is_needed = !self.values.is_empty() || self.children.len() >= 2;
        is_needed && self.children.iter().all(Self::is_compressed)
    }
}

impl<B: Bits, V: Clone> Trie<B, V> {
    /// Gives the prefix, whose bits beyond `len` are zero, this value and returns the former one.
    pub(super) fn insert(&mut self, bits: B, len: u8, value: V) -> Option<V> {
        let former = match Place::new(bits, len) {
            None => self.default.replace(value),
            Some(place) => {
                self.root.get_or_insert_with(|| Node::new(bits, place.level)).insert(bits, place, value)
            }
        };
        self.len += usize::from(former.is_none());
        former
    }

    /// Removes exactly this prefix, whose bits beyond `len` are zero.
    pub(super) fn remove(&mut self, bits: B, len: u8) -> Option<V> {
        // Looked for first: the way down copies what is shared.
        self.exact(bits, len)?;
        self.len -= 1;
        let Some(place) = Place::new(bits, len) else { return self.default.take() };
        let root = self.root.as_mut()?;
        let former = root.remove(bits, place);
        if !root.is_needed() {
            self.root = root.children.first().cloned();
        }
        former
    }
}

/// Recurses once for each chunk at most.
impl<B: Bits, V: Clone> Node<B, V> {
    fn insert(&mut self, bits: B, place: Place, value: V) -> Option<V> {
        let common = self.bits.common_levels(bits).min(place.level);
        if common < self.level {
            let below = std::mem::replace(self, Self::new(bits, common));
            self.add_child(below.bits.chunk(common), below);
        }
        if self.level == place.level {
            return self.set_value(place.index, value);
        }
        let chunk = bits.chunk(self.level);
        if let Some(child) = self.child_mut(chunk) {
            return child.insert(bits, place, value);
        }
        let mut child = Self::new(bits, place.level);
        child.set_value(place.index, value);
        self.add_child(chunk, child);
        None
    }

    /// Removes what is there: the prefix has been found.
    fn remove(&mut self, bits: B, place: Place) -> Option<V> {
        if self.level == place.level {
            return self.take_value(place.index);
        }
        let chunk = bits.chunk(self.level);
        let child = self.child_mut(chunk)?;
        let former = child.remove(bits, place);
        if !child.is_needed() {
            match child.children.first().cloned() {
                Some(only) => *child = only,
                None => self.remove_child(chunk),
            }
        }
        former
    }

    /// Whether the node holds a prefix or is where two ways part.
    fn is_needed(&self) -> bool {
        !self.values.is_empty() || self.children.len() > 1
    }

    fn set_value(&mut self, index: u8, value: V) -> Option<V> {
        let rank = self.value_rank(index);
        if self.has_value(index) {
            return Some(std::mem::replace(&mut Arc::make_mut(&mut self.values)[rank], value));
        }
        self.flip_value(index);
        self.values = with(&self.values, rank, value);
        None
    }

    fn take_value(&mut self, index: u8) -> Option<V> {
        let former = self.value(index).cloned()?;
        self.values = without(&self.values, self.value_rank(index));
        self.flip_value(index);
        Some(former)
    }

    fn child_mut(&mut self, chunk: u8) -> Option<&mut Self> {
        let is_there = self.child_map >> chunk & 1 == 1;
        is_there.then(|| &mut Arc::make_mut(&mut self.children)[rank(self.child_map, chunk)])
    }

    fn add_child(&mut self, chunk: u8, child: Self) {
        self.children = with(&self.children, rank(self.child_map, chunk), child);
        self.child_map |= 1 << chunk;
    }

    fn remove_child(&mut self, chunk: u8) {
        self.children = without(&self.children, rank(self.child_map, chunk));
        self.child_map &= !(1 << chunk);
    }
}

/// `slice` with `item` before what was at `rank`.
fn with<T: Clone>(slice: &[T], rank: usize, item: T) -> Arc<[T]> {
    let (before, after) = slice.split_at(rank);
    before.iter().cloned().chain(once(item)).chain(after.iter().cloned()).collect()
}

/// `slice` without what was at `rank`.
fn without<T: Clone>(slice: &[T], rank: usize) -> Arc<[T]> {
    slice[..rank].iter().chain(&slice[rank + 1..]).cloned().collect()
}
