//! Trees of words: an array of 8-byte words in leaves, below nodes of child addresses.
//!
//! A node has no header; what proves it is in its parent, and for the root in the slot. A child address:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | offset, units; 0: no such child, and its words are all 0 |
//! | 8 | 8 | generation |
//! | 16 | 4 | checksum |
//! | 20 | 4 | 0 |
//! | 24 | 8 | count: what the words below stand for (live pages, units in use, held extents) |
//!
//! A root is a child address, then 4 bytes of height (0: the root is a leaf) and 4 bytes of 0.

use super::bytes::{get_u32, get_u64, put_u32, put_u64};
use super::{SEQUENCE_MAX, UNITS_MAX};

pub(crate) const CHILD_BYTES: usize = 32;
pub(super) const TREE_BYTES: usize = 40;
/// With 128 children a node, seven levels are more words than 40 bits can count.
const HEIGHT_MAX: u32 = 7;

/// Where a node is, and what proves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) offset_units: u64,
    pub(crate) generation: u64,
    pub(crate) checksum: u32,
    pub(crate) count: u64,
}

impl Child {
    /// All words below are 0.
    pub(crate) const NONE: Child = Child { offset_units: 0, generation: 0, checksum: 0, count: 0 };

    pub(crate) fn is_none(&self) -> bool {
        self.offset_units == 0
    }

    /// `bytes` are [`CHILD_BYTES`] or more, as in all of these.
    pub(crate) fn encode(&self, bytes: &mut [u8]) {
        put_u64(bytes, 0, self.offset_units);
        put_u64(bytes, 8, self.generation);
        put_u32(bytes, 16, self.checksum);
        put_u32(bytes, 20, 0);
        put_u64(bytes, 24, self.count);
    }

    /// Nothing where the bytes are no child address.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let child = Child {
            offset_units: get_u64(bytes, 0),
            generation: get_u64(bytes, 8),
            checksum: get_u32(bytes, 16),
            count: get_u64(bytes, 24),
        };
        let fits = child.offset_units < UNITS_MAX
            && child.generation < SEQUENCE_MAX
            && child.count <= UNITS_MAX
            && get_u32(bytes, 20) == 0
            && (!child.is_none() || child == Child::NONE);
        fits.then_some(child)
    }
}

/// A tree, by its root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) root: Child,
    /// Levels above the leaves.
    pub(crate) height: u32,
}

impl Tree {
    pub(super) fn encode(&self, bytes: &mut [u8]) {
        self.root.encode(bytes);
        put_u32(bytes, CHILD_BYTES, self.height);
        put_u32(bytes, CHILD_BYTES + 4, 0);
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let tree = Tree { root: Child::decode(bytes)?, height: get_u32(bytes, CHILD_BYTES) };
        (tree.height <= HEIGHT_MAX && get_u32(bytes, CHILD_BYTES + 4) == 0).then_some(tree)
    }
}
