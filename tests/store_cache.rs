//! A store through a cache: the same bytes and errors as without, and what the cache saves.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use mapfall::{
    BlockCache, CacheBypass, CacheOptions, CacheWrites, CheckpointOptions, Error, IoMode, IoOptions, PageId, PageRead,
    Part, Store, StoreCache, StoreOptions,
};

const MODES: [IoMode; 5] = IoMode::ALL;

fn cache() -> Arc<BlockCache> {
    Arc::new(CacheOptions::new(8 << 20).shards(1).build().unwrap())
}

fn never(cache: &Arc<BlockCache>) -> StoreCache {
    StoreCache::new(cache.clone()).bypass(CacheBypass::Never)
}

fn options(mode: IoMode, cache: StoreCache) -> StoreOptions {
    Store::options().io(IoOptions::new().mode(mode).direct_fallback(true)).cache(cache)
}

fn filled(number: u64) -> Vec<u8> {
    (0..512).flat_map(|word: u64| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word).to_le_bytes()).collect()
}

fn read(store: &Store, page: u64) -> Vec<u8> {
    let mut buf = vec![0xEE; 4096];
    store.pages().read(PageId(page), &mut buf).unwrap();
    buf
}

fn make(path: &Path, options: &StoreOptions, pages: u64) -> Store {
    let store = options.create(path).unwrap();
    for page in 0..pages {
        assert_eq!(store.pages().allocate().unwrap(), PageId(page));
        store.pages().write(PageId(page), &filled(page)).unwrap();
    }
    store.checkpoint(CheckpointOptions::new()).unwrap();
    store
}

#[test]
fn pages_and_blocks_are_read_once() {
    for mode in MODES {
        let (dir, cache) = (tempfile::tempdir().unwrap(), cache());
        let store = make(&dir.path().join("store"), &options(mode, never(&cache)), 100);
        let block = store.blocks().write(b"a block").unwrap();
        let before = store.io_stats().reads;
        for _ in 0..3 {
            for page in 0..100 {
                assert_eq!(read(&store, page), filled(page));
            }
            assert_eq!(store.blocks().read_vec(&block).unwrap(), b"a block");
            assert_eq!(store.blocks().pin(&block).unwrap()[..], *b"a block");
            assert_eq!(store.pages().pin(PageId(7)).unwrap()[..], filled(7));
        }
        assert_eq!(store.io_stats().reads - before, 101);
        let stats = store.cache_stats().unwrap();
        assert_eq!((stats.cache.blocks, stats.cache.misses, stats.cache.hits), (101, 101, 3 * 103 - 101));
        let snapshot = store.snapshot();
        let mut buf = vec![0; 4096];
        snapshot.read(PageId(5), &mut buf).unwrap();
        assert!(buf == filled(5));
        assert_eq!(cache.stats().hits, stats.cache.hits + 1, "a snapshot uses the same cache");
        cache.validate().unwrap();
    }
}

#[test]
fn what_is_freed_or_written_anew_leaves() {
    for mode in MODES {
        let (dir, cache) = (tempfile::tempdir().unwrap(), cache());
        let store = make(&dir.path().join("store"), &options(mode, never(&cache)), 10);
        let block = store.blocks().write(b"a block").unwrap();
        store.blocks().read_vec(&block).unwrap();
        let pages = store.pages();
        let held = pages.pin(PageId(3)).unwrap();
        (0..10).for_each(|page| drop(read(&store, page)));
        assert_eq!(cache.stats().blocks, 11);
        store.pages().write(PageId(3), &filled(33)).unwrap();
        store.pages().free(PageId(4)).unwrap();
        store.blocks().free(&block).unwrap();
        assert_eq!(cache.stats().blocks, 8);
        assert_eq!(held[..], filled(3), "who has it keeps it");
        assert_eq!(store.pages().pin(PageId(3)).unwrap()[..], filled(33));
        assert_eq!(read(&store, 3), filled(33));
        assert!(matches!(store.pages().read(PageId(4), &mut [0; 4096]), Err(Error::NoSuchPage { page: 4 })));
        assert!(matches!(store.pages().pin(PageId(4)), Err(Error::NoSuchPage { page: 4 })));
        drop(held);
        cache.validate().unwrap();
    }
}

#[test]
fn moved_pages_are_not_taken_from_where_they_were() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), cache());
    let store = make(&dir.path().join("store"), &options(IoMode::Mmap, never(&cache)), 500);
    (0..500).for_each(|page| drop(read(&store, page)));
    (0..400).for_each(|page| store.pages().free(PageId(page)).unwrap());
    store.checkpoint(CheckpointOptions::new()).unwrap();
    let mut compaction = store.compaction().unwrap();
    while compaction.step(1000).unwrap() {}
    assert!(compaction.progress().pages_moved > 50);
    store.checkpoint(CheckpointOptions::new().pack(true)).unwrap();
    assert!(cache.stats().blocks < 60, "{:?}", cache.stats());
    (400..500).for_each(|page| assert_eq!(read(&store, page), filled(page)));
    cache.validate().unwrap();
}

