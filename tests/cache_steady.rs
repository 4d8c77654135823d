//! That a cache that is full asks the heap for nothing, where blocks have one length: hits, misses, evictions, pins and
//! frees use what is there. (Of mixed lengths, the lists of free extents have nodes that come and go.)
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use mapfall::{BlockCache, CacheKey, CacheOptions, CachePolicy, CacheRead};

#[path = "support/heap.rs"]
#[allow(dead_code, reason = "it is only asked how often it was used")]
mod heap;

#[global_allocator]
static HEAP: heap::CountedHeap = heap::CountedHeap::new();

const BLOCKS: u64 = 8192;
const WARM_UP: u64 = 400_000;
const COUNTED: u64 = 100_000;

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// One access of any kind. Whether it was a hit.
fn access(cache: &BlockCache, state: &mut u64, buf: &mut [u8]) -> bool {
    // Some blocks are asked for more often.
    let offset = random(state) % (1 + random(state) % BLOCKS);
    let key = CacheKey { file: 1, offset, generation: 1 };
    let load = |buf: &mut [u8]| {
        buf.fill(offset as u8);
        Ok(())
    };
    match random(state) % 32 {
        0 => cache.invalidate(&key),
        1 => cache.insert(&key, buf),
        2..4 => cache.pin_or_load(&key, buf.len(), load).unwrap().is_in_cache(),
        4..6 => cache.get(&key, buf),
        _ => cache.get_or_load(&key, buf, load).unwrap() == CacheRead::Hit,
    }
}

/// Accesses until the cache is long full, and how often the heap was used by those behind them.
fn allocations_when_full(policy: CachePolicy) -> u64 {
    let cache = CacheOptions::new(4 << 20).policy(policy).shards(1).build().unwrap();
    let (mut state, mut buf) = (7, vec![0; 4096]);
    (0..WARM_UP).for_each(|_| _ = access(&cache, &mut state, &mut buf));
    let (stats, before) = (cache.stats(), HEAP.allocations());
    let hits = (0..COUNTED).filter(|_| access(&cache, &mut state, &mut buf)).count();
    let allocations = HEAP.allocations() - before;
    let evictions = cache.stats().evictions - stats.evictions;
    assert!(hits as u64 > COUNTED / 20 && evictions > COUNTED / 20, "{policy}: {hits} hits, {evictions} evictions");
    allocations
}

/// In one test, since all share the heap.
#[test]
fn a_full_cache_allocates_nothing() {
    let before = HEAP.allocations();
    drop(std::hint::black_box(vec![0_u8; 1]));
    assert!(HEAP.allocations() > before, "the heap counts");
    for policy in [CachePolicy::WTinyLfu, CachePolicy::S3Fifo, CachePolicy::Sieve] {
        assert_eq!(allocations_when_full(policy), 0, "{policy}");
    }
}
