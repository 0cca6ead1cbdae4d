//! A path-compressed binary trie whose nodes are shared between clones.
//!
//! A node without a value has two children, so there are fewer than twice as many nodes as prefixes, and a child's
//! prefix is always longer than its parent's and begins with it.

use std::sync::Arc;

/// An address as a number, its first bit the highest.
pub(super) trait Bits: Copy + Eq {
    const WIDTH: u8;

    /// Bit `index` from the front; `index` is less than the width.
    fn bit(self, index: u8) -> usize;

    /// Number of bits from the front that are the same.
    fn common_len(self, other: Self) -> u8;

    /// The first `len` bits, the rest zero.
    fn truncated(self, len: u8) -> Self;
}

macro_rules! impl_bits {
    ($integer:ty) => {
        impl Bits for $integer {
            const WIDTH: u8 = <$integer>::BITS as u8;

            #[inline]
            fn bit(self, index: u8) -> usize {
                (self >> (Self::WIDTH - 1 - index)) as usize & 1
            }

            #[inline]
            fn common_len(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            fn truncated(self, len: u8) -> Self {
                let rest = Self::MAX.checked_shr(len.into()).unwrap_or(0);
                self & !rest
            }
        }
    };
}

impl_bits!(u32);
impl_bits!(u128);

type Link<B, V> = Option<Arc<Node<B, V>>>;

#[derive(Clone, Debug)]
struct Node<B, V> {
    bits: B,
    len: u8,
    value: Option<V>,
    children: [Link<B, V>; 2],
}

/// A map from prefixes to values. A clone shares all nodes until one of both changes.
#[derive(Clone, Debug)]
pub(super) struct Trie<B, V> {
    root: Link<B, V>,
    len: usize,
}

impl<B, V> Default for Trie<B, V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<B: Bits, V> Trie<B, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of the longest prefix of `address`.
    #[inline]
    pub(super) fn lookup(&self, address: B) -> Option<&V> {
        let mut longest = None;
        let mut link = &self.root;
        while let Some(node) = link
            && node.bits.common_len(address) >= node.len
        {
            longest = node.value.as_ref().or(longest);
            if node.len == B::WIDTH {
                break;
            }
            link = &node.children[address.bit(node.len)];
        }
        longest
    }

    /// The value of exactly this prefix, whose bits beyond `len` are zero.
    pub(super) fn exact(&self, bits: B, len: u8) -> Option<&V> {
        let mut link = &self.root;
        while let Some(node) = link
            && node.len <= len
            && node.bits.common_len(bits) >= node.len
        {
            if node.len == len {
                return node.value.as_ref();
            }
            link = &node.children[bits.bit(node.len)];
        }
        None
    }

    /// All prefixes, in lexicographic order: a prefix before those it contains.
    pub(super) fn iter(&self) -> impl Iterator<Item = (B, u8, &V)> {
        let mut stack: Vec<&Node<B, V>> = self.root.as_deref().into_iter().collect();
        std::iter::from_fn(move || {
            loop {
                let node = stack.pop()?;
                stack.extend(node.children.iter().rev().filter_map(Option::as_deref));
                if let Some(value) = &node.value {
                    return Some((node.bits, node.len, value));
                }
            }
        })
    }

    pub(super) fn unshared_node_count(&self, other: &Self) -> usize {
        unshared_node_count(self.root.as_ref(), other.root.as_ref())
    }
}

fn unshared_node_count<B: Bits, V>(
    link: Option<&Arc<Node<B, V>>>,
    mut other: Option<&Arc<Node<B, V>>>,
) -> usize {
    let Some(node) = link else { return 0 };
    // The other trie may have nodes in between that this one lacks: their parts are found further down.
    while let Some(held) = other
        && !Arc::ptr_eq(held, node)
        && held.len < node.len
        && held.bits.common_len(node.bits) >= held.len
    {
        other = held.children[node.bits.bit(held.len)].as_ref();
    }
    if other.is_some_and(|held| Arc::ptr_eq(held, node)) {
        return 0;
    }
    1 + node.children.iter().map(|child| unshared_node_count(child.as_ref(), other)).sum::<usize>()
}

impl<B: Bits, V: Clone> Trie<B, V> {
    /// Gives the prefix, whose bits beyond `len` are zero, this value and returns the former one.
    pub(super) fn insert(&mut self, bits: B, len: u8, value: V) -> Option<V> {
        let former = insert(&mut self.root, bits, len, value);
        self.len += usize::from(former.is_none());
        former
    }

    /// Removes exactly this prefix, whose bits beyond `len` are zero.
    pub(super) fn remove(&mut self, bits: B, len: u8) -> Option<V> {
        // Looked for first: the way down copies what is shared.
        self.exact(bits, len)?;
        let former = remove(&mut self.root, bits, len);
        self.len -= usize::from(former.is_some());
        former
    }
}

fn leaf<B, V>(bits: B, len: u8, value: V) -> Arc<Node<B, V>> {
    Arc::new(Node { bits, len, value: Some(value), children: [None, None] })
}

fn insert<B: Bits, V: Clone>(mut link: &mut Link<B, V>, bits: B, len: u8, value: V) -> Option<V> {
    loop {
        let Some(node) = link else {
            *link = Some(leaf(bits, len, value));
            return None;
        };
        let common_len = node.bits.common_len(bits).min(node.len).min(len);
        if common_len < node.len {
            let below = Arc::clone(node);
            *node = fork(below, common_len, bits, len, value);
            return None;
        }
        let node = Arc::make_mut(node);
        if node.len == len {
            return node.value.replace(value);
        }
        link = &mut node.children[bits.bit(node.len)];
    }
}

/// A node of the first `common_len` bits, with `below` under it and the new prefix in it or under it.
fn fork<B: Bits, V>(below: Arc<Node<B, V>>, common_len: u8, bits: B, len: u8, value: V) -> Arc<Node<B, V>> {
    let mut children = [None, None];
    let side = below.bits.bit(common_len);
    children[side] = Some(below);
    if common_len == len {
        return Arc::new(Node { bits, len, value: Some(value), children });
    }
    children[1 - side] = Some(leaf(bits, len, value));
    Arc::new(Node { bits: bits.truncated(common_len), len: common_len, value: None, children })
}

/// Recurses once for each bit at most.
fn remove<B: Bits, V: Clone>(link: &mut Link<B, V>, bits: B, len: u8) -> Option<V> {
    let node = Arc::make_mut(link.as_mut()?);
    let former = if node.len == len {
        node.value.take()
    } else {
        remove(&mut node.children[bits.bit(node.len)], bits, len)
    };
    if node.value.is_none() {
        match &mut node.children {
            [Some(_), Some(_)] => {}
            [only, None] | [None, only] => *link = only.take(),
        }
    }
    former
}