#[test]
fn writes_come_in_as_asked() {
    for (writes, after_write, after_checkpoint) in
        [(CacheWrites::No, 0, 0), (CacheWrites::OnWrite, 20, 20), (CacheWrites::OnCheckpoint, 0, 20)]
    {
        let (dir, cache) = (tempfile::tempdir().unwrap(), cache());
        let store = options(IoMode::Pread, never(&cache).writes(writes)).create(dir.path().join("store")).unwrap();
        for page in 0..20 {
            store.pages().allocate().unwrap();
            store.pages().write(PageId(page), &filled(page + 100)).unwrap();
            store.pages().write(PageId(page), &filled(page)).unwrap();
        }
        assert_eq!(cache.stats().blocks, after_write, "{writes:?}");
        store.checkpoint(CheckpointOptions::new()).unwrap();
        assert_eq!(cache.stats().blocks, after_checkpoint, "{writes:?}");
        (0..20).for_each(|page| assert_eq!(read(&store, page), filled(page)));
        assert_eq!(cache.stats().hits, after_checkpoint);
        let block = store.blocks().write(b"a block").unwrap();
        assert_eq!(store.blocks().read_vec(&block).unwrap(), b"a block");
        cache.validate().unwrap();
    }
}

#[test]
fn prefetched_pages_and_batches_are_hits() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), cache());
    let store = make(&dir.path().join("store"), &options(IoMode::Pread, never(&cache)), 200);
    assert_eq!(store.pages().prefetch((50..300).map(PageId)), 150);
    assert_eq!(store.pages().prefetch((50..300).map(PageId)), 0, "they are there");
    let before = store.io_stats().reads;
    (50..200).for_each(|page| assert_eq!(read(&store, page), filled(page)));
    assert_eq!(store.io_stats().reads, before);
    for (reads, again) in [(50, false), (0, true)] {
        let mut bufs = vec![[0xEE; 4096]; 200];
        let batch = bufs.iter_mut().enumerate();
        let mut batch: Vec<_> = batch.map(|(page, buf)| PageRead { page: PageId(page as u64), buf }).collect();
        let before = store.io_stats().reads;
        store.pages().read_batch(&mut batch).unwrap();
        assert_eq!(store.io_stats().reads - before, reads, "again: {again}");
        (0_u64..).zip(&bufs).for_each(|(page, buf)| assert_eq!(buf[..], filled(page)));
    }
    cache.validate().unwrap();
}

#[test]
fn damage_is_an_error_with_a_cache_too() {
    for mode in MODES {
        let (dir, cache) = (tempfile::tempdir().unwrap(), cache());
        let path = dir.path().join("store");
        let store = make(&path, &options(mode, never(&cache)), 10);
        let block = store.blocks().write(&[7; 5000]).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let at = |bytes_of: &[u8]| bytes.windows(bytes_of.len()).position(|found| found == bytes_of).unwrap() as u64;
        for offset in [at(&filled(4)), block.offset()] {
            std::os::unix::fs::FileExt::write_all_at(&file, b"damaged", offset + 100).unwrap();
        }
        for _ in 0..2 {
            let error = store.pages().read(PageId(4), &mut [0; 4096]).unwrap_err();
            assert!(matches!(error, Error::Corrupt { part: Part::Page(4), .. }), "{error}");
            let error = store.pages().pin(PageId(4)).unwrap_err();
            assert!(matches!(error, Error::Corrupt { part: Part::Page(4), .. }), "{error}");
            let error = store.blocks().read_vec(&block).unwrap_err();
            assert!(matches!(error, Error::Corrupt { part: Part::Block, .. }), "{error}");
        }
        assert_eq!(read(&store, 5), filled(5));
        let other = store.blocks().write(&[9; 600]).unwrap();
        store.blocks().read_vec(&other).unwrap();
        // The checksum is at the end.
        let mut packed = other.pack();
        *packed.last_mut().unwrap() ^= 1;
        let (wrong, _) = mapfall::BlockAddr::unpack(&packed).unwrap();
        assert!(matches!(store.blocks().read_vec(&wrong), Err(Error::Corrupt { .. })), "no hit for another checksum");
        assert!(matches!(store.blocks().read(&other, &mut [0; 601]), Err(Error::WrongLength { .. })));
        cache.validate().unwrap();
    }
}

#[test]
fn two_stores_share_a_cache_and_not_their_blocks() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), cache());
    let uuid = [5; 16];
    let of = |name| make(&dir.path().join(name), &options(IoMode::Pread, never(&cache)).uuid(uuid), 10);
    let (one, two) = (of("one"), of("two"));
    two.pages().write(PageId(1), &filled(11)).unwrap();
    one.pages().write(PageId(1), &filled(12)).unwrap();
    for _ in 0..2 {
        assert_eq!(read(&one, 1), filled(12));
        assert_eq!(read(&two, 1), filled(11));
    }
    assert_eq!(cache.stats().blocks, 2);
}

