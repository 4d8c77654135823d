//! Compaction: moves pages to the front of the file, so that its end can be cut off, while readers and writers go on.
//!
//! Each page is copied into free space further down and its entry is moved there, as a write would. So a crash at any
//! point loses nothing, and what was moved before the last checkpoint stays moved. The store's own nodes move when a
//! checkpoint is asked to [pack](CheckpointOptions::pack) them. Blocks have addresses that only the embedder knows:
//! [`Blocks::move_down`].

use super::blocks::Blocks;
use super::inner::{BlockChange, Inner, Meta};
use super::space::Map;
use super::table::page_address;
use super::{CheckpointOptions, Store};
use crate::error::{Error, Part, Result};
use crate::extent::Extent;
use crate::format::{BlockAddr, Entry, PageState};

/// How far a compaction is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactProgress {
    /// Pages looked at.
    pub pages_seen: u64,
    /// Pages to look at.
    pub pages_total: u64,
    /// Pages moved.
    pub pages_moved: u64,
    /// Pages that lie behind [`CompactProgress::target_bytes`] and stay, since there is no room further down.
    pub pages_stuck: u64,
    /// Pages that stay because their bytes are damaged.
    pub pages_damaged: u64,
    /// The length that the file could have if nothing in it were free.
    pub target_bytes: u64,
}

/// One pass over the pages of a store.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let store = mapfall::Store::options().create(dir.path().join("store"))?;
/// use mapfall::CheckpointOptions;
///
/// let mut compaction = store.compaction()?;
/// while compaction.step(10_000)? {
///     store.checkpoint(CheckpointOptions::new().pack(true))?; // or when the embedder makes one anyway
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Compaction<'a> {
    store: &'a Store,
    next_page: u64,
    limit_units: u64,
    progress: CompactProgress,
}

impl CheckpointOptions {
    /// Whether nodes of the store's trees that lie where the file's end could be cut off are written anew, further
    /// down, and whether all free space at the end is cut off. Default: no.
    #[must_use]
    pub fn pack(mut self, pack: bool) -> Self {
        self.pack = pack;
        self
    }
}

impl Store {
    /// Begins a pass.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`]; [`Error::Io`] or [`Error::Corrupt`] where the space map cannot be read.
    pub fn compaction(&self) -> Result<Compaction<'_>> {
        let inner = &*self.inner;
        inner.check_writable()?;
        let mut meta = inner.meta.lock();
        let limit_units = inner.packed_units(&mut meta)?;
        let target_bytes = inner.volume.geometry.offset(limit_units);
        let progress = CompactProgress { pages_total: inner.table.limit(), target_bytes, ..CompactProgress::default() };
        Ok(Compaction { store: self, next_page: 0, limit_units, progress })
    }
}

impl Compaction<'_> {
    /// Moves up to `pages_max` pages. Says whether there is more to do.
    ///
    /// The space that they leave is free when a checkpoint without them is durable, and no snapshot has it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Corrupt`] where a node of the store's trees is, [`Error::Poisoned`]. A page whose own
    /// bytes are damaged stays where it is and is counted.
    pub fn step(&mut self, pages_max: u64) -> Result<bool> {
        let inner = &*self.store.inner;
        let mut moved = 0;
        while self.next_page < self.progress.pages_total && moved < pages_max {
            let page = self.next_page;
            match inner.move_page(page, self.limit_units)? {
                Moved::Yes => moved += 1,
                Moved::NotNeeded => {}
                Moved::NoRoom => self.progress.pages_stuck += 1,
                Moved::Damaged => self.progress.pages_damaged += 1,
            }
            self.next_page += 1;
        }
        self.progress.pages_moved += moved;
        self.progress.pages_seen = self.next_page;
        Ok(self.next_page < self.progress.pages_total)
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> CompactProgress {
        self.progress
    }
}

