//! The page table in memory, filled from the file leaf by leaf as pages are asked for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::volume::{Volume, check_len};
use crate::error::{Error, Part, Result};
use crate::format::{BlockAddr, Entry, NOT_LOADED, PageState, Tree};
use crate::tree::{self, Run, Words};

/// Entries of pages.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) words: Words,
    /// No page has this number or a higher one.
    limit: AtomicU64,
    leaves_loaded: AtomicU64,
    /// Those of them that were not in the file.
    new_leaves: Mutex<BTreeSet<u64>>,
    /// As many leaves as the file had room for when it was opened: no others are read from it.
    leaves_max: u64,
}

/// Where a table's leaves come from.
pub(super) trait Source {
    /// The root. It may be another one after each call.
    fn tree(&self) -> Tree;
    /// Calls `fill` while nobody else changes the table.
    fn exclusively(&self, fill: &mut dyn FnMut());
}

impl Table {
    pub(super) fn new(limit: u64, volume: &Volume) -> Self {
        Table {
            words: Words::new(),
            limit: AtomicU64::new(limit),
            leaves_loaded: AtomicU64::new(0),
            new_leaves: Mutex::default(),
            leaves_max: volume.nodes(Part::PageTable).room().unwrap_or(u64::MAX),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        // Pairs with the Release store in `raise_limit`: the entry of a page below the limit is there.
        self.limit.load(Ordering::Acquire)
    }

    pub(super) fn raise_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Release);
    }

    pub(super) fn memory_bytes(&self, volume: &Volume) -> u64 {
        self.leaves_loaded.load(Ordering::Relaxed) * volume.geometry.node_bytes() as u64
    }

    /// Stores an entry. Callers take turns.
    pub(super) fn store(&self, page: u64, entry: Entry) {
        self.words.store(page, entry);
    }

    /// The entry, if its leaf was read.
    pub(super) fn loaded(&self, page: u64) -> Option<Entry> {
        self.words.get(page).map(tree::load).filter(|entry| entry.0 != NOT_LOADED)
    }

    /// The entry of a page.
    pub(super) fn entry(&self, volume: &Volume, source: &dyn Source, page: u64) -> Result<Entry> {
        if page >= self.limit() {
            return Ok(Entry::ABSENT);
        }
        loop {
            if let Some(entry) = self.loaded(page) {
                return Ok(entry);
            }
            self.load(volume, source, page / volume.geometry.leaf_pages())?;
        }
    }

    /// Whether an entry is what it was, after the reads that came before in this thread.
    pub(super) fn is_still(&self, page: u64, entry: Entry) -> bool {
        self.words.is_still(page, entry)
    }

    /// Reads a leaf, unless it was read.
    #[cold]
    pub(super) fn load(&self, volume: &Volume, source: &dyn Source, leaf: u64) -> Result<()> {
        let geometry = volume.geometry;
        let first = leaf * geometry.leaf_pages();
        loop {
            let root = source.tree();
            self.check_room(volume, &root)?;
            let entries = match decode_leaf(volume, &root, leaf) {
                // The leaf was moved while it was read, and its old place is used again.
                Err(_) if source.tree() != root => continue,
                entries => entries?,
            };
            let (entries, is_new) = match entries {
                Some(entries) => (entries, false),
                None => (vec![Entry::ABSENT; geometry.leaf_pages() as usize], true),
            };
            self.words.reserve(first)?;
            // A leaf that is in no table yet was not changed by anyone: all changes are made in the table.
            source.exclusively(&mut || {
                if self.loaded(first).is_none() {
                    self.leaves_loaded.fetch_add(1, Ordering::Relaxed);
                    if is_new {
                        self.new_leaves.lock().insert(leaf);
                    }
                    for (page, entry) in (first..).zip(&entries) {
                        self.store(page, *entry);
                    }
                    self.note_runs(volume, first, &entries);
                }
            });
            return Ok(());
        }
    }

    /// As many leaves as there can be.
    pub(super) fn leaves_at_most(&self) -> u64 {
        self.leaves_max.saturating_add(self.new_leaves.lock().len() as u64)
    }

    /// That no more leaves were read than there can be: one that is in several places of a tree is damage.
    fn check_room(&self, volume: &Volume, root: &Tree) -> Result<()> {
        let loaded = self.leaves_loaded.load(Ordering::Relaxed);
        if loaded <= self.leaves_max.max(tree::FEW_NODES) {
            return Ok(());
        }
        let read = loaded.saturating_sub(self.new_leaves.lock().len() as u64);
        if read <= self.leaves_max.max(tree::FEW_NODES) {
            return Ok(());
        }
        Err(volume.nodes(Part::PageTable).too_many(&root.root, self.leaves_max))
    }

    /// The first leaf, from `leaf` on, that may have pages. Where a node cannot be read: the error, and the first leaf
    /// behind it.
    pub(super) fn next_leaf(
        &self,
        volume: &Volume,
        source: &dyn Source,
        leaf: u64,
    ) -> Result<Option<u64>, (Error, u64)> {
        #[cfg(mapfall_canary)] // a planted bug: from number to number, as far as the file claims to have pages
        if crate::canary::planted("page_table") {
            return Ok(Some(leaf));
        }
        if self.loaded(leaf.saturating_mul(volume.geometry.leaf_pages())).is_some() {
            return Ok(Some(leaf));
        }
        loop {
            let root = source.tree();
            self.check_room(volume, &root).map_err(|error| (error, u64::MAX))?;
            // What is in no tree was not in the file, and what was not read is as it was there.
            let in_tree = match tree::next_leaf(volume.nodes(Part::PageTable), &root, leaf) {
                Err(_) if source.tree() != root => continue,
                in_tree => in_tree?,
            };
            let new = self.new_leaves.lock().range(leaf..).next().copied();
            return Ok(in_tree.into_iter().chain(new).min());
        }
    }

    /// Notes where pages that were just stored lie one behind the other.
    fn note_runs(&self, volume: &Volume, first: u64, entries: &[Entry]) {
        let offset_of = |entry: &Entry| match entry.state() {
            PageState::Stored { offset_units, .. } => Some(offset_units),
            _ => None,
        };
        let page_units = volume.geometry.page_units();
        for (first, run) in (first..).step_by(Run::PAGES as usize).zip(entries.chunks_exact(Run::PAGES as usize)) {
            if let Some(start) = offset_of(&run[0])
                && (start..).step_by(page_units as usize).zip(run).all(|(at, entry)| offset_of(entry) == Some(at))
            {
                self.words.note_run(first, start);
            }
        }
    }

    /// Reads a page whose place its run tells. It does not wait for the page's entry, which is in no near cache. Says
    /// whether `buf` has the page.
    #[inline]
    fn read_in_run(&self, volume: &Volume, page: u64, run: Run<'_>, buf: &mut [u8]) -> bool {
        let offset = volume.geometry.offset(run.offset_units(volume.geometry.page_units()));
        let read = volume.io.read_at(offset, buf).is_ok();
        let whole = !volume.verify
            || self.words.get(page).map(tree::load).is_some_and(|entry| match entry.state() {
                PageState::Stored { offset_units, sequence, checksum } => {
                    volume.accepts(&page_address(volume, offset_units, sequence, checksum), buf)
                }
                _ => false,
            });
        read && whole && run.is_still()
    }

    /// Reads a page into a buffer of its length.
    #[inline]
    pub(super) fn read(&self, volume: &Volume, source: &dyn Source, page: u64, buf: &mut [u8]) -> Result<()> {
        check_len(u64::from(volume.geometry.page_bytes), buf.len())?;
        if page >= self.limit() {
            return Err(Error::NoSuchPage { page });
        }
        if let Some(cache) = &volume.cache {
            return match self.read_cached(volume, source, cache, page, buf) {
                Some(()) => Ok(()),
                None => self.read_otherwise(volume, source, page, buf),
            };
        }
        if let Some(run) = self.words.run(page) {
            if self.read_in_run(volume, page, run, buf) {
                return Ok(());
            }
        } else if let Some(words) = self.words.get(page) {
            let entry = tree::load(words);
            if let PageState::Stored { offset_units, sequence, checksum } = entry.state() {
                let address = page_address(volume, offset_units, sequence, checksum);
                let result = volume.io.read_at(address.offset, buf);
                // The block was this page's all the while.
                if tree::is_still(words, entry) && result.is_ok() && volume.accepts(&address, buf) {
                    return Ok(());
                }
            }
        }
        self.read_otherwise(volume, source, page, buf)
    }

    /// A page whose leaf was not read, that is not there, never written, rewritten just now, or unreadable.
    #[cold]
    fn read_otherwise(&self, volume: &Volume, source: &dyn Source, page: u64, buf: &mut [u8]) -> Result<()> {
        loop {
            let entry = self.entry(volume, source, page)?;
            match entry.state() {
                PageState::Absent => return Err(Error::NoSuchPage { page }),
                PageState::Zeros => {
                    buf.fill(0);
                    return Ok(());
                }
                PageState::Stored { offset_units, sequence, checksum } => {
                    let address = page_address(volume, offset_units, sequence, checksum);
                    let part = Part::Page(page);
                    let result = volume.read_proven(part, &address, buf);
                    // Both words are of the same write, and it was the page's when the read was over.
                    let mut settled = None;
                    source.exclusively(&mut || settled = self.loaded(page));
                    if settled == Some(entry) {
                        return result;
                    }
                }
            }
        }
    }
}

