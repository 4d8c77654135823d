//! Salvage: what can still be read of a damaged store, in a new file. The damaged one is only read.
//!
//! Everything keeps its place, its generation and the file's UUID, so addresses of blocks that the embedder has stored
//! are good in the new file too. Pages are proven one by one. Blocks cannot be, since only the embedder has their
//! checksums: all space that is in use and no page's or node's is copied as it is.

use std::path::Path;
use std::sync::Arc;

use super::audit::Audit;
use super::info::has_writer;
use super::inner::{BlockChange, Inner};
use super::options::{StoreOptions, empty_slot, lock_error, lock_file, read_names, write_header};
use super::space::{Map, Space};
use super::table::{decode_entries, page_address};
use super::units::Units;
use super::verify::VerifyReport;
use super::volume::{Volume, superblock};
use super::{CheckpointOptions, Store};
use crate::error::{Error, Part, Result};
use crate::extent::{Extent, Fit};
use crate::format::{Entry, Names, PAGES_MAX, PageState, RECORD_BYTES, Record, Slot};
use crate::io::BlockIo;
use crate::options::IoOptions;
use crate::tree::{Flow, walk};

/// Pieces in which a file is searched and space is copied.
const PIECE_BYTES: u64 = 1 << 20;
const SECTOR_BYTES: usize = 512;

/// What was salvaged, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The generation of the checkpoint that was salvaged.
    pub generation: u64,
    /// Whether the header was lost and the checkpoint was found among the blocks.
    pub from_record: bool,
    /// Pages that are whole and in the new file.
    pub pages_saved: u64,
    /// Pages whose bytes are lost, with what is wrong. They are not in the new file.
    pub pages_lost: Vec<(u64, String)>,
    /// Numbers of pages whose entries are lost, as ranges: first and last. There may have been pages.
    pub numbers_lost: Vec<(u64, u64)>,
    /// Bytes copied that are no page's: the embedder's blocks, as far as can be told.
    pub block_bytes: u64,
    /// Whether some of the space map is lost. Then blocks that were free are copied too.
    pub space_map_damaged: bool,
    /// Kept checkpoints, which are not in the new file.
    pub kept_lost: Vec<String>,
}

impl SalvageReport {
    /// Whether all pages of the checkpoint are in the new file.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pages_lost.is_empty() && self.numbers_lost.is_empty()
    }
}

impl StoreOptions {
    /// Writes what can be read of the newest checkpoint of `source` into a new store at `destination`. `progress` is
    /// shown the report as it grows.
    ///
    /// `source` is not changed, and must not be open for writing. Its checksums are used whatever
    /// [`StoreOptions::verification`] says.
    ///
    /// # Errors
    ///
    /// [`Error::NotAStore`] where not one checkpoint is found; [`Error::Locked`] where the source is open for writing;
    /// [`Error::Unsupported`]; [`Error::Io`].
    pub fn salvage(
        &self,
        source: impl AsRef<Path>,
        destination: impl AsRef<Path>,
        progress: &mut dyn FnMut(&SalvageReport),
    ) -> Result<SalvageReport> {
        let (source, destination) = (source.as_ref(), destination.as_ref());
        let io = self.read_only_io().open(source)?;
        if has_writer(&lock_file(source, false)?).map_err(|error| lock_error(source, error))? {
            return Err(Error::Locked { path: source.into() });
        }
        let (source, slot, from_record) = find_checkpoint(io, source.into())?;
        let target_io = IoOptions::new().write(true).create_new(true).open(destination)?;
        let mut salvage = Salvage { source, slot, report: SalvageReport { from_record, ..SalvageReport::default() } };
        let result = salvage.write(target_io, destination.into(), progress);
        if result.is_err() {
            // It is of no use, and ours.
            let _ = std::fs::remove_file(destination);
        }
        result.map(|()| salvage.report)
    }
}

