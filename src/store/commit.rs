//! The stages of a commit: [`super::checkpoint`] says what a crash at each leaves.

use std::collections::BTreeSet;

use super::checkpoint::{CheckpointReport, Cut};
use super::held;
use super::inner::{Freed, Inner};
use super::sink::Sink;
use super::space::Map;
use super::table::decode_entries;
use crate::error::{Part, Result};
use crate::extent::Extent;
use crate::format::{Child, Name, Names, PageState, RECORD_BYTES, Record, SLOT_OFFSETS, Slot, Tree};
use crate::io::SyncKind;
use crate::tree::{Flow, edit, touched, walk};

/// A checkpoint that is durable.
pub(super) struct Committed {
    pub(super) slot: Slot,
    pub(super) names: Names,
    /// What it does not have anymore and nothing that is kept has.
    pub(super) freed: Vec<Freed>,
    pub(super) report: CheckpointReport,
}

/// A checkpoint in the making.
struct Commit<'a> {
    inner: &'a Inner,
    cut: &'a Cut,
    last: Slot,
    generation: u64,
    /// Units that come into use, nodes not included.
    used: Vec<Extent>,
    /// Pages, blocks and nodes of the page table, which kept checkpoints may have.
    freed: Vec<Freed>,
    /// What only the last checkpoint can have.
    freed_for_good: Vec<Freed>,
}

pub(super) fn commit(inner: &Inner, cut: &Cut) -> Result<Committed> {
    let (last, names) = {
        let meta = inner.meta.lock();
        (meta.committed.clone(), meta.names.clone())
    };
    let generation = last.generation + 1;
    let mut commit =
        Commit { inner, cut, last, generation, used: Vec::new(), freed: Vec::new(), freed_for_good: Vec::new() };
    let mut sink = Sink::new(inner, cut);
    let (slot, names) = match commit.write_all(&names, &mut sink) {
        Ok(made) => made,
        Err(error) => {
            sink.abandon();
            return Err(error);
        }
    };
    let report = CheckpointReport {
        nodes_written: sink.nodes_written,
        bytes_written: sink.bytes_written,
        units_freed: commit.freed_for_good.iter().map(|freed| freed.extent.len).sum(),
        ..CheckpointReport::default()
    };
    if let Err(error) = write_slot(inner, &slot) {
        inner.poison(&error);
        return Err(error);
    }
    Ok(Committed { slot, names, freed: commit.freed_for_good, report })
}

/// Stages 2 to 4.
fn write_slot(inner: &Inner, slot: &Slot) -> Result<()> {
    let io = &*inner.volume.io;
    #[cfg(mapfall_canary)] // a planted bug: the slot may be on the device before what it refers to
    if crate::canary::planted("store_ops") {
        let copy = slot.encode();
        io.write_at(SLOT_OFFSETS[slot.generation as usize % 2], &[copy, copy].concat())?;
        return io.sync(SyncKind::Data);
    }
    io.sync(SyncKind::Data)?;
    let copy = slot.encode();
    io.write_at(SLOT_OFFSETS[slot.generation as usize % 2], &[copy, copy].concat())?;
    io.sync(SyncKind::Data)
}

