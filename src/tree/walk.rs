//! Reading a tree.

use super::{FEW_NODES, LEAVES_MAX, Nodes};
use crate::error::{Error, Result};
use crate::format::{Child, Tree};

/// A node that a walk came to. It has not been read yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) child: Child,
    /// Levels above the leaves; 0 is a leaf.
    pub(crate) height: u32,
    /// The first leaf below it, or itself.
    pub(crate) first_leaf: u64,
}

/// How a walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// To what is below, then to what is behind.
    Down,
    /// To what is behind.
    Past,
    /// No further.
    Stop,
}

/// Visits the nodes that are there, from the one that has leaf `from` on, each before what is below it.
///
/// What `visit` gets is an address from the file; it says whether the node may be read. A file in which nodes are below
/// several others has more of them than there is room for: the walk ends with an error then.
pub(crate) fn walk(
    nodes: Nodes<'_>,
    tree: &Tree,
    from: u64,
    visit: &mut dyn FnMut(&Node) -> Result<Flow>,
) -> Result<()> {
    let root = Node { child: tree.root, height: tree.height, first_leaf: 0 };
    let mut visited = 0_u64;
    let mut visit = |node: &Node| {
        visited += 1;
        // Now and then is enough.
        if visited >= FEW_NODES && visited.is_power_of_two() && visited > nodes.room()? {
            let problem = format!("expected no more nodes than the file has room for, found {visited}");
            return Err(nodes.corrupt(&node.child, problem));
        }
        visit(node)
    };
    below(nodes, &root, from, &mut visit).map(|_| ())
}

/// Whether the walk goes on.
fn below(nodes: Nodes<'_>, node: &Node, from: u64, visit: &mut dyn FnMut(&Node) -> Result<Flow>) -> Result<bool> {
    let span = nodes.span(node.height);
    if node.child.is_none() || node.first_leaf.saturating_add(span) <= from || node.first_leaf >= LEAVES_MAX {
        return Ok(true);
    }
    match visit(node)? {
        Flow::Stop => return Ok(false),
        Flow::Past => return Ok(true),
        Flow::Down if node.height == 0 => return Ok(true),
        Flow::Down => {}
    }
    let step = nodes.span(node.height - 1);
    for (index, child) in (0..).zip(nodes.read_children(&node.child)?) {
        let first_leaf = node.first_leaf.saturating_add(step.saturating_mul(index));
        if !below(nodes, &Node { child, height: node.height - 1, first_leaf }, from, visit)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The words of one leaf, if it is there.
pub(crate) fn leaf(nodes: Nodes<'_>, tree: &Tree, index: u64) -> Result<Option<Vec<u64>>> {
    let (mut child, mut height) = (tree.root, tree.height);
    if index >= nodes.span(height) {
        return Ok(None);
    }
    while height > 0 && !child.is_none() {
        height -= 1;
        let place = index / nodes.span(height) % nodes.fanout();
        child = nodes.read_children(&child)?[place as usize];
    }
    if child.is_none() { Ok(None) } else { nodes.read_leaf(&child).map(Some) }
}

/// The first leaf, from `from` on, that is there. Where a node cannot be read: the error, and the first leaf behind it.
pub(crate) fn next_leaf(nodes: Nodes<'_>, tree: &Tree, from: u64) -> Result<Option<u64>, (Error, u64)> {
    let (mut found, mut behind) = (None, u64::MAX);
    let walked = walk(nodes, tree, from, &mut |node| {
        behind = node.first_leaf.saturating_add(nodes.span(node.height));
        if node.height > 0 {
            return Ok(Flow::Down);
        }
        found = Some(node.first_leaf);
        Ok(Flow::Stop)
    });
    walked.map(|()| found).map_err(|error| (error, behind))
}

/// The first leaf, from `from` on, whose count is below this: the one after all others if there is none.
pub(crate) fn first_with_room(nodes: Nodes<'_>, tree: &Tree, from: u64, leaf_count_max: u64) -> Result<u64> {
    let mut next = from;
    walk(nodes, tree, from, &mut |node| {
        if node.first_leaf > next {
            // What is between is not there, so it has room.
            return Ok(Flow::Stop);
        }
        let full = node.child.count >= nodes.span(node.height).saturating_mul(leaf_count_max);
        if full {
            next = node.first_leaf + nodes.span(node.height);
        }
        Ok(match full {
            true => Flow::Past,
            false if node.height == 0 => Flow::Stop,
            false => Flow::Down,
        })
    })?;
    Ok(next)
}
