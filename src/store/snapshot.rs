//! Reading a checkpoint, while the store goes on or in another process.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Store;
use super::inner::Inner;
use super::options::{StoreOptions, lock_file, read_names};
use super::pages::{PageId, PageRead, live_pages};
use super::readers::{self, LockedFile};
use super::table::{Source, Table};
use super::volume::{Volume, superblock};
use crate::error::{Error, Result};
use crate::format::{Names, Slot, Tree};
use crate::io::BlockIo;

/// A checkpoint, as it was: the last one when this was opened, or one that was kept under a name.
///
/// It sees none of the later writes, however long it lives, and what it needs of the file is not used for anything else
/// meanwhile. Any number of threads may use it.
#[derive(Debug)]
pub struct Snapshot {
    volume: Arc<Volume>,
    view: View,
    table: Table,
    fill: Mutex<()>,
    /// The slot it was found through, with the checkpoints that were kept then.
    slot: Slot,
    names: Names,
    /// Dropped last.
    _hold: Hold,
}

/// What a checkpoint is to its readers.
#[derive(Clone, Debug)]
struct View {
    generation: u64,
    pages: Tree,
    page_limit: u64,
    cookie: Vec<u8>,
    name: Option<String>,
}

/// What keeps the space of a snapshot from being used.
#[derive(Debug)]
enum Hold {
    /// An entry in the store's list.
    Store { inner: Arc<Inner>, generation: u64 },
    /// A lock on a byte of the file, which ends with the volume. Or nothing, where the caller brought the I/O.
    Volume,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Hold::Store { inner, generation } = self else { return };
        let mut meta = inner.meta.lock();
        if let Some((_, count)) = meta.snapshots.get_mut(generation) {
            *count -= 1;
            if *count == 0 {
                meta.snapshots.remove(generation);
            }
        }
        drop(meta);
        if let Err(error) = inner.release(Vec::new()) {
            tracing::warn!(%error, "space was not given back");
        }
    }
}

impl Source for Snapshot {
    fn tree(&self) -> Tree {
        self.view.pages
    }

    fn exclusively(&self, fill: &mut dyn FnMut()) {
        let _fill = self.fill.lock();
        fill();
    }
}

fn view(slot: &Slot, names: &Names, name: Option<&str>) -> Result<(View, u64)> {
    let Some(name) = name else {
        let Slot { generation, pages, page_limit, cookie, .. } = slot.clone();
        return Ok((View { generation, pages, page_limit, cookie, name: None }, slot.sequence));
    };
    let kept = names.find(name).ok_or_else(|| Error::NoSuchCheckpoint { name: name.to_owned() })?.clone();
    let (generation, pages, page_limit, cookie) = (kept.generation, kept.pages, kept.page_limit, kept.cookie);
    Ok((View { generation, pages, page_limit, cookie, name: Some(kept.name) }, kept.sequence))
}

impl Store {
    /// The last checkpoint.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        match self.snapshot_named(None) {
            Ok(snapshot) => snapshot,
            // Only a name can be wrong.
            Err(error) => unreachable!("{error}"),
        }
    }

    /// A checkpoint that was kept under a name.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchCheckpoint`].
    pub fn snapshot_of(&self, name: &str) -> Result<Snapshot> {
        self.snapshot_named(Some(name))
    }

    fn snapshot_named(&self, name: Option<&str>) -> Result<Snapshot> {
        let inner = &self.inner;
        let mut meta = inner.meta.lock();
        let (view, sequence) = view(&meta.committed, &meta.names, name)?;
        let generation = view.generation;
        let entry = meta.snapshots.entry(generation).or_insert((0, 0));
        *entry = (entry.0.max(sequence), entry.1 + 1);
        let hold = Hold::Store { inner: inner.clone(), generation };
        let (slot, names) = (meta.committed.clone(), meta.names.clone());
        drop(meta);
        Ok(Snapshot::new(inner.volume.clone(), view, slot, names, hold))
    }
}

impl StoreOptions {
    /// Opens the last checkpoint of a store for reading, whether or not it is open for writing elsewhere.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::NotAStore`], [`Error::Unsupported`], [`Error::Corrupt`].
    pub fn open_snapshot(&self, path: impl AsRef<Path>) -> Result<Snapshot> {
        self.open_snapshot_named(path.as_ref(), None)
    }

