//! Arrays of words that are stored in nodes and never overwritten in place, and the page table in memory.
//!
//! [`walk`] reads a tree, [`edit`] makes the next one from it: it writes the leaves that change and what is above them,
//! and nothing else. Both are functions of a root: trees have no state and no cache.

mod edit;
mod walk;
mod words;

pub(crate) use edit::{NodeSink, edit, touched};
pub(crate) use walk::{Flow, first_with_room, leaf, next_leaf, walk};
pub(crate) use words::{Run, Words, before_reuse, is_still, load};

use std::path::Path;
use std::sync::Arc;

use crate::checksum::Seeds;
use crate::error::{Error, Part, Result};
use crate::format::{CHILD_BYTES, Child, Geometry};
use crate::io::BlockIo;

/// Leaves are numbered below this.
const LEAVES_MAX: u64 = 1 << 40;

/// So many nodes any file may have.
pub(crate) const FEW_NODES: u64 = 64;

/// A file whose nodes are read.
#[derive(Clone, Copy)]
pub(crate) struct Nodes<'a> {
    pub(crate) io: &'a dyn BlockIo,
    pub(crate) path: &'a Arc<Path>,
    pub(crate) geometry: Geometry,
    pub(crate) seeds: Seeds,
    /// What the tree is, for errors.
    pub(crate) part: Part,
}

impl Nodes<'_> {
    /// Children of a node.
    pub(crate) fn fanout(&self) -> u64 {
        (self.geometry.node_bytes() / CHILD_BYTES) as u64
    }

    /// Leaves below a node of this height.
    pub(crate) fn span(&self, height: u32) -> u64 {
        self.fanout().saturating_pow(height)
    }

    /// Nodes that the file has room for.
    pub(crate) fn room(&self) -> Result<u64> {
        Ok(self.io.len()? / self.geometry.node_bytes() as u64)
    }

    /// More leaves than `leaves_max` were read: one that is in several places of a tree is damage.
    pub(crate) fn too_many(&self, root: &Child, leaves_max: u64) -> Error {
        self.corrupt(root, format!("expected at most {leaves_max} leaves, as the file has room for, found more"))
    }

    pub(crate) fn corrupt(&self, child: &Child, problem: impl Into<String>) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            part: self.part,
            offset: self.geometry.offset(child.offset_units),
            problem: problem.into(),
        }
    }

    /// The bytes of a node, proven.
    pub(crate) fn read(&self, child: &Child) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.geometry.node_bytes()];
        let offset = self.geometry.offset(child.offset_units);
        match self.io.read_at(offset, &mut bytes) {
            Ok(()) => {}
            Err(Error::PastEnd { file_len_bytes, .. }) => {
                let problem = format!("expected {} bytes, but the file ends at {file_len_bytes}", bytes.len());
                return Err(self.corrupt(child, problem));
            }
            Err(error) => return Err(error),
        }
        let found = self.seeds.checksum(offset, child.generation, &bytes);
        if found != child.checksum {
            let problem = format!("expected checksum {:08x}, found {found:08x}", child.checksum);
            return Err(self.corrupt(child, problem));
        }
        Ok(bytes)
    }

    pub(crate) fn read_children(&self, child: &Child) -> Result<Vec<Child>> {
        let bytes = self.read(child)?;
        let children = bytes.chunks_exact(CHILD_BYTES).map(Child::decode).collect::<Option<Vec<_>>>();
        children.ok_or_else(|| self.corrupt(child, "expected child addresses, found other values"))
    }

    pub(crate) fn read_leaf(&self, child: &Child) -> Result<Vec<u64>> {
        let bytes = self.read(child)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }
}