impl Commit<'_> {
    /// Stage 1.
    fn write_all(&mut self, names: &Names, sink: &mut Sink<'_>) -> Result<(Slot, Names)> {
        let pages = self.write_page_table(sink)?;
        self.take_block_changes();
        let mut slot = Slot { generation: self.generation, pages, ..self.last.clone() };
        slot.sequence = self.cut.node_generation + 1;
        slot.page_limit = self.cut.page_limit;
        slot.cookie.clone_from(&self.cut.cookie);
        slot.raw_units = self.raw_units();

        let mut kept = names.clone();
        kept.0.retain(|name| !self.cut.dropped.contains(&name.name));
        self.hold(&kept, &mut slot, sink)?;
        if let Some(name) = &self.cut.name {
            kept.0.push(Name {
                name: name.clone(),
                generation: self.generation,
                sequence: slot.sequence,
                page_limit: slot.page_limit,
                pages,
                cookie: slot.cookie.clone(),
            });
        }
        let moved = self.cut.move_nodes_from.is_some_and(|limit| slot.names.offset_units >= limit);
        if kept != *names || moved {
            slot.names = self.write_names(&kept, sink)?;
        }
        let record_units = self.inner.volume.geometry.units(RECORD_BYTES as u64);
        if slot.record_units > 0 {
            // It has no number of its own: it is the last checkpoint's and no older one's.
            self.free_for_good(slot.record_units, record_units, self.last.sequence.saturating_sub(1));
        }
        slot.record_units = sink.place_units(record_units)?.start;
        slot.space = self.write_space_map(&slot, sink)?;
        slot.end_units = self.inner.meta.lock().space.end();

        let record = Record { superblock: self.inner.volume.superblock, slot: slot.clone() }.encode();
        sink.append(self.inner.volume.geometry.offset(slot.record_units), &record)?;
        sink.flush()?;
        Ok((slot, kept))
    }

    fn node_units(&self) -> u64 {
        self.inner.volume.geometry.node_units()
    }

    /// Something that no kept checkpoint has.
    fn free_for_good(&mut self, start: u64, len: u64, birth: u64) {
        self.freed_for_good.push(Freed { extent: Extent { start, len }, birth, death: self.generation });
    }

    /// Leaves whose node, or a node above, is to move.
    fn moved_leaves(&self, part: Part, tree: &Tree) -> Result<BTreeSet<u64>> {
        let mut leaves = BTreeSet::new();
        if let Some(limit) = self.cut.move_nodes_from {
            walk(self.inner.volume.nodes(part), tree, 0, &mut |node| {
                if node.child.offset_units + self.node_units() > limit {
                    leaves.insert(node.first_leaf);
                }
                Ok(Flow::Down)
            })?;
        }
        Ok(leaves)
    }

    fn write_page_table(&mut self, sink: &mut Sink<'_>) -> Result<Tree> {
        let volume = &*self.inner.volume;
        let (leaf_pages, page_units) = (volume.geometry.leaf_pages(), volume.geometry.page_units());
        let nodes = volume.nodes(Part::PageTable);
        let tree = self.last.pages;
        let mut leaves = self.moved_leaves(Part::PageTable, &tree)?;
        leaves.extend(self.cut.changes.keys().map(|page| page / leaf_pages));
        let leaves: Vec<_> = leaves.into_iter().collect();
        let (used, freed, death) = (&mut self.used, &mut self.freed, self.generation);
        let mut change = |leaf: u64, words: &mut [u64]| {
            if decode_entries(volume, words).is_none() {
                return Err(nodes.corrupt(&tree.root, format!("leaf {leaf} has values that no page has")));
            }
            let first = leaf * leaf_pages;
            for (page, new) in self.cut.changes.range(first..first + leaf_pages) {
                let words = &mut words[(page - first) as usize * 2..][..2];
                let old = crate::format::Entry(words[0], words[1]);
                if let PageState::Stored { offset_units, sequence, .. } = old.state() {
                    let extent = Extent { start: offset_units, len: page_units };
                    freed.push(Freed { extent, birth: sequence, death });
                }
                if let PageState::Stored { offset_units, .. } = new.state() {
                    used.push(Extent { start: offset_units, len: page_units });
                }
                words.copy_from_slice(&new.to_disk());
            }
            Ok(words.as_chunks::<2>().0.iter().filter(|words| words[0] != 0).count() as u64)
        };
        let tree = edit(nodes, &tree, &leaves, false, &mut change, sink)?;
        let node_units = self.node_units();
        for old in sink.replaced.drain(..) {
            let extent = Extent { start: old.offset_units, len: node_units };
            self.freed.push(Freed { extent, birth: old.generation, death: self.generation });
        }
        Ok(tree)
    }

    fn take_block_changes(&mut self) {
        for (start, change) in &self.cut.blocks {
            let extent = Extent { start: *start, len: change.units };
            if change.live {
                self.used.push(extent);
            } else {
                self.freed.push(Freed { extent, birth: change.generation, death: self.generation });
            }
        }
    }

    fn raw_units(&self) -> u64 {
        let (mut more, mut less) = (self.last.raw_units, 0);
        for change in self.cut.blocks.values() {
            *(if change.live { &mut more } else { &mut less }) += change.units;
        }
        more.saturating_sub(less)
    }

    /// Notes what kept checkpoints have of what this one does not have anymore; the rest is free for good.
    fn hold(&mut self, kept: &Names, slot: &mut Slot, sink: &mut Sink<'_>) -> Result<()> {
        let is_held = |freed: &Freed| kept.0.iter().any(|name| freed.is_seen_by(name.generation, name.sequence));
        let freed = std::mem::take(&mut self.freed);
        let (mut held, free): (Vec<_>, Vec<_>) = freed.into_iter().partition(is_held);
        self.freed_for_good.extend(free);
        let moved = self.moved_leaves(Part::HeldList, &slot.held)?;
        let volume = &*self.inner.volume;
        if !self.cut.dropped.is_empty() || !moved.is_empty() {
            let all = held::read(volume, &slot.held)?;
            let (still, free): (Vec<_>, Vec<_>) = all.into_iter().partition(is_held);
            held.splice(..0, still);
            self.freed_for_good.extend(free);
            slot.held = held::rewrite(volume, &slot.held, &held, sink)?;
        } else {
            slot.held = held::append(volume, &slot.held, &held, sink)?;
        }
        self.free_replaced(sink);
        Ok(())
    }

    fn free_replaced(&mut self, sink: &mut Sink<'_>) {
        let node_units = self.node_units();
        for old in std::mem::take(&mut sink.replaced) {
            self.free_for_good(old.offset_units, node_units, old.generation);
        }
    }

    fn write_names(&mut self, kept: &Names, sink: &mut Sink<'_>) -> Result<Child> {
        let geometry = self.inner.volume.geometry;
        let old = self.last.names;
        if !old.is_none() {
            self.free_for_good(old.offset_units, geometry.units(old.count), old.generation);
        }
        if kept.0.is_empty() {
            return Ok(Child::NONE);
        }
        let bytes = kept.encode();
        let count = bytes.len() as u64;
        let offset_units = sink.place_units(geometry.units(count))?.start;
        let generation = self.cut.node_generation;
        let offset = geometry.offset(offset_units);
        let checksum = self.inner.volume.seeds.checksum(offset, generation, &bytes);
        sink.append(offset, &bytes)?;
        Ok(Child { offset_units, generation, checksum, count })
    }

    /// The map has its own nodes too: space is planned until what is planned changes no further leaf of it.
    fn write_space_map(&mut self, slot: &Slot, sink: &mut Sink<'_>) -> Result<Tree> {
        let volume = &*self.inner.volume;
        let nodes = volume.nodes(Part::SpaceMap);
        let leaf_units = volume.geometry.leaf_units();
        let mut leaves = self.moved_leaves(Part::SpaceMap, &slot.space)?;
        let mark = |leaves: &mut BTreeSet<u64>, extent: &Extent| {
            leaves.extend(extent.start / leaf_units..=(extent.end() - 1) / leaf_units);
        };
        self.used.iter().for_each(|extent| mark(&mut leaves, extent));
        self.freed_for_good.iter().for_each(|freed| mark(&mut leaves, &freed.extent));
        sink.placed.iter().for_each(|extent| mark(&mut leaves, extent));
        let mut planned = Vec::new();
        let (leaves, replaced) = loop {
            let list: Vec<_> = leaves.iter().copied().collect();
            let (count, replaced) = touched(nodes, &slot.space, &list)?;
            for old in &replaced {
                mark(&mut leaves, &Extent { start: old.offset_units, len: self.node_units() });
            }
            while (planned.len() as u64) < count {
                let extent = sink.plan()?;
                mark(&mut leaves, &extent);
                planned.push(extent.start);
            }
            if leaves.len() == list.len() {
                break (list, replaced);
            }
        };
        sink.give_back_ahead();
        for old in replaced {
            self.free_for_good(old.offset_units, self.node_units(), old.generation);
        }
        self.load_map(&leaves)?;

        let mut on: Vec<_> = self.used.iter().chain(&sink.placed).copied().collect();
        let mut off: Vec<_> = self.freed_for_good.iter().map(|freed| freed.extent).collect();
        on.sort_unstable();
        off.sort_unstable();
        sink.planned = planned.into_iter();
        let mut change = |leaf: u64, words: &mut [u64]| {
            let first = leaf * leaf_units;
            for (extents, used) in [(&off, false), (&on, true)] {
                mark_units(words, first, leaf_units, extents, used).map_err(|unit| {
                    let (found, offset) = (if used { "in use" } else { "free" }, volume.geometry.offset(unit));
                    volume.corrupt(Part::SpaceMap, offset, format!("the unit there is {found} already"))
                })?;
            }
            Ok(words.iter().map(|word| u64::from(word.count_ones())).sum())
        };
        let tree = edit(nodes, &slot.space, &leaves, true, &mut change, sink)?;
        // They were planned for.
        sink.replaced.clear();
        Ok(tree)
    }

    /// Reads these leaves of the last map, so that what is in them can be made free in memory.
    fn load_map(&self, leaves: &[u64]) -> Result<()> {
        for leaf in leaves {
            let mut meta = self.inner.meta.lock();
            let meta = &mut *meta;
            let map = Map { volume: &self.inner.volume, tree: &meta.committed.space };
            meta.space.load(map, *leaf)?;
        }
        Ok(())
    }
}

/// Sets or clears the bits of those ascending extents that are in this leaf. The error is a unit that was so already.
fn mark_units(words: &mut [u64], first: u64, leaf_units: u64, extents: &[Extent], used: bool) -> Result<(), u64> {
    let from = extents.partition_point(|extent| extent.end() <= first);
    for extent in extents[from..].iter().take_while(|extent| extent.start < first + leaf_units) {
        let mut at = extent.start.max(first);
        let end = extent.end().min(first + leaf_units);
        while at < end {
            let (word, bit) = (((at - first) / 64) as usize, (at - first) % 64);
            let count = (64 - bit).min(end - at);
            let mask = (u64::MAX >> (64 - count)) << bit;
            if words[word] & mask != if used { 0 } else { mask } {
                return Err(at);
            }
            words[word] ^= mask;
            at += count;
        }
    }
    Ok(())
}