#[test]
fn a_warm_set_makes_the_next_opening_warm() {
    let dir = tempfile::tempdir().unwrap();
    let (path, warm) = (dir.path().join("store"), dir.path().join("warm"));
    let first = cache();
    let store = make(&path, &options(IoMode::Pread, never(&first).warm_up(&warm)), 50);
    (0..30).for_each(|page| drop(read(&store, page)));
    drop(store);

    let second = cache();
    let store = options(IoMode::Pread, never(&second).warm_up(&warm)).open(&path).unwrap();
    assert_eq!(second.stats().blocks, 30);
    (0..30).for_each(|page| assert_eq!(read(&store, page), filled(page)));
    assert_eq!((second.stats().hits, second.stats().misses), (30, 0));

    // What was written since is not brought back.
    let other = dir.path().join("other");
    assert_eq!(store.save_warm_set(&other).unwrap(), 30);
    for round in 0..3 {
        (0..30).for_each(|page| store.pages().write(PageId(page), &filled(page + 1000 + round)).unwrap());
        store.checkpoint(CheckpointOptions::new()).unwrap();
    }
    second.invalidate_where(|_| true);
    assert!(store.load_warm_set(&other).unwrap() < 30, "some of their space was used again");
    (0..30).for_each(|page| assert_eq!(read(&store, page), filled(page + 1002)));

    let mut bytes = std::fs::read(&other).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&other, &bytes).unwrap();
    let error = store.load_warm_set(&other).unwrap_err();
    assert!(matches!(error, Error::Corrupt { part: Part::WarmSet, .. }), "{error}");
    let missing = store.load_warm_set(dir.path().join("none")).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(2), "{missing}");
    // A damaged one does not keep a store from being opened.
    drop(store);
    std::fs::write(&warm, b"rubbish").unwrap();
    let third = cache();
    let store = options(IoMode::Pread, never(&third).warm_up(&warm)).open(&path).unwrap();
    assert_eq!((third.stats().blocks, read(&store, 3)), (0, filled(1005)));
}

#[test]
fn reads_that_are_told_to_go_past_the_cache_do() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), cache());
    let past = StoreCache::new(cache.clone()).bypass(CacheBypass::Always).writes(CacheWrites::OnWrite);
    let store = make(&dir.path().join("store"), &options(IoMode::Mmap, past), 10);
    for _ in 0..20 {
        (0..10).for_each(|page| assert_eq!(read(&store, page), filled(page)));
    }
    assert!(!store.pages().pin(PageId(1)).unwrap().is_in_cache());
    assert_eq!(store.pages().prefetch((0..10).map(PageId)), 0);
    let stats = store.cache_stats().unwrap();
    assert_eq!((stats.cache.blocks, stats.cache.misses), (0, 0));
    assert!(stats.bypass.is_bypassed && stats.bypass.bypassed_reads == 201, "{stats:?}");
    assert!(stats.bypass.timed_loads >= 3, "{stats:?}");
    assert!(
        Store::options().open_io(Box::new(IoOptions::new().open_pread(dir.path().join("store")).unwrap())).is_err()
    );
}

#[test]
fn threads_read_what_pages_hold_while_they_change() {
    for (mode, bypass) in
        [(IoMode::Pread, CacheBypass::Never), (IoMode::Mmap, CacheBypass::Never), (IoMode::Mmap, CacheBypass::Auto)]
    {
        let dir = tempfile::tempdir().unwrap();
        let cache = Arc::new(CacheOptions::new(400 << 10).shards(1).build().unwrap());
        let of_cache = StoreCache::new(cache.clone()).bypass(bypass).writes(CacheWrites::OnWrite);
        let store = make(&dir.path().join("store"), &options(mode, of_cache), 200);
        let (store, done) = (&store, &AtomicBool::new(false));
        std::thread::scope(|scope| {
            for thread in 0..3_u64 {
                scope.spawn(move || {
                    let (mut step, mut last) = (thread, vec![0; 200]);
                    while !done.load(Relaxed) {
                        step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let page = (step >> 33) % 200;
                        let bytes = match step >> 60 {
                            0 => store.pages().pin(PageId(page)).unwrap().to_vec(),
                            _ => read(store, page),
                        };
                        // Round r of page p is filled(p + 1000 r), so the first word tells the round.
                        let round = (0..).find(|round| bytes == filled(page + 1000 * round)).unwrap();
                        assert!(round >= last[page as usize], "page {page} went back from {last:?} to {round}");
                        last[page as usize] = round;
                    }
                });
            }
            for round in 1..15 {
                for page in 0..200 {
                    store.pages().write(PageId(page), &filled(page + 1000 * round)).unwrap();
                }
                store.checkpoint(CheckpointOptions::new()).unwrap();
            }
            done.store(true, Relaxed);
        });
        cache.validate().unwrap();
        assert!(bypass == CacheBypass::Auto || cache.stats().hits > 0);
    }
}