    /// Opens a checkpoint that was kept under a name for reading.
    ///
    /// # Errors
    ///
    /// As [`StoreOptions::open_snapshot`], and [`Error::NoSuchCheckpoint`].
    pub fn open_snapshot_of(&self, path: impl AsRef<Path>, name: &str) -> Result<Snapshot> {
        self.open_snapshot_named(path.as_ref(), Some(name))
    }

    /// Opens the last checkpoint of a store in I/O of the caller's, which nobody writes.
    ///
    /// # Errors
    ///
    /// As [`StoreOptions::open_snapshot`].
    pub fn open_snapshot_io(&self, io: Box<dyn BlockIo>) -> Result<Snapshot> {
        let path: Arc<Path> = Path::new("(own I/O)").into();
        let superblock = superblock(&*io, &path)?;
        let volume = self.volume(io, path, None, superblock);
        let slot = volume.newest_slot()?;
        let names = read_names(&volume, &slot)?;
        let (view, _) = view(&slot, &names, None)?;
        Ok(Snapshot::new(Arc::new(volume), view, slot, names, Hold::Volume))
    }

    fn open_snapshot_named(&self, path: &Path, name: Option<&str>) -> Result<Snapshot> {
        let io = self.read_only_io().open(path)?;
        let shared: Arc<Path> = path.into();
        let superblock = superblock(&*io, &shared)?;
        let volume = self.volume(io, shared, None, superblock);
        let lock = lock_file(path, false)?;
        let (slot, (view, names)) = readers::hold(&LockedFile { volume: &volume, lock: &lock }, |slot| {
            let names = read_names(&volume, slot)?;
            let (view, _) = view(slot, &names, name)?;
            Ok((view.generation, (view, names)))
        })?;
        let volume = Volume { lock: Some(lock), ..volume };
        Ok(Snapshot::new(Arc::new(volume), view, slot, names, Hold::Volume))
    }
}

impl Snapshot {
    fn new(volume: Arc<Volume>, view: View, slot: Slot, names: Names, hold: Hold) -> Self {
        let table = Table::new(view.page_limit, &volume);
        Snapshot { volume, view, table, fill: Mutex::new(()), slot, names, _hold: hold }
    }

    pub(super) fn volume(&self) -> &Volume {
        &self.volume
    }

    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Whether it was made by a store that is open for writing.
    pub(super) fn is_of_open_store(&self) -> bool {
        matches!(self._hold, Hold::Store { .. })
    }

    /// The checkpoint's generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.view.generation
    }

    /// The name that it is kept under, if it was opened by that.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.view.name.as_deref()
    }

    /// The embedder's root cookie.
    #[must_use]
    pub fn cookie(&self) -> &[u8] {
        &self.view.cookie
    }

    /// How many pages are live.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.view.pages.root.count
    }

    /// How long a page is, in bytes.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.volume.geometry.page_bytes as usize
    }

    /// Fills `buf` with a page.
    ///
    /// # Errors
    ///
    /// As [`super::Pages::read`].
    #[inline]
    pub fn read(&self, page: PageId, buf: &mut [u8]) -> Result<()> {
        self.table.read(&self.volume, self, page.0, buf)
    }

    /// Does every read of a batch, in any order.
    ///
    /// # Errors
    ///
    /// As [`super::Pages::read_batch`].
    pub fn read_batch(&self, batch: &mut [PageRead<'_>]) -> Result<()> {
        self.table.read_batch(&self.volume, self, batch)
    }

    /// The live pages in the order of their numbers.
    ///
    /// An item is an error where a node of the page table cannot be read; the iterator goes on behind that node.
    pub fn iter(&self) -> impl Iterator<Item = Result<PageId>> + '_ {
        let next_leaf = |leaf| self.table.next_leaf(&self.volume, self, leaf);
        live_pages(self.volume.geometry.leaf_pages(), self.view.page_limit, next_leaf, |page| {
            self.table.entry(&self.volume, self, page)
        })
    }

    /// What was done with the cache; that of the store where the store made it. Nothing without one.
    #[must_use]
    pub fn cache_stats(&self) -> Option<super::StoreCacheStats> {
        self.volume.cache_stats()
    }

    /// What was read so far through this snapshot's file; that of the store where the store made it.
    #[must_use]
    pub fn io_stats(&self) -> crate::stats::IoStats {
        self.volume.io.stats()
    }
}
