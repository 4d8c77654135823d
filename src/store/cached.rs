//! A store's blocks and pages through a cache.
//!
//! A cached block is called by its file, its checksum, its offset and its generation: all that its address says but the
//! length, which the cache holds against the reader's. So a hit is what a read with a verified checksum would be.
//!
//! A block that is freed, or a page that is written anew, leaves the cache when its entry changes. A read that began
//! before may bring it back; so each looks at the entry again when it is done, and takes out what is not the page's any
//! more. Whichever comes last sees the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::Pages;
use super::bypass::{BypassStats, CacheBypass, Meter};
use super::inner::Inner;
use super::pages::PageId;
use super::table::{Source, Table, page_address};
use super::volume::Volume;
use crate::cache::{BlockCache, CacheKey, CacheRead, CacheStats, CachedBlock};
use crate::error::{Error, Part, Result};
use crate::format::{BlockAddr, Entry, PageState};
use crate::io::BatchRead;
use crate::tree;

/// Pages that are read ahead at once.
const AHEAD: usize = 32;

/// What comes into the cache beside what is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheWrites {
    /// Nothing.
    #[default]
    No,
    /// Pages and blocks as they are written.
    OnWrite,
    /// The pages that a checkpoint has made durable, when it has.
    OnCheckpoint,
}

/// How a store uses a cache, which other stores may use too.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use std::sync::Arc;
/// use mapfall::{CacheOptions, CacheWrites, Store, StoreCache};
///
/// let cache = Arc::new(CacheOptions::new(64 << 20).build()?);
/// let use_of_cache = StoreCache::new(cache.clone()).writes(CacheWrites::OnWrite);
/// let store = Store::options().cache(use_of_cache).create(dir.path().join("store"))?;
/// let page = store.pages().allocate()?;
/// store.pages().write(page, &[7; 4096])?;
/// assert_eq!(store.pages().pin(page)?[..], [7; 4096]);
/// assert_eq!(cache.stats().hits, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct StoreCache {
    cache: Arc<BlockCache>,
    writes: CacheWrites,
    bypass: CacheBypass,
    warm_up: Option<PathBuf>,
}

impl StoreCache {
    /// The cache to use: [`CacheWrites::No`], [`CacheBypass::Auto`], no warm-up.
    #[must_use]
    pub fn new(cache: Arc<BlockCache>) -> Self {
        StoreCache { cache, writes: CacheWrites::No, bypass: CacheBypass::Auto, warm_up: None }
    }

    /// What comes into the cache beside what is read.
    #[must_use]
    pub fn writes(mut self, writes: CacheWrites) -> Self {
        self.writes = writes;
        self
    }

    /// Whether reads go past the cache.
    #[must_use]
    pub fn bypass(mut self, bypass: CacheBypass) -> Self {
        self.bypass = bypass;
        self
    }

    /// A file in which the cached blocks are noted when the store is closed, and from which they are read into the
    /// cache when it is opened: [`Store::save_warm_set`](super::Store::save_warm_set) and
    /// [`Store::load_warm_set`](super::Store::load_warm_set). What goes wrong with that is logged, and no more.
    #[must_use]
    pub fn warm_up(mut self, path: impl Into<PathBuf>) -> Self {
        self.warm_up = Some(path.into());
        self
    }
}

/// What a store did with its cache, and what the cache as a whole did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCacheStats {
    /// Whether and why reads go past the cache.
    pub bypass: BypassStats,
    /// The whole cache, with what other stores did in it.
    pub cache: CacheStats,
}

/// A volume's part of a cache.
#[derive(Debug)]
pub(super) struct FileCache {
    pub(super) cache: Arc<BlockCache>,
    file: u32,
    pub(super) writes: CacheWrites,
    pub(super) meter: Meter,
    pub(super) warm_up: Option<PathBuf>,
}

impl FileCache {
    pub(super) fn new(options: &StoreCache) -> Self {
        static FILES: AtomicU32 = AtomicU32::new(1);
        FileCache {
            cache: options.cache.clone(),
            // Relaxed: each is to be another, and no more.
            file: FILES.fetch_add(1, Ordering::Relaxed),
            writes: options.writes,
            meter: Meter::new(options.bypass),
            warm_up: options.warm_up.clone(),
        }
    }

    #[inline]
    pub(super) fn key(&self, address: &BlockAddr) -> CacheKey {
        let file = u64::from(self.file) << 32 | u64::from(address.checksum);
        CacheKey { file, offset: address.offset, generation: address.generation }
    }

    /// The blocks of this file that are in the cache.
    pub(super) fn addresses(&self) -> Vec<BlockAddr> {
        let of_file = |(key, len_bytes): (CacheKey, u32)| {
            let CacheKey { file, offset, generation } = key;
            (file >> 32 == u64::from(self.file)).then_some(BlockAddr {
                offset,
                len_bytes,
                generation,
                checksum: file as u32,
            })
        };
        self.cache.keys().into_iter().filter_map(of_file).collect()
    }

