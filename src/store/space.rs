//! Which units of the file are free.
//!
//! On disk that is the space map of the last checkpoint. In memory it is the free extents of those of its leaves that
//! were needed so far; a leaf is read when space is short or when something in it becomes free. What is allocated here
//! is in no map before the checkpoint that makes it part of the store: after a crash it is free again.

use std::io;

use super::volume::Volume;
use crate::error::{Error, Operation, Part, Result};
use crate::extent::{Extent, Fit, FreeSpace};
use crate::format::{Tree, UNITS_MAX};
use crate::tree::{self, Flow};

/// The file grows by an eighth of its length, but by no less and no more than this.
const GROWTH_BYTES_MIN: u64 = 1 << 20;
const GROWTH_BYTES_MAX: u64 = 256 << 20;

/// What space is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Leaves what a checkpoint needs.
    Data { reserve_units: u64 },
    /// For a checkpoint, as low in the file as can be where it is to pack.
    Checkpoint { pack: bool },
}

/// Where the space map is.
#[derive(Clone, Copy)]
pub(super) struct Map<'a> {
    pub(super) volume: &'a Volume,
    pub(super) tree: &'a Tree,
}

/// Free units.
#[derive(Debug)]
pub(super) struct Space {
    free: FreeSpace,
    /// The end of the file.
    end: u64,
    /// What the space map says of units from here on is not of interest: the file grew from here.
    known_end: u64,
    /// Leaves of the map that were read, as extents of their numbers.
    loaded: FreeSpace,
    /// How many of them were there, and as many as the file ever had room for.
    leaves_read: u64,
    leaves_max: u64,
    /// Leaves below this were looked at for free space.
    scanned: u64,
    /// Free in the map that this store was opened with, but perhaps read by another process.
    quarantine: Option<Vec<Extent>>,
    fit: Fit,
}

