//! Looking at all of a tree: each node and value, and whether the store has pages besides.

use std::collections::BTreeSet;

use mapfall::PageId;

use super::error::{Error, Result};
use super::node::{Limits, Node, Payload, View};
use super::read::{Source, value};
use super::root::Root;

/// As [`super::Tree::check`]. `pages`: how many pages the nodes should be.
pub(crate) fn check(source: &dyn Source, root: Root, pages: u64) -> Result<Root> {
    let mut check = Check { source, nodes: BTreeSet::new(), found: Root { entries: 0, value_blocks: 0, ..root } };
    check.node(root.page, None, &[], None)?;
    let nodes = check.nodes.len() as u64;
    if check.found != root || nodes != pages {
        let found = check.found;
        return damaged(root.page, format!("expected {root:?} and {pages} nodes, found {found:?} and {nodes} nodes"));
    }
    Ok(root)
}

struct Check<'a> {
    source: &'a dyn Source,
    nodes: BTreeSet<PageId>,
    found: Root,
}

impl Check<'_> {
    /// A node with keys from `low` up to below `high`, and what is below it. Without `level` it is the root.
    fn node(&mut self, page: PageId, level: Option<u8>, low: &[u8], high: Option<&[u8]>) -> Result<()> {
        if !self.nodes.insert(page) {
            return damaged(page, "it is in the tree twice".to_owned());
        }
        let limits = Limits::new(self.source.page_bytes());
        let mut buf = vec![0; limits.page_bytes()];
        self.source.read_page(page, &mut buf)?;
        let node = Node::decode(&View::new(page, &buf, level)?)?;
        // Only a root may be a leaf with nothing in it, and a node with one child is not needed.
        let cells_min = if node.level > 0 { 2 } else { usize::from(level.is_some()) };
        if node.cells.len() < cells_min {
            return damaged(page, format!("expected {cells_min} cells, found {}", node.cells.len()));
        }
        for (index, cell) in node.cells.iter().enumerate() {
            let lowest = if node.level > 0 && index == 0 { low } else { &cell.key };
            if lowest < low || high.is_some_and(|high| lowest >= high) {
                return damaged(page, format!("the key of cell {index} belongs to another node"));
            }
            if let Payload::Child(child) = cell.payload {
                let next = node.cells.get(index + 1).map(|next| next.key.as_slice());
                self.node(child, node.level.checked_sub(1), lowest, next.or(high))?;
                continue;
            }
            self.found.entries += 1;
            self.found.value_blocks += u64::from(matches!(cell.payload, Payload::Block(_)));
            value(self.source, cell.payload.clone())?;
        }
        Ok(())
    }
}

fn damaged<T>(page: PageId, problem: String) -> Result<T> {
    Err(Error::Damaged { page, problem })
}
