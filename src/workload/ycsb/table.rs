//! Records in a store: each is one page or several, found by the [`index`](super::index).
//!
//! Reads and updates take no lock but the index's, shared, for a lookup. An update of a part of a record holds the
//! record's latch, one of a few, between the read and the write. An insert writes the record's pages first and puts its
//! key into the index then; both between two cuts of checkpoints, so that no checkpoint has pages that no key leads to.

use std::path::Path;

use crossbeam_utils::sync::ShardedLock;
use parking_lot::{Mutex, RwLock};

use super::error::{Result, YcsbError};
use super::index::{Index, Root};
use super::record::{Key, Layout};
use crate::{CheckpointOptions, CheckpointReport, PageId, PageRead, Pages, Store};

/// What the cookie of a checkpoint begins with.
const MAGIC: [u8; 8] = *b"mfycsb01";
const NONE: u64 = u64::MAX;
/// Pages of the index that are written at once.
const BATCH_PAGES: usize = 256;
/// Records that are read at once in a scan.
pub(super) const SCAN_RECORDS: usize = 64;
const LATCHES: usize = 1024;

/// A store with records in it, open for writing.
#[derive(Debug)]
pub struct Table {
    store: Store,
    pages: Pages,
    layout: Layout,
    stride: usize,
    index: ShardedLock<Index>,
    /// Held shared by an insert, and exclusively for the cut of a checkpoint.
    inserting: RwLock<()>,
    one_checkpoint: Mutex<()>,
    latches: Box<[Mutex<()>]>,
}

/// Bytes and numbers that a thread needs for its operations.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) record: Vec<u8>,
    pub(super) pages: Vec<u64>,
    pub(super) scan: Vec<u8>,
    pub(super) scanned: Vec<Key>,
}

impl Table {
    /// Makes a table in an empty store.
    ///
    /// # Errors
    ///
    /// [`YcsbError::NotLoaded`] where something is in the store already; [`YcsbError::TooLarge`] where a record has
    /// more pages than the index can say.
    pub fn create(store: Store, layout: Layout) -> Result<Table> {
        if !store.cookie().is_empty() || store.pages().count() > 0 {
            return Err(YcsbError::NotLoaded { problem: "it has pages of someone else's".to_owned() });
        }
        let stride = stride(&layout, store.pages().page_bytes());
        let index = Index::new(store.pages().page_bytes(), stride)?;
        Ok(Table::with(store, layout, stride, index))
    }

    /// Opens the table of a store, and reads its index.
    ///
    /// # Errors
    ///
    /// [`YcsbError::NotLoaded`] where the store has none, [`YcsbError::Damaged`], [`YcsbError::Store`].
    pub fn open(store: Store) -> Result<Table> {
        let (root, layout) = decode_cookie(&store.cookie())?;
        let pages = store.pages();
        let stride = stride(&layout, pages.page_bytes());
        let index = Index::open(&pages, root, stride)?;
        Ok(Table::with(store, layout, stride, index))
    }

    fn with(store: Store, layout: Layout, stride: usize, index: Index) -> Table {
        let latches = (0..LATCHES).map(|_| Mutex::new(())).collect();
        Table {
            pages: store.pages(),
            store,
            layout,
            stride,
            index: ShardedLock::new(index),
            inserting: RwLock::new(()),
            one_checkpoint: Mutex::new(()),
            latches,
        }
    }