impl Space {
    /// `quarantined`: nothing that is free now may be used before [`Space::end_quarantine`].
    pub(super) fn new(end: u64, fit: Fit, quarantined: bool) -> Self {
        Space {
            free: FreeSpace::default(),
            end,
            known_end: end,
            loaded: FreeSpace::default(),
            leaves_read: 0,
            leaves_max: tree::FEW_NODES,
            scanned: 0,
            quarantine: quarantined.then(Vec::new),
            fit,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn free(&self) -> &FreeSpace {
        &self.free
    }

    pub(super) fn is_quarantined(&self) -> bool {
        self.quarantine.is_some()
    }

    /// Nobody reads anymore what was free when the store was opened. What was kept back is to be given back.
    pub(super) fn end_quarantine(&mut self) -> Vec<Extent> {
        self.quarantine.take().unwrap_or_default()
    }

    /// One piece of `least` to `most` units.
    pub(super) fn take_up_to(&mut self, map: Map<'_>, most: u64, least: u64, purpose: Purpose) -> Result<Extent> {
        loop {
            let (kept, fit) = match purpose {
                Purpose::Data { reserve_units } => (reserve_units, self.fit),
                Purpose::Checkpoint { pack: false } => (0, self.fit),
                Purpose::Checkpoint { pack: true } => (0, Fit::First),
            };
            let spare = self.free.total_units().saturating_sub(kept).min(most);
            if spare >= least
                && let Some(extent) = self.free.take_up_to(spare, least, fit)
            {
                tree::before_reuse();
                return Ok(extent);
            }
            if !self.load_next(map)? {
                self.grow(map.volume, least + kept.saturating_sub(self.free.total_units()))?;
            }
        }
    }

    /// Exactly as many units, wholly below `limit`, as low as can be.
    pub(super) fn take_below(&mut self, map: Map<'_>, units: u64, limit: u64) -> Result<Option<Extent>> {
        self.load_all(map)?;
        tree::before_reuse();
        Ok(self.free.take_below(units, limit))
    }

    /// Exactly this range, if all of it is free and known to be.
    pub(super) fn take_range(&mut self, extent: Extent) -> bool {
        tree::before_reuse();
        self.free.take_range(extent)
    }

    /// Makes an extent free that is in no checkpoint and that nobody reads.
    pub(super) fn give_back(&mut self, volume: &Volume, extent: Extent) -> Result<()> {
        self.free.insert(extent).map_err(|other| {
            let offset = volume.geometry.offset(extent.start);
            volume.corrupt(Part::SpaceMap, offset, format!("units {extent:?} were free already, in {other:?}"))
        })
    }

    /// Reads all of the map that was not read.
    pub(super) fn load_all(&mut self, map: Map<'_>) -> Result<()> {
        self.load_from(map, &mut 0, true).map(|_| ())
    }

    pub(super) fn quarantined(&self) -> impl Iterator<Item = Extent> + '_ {
        self.quarantine.iter().flatten().copied()
    }

    /// Whether some of it is known to be free.
    pub(super) fn overlaps(&self, extent: Extent) -> bool {
        let overlaps = |other: Extent| other.start < extent.end() && extent.start < other.end();
        self.free.overlaps(extent) || self.quarantined().any(overlaps)
    }

    /// Reads the map where the extent is, so that the extent can become free.
    pub(super) fn load_around(&mut self, map: Map<'_>, extent: Extent) -> Result<()> {
        let leaf_units = map.volume.geometry.leaf_units();
        for index in extent.start / leaf_units..=(extent.end() - 1) / leaf_units {
            self.load(map, index)?;
        }
        Ok(())
    }

    /// Reads the next leaf of the map that has free units. Says whether there was one.
    fn load_next(&mut self, map: Map<'_>) -> Result<bool> {
        if self.quarantine.is_some() {
            return Ok(false);
        }
        let mut at = self.scanned;
        let found = self.load_from(map, &mut at, false);
        self.scanned = at;
        found
    }

    /// Reads leaves of the map from one on, up to the first that has free units, or all of them. Moves `at` behind what
    /// was looked at, and says whether that made anything free.
    ///
    /// By one walk: there may be any number of leaves, also of those that claim room and have none.
    fn load_from(&mut self, map: Map<'_>, at: &mut u64, all: bool) -> Result<bool> {
        let nodes = map.volume.nodes(Part::SpaceMap);
        let leaf_units = map.volume.geometry.leaf_units();
        let end = self.known_end.div_ceil(leaf_units);
        if *at >= end {
            return Ok(false);
        }
        let mut found = false;
        tree::walk(nodes, map.tree, *at, &mut |node| {
            found |= self.load_absent(map.volume, at, node.first_leaf.min(end), all)?;
            if found && !all || node.first_leaf >= end {
                return Ok(Flow::Stop);
            }
            let span = nodes.span(node.height);
            let behind = node.first_leaf.saturating_add(span);
            if !all && node.child.count >= span.saturating_mul(leaf_units) {
                *at = behind;
                return Ok(Flow::Past);
            }
            if node.height > 0 {
                return Ok(Flow::Down);
            }
            if self.loaded.around(node.first_leaf).is_none() {
                found |= self.load_words(map, node.first_leaf, Some(nodes.read_leaf(&node.child)?))?;
            }
            *at = behind;
            Ok(if found && !all { Flow::Stop } else { Flow::Past })
        })?;
        if !found || all {
            found |= self.load_absent(map.volume, at, end, all)?;
        }
        Ok(found)
    }

    /// The same of leaves in front of one, which are not there, so that all their units are free. A file may claim any
    /// number of them.
    fn load_absent(&mut self, volume: &Volume, at: &mut u64, end: u64, all: bool) -> Result<bool> {
        let mut found = false;
        while *at < end && (all || !found) {
            let start = *at;
            let loaded = self.loaded.next_from(start);
            if let Some(loaded) = loaded.filter(|loaded| loaded.start <= start) {
                *at = loaded.end();
                continue;
            }
            *at = loaded.map_or(end, |loaded| loaded.start.min(end));
            found |= self.take_in(volume, Extent { start, len: *at - start }, None)?;
        }
        Ok(found)
    }

    /// Reads a leaf of the map, unless it was read. Says whether that made anything free.
    pub(super) fn load(&mut self, map: Map<'_>, index: u64) -> Result<bool> {
        if self.loaded.around(index).is_some() {
            return Ok(false);
        }
        let words = tree::leaf(map.volume.nodes(Part::SpaceMap), map.tree, index)?;
        self.load_words(map, index, words)
    }

    /// The same of a leaf that was read, or is not there.
    fn load_words(&mut self, map: Map<'_>, index: u64, words: Option<Vec<u64>>) -> Result<bool> {
        self.leaves_read += u64::from(words.is_some());
        if self.leaves_read > tree::FEW_NODES {
            let nodes = map.volume.nodes(Part::SpaceMap);
            self.leaves_max = self.leaves_max.max(nodes.room()?);
            if self.leaves_read > self.leaves_max {
                return Err(nodes.too_many(&map.tree.root, self.leaves_max));
            }
        }
        self.take_in(map.volume, Extent { start: index, len: 1 }, words.as_deref())
    }

    /// Makes free what leaves that were not read say is. `words` are those of one; without them all is.
    fn take_in(&mut self, volume: &Volume, leaves: Extent, words: Option<&[u64]>) -> Result<bool> {
        let geometry = volume.geometry;
        let first = leaves.start * geometry.leaf_units();
        let (start, end) =
            (first.max(geometry.data_start_units()), (leaves.end() * geometry.leaf_units()).min(self.known_end));
        let mut found = false;
        let all = (words.is_none() && start < end).then(|| Extent { start, len: end - start });
        let some = words.into_iter().flat_map(|words| free_extents(words, first, start..end));
        for extent in all.into_iter().chain(some) {
            match &mut self.quarantine {
                Some(quarantine) => quarantine.push(extent),
                None => {
                    found = true;
                    self.give_back(volume, extent)?;
                }
            }
        }
        // None of them was read.
        let _ = self.loaded.insert(leaves);
        Ok(found)
    }

    /// Makes the file longer, by `units` at least.
    fn grow(&mut self, volume: &Volume, units: u64) -> Result<()> {
        let geometry = volume.geometry;
        let length = geometry.offset(self.end);
        let mut step = geometry.units((length / 8).clamp(GROWTH_BYTES_MIN, GROWTH_BYTES_MAX)).max(units);
        loop {
            let end = self.end + step;
            let result = if end > UNITS_MAX {
                let source = io::Error::from(io::ErrorKind::FileTooLarge);
                let (operation, path) = (Operation::Reserve, volume.path.clone());
                Err(Error::Io { operation, path, offset: 0, len_bytes: geometry.offset(end), source })
            } else {
                volume.io.reserve(geometry.offset(end))
            };
            if result.is_ok() {
                let grown = Extent { start: self.end, len: step };
                self.end = end;
                return self.give_back(volume, grown);
            }
            if step == units {
                return result;
            }
            // Refusals are slow where a disk is nearly full, so what is left is not taken unit by unit.
            step = (step / 2).max(units);
        }
    }

    /// Gives the free end of the file back to the file system, except for what growth would soon ask for again, or all.
    pub(super) fn trim(&mut self, volume: &Volume, all: bool) -> Result<()> {
        let geometry = volume.geometry;
        let Some(last) = self.free.last().filter(|last| last.end() == self.end) else { return Ok(()) };
        let kept =
            if all { 0 } else { geometry.units(geometry.offset(last.start) / 8).max(geometry.units(GROWTH_BYTES_MIN)) };
        let tail = Extent { start: last.start + kept, len: last.len.saturating_sub(kept) };
        // Not for a little.
        if tail.len == 0 || !all && last.len < kept * 2 || !self.free.take_range(tail) {
            return Ok(());
        }
        if let Err(error) = volume.io.set_len(geometry.offset(tail.start)) {
            self.give_back(volume, tail)?;
            return Err(error);
        }
        self.end = tail.start;
        self.known_end = self.known_end.min(self.end);
        Ok(())
    }
}

/// The runs of clear bits. `words` describe the units from `first` on.
fn free_extents(words: &[u64], first: u64, within: std::ops::Range<u64>) -> impl Iterator<Item = Extent> {
    let mut at = within.start;
    std::iter::from_fn(move || {
        let run_end = |from: u64, used: bool| {
            let mut at = from;
            while at < within.end {
                let (word, bit) = ((at - first) / 64, (at - first) % 64);
                let bits = words[word as usize];
                let run = u64::from((if used { !bits } else { bits } >> bit).trailing_zeros()).min(64 - bit);
                at += run;
                if run < 64 - bit {
                    break;
                }
            }
            at.min(within.end)
        };
        let start = run_end(at, true);
        at = run_end(start, false);
        (at > start).then(|| Extent { start, len: at - start })
    })
}