/// The newest checkpoint, and whether it was found by a record and not by the header.
fn find_checkpoint(io: Box<dyn BlockIo>, path: Arc<Path>) -> Result<(Volume, Slot, bool)> {
    let (io, error) = match superblock(&*io, &path) {
        Ok(superblock) => {
            let volume = Volume::new(io, path.clone(), None, superblock, true);
            match volume.newest_slot() {
                Ok(slot) => return Ok((volume, slot, false)),
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(_) => {
                    let problem = "no checkpoint was found".to_owned();
                    (volume.io, Error::NotAStore { path: path.clone(), problem })
                }
            }
        }
        Err(error) => (io, error),
    };
    let Some(Record { superblock, slot }) = records(&*io)?.into_iter().max_by_key(|record| record.slot.generation)
    else {
        return Err(error);
    };
    Ok((Volume::new(io, path, None, superblock, true), slot, true))
}

/// Every record in the file. Old ones are there too, where their space was not used again.
fn records(io: &dyn BlockIo) -> Result<Vec<Record>> {
    let end = io.len()?;
    let mut found = Vec::new();
    let mut at = 0;
    while at < end {
        // Records that begin in this piece may end behind it.
        let len = (PIECE_BYTES + RECORD_BYTES as u64).min(end - at);
        let mut piece = vec![0; len as usize];
        if let Err(error) = io.read_at(at, &mut piece) {
            tracing::warn!(%error, offset = at, "not searched");
        }
        let starts = (0..piece.len().min(PIECE_BYTES as usize)).step_by(SECTOR_BYTES);
        found.extend(starts.filter_map(|start| Record::decode(&piece[start..])));
        at += PIECE_BYTES;
    }
    Ok(found)
}

struct Salvage {
    source: Volume,
    slot: Slot,
    report: SalvageReport,
}

impl Salvage {
    fn write(&mut self, io: Box<dyn BlockIo>, path: Arc<Path>, progress: &mut dyn FnMut(&SalvageReport)) -> Result<()> {
        self.report.generation = self.slot.generation;
        let superblock = self.source.superblock;
        // What is behind the file's end is lost, however far the checkpoint says that it goes.
        let file_units = self.source.io.len()? / u64::from(self.source.geometry.unit_bytes);
        self.slot.end_units = self.slot.end_units.min(file_units).max(self.source.geometry.data_start_units());
        let slot = Slot {
            generation: self.slot.generation,
            sequence: self.slot.sequence,
            page_limit: self.slot.page_limit,
            end_units: self.slot.end_units,
            ..empty_slot(&superblock)
        };
        write_header(&*io, &superblock, &slot)?;
        let volume = Arc::new(Volume::new(io, path, None, superblock, true));
        let space = Space::new(slot.end_units, Fit::First, false);
        let store = Store { inner: Arc::new(Inner::new(volume, slot, Names::default(), space)) };
        {
            let meta = &mut *store.inner.meta.lock();
            meta.space.load_all(Map { volume: &store.inner.volume, tree: &meta.committed.space })?;
        }
        self.pages(&store.inner, progress)?;
        self.blocks(&store.inner, progress)?;
        store.checkpoint(CheckpointOptions::new().cookie(&self.slot.cookie))?;
        Ok(())
    }

    fn pages(&mut self, inner: &Inner, progress: &mut dyn FnMut(&SalvageReport)) -> Result<()> {
        let (tree, limit) = (self.slot.pages, self.slot.page_limit);
        let mut leaves = Vec::new();
        {
            let nodes = self.source.nodes(Part::PageTable);
            let leaf_pages = self.source.geometry.leaf_pages();
            let lost = &mut self.report.numbers_lost;
            let walked = walk(nodes, &tree, 0, &mut |node| {
                let readable = match node.height {
                    0 => nodes.read_leaf(&node.child).map(|words| match decode_entries(&self.source, &words) {
                        Some(entries) => {
                            leaves.push((node.first_leaf, entries));
                            true
                        }
                        None => false,
                    }),
                    _ => nodes.read_children(&node.child).map(|_| true),
                };
                if matches!(readable, Ok(true)) {
                    return Ok(Flow::Down);
                }
                let first = node.first_leaf.saturating_mul(leaf_pages);
                let last =
                    node.first_leaf.saturating_add(nodes.span(node.height)).saturating_mul(leaf_pages).min(limit);
                if first < last {
                    lost.push((first, last - 1));
                }
                Ok(Flow::Past)
            });
            match walked {
                Err(Error::Corrupt { .. }) if limit > 0 => lost.push((0, limit - 1)),
                walked => walked?,
            }
        }
        for (leaf, entries) in leaves {
            let first = leaf.saturating_mul(self.source.geometry.leaf_pages()).min(PAGES_MAX);
            for (page, entry) in (first..limit).zip(entries) {
                if entry.is_live() {
                    self.page(inner, page, entry)?;
                }
            }
            progress(&self.report);
        }
        Ok(())
    }