    /// The cache, unless reads are to go past it.
    #[inline]
    fn in_use(&self) -> Option<&BlockCache> {
        if self.meter.is_bypassed() { None } else { Some(&self.cache) }
    }

    /// Reads a block through the cache, or past it.
    #[inline]
    fn read(&self, address: &BlockAddr, buf: &mut [u8], load: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
        let begun = self.meter.begin();
        let load = |buf: &mut [u8]| {
            let begun = begun.at.map(|_| Instant::now());
            load(buf)?;
            begun.into_iter().for_each(|begun| self.meter.loaded(begun));
            Ok(())
        };
        if self.meter.goes_past(begun) {
            self.meter.count_bypassed();
            return load(buf);
        }
        let read = self.cache.get_or_load(&self.key(address), buf, load)?;
        if read == CacheRead::Hit {
            begun.at.into_iter().for_each(|begun| self.meter.hit(begun));
        }
        Ok(())
    }
}

impl Volume {
    /// Reads a block whose address can be one, and proves it.
    #[inline]
    pub(super) fn read_proven(&self, part: Part, address: &BlockAddr, buf: &mut [u8]) -> Result<()> {
        self.read_at(part, address.offset, buf)?;
        if self.verify { self.prove(part, address, buf) } else { Ok(()) }
    }

    /// As [`Volume::read_proven`], through the cache where there is one.
    pub(super) fn read_cached(&self, part: Part, address: &BlockAddr, buf: &mut [u8]) -> Result<()> {
        match &self.cache {
            Some(cache) => cache.read(address, buf, |buf| self.read_proven(part, address, buf)),
            None => self.read_proven(part, address, buf),
        }
    }

    /// Borrows a block from the cache, or reads it into memory of its own.
    pub(super) fn pin(&self, part: Part, address: &BlockAddr) -> Result<CachedBlock<'_>> {
        let len = address.len_bytes as usize;
        if let Some(cache) = &self.cache {
            if let Some(in_use) = cache.in_use() {
                return in_use.pin_or_load(&cache.key(address), len, |buf| self.read_proven(part, address, buf));
            }
            cache.meter.count_bypassed();
        }
        let mut owned = vec![0; len];
        self.read_proven(part, address, &mut owned)?;
        Ok(CachedBlock::owned(owned))
    }

    pub(super) fn cache_stats(&self) -> Option<StoreCacheStats> {
        let cache = self.cache.as_ref()?;
        Some(StoreCacheStats { bypass: cache.meter.stats(), cache: cache.cache.stats() })
    }

    /// A block is no more.
    pub(super) fn forget(&self, address: &BlockAddr) {
        if let Some(cache) = &self.cache {
            cache.cache.invalidate(&cache.key(address));
        }
    }

    /// The address of an entry that has one.
    pub(super) fn address_of(&self, entry: Entry) -> Option<BlockAddr> {
        match entry.state() {
            PageState::Stored { offset_units, sequence, checksum } => {
                Some(page_address(self, offset_units, sequence, checksum))
            }
            _ => None,
        }
    }

    /// A block was written.
    pub(super) fn note_written(&self, address: &BlockAddr, bytes: &[u8]) {
        if let Some(cache) = &self.cache
            && cache.writes == CacheWrites::OnWrite
            && let Some(in_use) = cache.in_use()
        {
            in_use.insert(&cache.key(address), bytes);
        }
    }
}

impl Table {
    /// Reads a page through the cache. Nothing where that cannot be, or went wrong, or the page was changed meanwhile:
    /// then it is to be read without.
    pub(super) fn read_cached(
        &self,
        volume: &Volume,
        source: &dyn Source,
        cache: &FileCache,
        page: u64,
        buf: &mut [u8],
    ) -> Option<()> {
        self.entry(volume, source, page).ok()?;
        let words = self.words.get(page)?;
        let entry = tree::load(words);
        let address = volume.address_of(entry)?;
        let result = cache.read(&address, buf, |buf| volume.read_proven(Part::Page(page), &address, buf));
        if tree::is_still(words, entry) {
            return result.ok();
        }
        volume.forget(&address);
        None
    }

    /// Copies out what is in the cache: whether the page was.
    pub(super) fn read_if_cached(&self, volume: &Volume, page: u64, entry: Entry, buf: &mut [u8]) -> bool {
        let found = volume.cache.as_ref().and_then(|cache| {
            let (in_use, address) = (cache.in_use()?, volume.address_of(entry)?);
            (address.len_bytes as usize == buf.len() && in_use.get(&cache.key(&address), buf)).then_some(())
        });
        found.is_some() && self.is_still(page, entry)
    }