/// The address of a page's bytes.
#[inline]
pub(super) fn page_address(volume: &Volume, offset_units: u64, generation: u64, checksum: u32) -> BlockAddr {
    let Volume { geometry, .. } = volume;
    BlockAddr { offset: geometry.offset(offset_units), len_bytes: geometry.page_bytes, generation, checksum }
}

/// The entries of a leaf, in memory's form, if it is there.
pub(super) fn decode_leaf(volume: &Volume, root: &Tree, leaf: u64) -> Result<Option<Vec<Entry>>> {
    let nodes = volume.nodes(Part::PageTable);
    let Some(words) = tree::leaf(nodes, root, leaf)? else { return Ok(None) };
    decode_entries(volume, &words).map(Some).ok_or_else(|| {
        let first = leaf * volume.geometry.leaf_pages();
        nodes.corrupt(&root.root, format!("the leaf of page {first} has values that no page has"))
    })
}

/// Nothing where the words are no entries.
pub(super) fn decode_entries(volume: &Volume, words: &[u64]) -> Option<Vec<Entry>> {
    let data_start = volume.geometry.data_start_units();
    let decode = |words: &[u64; 2]| {
        Entry::from_disk(*words).filter(|entry| match entry.state() {
            PageState::Stored { offset_units, .. } => offset_units >= data_start,
            _ => true,
        })
    };
    words.as_chunks::<2>().0.iter().map(decode).collect()
}