impl Blocks {
    /// Moves a block to the front of the file if that would let the file become shorter: the block's new address, from
    /// which it can be read at once. The old one is free as by [`Blocks::free`].
    ///
    /// # Errors
    ///
    /// As [`Blocks::read`], [`Blocks::write`] and [`Blocks::free`].
    pub fn move_down(&self, address: &BlockAddr) -> Result<Option<BlockAddr>> {
        let inner = &*self.inner;
        inner.check_writable()?;
        let geometry = inner.volume.geometry;
        let units = geometry.units(u64::from(address.len_bytes));
        let mut buf = vec![0; address.len_bytes as usize];
        self.read(address, &mut buf)?;
        if !inner.volume.verify {
            // Whatever the store is told of verification: damage is not made to look whole.
            inner.volume.prove(Part::Block, address, &buf)?;
        }
        let extent = {
            let mut meta = inner.meta.lock();
            let limit = inner.packed_units(&mut meta)?;
            if address.offset / u64::from(geometry.unit_bytes) + units <= limit {
                return Ok(None);
            }
            inner.take_below(&mut meta, units, address.offset / u64::from(geometry.unit_bytes))?
        };
        let Some(extent) = extent else { return Ok(None) };
        let written = inner.write_copy(extent, &buf).and_then(|(generation, checksum)| {
            self.free(address)?;
            let offset = geometry.offset(extent.start);
            Ok(BlockAddr { offset, len_bytes: address.len_bytes, generation, checksum })
        });
        let mut meta = inner.meta.lock();
        match &written {
            Ok(moved) => {
                meta.in_flight_units -= units;
                meta.blocks.insert(extent.start, BlockChange { units, generation: moved.generation, live: true });
            }
            Err(_) => inner.return_space(&mut meta, extent),
        }
        written.map(Some)
    }
}

enum Moved {
    Yes,
    NotNeeded,
    NoRoom,
    Damaged,
}

impl Inner {
    /// Where the file could end if nothing in it were free.
    pub(super) fn packed_units(&self, meta: &mut Meta) -> Result<u64> {
        meta.space.load_all(Map { volume: &self.volume, tree: &meta.committed.space })?;
        Ok(meta.space.end() - meta.space.free().total_units())
    }

    fn take_below(&self, meta: &mut Meta, units: u64, limit: u64) -> Result<Option<Extent>> {
        let map = Map { volume: &self.volume, tree: &meta.committed.space };
        let extent = meta.space.take_below(map, units, limit)?;
        meta.in_flight_units += extent.map_or(0, |extent| extent.len);
        Ok(extent)
    }

    /// Writes bytes there. Returns their generation and checksum.
    fn write_copy(&self, extent: Extent, bytes: &[u8]) -> Result<(u64, u32)> {
        let generation = self.next_sequence()?;
        let offset = self.volume.geometry.offset(extent.start);
        self.volume.io.write_at(offset, bytes)?;
        Ok((generation, self.volume.seeds.checksum(offset, generation, bytes)))
    }

    /// Moves a page that is not below the limit down as far as can be, unless someone writes it meanwhile. Below the
    /// limit there may be room enough for it, but not in one piece.
    fn move_page(&self, page: u64, limit: u64) -> Result<Moved> {
        let entry = self.table.entry(&self.volume, self, page)?;
        let PageState::Stored { offset_units, sequence, checksum } = entry.state() else {
            return Ok(Moved::NotNeeded);
        };
        let page_units = self.volume.geometry.page_units();
        if offset_units + page_units <= limit {
            return Ok(Moved::NotNeeded);
        }
        self.check_writable()?;
        let Some(extent) = self.take_below(&mut self.meta.lock(), page_units, offset_units)? else {
            return Ok(Moved::NoRoom);
        };
        let mut buf = vec![0; self.volume.geometry.page_bytes as usize];
        let address = page_address(&self.volume, offset_units, sequence, checksum);
        let part = Part::Page(page);
        // Whatever the store is told of verification: damage is not made to look whole.
        let read = self.volume.read_at(part, address.offset, &mut buf);
        let read = read.and_then(|()| self.volume.prove(part, &address, &buf));
        let written = read.and_then(|()| self.write_copy(extent, &buf));
        let mut meta = self.meta.lock();
        let unchanged = self.table.loaded(page) == Some(entry);
        match written {
            Ok((generation, checksum)) if unchanged => {
                meta.in_flight_units -= page_units;
                self.install(&mut meta, page, entry, Entry::stored(extent.start, generation, checksum));
                Ok(Moved::Yes)
            }
            written => {
                self.return_space(&mut meta, extent);
                match written {
                    // Its writer, or whoever frees it, has moved it.
                    _ if !unchanged => Ok(Moved::NotNeeded),
                    Err(Error::Corrupt { .. }) => Ok(Moved::Damaged),
                    written => written.map(|_| Moved::NotNeeded),
                }
            }
        }
    }
}
