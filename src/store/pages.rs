//! Pages: blocks of one size under numbers that stay, whatever is written to them.

use std::sync::Arc;

use super::Store;
use super::inner::{Inner, Meta};
use super::table::{Source, page_address};
use super::volume::check_len;
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::{Entry, PAGES_MAX, PageState, Tree};
use crate::io::BatchRead;
use crate::tree;

/// The number of a page. It stays the page's until the page is freed; then it may be given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId(pub u64);

impl std::fmt::Display for PageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One read of a batch: a page, and where its bytes go.
#[derive(Debug)]
pub struct PageRead<'a> {
    /// The page.
    pub page: PageId,
    /// As long as a page.
    pub buf: &'a mut [u8],
}

/// The pages of a store. Any number of threads may use it at once.
///
/// Reads take no lock. A read that runs while its page is written returns the bytes before or after that write, never a
/// mixture: writes go elsewhere, and the page's entry moves there when they are done.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use mapfall::{CheckpointOptions, Store};
///
/// let store = Store::options().page_bytes(4096).create(dir.path().join("store"))?;
/// let pages = store.pages();
/// let page = pages.allocate()?;
/// pages.write(page, &[7; 4096])?;
///
/// let mut buf = [0; 4096];
/// pages.read(page, &mut buf)?;
/// assert_eq!(buf, [7; 4096]);
/// store.checkpoint(CheckpointOptions::new().cookie(b"root"))?; // now it is durable
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pages {
    pub(super) inner: Arc<Inner>,
}

impl Source for Inner {
    fn tree(&self) -> Tree {
        self.meta.lock().committed.pages
    }

    fn exclusively(&self, fill: &mut dyn FnMut()) {
        let _meta = self.meta.lock();
        fill();
    }
}

impl Store {
    /// The store's pages.
    #[must_use]
    pub fn pages(&self) -> Pages {
        Pages { inner: self.inner.clone() }
    }
}

impl Pages {
    /// How long a page is, in bytes.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.inner.volume.geometry.page_bytes as usize
    }

    /// How many pages are live.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.inner.meta.lock().live_pages
    }

    /// Makes a page. Until it is written it reads as zeros.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`]; [`Error::Io`] or [`Error::Corrupt`] where a node of the page table cannot be read.
    pub fn allocate(&self) -> Result<PageId> {
        let inner = &*self.inner;
        inner.check_writable()?;
        loop {
            let mut meta = inner.meta.lock();
            let (page, is_new) = match inner.free_page(&mut meta) {
                FreePage::Known(page) => (page, false),
                FreePage::New(page) if page >= PAGES_MAX => return Err(Error::NoSuchPage { page }),
                FreePage::New(page) => (page, true),
                FreePage::PerhapsIn(from) => {
                    let root = meta.committed.pages;
                    drop(meta);
                    let leaf = inner.leaf_with_room(&root, from)?;
                    inner.table.load(&inner.volume, inner, leaf)?;
                    inner.collect_free_pages(leaf);
                    continue;
                }
            };
            if inner.table.loaded(page).is_some() {
                inner.install(&mut meta, page, Entry::ABSENT, Entry::ZEROS);
                if is_new {
                    inner.table.raise_limit(page + 1);
                }
                return Ok(PageId(page));
            }
            drop(meta);
            inner.table.load(&inner.volume, inner, page / inner.volume.geometry.leaf_pages())?;
        }
    }

    /// Fills `buf` with the page.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPage`]; [`Error::WrongLength`] where `buf` is not as long as a page; [`Error::Corrupt`] where the
    /// bytes in the file are not those of the page; [`Error::Io`]. After an error `buf` holds bytes of no meaning.
    #[inline]
    pub fn read(&self, page: PageId, buf: &mut [u8]) -> Result<()> {
        self.inner.table.read(&self.inner.volume, &*self.inner, page.0, buf)
    }

    /// Does every read of a batch, in any order.
    ///
    /// # Errors
    ///
    /// [`Error::Batch`] with the first, in the batch's order, that failed: its error is as of [`Pages::read`]. The
    /// others were tried all the same.
    pub fn read_batch(&self, batch: &mut [PageRead<'_>]) -> Result<()> {
        self.inner.table.read_batch(&self.inner.volume, &*self.inner, batch)
    }

    /// Replaces the bytes of the page.
    ///
    /// They are durable after the next checkpoint. Of writes to one page at the same time one is the last.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPage`]; [`Error::WrongLength`] where `bytes` are not as many as a page has; [`Error::Io`], also
    /// where the disk is full; [`Error::Corrupt`] where a node of the store's trees is; [`Error::Poisoned`]. The page
    /// is what it was then.
    pub fn write(&self, page: PageId, bytes: &[u8]) -> Result<()> {
        self.write_batch(&[(page, bytes)])
    }

    /// Replaces the bytes of many pages: all or none, also as a checkpoint and readers of each page see it. Of a page
    /// that is in the batch twice, the last write counts.
    ///
    /// # Errors
    ///
    /// As [`Pages::write`]. Then no page was changed.
    pub fn write_batch(&self, batch: &[(PageId, &[u8])]) -> Result<()> {
        let inner = &*self.inner;
        let geometry = inner.volume.geometry;
        for (page, bytes) in batch {
            check_len(u64::from(geometry.page_bytes), bytes.len())?;
            if !inner.table.entry(&inner.volume, inner, page.0)?.is_live() {
                return Err(Error::NoSuchPage { page: page.0 });
            }
        }
        let mut written: Vec<Entry> = Vec::with_capacity(batch.len());
        let result = inner.write_blocks(batch.iter().map(|(_, bytes)| *bytes), &mut written);
        let mut guard = inner.meta.lock();
        let meta = &mut *guard;
        let gone = batch.iter().find(|(page, _)| !inner.table.loaded(page.0).is_some_and(Entry::is_live));
        let result = result.and(gone.map_or(Ok(()), |(page, _)| Err(Error::NoSuchPage { page: page.0 })));
        for (index, entry) in written.iter().enumerate() {
            meta.in_flight_units -= geometry.page_units();
            match (&result, inner.table.loaded(batch[index].0.0)) {
                (Ok(()), Some(old)) => inner.install(meta, batch[index].0.0, old, *entry),
                _ => inner.free_entry(meta, *entry),
            }
        }
        drop(guard);
        if result.is_ok() {
            inner.note_pages_written(batch, &written);
        }
        result
    }

    /// Makes an end of the page. Its number may be given out again at once.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPage`], [`Error::Poisoned`]; [`Error::Io`] or [`Error::Corrupt`] where its entry cannot be read.
    pub fn free(&self, page: PageId) -> Result<()> {
        let inner = &*self.inner;
        inner.check_writable()?;
        inner.table.entry(&inner.volume, inner, page.0)?;
        let mut meta = inner.meta.lock();
        let Some(old) = inner.table.loaded(page.0).filter(|old| old.is_live()) else {
            return Err(Error::NoSuchPage { page: page.0 });
        };
        inner.install(&mut meta, page.0, old, Entry::ABSENT);
        let leaf = page.0 / inner.volume.geometry.leaf_pages();
        if leaf < meta.ids.scanned_leaves || page.0 >= meta.ids.limit_at_open {
            meta.ids.known.push(page.0);
        } else {
            meta.ids.later.insert(page.0);
        }
        Ok(())
    }

    /// The live pages in the order of their numbers, each as of the moment when the iterator comes to it.
    ///
    /// An item is an error where a node of the page table cannot be read; the iterator goes on behind that node.
    pub fn iter(&self) -> impl Iterator<Item = Result<PageId>> + use<> {
        let (inner, same) = (self.inner.clone(), self.inner.clone());
        let next_leaf = move |leaf| same.table.next_leaf(&same.volume, &*same, leaf);
        live_pages(inner.volume.geometry.leaf_pages(), inner.table.limit(), next_leaf, move |page| {
            inner.table.entry(&inner.volume, &*inner, page)
        })
    }
}