    /// Copies one page, if it is whole.
    fn page(&mut self, inner: &Inner, page: u64, entry: Entry) -> Result<()> {
        if let PageState::Stored { offset_units, sequence, checksum } = entry.state() {
            let address = page_address(&self.source, offset_units, sequence, checksum);
            let mut buf = vec![0; address.len_bytes as usize];
            let part = Part::Page(page);
            let read = self.source.read_at(part, address.offset, &mut buf);
            if let Err(error) = read.and_then(|()| self.source.prove(part, &address, &buf)) {
                self.report.pages_lost.push((page, error.to_string()));
                return Ok(());
            }
            let extent = Extent { start: offset_units, len: self.source.geometry.page_units() };
            if !inner.meta.lock().space.take_range(extent) {
                self.report.pages_lost.push((page, format!("another page is at offset {}", address.offset)));
                return Ok(());
            }
            inner.volume.io.write_at(address.offset, &buf)?;
        }
        let meta = &mut *inner.meta.lock();
        // The new table has nothing yet, so nothing is to be read.
        meta.changes.insert(page, entry);
        meta.live_pages += 1;
        self.report.pages_saved += 1;
        Ok(())
    }

    /// Copies what is in use and is not the store's own.
    fn blocks(&mut self, inner: &Inner, progress: &mut dyn FnMut(&SalvageReport)) -> Result<()> {
        let names = read_names(&self.source, &self.slot);
        let names = names.unwrap_or_else(|_| Names::default());
        self.report.kept_lost = names.0.iter().map(|kept| kept.name.clone()).collect();
        let mut ignore = |_: &VerifyReport| ();
        let mut audit = Audit::new(&self.source, &self.slot, self.slot.end_units, false, &mut ignore);
        audit.checkpoint(&names);
        let damaged = audit.report.problems.iter().any(|problem| problem.part == Part::SpaceMap);
        self.report.space_map_damaged = damaged;
        let mut used = audit.mapped;
        if damaged {
            used = Units::default();
            let all = Extent { start: 0, len: self.slot.end_units };
            // It is empty.
            let _ = used.claim(all);
        }
        let file_units = self.source.io.len()? / u64::from(self.source.geometry.unit_bytes);
        let (start, end) = (self.source.geometry.data_start_units(), self.slot.end_units);
        for extent in used.without(&audit.claimed, start, end) {
            if extent.start >= file_units {
                break;
            }
            self.copy(inner, Extent { len: extent.len.min(file_units - extent.start), ..extent })?;
            self.report.block_bytes += self.source.geometry.offset(extent.len);
            progress(&self.report);
        }
        Ok(())
    }

    fn copy(&self, inner: &Inner, extent: Extent) -> Result<()> {
        let geometry = self.source.geometry;
        if !inner.meta.lock().space.take_range(extent) {
            return Ok(());
        }
        let piece_units = (PIECE_BYTES / u64::from(geometry.unit_bytes)).max(1);
        let mut at = extent.start;
        while at < extent.end() {
            let units = piece_units.min(extent.end() - at);
            let mut buf = vec![0; geometry.offset(units) as usize];
            // What cannot be read stays zero, and the embedder's checksum will tell.
            if let Err(error) = self.source.io.read_at(geometry.offset(at), &mut buf) {
                tracing::warn!(%error, "not copied");
            }
            inner.volume.io.write_at(geometry.offset(at), &buf)?;
            at += units;
        }
        let change = BlockChange { units: extent.len, generation: 0, live: true };
        inner.meta.lock().blocks.insert(extent.start, change);
        Ok(())
    }
}
