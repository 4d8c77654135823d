//! Making the next tree from the last one.

use super::Nodes;
use crate::error::Result;
use crate::format::{CHILD_BYTES, Child, Tree};

/// Where an edit puts its nodes.
pub(crate) trait NodeSink {
    /// Space for a node, in units, and the node's generation.
    fn place(&mut self) -> Result<(u64, u64)>;
    /// The node that belongs there.
    fn write(&mut self, offset_units: u64, bytes: &[u8]) -> Result<()>;
    /// A node of the last tree that the next one does not have.
    fn replaced(&mut self, old: Child);
}

/// A node of the tree that is edited. The tree may have to become higher first: then what is above its root exists in
/// no file yet.
#[derive(Clone, Copy)]
enum Source {
    Stored(Child),
    /// Its first child, however far below, is the old root.
    Above,
}

struct Edit<'a> {
    nodes: Nodes<'a>,
    old: Tree,
    keep_empty: bool,
    change: &'a mut dyn FnMut(u64, &mut [u64]) -> Result<u64>,
    sink: &'a mut dyn NodeSink,
}

/// Changes leaves of a tree. `leaves` ascend without duplicates. `change` gets a leaf's number and its words (all 0
/// where it was not there), and returns its count.
///
/// A leaf whose count is 0 vanishes, and so does a node without children, unless `keep_empty`.
pub(crate) fn edit(
    nodes: Nodes<'_>,
    tree: &Tree,
    leaves: &[u64],
    keep_empty: bool,
    change: &mut dyn FnMut(u64, &mut [u64]) -> Result<u64>,
    sink: &mut dyn NodeSink,
) -> Result<Tree> {
    let Some(last) = leaves.last() else { return Ok(*tree) };
    let height = height_for(nodes, tree, *last);
    let mut edit = Edit { nodes, old: *tree, keep_empty, change, sink };
    let source = source(tree, height);
    let root = edit.node(source, height, 0, leaves)?;
    Ok(if root.is_none() { Tree::default() } else { Tree { root, height } })
}

fn height_for(nodes: Nodes<'_>, tree: &Tree, last: u64) -> u32 {
    let mut height = tree.height;
    while nodes.span(height) <= last {
        height += 1;
    }
    height
}

fn source(tree: &Tree, height: u32) -> Source {
    match height > tree.height && !tree.root.is_none() {
        true => Source::Above,
        false => Source::Stored(tree.root),
    }
}

/// A node's children, before the edit.
fn children(nodes: Nodes<'_>, old: &Tree, source: Source, height: u32) -> Result<Vec<Source>> {
    let none = || vec![Source::Stored(Child::NONE); nodes.fanout() as usize];
    Ok(match source {
        Source::Stored(child) if child.is_none() => none(),
        Source::Stored(child) => nodes.read_children(&child)?.into_iter().map(Source::Stored).collect(),
        Source::Above => {
            let mut children = none();
            children[0] = if height - 1 == old.height { Source::Stored(old.root) } else { Source::Above };
            children
        }
    })
}

/// The part of ascending numbers that is below `end`, and the rest.
fn split_below(leaves: &[u64], end: u64) -> (&[u64], &[u64]) {
    leaves.split_at(leaves.partition_point(|leaf| *leaf < end))
}

impl Edit<'_> {
    /// `leaves` are all below this node.
    fn node(&mut self, source: Source, height: u32, first_leaf: u64, leaves: &[u64]) -> Result<Child> {
        let (count, bytes) =
            if height == 0 { self.leaf(source, first_leaf)? } else { self.inner(source, height, first_leaf, leaves)? };
        if let Source::Stored(old) = source
            && !old.is_none()
        {
            self.sink.replaced(old);
        }
        if count == 0 && !self.keep_empty {
            return Ok(Child::NONE);
        }
        let (offset_units, generation) = self.sink.place()?;
        let offset = self.nodes.geometry.offset(offset_units);
        let checksum = self.nodes.seeds.checksum(offset, generation, &bytes);
        self.sink.write(offset_units, &bytes)?;
        Ok(Child { offset_units, generation, checksum, count })
    }

    fn leaf(&mut self, source: Source, index: u64) -> Result<(u64, Vec<u8>)> {
        let mut words = match source {
            Source::Stored(old) if !old.is_none() => self.nodes.read_leaf(&old)?,
            _ => vec![0; self.nodes.geometry.leaf_words() as usize],
        };
        let count = (self.change)(index, &mut words)?;
        Ok((count, words.iter().flat_map(|word| word.to_le_bytes()).collect()))
    }

    fn inner(&mut self, source: Source, height: u32, first_leaf: u64, leaves: &[u64]) -> Result<(u64, Vec<u8>)> {
        let mut bytes = vec![0; self.nodes.geometry.node_bytes()];
        let (step, mut rest, mut count) = (self.nodes.span(height - 1), leaves, 0);
        let sources = children(self.nodes, &self.old, source, height)?;
        for (index, source) in (0..).zip(sources) {
            let first = first_leaf + step * index;
            let (mine, behind) = split_below(rest, first.saturating_add(step));
            rest = behind;
            let child = match source {
                Source::Stored(old) if mine.is_empty() => old,
                source => self.node(source, height - 1, first, mine)?,
            };
            count += child.count;
            child.encode(&mut bytes[index as usize * CHILD_BYTES..]);
        }
        Ok((count, bytes))
    }
}

/// What an edit of these leaves that keeps empty nodes will do: how many nodes it places, and which it replaces.
pub(crate) fn touched(nodes: Nodes<'_>, tree: &Tree, leaves: &[u64]) -> Result<(u64, Vec<Child>)> {
    let (mut placed, mut replaced) = (0, Vec::new());
    if let Some(last) = leaves.last() {
        let height = height_for(nodes, tree, *last);
        touched_below(nodes, tree, (source(tree, height), height, 0), leaves, &mut placed, &mut replaced)?;
    }
    Ok((placed, replaced))
}

fn touched_below(
    nodes: Nodes<'_>,
    old: &Tree,
    (source, height, first_leaf): (Source, u32, u64),
    leaves: &[u64],
    placed: &mut u64,
    replaced: &mut Vec<Child>,
) -> Result<()> {
    *placed += 1;
    if let Source::Stored(child) = source
        && !child.is_none()
    {
        replaced.push(child);
    }
    if height == 0 {
        return Ok(());
    }
    let (step, mut rest) = (nodes.span(height - 1), leaves);
    for (index, source) in (0..).zip(children(nodes, old, source, height)?) {
        let first = first_leaf + step * index;
        let (mine, behind) = split_below(rest, first.saturating_add(step));
        rest = behind;
        if !mine.is_empty() || matches!(source, Source::Above) {
            touched_below(nodes, old, (source, height - 1, first), mine, placed, replaced)?;
        }
    }
    Ok(())
}
