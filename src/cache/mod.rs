//! A cache of verified blocks. It knows neither files nor formats.
//!
//! ```text
//! get ── Index (no lock) ── Frames: copy, look again ──────────── hit
//!  └─ load ── Shard, with its lock: single-flight ── Room: who leaves ── Policy
//! ```

mod block;
mod flight;
mod index;
mod key;
mod options;
pub(crate) mod policy;
mod room;
mod shard;
#[cfg(feature = "workload")]
pub(crate) mod sim;
mod stats;

use std::sync::atomic::Ordering::Relaxed;

pub use block::CachedBlock;
use crossbeam_utils::CachePadded;
pub use key::CacheKey;
pub use options::CacheOptions;
pub use policy::CachePolicy;
use shard::Shard;
pub use stats::CacheStats;
use thread_local::ThreadLocal;

use crate::error::Result;
use crate::sys::sync::{AtomicU64, Mutex};

/// Where a read found its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheRead {
    /// In the cache.
    Hit,
    /// In the cache, when the load of another thread had ended.
    Joined,
    /// It was loaded.
    Loaded,
}

/// Blocks in memory, within a budget in bytes. Any number of threads may use it at once.
///
/// A hit takes no lock and writes to no memory that another thread reads, but for a counter of the block's that soon
/// stops. Blocks that many threads miss at once are loaded once. Blocks may be of any length up to an eighth of a
/// shard's share of the budget ([`BlockCache::longest_block_bytes`]); longer ones are loaded and not kept.
///
/// ```
/// use mapfall::{CacheKey, CacheOptions, CacheRead};
///
/// let cache = CacheOptions::new(16 << 20).build()?;
/// let key = CacheKey { file: 1, offset: 8192, generation: 3 };
/// let mut buf = [0; 4096];
/// let load = |buf: &mut [u8]| Ok(buf.fill(7)); // from the file
/// assert_eq!(cache.get_or_load(&key, &mut buf, load)?, CacheRead::Loaded);
/// assert!(cache.get(&key, &mut buf));
/// assert_eq!(cache.pin(&key).as_deref(), Some(&buf[..]));
/// # Ok::<(), mapfall::Error>(())
/// ```
#[derive(Debug)]
pub struct BlockCache {
    shards: Box<[CachePadded<Shard>]>,
    /// How far a hash is shifted for its shard's number.
    shift: u32,
    /// Of each thread: hits by shard.
    hits: CachePadded<ThreadLocal<Box<[AtomicU64]>>>,
    budget_bytes: AtomicU64,
    budget_max_bytes: u64,
    /// Budgets are given one after the other.
    resizing: Mutex<()>,
}

impl BlockCache {
    fn with_shards(options: &CacheOptions, shards: usize, budget_max_bytes: u64) -> Option<Self> {
        let count = shards as u64;
        let shard = |_| {
            let (share_bytes, share_max_bytes) = (options.budget_bytes / count, budget_max_bytes.div_ceil(count));
            Shard::new(options.policy, share_bytes, share_max_bytes).map(CachePadded::new)
        };
        Some(BlockCache {
            shards: (0..shards).map(shard).collect::<Option<_>>()?,
            shift: u64::BITS - shards.ilog2(),
            hits: CachePadded::new(ThreadLocal::new()),
            budget_bytes: AtomicU64::new(options.budget_bytes),
            budget_max_bytes,
            resizing: Mutex::new(()),
        })
    }

    #[inline]
    fn place(&self, key: &CacheKey) -> (usize, u64) {
        let hash = key.hash64();
        // One shard is a shift by all bits, which is 0.
        (hash.checked_shr(self.shift).unwrap_or(0) as usize, hash)
    }

    #[inline]
    fn count_hit(&self, shard: usize) {
        let cells = self.hits.get_or(|| (0..self.shards.len()).map(|_| AtomicU64::new(0)).collect());
        // Only this thread writes it.
        if let Some(cell) = cells.get(shard) {
            cell.store(cell.load(Relaxed) + 1, Relaxed);
        }
    }

    /// Copies a block into a buffer of its length, if it is there. If not, the buffer has bytes of no meaning.
    ///
    /// While the cache's table grows, a block that is there may be missed.
    #[inline]
    pub fn get(&self, key: &CacheKey, buf: &mut [u8]) -> bool {
        let (shard, hash) = self.place(key);
        let found = self.shards[shard].read(&key.words(), hash, buf);
        if found {
            self.count_hit(shard);
        } else {
            self.shards[shard].count_miss();
        }
        found
    }

    /// Fills `buf` with a block: from the cache, or by `load`, which is called at most once, and by one thread at a
    /// time for each block. What it loads is kept if there is room.
    ///
    /// `load` must not ask this cache for blocks.
    ///
    /// # Errors
    ///
    /// What `load` returns, in this thread or in the one whose load this one waited for. After an error the buffer has
    /// bytes of no meaning.
    #[inline]
    pub fn get_or_load(
        &self,
        key: &CacheKey,
        buf: &mut [u8],
        load: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<CacheRead> {
        let (shard, hash) = self.place(key);
        if self.shards[shard].read(&key.words(), hash, buf) {
            self.count_hit(shard);
            return Ok(CacheRead::Hit);
        }
        self.shards[shard].load(&key.words(), hash, buf, load)
    }

    /// Borrows a block, if it is there. While the cache's table grows, one may be missed.
    pub fn pin(&self, key: &CacheKey) -> Option<CachedBlock<'_>> {
        let (shard, hash) = self.place(key);
        let pinned = self.shards[shard].pin(&key.words(), hash);
        match &pinned {
            Some(_) => self.count_hit(shard),
            None => self.shards[shard].count_miss(),
        }
        pinned.map(|pinned| CachedBlock::pinned(&self.shards[shard], pinned))
    }