/// The numbers of live pages. After an error the rest of its leaf, or of what is below its node, is left out.
///
/// `next_leaf` is the first leaf from one on that may have pages: a limit says nothing of how many there are.
pub(super) fn live_pages(
    leaf_pages: u64,
    limit: u64,
    next_leaf: impl Fn(u64) -> Result<Option<u64>, (Error, u64)>,
    entry: impl Fn(u64) -> Result<Entry>,
) -> impl Iterator<Item = Result<PageId>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        while next < limit {
            if next.is_multiple_of(leaf_pages) {
                let first = |leaf: u64| leaf.saturating_mul(leaf_pages);
                next = match next_leaf(next / leaf_pages) {
                    Ok(leaf) => leaf.map_or(limit, first),
                    Err((error, behind)) => {
                        next = first(behind);
                        return Some(Err(error));
                    }
                };
                if next >= limit {
                    break;
                }
            }
            let page = next;
            next += 1;
            match entry(page) {
                Ok(entry) if entry.is_live() => return Some(Ok(PageId(page))),
                Ok(_) => {}
                Err(error) => {
                    next = (page / leaf_pages + 1) * leaf_pages;
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

/// Where a number for a new page is.
enum FreePage {
    Known(u64),
    /// Behind all others.
    New(u64),
    /// In a leaf from this one on that was not looked at, perhaps.
    PerhapsIn(u64),
}

impl Inner {
    fn free_page(&self, meta: &mut Meta) -> FreePage {
        let leaf_pages = self.volume.geometry.leaf_pages();
        if let Some(page) = meta.ids.known.pop() {
            return FreePage::Known(page);
        }
        if meta.ids.scanned_leaves * leaf_pages < meta.ids.limit_at_open {
            return FreePage::PerhapsIn(meta.ids.scanned_leaves);
        }
        FreePage::New(self.table.limit())
    }

    /// The first leaf of the page table, from `from` on, that has free numbers.
    fn leaf_with_room(&self, root: &Tree, from: u64) -> Result<u64> {
        let nodes = self.volume.nodes(crate::error::Part::PageTable);
        let leaf_pages = self.volume.geometry.leaf_pages();
        let next = tree::first_with_room(nodes, root, from, leaf_pages)?;
        let mut meta = self.meta.lock();
        let ids = &mut meta.ids;
        let passed = next.min(ids.limit_at_open.div_ceil(leaf_pages));
        // Of leaves that were passed over, what was freed since. The lowest number is given out first.
        let behind = ids.later.split_off(&(passed * leaf_pages));
        let freed = std::mem::replace(&mut ids.later, behind);
        ids.known.extend(freed.into_iter().rev());
        ids.scanned_leaves = ids.scanned_leaves.max(passed);
        Ok(next)
    }

    /// Notes the free numbers of a leaf that was read, if it is the next one to be looked at.
    fn collect_free_pages(&self, leaf: u64) {
        let mut meta = self.meta.lock();
        let leaf_pages = self.volume.geometry.leaf_pages();
        if leaf == meta.ids.scanned_leaves && leaf * leaf_pages < meta.ids.limit_at_open {
            self.push_free_pages(&mut meta, leaf);
            let behind = meta.ids.later.split_off(&((leaf + 1) * leaf_pages));
            meta.ids.later = behind;
            meta.ids.scanned_leaves = leaf + 1;
        }
    }

    /// Those of a leaf that is in memory.
    fn push_free_pages(&self, meta: &mut Meta, leaf: u64) {
        let leaf_pages = self.volume.geometry.leaf_pages();
        let pages = leaf * leaf_pages..((leaf + 1) * leaf_pages).min(meta.ids.limit_at_open);
        // The lowest number is given out first.
        for page in pages.rev() {
            if self.table.loaded(page) == Some(Entry::ABSENT) {
                meta.ids.known.push(page);
            }
        }
    }

    /// Writes blocks of one page each, as far as it comes.
    fn write_blocks<'a>(
        &self,
        mut blocks: impl ExactSizeIterator<Item = &'a [u8]>,
        written: &mut Vec<Entry>,
    ) -> Result<()> {
        let page_units = self.volume.geometry.page_units();
        while blocks.len() > 0 {
            let most = page_units * blocks.len() as u64;
            let mut extent = self.take_space(most, page_units)?;
            let odd = extent.len % page_units;
            if odd > 0 {
                extent.len -= odd;
                self.return_space(&mut self.meta.lock(), Extent { start: extent.end(), len: odd });
            }
            while extent.len > 0 {
                let Some(bytes) = blocks.next() else { break };
                let result = self.next_sequence().and_then(|sequence| {
                    let offset = self.volume.geometry.offset(extent.start);
                    let checksum = self.volume.seeds.checksum(offset, sequence, bytes);
                    self.volume.io.write_at(offset, bytes)?;
                    Ok(Entry::stored(extent.start, sequence, checksum))
                });
                match result {
                    Ok(entry) => written.push(entry),
                    Err(error) => {
                        self.return_space(&mut self.meta.lock(), extent);
                        return Err(error);
                    }
                }
                extent.start += page_units;
                extent.len -= page_units;
            }
        }
        Ok(())
    }
}

impl super::table::Table {
    /// As [`Pages::read_batch`].
    pub(super) fn read_batch(
        &self,
        volume: &super::volume::Volume,
        source: &dyn Source,
        batch: &mut [PageRead<'_>],
    ) -> Result<()> {
        // The entries first, so that the waits for them overlap, then the blocks as a batch of the file's.
        // A leaf that was not read yet is read now, or its pages would be read one by one.
        let entry = |read: &PageRead<'_>| match self.loaded(read.page.0) {
            Some(entry) => entry,
            None => self.entry(volume, source, read.page.0).unwrap_or(Entry::ABSENT),
        };
        let entries: Vec<_> = batch.iter().map(entry).collect();
        let mut reads = Vec::with_capacity(batch.len());
        let mut cached = vec![false; batch.len()];
        for ((entry, read), cached) in entries.iter().zip(batch.iter_mut()).zip(&mut cached) {
            *cached = self.read_if_cached(volume, read.page.0, *entry, read.buf);
            if let PageState::Stored { offset_units, .. } = entry.state()
                && read.buf.len() == volume.geometry.page_bytes as usize
                && !*cached
            {
                reads.push(BatchRead { offset: volume.geometry.offset(offset_units), buf: read.buf });
            }
        }
        let all_read = volume.io.read_batch(&mut reads).is_ok();
        let mut first = None;
        for (index, (entry, read)) in entries.iter().zip(batch).enumerate() {
            if cached[index] {
                continue;
            }
            let whole = all_read
                && read.buf.len() == volume.geometry.page_bytes as usize
                && match entry.state() {
                    PageState::Stored { offset_units, sequence, checksum } => {
                        let address = page_address(volume, offset_units, sequence, checksum);
                        self.is_still(read.page.0, *entry) && volume.accepts(&address, read.buf)
                    }
                    _ => false,
                };
            if whole {
                self.keep(volume, read.page.0, *entry, read.buf);
            } else if let Err(error) = self.read(volume, source, read.page.0, read.buf) {
                first.get_or_insert((index, error));
            }
        }
        first.map_or(Ok(()), |(index, error)| Err(Error::Batch { index, source: Box::new(error) }))
    }
}
