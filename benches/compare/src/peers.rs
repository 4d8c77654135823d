//! The other caches, each as its documentation says to use it.

use std::convert::Infallible;
use std::sync::Arc;

use foldhash::fast::FixedState;
use foyer_memory::{CacheBuilder, CacheProperties, EvictionConfig};
use lru::LruCache;
use mapfall::CacheKey;
use parking_lot::Mutex;
use quick_cache::{OptionsBuilder, Weighter};

use crate::Result;
use crate::contender::{Blocks, Size};

/// A block in an allocation of its own.
type Block = Arc<[u8]>;

/// Weighs a block by its bytes.
#[derive(Clone)]
pub(crate) struct ByBytes;

impl Weighter<CacheKey, Block> for ByBytes {
    fn weight(&self, _key: &CacheKey, block: &Block) -> u64 {
        block.len() as u64
    }
}

/// `quick_cache`: S3-FIFO of a kind, sharded, readers share a shard's lock.
pub(crate) struct QuickCache(quick_cache::sync::Cache<CacheKey, Block, ByBytes, FixedState>);

impl QuickCache {
    pub(crate) fn new(size: &Size) -> Result<Self> {
        let blocks = usize::try_from(size.bytes)? / size.block_bytes;
        let options = OptionsBuilder::new()
            .shards(size.shards)
            .estimated_items_capacity(blocks)
            .weight_capacity(size.bytes)
            .build()?;
        let lifecycle = quick_cache::sync::DefaultLifecycle::default();
        Ok(QuickCache(quick_cache::sync::Cache::with_options(options, ByBytes, FixedState::default(), lifecycle)))
    }
}

impl Blocks for QuickCache {
    #[inline]
    fn get(&self, key: &CacheKey, buf: &mut [u8]) -> bool {
        self.0.get(key).map(|block| buf.copy_from_slice(&block)).is_some()
    }

    #[inline]
    fn get_or_load(&self, key: &CacheKey, buf: &mut [u8], load: impl FnOnce(&mut [u8])) -> bool {
        let mut hit = true;
        let found = self.0.get_or_insert_with(key, || {
            hit = false;
            load(buf);
            Ok::<_, Infallible>(Block::from(&*buf))
        });
        if let (true, Ok(block)) = (hit, found) {
            buf.copy_from_slice(&block);
        }
        hit
    }

    fn blocks(&self) -> u64 {
        self.0.len() as u64
    }
}

/// `foyer-memory`: the part of `foyer` that is in memory. What it hands out is counted by itself, so a hit copies from
/// that, and the block's own count stays as it is. Its single-flight is for async callers: here a miss is a get, a
/// load, and an insert.
pub(crate) struct Foyer(foyer_memory::Cache<CacheKey, Block, FixedState, CacheProperties>);

impl Foyer {
    pub(crate) fn new(size: &Size, policy: impl Into<EvictionConfig>) -> Self {
        let capacity = usize::try_from(size.bytes).unwrap_or(usize::MAX);
        let builder = CacheBuilder::new(capacity)
            .with_shards(size.shards)
            .with_hash_builder(FixedState::default())
            .with_weighter(|_: &CacheKey, block: &Block| block.len())
            .with_eviction_config(policy);
        Foyer(builder.build())
    }
}

impl Blocks for Foyer {
    #[inline]
    fn get(&self, key: &CacheKey, buf: &mut [u8]) -> bool {
        self.0.get(key).map(|block| buf.copy_from_slice(&block)).is_some()
    }

    #[inline]
    fn get_or_load(&self, key: &CacheKey, buf: &mut [u8], load: impl FnOnce(&mut [u8])) -> bool {
        let hit = self.get(key, buf);
        if !hit {
            load(buf);
            drop(self.0.insert(*key, Block::from(&*buf)));
        }
        hit
    }

    fn blocks(&self) -> u64 {
        self.0.entries() as u64
    }
}

/// `moka::sync::Cache`: W-TinyLFU, with a concurrent hash table and queues of what is to be noted.
pub(crate) struct Moka(moka::sync::Cache<CacheKey, Block, FixedState>);

impl Moka {
    pub(crate) fn new(size: &Size) -> Self {
        let builder = moka::sync::Cache::builder()
            .max_capacity(size.bytes)
            .initial_capacity(usize::try_from(size.bytes).unwrap_or(0) / size.block_bytes)
            .weigher(|_: &CacheKey, block: &Block| u32::try_from(block.len()).unwrap_or(u32::MAX));
        Moka(builder.build_with_hasher(FixedState::default()))
    }
}

impl Blocks for Moka {
    #[inline]
    fn get(&self, key: &CacheKey, buf: &mut [u8]) -> bool {
        self.0.get(key).map(|block| buf.copy_from_slice(&block)).is_some()
    }

    #[inline]
    fn get_or_load(&self, key: &CacheKey, buf: &mut [u8], load: impl FnOnce(&mut [u8])) -> bool {
        let mut hit = true;
        let block = self.0.get_with_by_ref(key, || {
            hit = false;
            load(buf);
            Block::from(&*buf)
        });
        if hit {
            buf.copy_from_slice(&block);
        }
        hit
    }

    fn blocks(&self) -> u64 {
        self.0.entry_count()
    }

    fn settle(&self) {
        self.0.run_pending_tasks();
    }
}

/// `lru::LruCache` with a lock around it. The copy is made without the lock.
pub(crate) struct MutexLru {
    inside: Mutex<Inside>,
    max_bytes: u64,
}

struct Inside {
    blocks: LruCache<CacheKey, Block, FixedState>,
    bytes: u64,
}

impl MutexLru {
    pub(crate) fn new(size: &Size) -> Self {
        let blocks = LruCache::unbounded_with_hasher(FixedState::default());
        MutexLru { inside: Mutex::new(Inside { blocks, bytes: 0 }), max_bytes: size.bytes }
    }
}

impl Blocks for MutexLru {
    #[inline]
    fn get(&self, key: &CacheKey, buf: &mut [u8]) -> bool {
        let block = self.inside.lock().blocks.get(key).cloned();
        block.map(|block| buf.copy_from_slice(&block)).is_some()
    }

    #[inline]
    fn get_or_load(&self, key: &CacheKey, buf: &mut [u8], load: impl FnOnce(&mut [u8])) -> bool {
        let hit = self.get(key, buf);
        if !hit {
            load(buf);
            let block = Block::from(&*buf);
            let mut gone = Vec::new();
            let mut inside = self.inside.lock();
            inside.bytes += block.len() as u64;
            gone.extend(inside.blocks.push(*key, block));
            inside.bytes -= gone.iter().map(|(_, block)| block.len() as u64).sum::<u64>();
            while inside.bytes > self.max_bytes
                && let Some(least) = inside.blocks.pop_lru()
            {
                inside.bytes -= least.1.len() as u64;
                gone.push(least);
            }
            drop(inside);
        }
        hit
    }

    fn blocks(&self) -> u64 {
        self.inside.lock().blocks.len() as u64
    }
}