    /// Puts a page that was read or written into the cache.
    pub(super) fn keep(&self, volume: &Volume, page: u64, entry: Entry, bytes: &[u8]) {
        if let Some(cache) = &volume.cache
            && let Some(in_use) = cache.in_use()
            && let Some(address) = volume.address_of(entry)
        {
            in_use.insert(&cache.key(&address), bytes);
            if !self.is_still(page, entry) {
                volume.forget(&address);
            }
        }
    }
}

impl Inner {
    /// Pages were written, and their entries installed.
    pub(super) fn note_pages_written(&self, batch: &[(PageId, &[u8])], written: &[Entry]) {
        if self.volume.cache.as_ref().is_some_and(|cache| cache.writes == CacheWrites::OnWrite) {
            for ((page, bytes), entry) in batch.iter().zip(written) {
                self.table.keep(&self.volume, page.0, *entry, bytes);
            }
        }
    }

    /// A checkpoint with these pages is durable.
    pub(super) fn note_durable(&self, changes: &BTreeMap<u64, Entry>) {
        if self.volume.cache.as_ref().is_some_and(|cache| cache.writes == CacheWrites::OnCheckpoint) {
            self.read_ahead(changes.keys().copied().map(PageId));
        }
    }

    /// Reads pages into the cache, as far as they can be read: how many.
    pub(super) fn read_ahead(&self, pages: impl IntoIterator<Item = PageId>) -> u64 {
        let Some(cache) = &self.volume.cache else { return 0 };
        let page_bytes = self.volume.geometry.page_bytes as usize;
        let mut bytes = vec![0; page_bytes * AHEAD];
        let mut missing = Vec::with_capacity(AHEAD);
        let mut pages = pages.into_iter();
        let mut read = 0;
        loop {
            missing.clear();
            let looked_at = pages.by_ref().take(AHEAD).inspect(|page| {
                let entry = self.table.entry(&self.volume, self, page.0).unwrap_or(Entry::ABSENT);
                let address =
                    self.volume.address_of(entry).filter(|address| !cache.cache.contains(&cache.key(address)));
                missing.extend(address.map(|address| (page.0, entry, address)));
            });
            if looked_at.count() == 0 || cache.in_use().is_none() {
                return read;
            }
            let buffers = bytes.chunks_exact_mut(page_bytes).zip(&missing);
            let mut batch: Vec<_> =
                buffers.map(|(buf, (_, _, address))| BatchRead { offset: address.offset, buf }).collect();
            // What cannot be read is seen by its checksum below, or when it is asked for.
            let all_read = self.volume.io.read_batch(&mut batch).is_ok();
            for ((page, entry, address), buf) in missing.iter().zip(bytes.chunks_exact(page_bytes)) {
                if all_read && self.volume.accepts(address, buf) {
                    self.table.keep(&self.volume, *page, *entry, buf);
                    read += 1;
                }
            }
        }
    }
}

impl Pages {
    /// Borrows the page's bytes from the cache, loading them if need be. Without a cache, or where it has no room, they
    /// are read into memory of their own.
    ///
    /// The bytes stay what they are, also when the page is written meanwhile. Hold them briefly: they count against the
    /// cache's budget.
    ///
    /// # Errors
    ///
    /// As [`Pages::read`].
    pub fn pin(&self, page: PageId) -> Result<CachedBlock<'_>> {
        let inner = &*self.inner;
        loop {
            let entry = inner.table.entry(&inner.volume, inner, page.0)?;
            let Some(address) = inner.volume.address_of(entry) else {
                return match entry.state() {
                    PageState::Zeros => Ok(CachedBlock::owned(vec![0; self.page_bytes()])),
                    _ => Err(Error::NoSuchPage { page: page.0 }),
                };
            };
            let pinned = inner.volume.pin(Part::Page(page.0), &address);
            // Both words are of the same write, and it was the page's when the read was over.
            let is_still = {
                let _meta = inner.meta.lock();
                inner.table.loaded(page.0) == Some(entry)
            };
            if is_still {
                return pinned;
            }
            inner.volume.forget(&address);
        }
    }

    /// Reads pages into the cache, ahead of being asked for: how many were read. Those that are there already, that
    /// cannot be read, or that do not exist are passed over. Without a cache, and while reads go past it, it does
    /// nothing.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let store = mapfall::Store::options().create(dir.path().join("store"))?;
    /// use mapfall::PageId;
    ///
    /// let read = store.pages().prefetch((0..1000).map(PageId));
    /// assert_eq!(read, 0); // this store has no cache
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prefetch(&self, pages: impl IntoIterator<Item = PageId>) -> u64 {
        self.inner.read_ahead(pages)
    }
}