    /// Borrows a block of `len_bytes`: from the cache, or after a `load` into it, as by [`BlockCache::get_or_load`].
    /// Where the cache has no room for it, the bytes are in memory of their own, which is not the cache's.
    ///
    /// # Errors
    ///
    /// As [`BlockCache::get_or_load`].
    pub fn pin_or_load(
        &self,
        key: &CacheKey,
        len_bytes: usize,
        load: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<CachedBlock<'_>> {
        let (at, hash) = self.place(key);
        let shard = &self.shards[at];
        let found = shard.pin(&key.words(), hash).map(|pinned| CachedBlock::pinned(shard, pinned));
        if let Some(block) = found.filter(|block| block.len() == len_bytes) {
            self.count_hit(at);
            return Ok(block);
        }
        let loaded = shard.load_pinned(&key.words(), hash, len_bytes, load)?;
        Ok(loaded.map_or_else(CachedBlock::owned, |pinned| CachedBlock::pinned(shard, pinned)))
    }

    /// Puts a block in, for one that was just written or read ahead. Says whether it is there now.
    pub fn insert(&self, key: &CacheKey, bytes: &[u8]) -> bool {
        let (shard, hash) = self.place(key);
        self.shards[shard].insert(&key.words(), hash, bytes)
    }

    /// Whether a block is there. It is no lookup: nothing is counted.
    #[must_use]
    pub fn contains(&self, key: &CacheKey) -> bool {
        let (shard, hash) = self.place(key);
        self.shards[shard].contains(&key.words(), hash)
    }

    /// Makes an end of a block that was freed. One that is being loaded at the same time does not come in.
    ///
    /// Who has it pinned keeps it until then. Says whether it was there or under way.
    pub fn invalidate(&self, key: &CacheKey) -> bool {
        let (shard, hash) = self.place(key);
        self.shards[shard].invalidate(&key.words(), hash)
    }

    /// Makes an end of all blocks of which `which` says so, as by [`BlockCache::invalidate`]: how many. It looks at
    /// every block.
    pub fn invalidate_where(&self, which: impl Fn(&CacheKey) -> bool) -> u64 {
        self.shards.iter().map(|shard| shard.invalidate_where(&which)).sum()
    }

    /// Gives the cache another budget, at most [`BlockCache::budget_max_bytes`]: the one it has now.
    ///
    /// When this returns, the cache uses no more than that, tables included, but for blocks that are pinned: they leave
    /// when they are unpinned, and until then [`CacheStats::used_bytes`] may be more than the budget. It waits for
    /// loads by [`BlockCache::pin_or_load`] that are under way, and for no others.
    pub fn resize(&self, budget_bytes: u64) -> u64 {
        let budget_bytes = budget_bytes.min(self.budget_max_bytes);
        let _turn = self.resizing.lock();
        let mut kept = true;
        for shard in &self.shards {
            kept &= shard.set_share(budget_bytes / self.shards.len() as u64);
        }
        if !kept {
            tracing::debug!(budget_bytes, "pinned blocks keep the cache above its budget");
        }
        self.budget_bytes.store(budget_bytes, Relaxed);
        budget_bytes
    }

    /// What the cache may use, in bytes.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes.load(Relaxed)
    }

    /// The largest budget that it can be given, in bytes.
    #[must_use]
    pub fn budget_max_bytes(&self) -> u64 {
        self.budget_max_bytes
    }

    /// The longest block that is kept, in bytes.
    #[must_use]
    pub fn longest_block_bytes(&self) -> u64 {
        self.shards[0].longest_bytes()
    }

    /// The blocks that are there, with their lengths in bytes, in no order.
    #[must_use]
    pub fn keys(&self) -> Vec<(CacheKey, u32)> {
        self.shards.iter().flat_map(|shard| shard.keys()).collect()
    }

    /// What was counted, of all shards together.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let mut sum = CacheStats::default();
        self.shard_stats().iter().for_each(|shard| sum.add(shard));
        sum.budget_bytes = self.budget_bytes();
        sum
    }

    /// What was counted in each shard.
    #[must_use]
    pub fn shard_stats(&self) -> Vec<CacheStats> {
        let of = |(number, shard): (usize, &CachePadded<Shard>)| {
            let mut stats = shard.stats();
            stats.hits += self.hits.iter().map(|cells| cells[number].load(Relaxed)).sum::<u64>();
            stats
        };
        self.shards.iter().enumerate().map(of).collect()
    }

    /// Recomputes all sums and looks at every block. For tests.
    ///
    /// # Errors
    ///
    /// What does not add up.
    pub fn validate(&self) -> Result<(), String> {
        self.shards.iter().try_for_each(|shard| shard.validate())
    }
}