    /// The store that the records are in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What its records are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How many there are.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.read_index(Index::records)
    }

    /// Pages of the index, and what it takes of memory, in bytes.
    #[must_use]
    pub fn index_size(&self) -> (u64, u64) {
        self.read_index(|index| (index.page_count(), index.memory_bytes()))
    }

    /// Nothing panics under the lock, so it cannot be poisoned; if it were, what it has would still be whole.
    fn read_index<T>(&self, read: impl FnOnce(&Index) -> T) -> T {
        read(&self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn write_index<T>(&self, write: impl FnOnce(&mut Index) -> T) -> T {
        write(&mut self.index.write().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Looks a key up.
    fn find(&self, key: &Key, pages: &mut Vec<u64>) -> bool {
        pages.clear();
        self.read_index(|index| match index.find(key) {
            Some(found) => {
                pages.extend_from_slice(found);
                true
            }
            None => false,
        })
    }

    /// The length of a record's pages.
    fn span_bytes(&self) -> usize {
        self.stride * self.pages.page_bytes()
    }

    /// Copies a record out. Says whether it is there.
    pub(super) fn read(&self, key: &Key, scratch: &mut Scratch) -> Result<bool> {
        if !self.find(key, &mut scratch.pages) {
            return Ok(false);
        }
        scratch.record.resize(self.span_bytes(), 0);
        self.read_pages(&scratch.pages, &mut scratch.record)?;
        Ok(true)
    }

    fn read_pages(&self, pages: &[u64], buf: &mut [u8]) -> crate::Result<()> {
        if let [page] = pages {
            return self.pages.read(PageId(*page), buf);
        }
        let bufs = buf.chunks_mut(self.pages.page_bytes());
        let mut batch: Vec<_> =
            pages.iter().zip(bufs).map(|(page, buf)| PageRead { page: PageId(*page), buf }).collect();
        self.pages.read_batch(&mut batch)
    }

    fn write_pages(&self, pages: &[u64], bytes: &[u8]) -> crate::Result<()> {
        if let [page] = pages {
            return self.pages.write(PageId(*page), bytes);
        }
        let chunks = bytes.chunks(self.pages.page_bytes());
        let batch: Vec<_> = pages.iter().zip(chunks).map(|(page, bytes)| (PageId(*page), bytes)).collect();
        self.pages.write_batch(&batch)
    }

    /// Writes the record in `scratch` in place of the one that is there. Says whether one was.
    pub(super) fn replace(&self, key: &Key, scratch: &mut Scratch) -> Result<bool> {
        if !self.find(key, &mut scratch.pages) {
            return Ok(false);
        }
        scratch.record.resize(self.span_bytes(), 0);
        let _latch = self.latch(&scratch.pages);
        self.write_pages(&scratch.pages, &scratch.record)?;
        Ok(true)
    }

    /// Reads a record, has it changed, and writes it. Says whether it is there.
    pub(super) fn change(&self, key: &Key, scratch: &mut Scratch, change: impl FnOnce(&mut [u8])) -> Result<bool> {
        if !self.find(key, &mut scratch.pages) {
            return Ok(false);
        }
        scratch.record.resize(self.span_bytes(), 0);
        let _latch = self.latch(&scratch.pages);
        self.read_pages(&scratch.pages, &mut scratch.record)?;
        change(&mut scratch.record[..self.layout.record_bytes()]);
        self.write_pages(&scratch.pages, &scratch.record)?;
        Ok(true)
    }

    fn latch(&self, pages: &[u64]) -> parking_lot::MutexGuard<'_, ()> {
        let page = pages.first().copied().unwrap_or(0);
        self.latches[page as usize % LATCHES].lock()
    }

    /// Puts the record in `scratch` under a key, in place of one that is there.
    pub(super) fn insert(&self, key: &Key, scratch: &mut Scratch) -> Result<()> {
        scratch.record.resize(self.span_bytes(), 0);
        let _inserting = self.inserting.read();
        if self.find(key, &mut scratch.pages) {
            let _latch = self.latch(&scratch.pages);
            return Ok(self.write_pages(&scratch.pages, &scratch.record)?);
        }
        let written = self.make_pages(scratch);
        if written.is_err() {
            // Else they would be in the next checkpoint, and nobody would know of them.
            for page in &scratch.pages {
                let _ = self.pages.free(PageId(*page));
            }
            return written;
        }
        self.write_index(|index| index.insert(*key, &scratch.pages));
        Ok(())
    }

    fn make_pages(&self, scratch: &mut Scratch) -> Result<()> {
        for _ in 0..self.stride {
            scratch.pages.push(self.pages.allocate()?.0);
        }
        Ok(self.write_pages(&scratch.pages, &scratch.record)?)
    }

    /// Copies up to `count` records out, in the order of their keys, from the first that is not below `from`. Shows
    /// them as they come, some at a time: their keys, and their bytes, each from a multiple of the given length on.
    /// Says how many there were.
    pub(super) fn scan(
        &self,
        from: &Key,
        count: u64,
        scratch: &mut Scratch,
        mut show: impl FnMut(&[Key], &[u8], usize),
    ) -> Result<u64> {
        scratch.pages.clear();
        scratch.scanned.clear();
        self.read_index(|index| {
            index.scan(from, usize::try_from(count).unwrap_or(usize::MAX), |key, pages| {
                scratch.scanned.push(*key);
                scratch.pages.extend_from_slice(pages);
            });
        });
        let span_bytes = self.span_bytes();
        scratch.scan.resize(span_bytes * SCAN_RECORDS.min(scratch.scanned.len()), 0);
        let pages = scratch.pages.chunks(SCAN_RECORDS * self.stride);
        for (keys, pages) in scratch.scanned.chunks(SCAN_RECORDS).zip(pages) {
            let buf = &mut scratch.scan[..keys.len() * span_bytes];
            self.read_pages(pages, buf)?;
            show(keys, buf, span_bytes);
        }
        Ok(scratch.scanned.len() as u64)
    }

    /// Makes everything so far durable: the records and the index.
    ///
    /// Inserts wait while what has changed of the index since the last look is written; reads and updates do not.
    ///
    /// # Errors
    ///
    /// [`YcsbError::Store`]. The index is then written as a whole with the next checkpoint.
    pub fn checkpoint(&self) -> Result<CheckpointReport> {
        let _one = self.one_checkpoint.lock();
        // Most of it, so that inserts wait only for what changes meanwhile.
        self.write_changed()?;
        let inserting = self.inserting.write();
        self.write_changed()?;
        let cookie = encode_cookie(self.read_index(Index::root), &self.layout)?;
        let pending = self.store.begin_checkpoint(CheckpointOptions::new().cookie(&cookie))?;
        drop(inserting);
        Ok(pending.commit()?)
    }

    fn write_changed(&self) -> Result<()> {
        let changed = self.write_index(|index| {
            index.assign_pages(&self.pages)?;
            Ok::<_, YcsbError>(index.take_changed())
        })?;
        for pages in changed.chunks(BATCH_PAGES) {
            let batch: Vec<_> = pages.iter().map(|(page, bytes)| (*page, bytes.as_slice())).collect();
            if let Err(error) = self.pages.write_batch(&batch) {
                self.write_index(Index::mark_all);
                return Err(error.into());
            }
        }
        Ok(())
    }
}

fn stride(layout: &Layout, page_bytes: usize) -> usize {
    layout.record_bytes().div_ceil(page_bytes)
}

/// The cookie: the magic, the first page of the index's list or all ones, the records, and the layout as JSON.
fn encode_cookie(root: Root, layout: &Layout) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(layout)
        .map_err(|error| YcsbError::NotLoaded { problem: format!("its layout cannot be written: {error}") })?;
    let list = root.list.map_or(NONE, |page| page.0);
    Ok([&MAGIC[..], &list.to_le_bytes(), &root.records.to_le_bytes(), &json].concat())
}

fn decode_cookie(cookie: &[u8]) -> Result<(Root, Layout)> {
    let foreign = |problem: String| YcsbError::NotLoaded { problem };
    let numbers = cookie.strip_prefix(&MAGIC).map(|rest| rest.split_at_checked(16));
    let Some(Some((numbers, json))) = numbers else {
        return Err(foreign(format!("expected a root cookie of theirs, found {} other bytes", cookie.len())));
    };
    let number = |at: usize| numbers[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let layout: Layout =
        serde_json::from_slice(json).map_err(|error| foreign(format!("their layout cannot be read: {error}")))?;
    if layout.record_bytes() == 0 {
        return Err(foreign("its records have no bytes".to_owned()));
    }
    let list = Some(number(0)).filter(|list| *list != NONE).map(PageId);
    Ok((Root { list, records: number(8) }, layout))
}

/// Whether a store was loaded by this driver, and what its records are, as of the last checkpoint.
///
/// # Errors
///
/// [`YcsbError::Store`] where it cannot be read, [`YcsbError::NotLoaded`].
pub fn describe(path: &Path) -> Result<(Layout, u64)> {
    let snapshot = Store::options().open_snapshot(path)?;
    let (root, layout) = decode_cookie(snapshot.cookie())?;
    Ok((layout, root.records))
}
