//! The block store: pages and blocks in one file that describes itself, made durable by checkpoints.
//!
//! | file | what it has |
//! |---|---|
//! | `volume` | the file: superblock, slots, proven reads |
//! | `options` | making and opening |
//! | `space` | which units are free |
//! | `table` | the page table in memory |
//! | `inner` | the state of a store that is open for writing, and its lock |
//! | `pages`, `blocks` | the two handles |
//! | `checkpoint`, `commit`, `sink`, `held` | checkpoints |
//! | `snapshot`, `readers` | reading a checkpoint, and holding it against a writer in another process |
//! | `hints` | what is known of reads to come |
//! | `compact` | moving pages down |
//! | `salvage` | what can be read of a damaged file |
//! | `info` | what a file is, and where its parts are |
//! | `verify`, `audit`, `units` | whether all is as it should be |

mod audit;
mod blocks;
mod bypass;
mod cached;
mod checkpoint;
mod commit;
mod compact;
mod held;
mod hints;
mod info;
mod inner;
mod options;
mod pages;
mod readers;
mod salvage;
mod sink;
mod snapshot;
mod space;
mod table;
mod units;
mod verify;
mod volume;
mod warm;

use std::sync::Arc;

pub use blocks::Blocks;
pub use bypass::{BypassStats, CacheBypass};
pub use cached::{CacheWrites, StoreCache, StoreCacheStats};
pub use checkpoint::{CheckpointOptions, CheckpointReport, PendingCheckpoint};
pub use compact::{CompactProgress, Compaction};
pub use info::{HeaderCopy, Layout, StoreInfo, TreeInfo};
pub use options::{StoreOptions, Verification};
pub use pages::{PageId, PageRead, Pages};
pub use salvage::SalvageReport;
pub use snapshot::Snapshot;
pub use verify::{Problem, ProblemKind, VerifyOptions, VerifyReport};

use inner::Inner;

use crate::stats::IoStats;

/// A store that is open for writing.
///
/// Any number of threads may use it and its handles. Dropped, it makes nothing durable: what was written after the last
/// [`Store::checkpoint`] is gone, as after a crash.
#[derive(Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What a store that is open for writing has, now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// The generation of the last checkpoint.
    pub generation: u64,
    /// Live pages.
    pub pages: u64,
    /// Pages written, allocated or freed since the last cut of a checkpoint.
    pub pages_changed: u64,
    /// Kept checkpoints.
    pub kept_checkpoints: u64,
    /// Open snapshots of this process.
    pub snapshots: u64,
    /// The length of the file, as far as the store uses it.
    pub file_bytes: u64,
    /// Free space that the store knows of. Space maps are read as they are needed, so there may be more.
    pub free_bytes: u64,
    /// Extents that the free space is in.
    pub free_extents: u64,
    /// Space that the last checkpoint does not have, and that snapshots or other processes still read.
    pub deferred_bytes: u64,
    /// Space of writes that are not done.
    pub in_flight_bytes: u64,
    /// Memory of the page table.
    pub page_table_bytes: u64,
    /// Whether other processes read a checkpoint that is older than this handle. Until they end, only new space at the
    /// end of the file is used.
    pub is_quarantined: bool,
}

/// A checkpoint that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: u64,
    /// Its live pages.
    pub pages: u64,
    /// Its root cookie.
    pub cookie: Vec<u8>,
}

impl CheckpointInfo {
    fn of(kept: &crate::format::Name) -> Self {
        CheckpointInfo {
            name: kept.name.clone(),
            generation: kept.generation,
            pages: kept.pages.root.count,
            cookie: kept.cookie.clone(),
        }
    }
}

impl Store {
    /// Options to make or open a store with.
    #[must_use]
    pub fn options() -> StoreOptions {
        StoreOptions::new()
    }

    /// The generation of the last checkpoint.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.meta.lock().committed.generation
    }

    /// The root cookie of the last checkpoint.
    #[must_use]
    pub fn cookie(&self) -> Vec<u8> {
        self.inner.meta.lock().committed.cookie.clone()
    }

    /// The checkpoints that are kept, the oldest first.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        self.inner.meta.lock().names.0.iter().map(CheckpointInfo::of).collect()
    }

    /// What the store has, now.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let inner = &*self.inner;
        let bytes = |units| inner.volume.geometry.offset(units);
        let meta = inner.meta.lock();
        StoreStats {
            generation: meta.committed.generation,
            pages: meta.live_pages,
            pages_changed: meta.changes.len() as u64,
            kept_checkpoints: meta.names.0.len() as u64,
            snapshots: meta.snapshots.values().map(|(_, count)| *count as u64).sum(),
            file_bytes: bytes(meta.space.end()),
            free_bytes: bytes(meta.space.free().total_units()),
            free_extents: meta.space.free().extents() as u64,
            deferred_bytes: bytes(meta.deferred.iter().map(|freed| freed.extent.len).sum()),
            in_flight_bytes: bytes(meta.in_flight_units),
            page_table_bytes: inner.table.memory_bytes(&inner.volume),
            is_quarantined: meta.space.is_quarantined(),
        }
    }

    /// What was done with the cache. Nothing without one.
    #[must_use]
    pub fn cache_stats(&self) -> Option<StoreCacheStats> {
        self.inner.volume.cache_stats()
    }

    /// What the file's I/O did so far.
    #[must_use]
    pub fn io_stats(&self) -> IoStats {
        self.inner.volume.io.stats()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.save_for_warm_up();
        // Free space at the end is in no checkpoint, so nobody misses it.
        if self.volume.lock.is_some()
            && !self.is_poisoned()
            && let Err(error) = self.meta.get_mut().space.trim(&self.volume, true)
        {
            tracing::debug!(%error, "the file was not shortened");
        }
    }
}

fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
