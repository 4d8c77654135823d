//! The held list: extents that no checkpoint but kept ones have. Four words each: first unit, units, birth, death.

use super::inner::Freed;
use super::volume::Volume;
use crate::error::{Part, Result};
use crate::extent::Extent;
use crate::format::{Tree, UNITS_MAX};
use crate::tree::{self, Flow, NodeSink, edit};

pub(super) fn read(volume: &Volume, tree: &Tree) -> Result<Vec<Freed>> {
    let nodes = volume.nodes(Part::HeldList);
    let mut held = Vec::new();
    tree::walk(nodes, tree, 0, &mut |node| {
        if node.height == 0 {
            let words = nodes.read_leaf(&node.child)?;
            let count = usize::try_from(node.child.count).unwrap_or(usize::MAX).min(words.len() / 4);
            for words in &words.as_chunks::<4>().0[..count] {
                let freed = decode(words).filter(|freed| freed.extent.start >= volume.geometry.data_start_units());
                held.push(freed.ok_or_else(|| nodes.corrupt(&node.child, "values that no held extent has"))?);
            }
        }
        Ok(Flow::Down)
    })?;
    // Nothing may be made as long as a number claims that is only written down.
    if held.len() as u64 != tree.root.count {
        let problem = format!("expected {} held extents, found {}", tree.root.count, held.len());
        return Err(nodes.corrupt(&tree.root, problem));
    }
    Ok(held)
}

fn decode(words: &[u64; 4]) -> Option<Freed> {
    let [start, len, birth, death] = *words;
    let fits = len > 0 && start < UNITS_MAX && len <= UNITS_MAX - start;
    fits.then_some(Freed { extent: Extent { start, len }, birth, death })
}

/// The list with more extents at its end.
pub(super) fn append(volume: &Volume, tree: &Tree, more: &[Freed], sink: &mut dyn NodeSink) -> Result<Tree> {
    if more.is_empty() {
        return Ok(*tree);
    }
    let (leaf_held, start) = (volume.geometry.leaf_held(), tree.root.count);
    let end = start + more.len() as u64;
    let leaves: Vec<_> = (start / leaf_held..=(end - 1) / leaf_held).collect();
    write(volume, tree, &leaves, (start, more), sink)
}

/// The list with these extents and no others.
pub(super) fn rewrite(volume: &Volume, tree: &Tree, all: &[Freed], sink: &mut dyn NodeSink) -> Result<Tree> {
    let leaf_held = volume.geometry.leaf_held();
    let leaves: Vec<_> = (0..tree.root.count.max(all.len() as u64).div_ceil(leaf_held)).collect();
    write(volume, tree, &leaves, (0, all), sink)
}

/// Writes extents from an index on, to the end of the list.
fn write(
    volume: &Volume,
    tree: &Tree,
    leaves: &[u64],
    (start, extents): (u64, &[Freed]),
    sink: &mut dyn NodeSink,
) -> Result<Tree> {
    let leaf_held = volume.geometry.leaf_held();
    let mut change = |leaf: u64, words: &mut [u64]| {
        let first = leaf * leaf_held;
        let mut count = 0;
        for (index, words) in (first..).zip(words.as_chunks_mut::<4>().0) {
            if index >= start {
                let freed = usize::try_from(index - start).ok().and_then(|index| extents.get(index));
                *words = freed.map_or([0; 4], |freed| [freed.extent.start, freed.extent.len, freed.birth, freed.death]);
            }
            count += u64::from(words[1] != 0);
        }
        Ok(count)
    };
    edit(volume.nodes(Part::HeldList), tree, leaves, false, &mut change, sink)
}
