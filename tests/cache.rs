//! The block cache by itself: what a caller relies on, under threads and at the edges.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use mapfall::{BlockCache, CacheKey, CacheOptions, CachePolicy, CacheRead, Error};

fn key(offset: u64) -> CacheKey {
    CacheKey { file: 1, offset, generation: offset % 7 }
}

/// Bytes that name their block, each word.
fn fill(key: &CacheKey, buf: &mut [u8]) {
    let seed = key.file << 56 ^ key.generation << 40 ^ key.offset;
    for (index, word) in (0_u64..).zip(buf.chunks_mut(8)) {
        let bytes = (seed ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes();
        word.copy_from_slice(&bytes[..word.len()]);
    }
}

/// As a load that succeeds.
fn load(key: &CacheKey, buf: &mut [u8]) -> Result<(), Error> {
    fill(key, buf);
    Ok(())
}

fn is_block(key: &CacheKey, buf: &[u8]) -> bool {
    let mut expected = vec![0; buf.len()];
    fill(key, &mut expected);
    expected == buf
}

fn read(cache: &BlockCache, key: &CacheKey, len: usize) -> CacheRead {
    let mut buf = vec![0xEE; len];
    let outcome = cache.get_or_load(key, &mut buf, |buf| load(key, buf)).unwrap();
    assert!(is_block(key, &buf), "{key:?} of {len} bytes, {outcome:?}");
    outcome
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// A length that goes with the offset: most are short.
fn len_of(offset: u64, longest: usize) -> usize {
    let mut state = offset + 1;
    let bits = random(&mut state) % 10;
    (1 + random(&mut state) as usize % (512 << bits)).min(longest)
}

fn problem() -> Error {
    let source = std::io::Error::from_raw_os_error(5);
    let (operation, path) = (mapfall::Operation::Read, std::path::Path::new("block").into());
    Error::Io { operation, path, offset: 3, len_bytes: 4, source }
}

#[test]
fn a_block_is_loaded_once_and_then_there() {
    for policy in CachePolicy::ALL {
        let cache = CacheOptions::new(8 << 20).policy(policy).build().unwrap();
        let mut buf = [0; 4096];
        assert!(!cache.get(&key(1), &mut buf));
        assert_eq!(read(&cache, &key(1), 4096), CacheRead::Loaded);
        assert_eq!(read(&cache, &key(1), 4096), CacheRead::Hit);
        assert!(cache.get(&key(1), &mut buf) && is_block(&key(1), &buf));
        assert!(is_block(&key(1), &cache.pin(&key(1)).unwrap()));
        assert!(cache.contains(&key(1)) && !cache.contains(&key(2)));
        assert!(!cache.get(&CacheKey { generation: 2, ..key(1) }, &mut buf), "another generation is another block");
        assert!(!cache.get(&CacheKey { file: 2, ..key(1) }, &mut buf), "another file is another block");
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.admissions, stats.blocks), (3, 4, 1, 1));
        assert_eq!(stats.block_bytes, 4096);
        assert!(stats.hit_ratio().unwrap() > 0.4);
        cache.validate().unwrap();
    }
}

#[test]
fn odd_lengths_and_lengths_that_changed() {
    let cache = CacheOptions::new(16 << 20).shards(1).build().unwrap();
    for len in [1, 7, 511, 512, 513, 4095, 4097, 100_000, 2 << 20] {
        let key = key(len as u64 * 10_000);
        assert_eq!(read(&cache, &key, len), CacheRead::Loaded, "{len}");
        assert_eq!(read(&cache, &key, len), CacheRead::Hit, "{len}");
    }
    assert_eq!(cache.longest_block_bytes(), 2 << 20);
    assert_eq!(read(&cache, &key(5), (2 << 20) + 1), CacheRead::Loaded);
    assert_eq!(read(&cache, &key(5), (2 << 20) + 1), CacheRead::Loaded, "too long to be kept");
    assert_eq!(read(&cache, &key(6), 0), CacheRead::Loaded, "there is nothing to keep");
    assert_eq!(cache.stats().bypasses, 3);
    assert_eq!(read(&cache, &key(7), 100), CacheRead::Loaded);
    assert_eq!(read(&cache, &key(7), 200), CacheRead::Loaded, "another length is no hit");
    assert_eq!(read(&cache, &key(7), 200), CacheRead::Hit);
    assert!(!cache.get(&key(7), &mut [0; 100]));
    cache.validate().unwrap();
}

#[test]
fn misses_of_many_threads_load_once() {
    let cache = CacheOptions::new(8 << 20).build().unwrap();
    let (loads, barrier) = (AtomicU32::new(0), Barrier::new(8));
    let outcomes: Vec<CacheRead> = thread::scope(|scope| {
        let run = || {
            let mut buf = [0; 4096];
            barrier.wait();
            let outcome = cache.get_or_load(&key(9), &mut buf, |buf| {
                loads.fetch_add(1, Relaxed);
                thread::sleep(Duration::from_millis(100));
                load(&key(9), buf)
            });
            assert!(is_block(&key(9), &buf));
            outcome.unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(loads.load(Relaxed), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == CacheRead::Loaded).count(), 1);
    let joins = outcomes.iter().filter(|outcome| **outcome == CacheRead::Joined).count() as u64;
    assert_eq!(cache.stats().joins, joins);
    assert!(joins > 0, "nobody waited");
    cache.validate().unwrap();
}

/// Runs `second` when a load of the key is under way in another thread, and then lets the load end as `result`.
fn while_loading<T: Send>(
    cache: &BlockCache,
    key: CacheKey,
    result: Result<(), Error>,
    second: impl FnOnce() -> T + Send,
) -> (Result<CacheRead, Error>, T) {
    let (begun, wait_begun) = mpsc::channel();
    let (end, wait_end) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let loader = scope.spawn(move || {
            cache.get_or_load(&key, &mut [0; 4096], move |buf| {
                begun.send(()).unwrap();
                wait_end.recv().unwrap();
                fill(&key, buf);
                result
            })
        });
        wait_begun.recv().unwrap();
        let second = scope.spawn(second);
        thread::sleep(Duration::from_millis(50));
        end.send(()).unwrap();
        (loader.join().unwrap(), second.join().unwrap())
    })
}

#[test]
fn a_failed_load_wakes_who_waits_with_its_error() {
    let cache = CacheOptions::new(8 << 20).build().unwrap();
    let waits = || cache.get_or_load(&key(1), &mut [0; 4096], |_| panic!("it waits for the other"));
    let (first, second) = while_loading(&cache, key(1), Err(problem()), waits);
    for result in [first, second] {
        let error = result.unwrap_err();
        assert_eq!((error.raw_os_error(), error.to_string()), (Some(5), problem().to_string()));
    }
    assert_eq!((cache.stats().failed_loads, cache.stats().joins), (1, 1));
    assert_eq!(read(&cache, &key(1), 4096), CacheRead::Loaded, "the next one tries again");
    cache.validate().unwrap();
}

#[test]
fn a_block_that_is_freed_while_it_is_loaded_does_not_come_back() {
    let cache = CacheOptions::new(8 << 20).build().unwrap();
    let (first, second) = while_loading(&cache, key(1), Ok(()), || cache.invalidate(&key(1)));
    assert_eq!((first.unwrap(), second), (CacheRead::Loaded, true));
    assert!(!cache.contains(&key(1)));
    assert_eq!(cache.stats().bypasses, 1);
    let (_, dropped) = while_loading(&cache, key(2), Ok(()), || cache.invalidate_where(|key| key.file == 1));
    assert_eq!(dropped, 0, "none was there yet");
    assert!(!cache.contains(&key(2)));
    let pinned = cache.pin_or_load(&key(3), 4096, |buf| {
        assert!(cache.invalidate(&key(3)));
        load(&key(3), buf)
    });
    assert!(is_block(&key(3), &pinned.unwrap()), "who asked gets it");
    assert!(!cache.contains(&key(3)));
    cache.validate().unwrap();
}

#[test]
fn a_loader_that_panics_leaves_no_trace() {
    let cache = CacheOptions::new(8 << 20).build().unwrap();
    for pinned in [false, true] {
        let load = std::panic::AssertUnwindSafe(|| match pinned {
            false => drop(cache.get_or_load(&key(1), &mut [0; 4096], |_| panic!("as planned"))),
            true => drop(cache.pin_or_load(&key(1), 4096, |_| panic!("as planned"))),
        });
        assert!(std::panic::catch_unwind(load).is_err());
        assert!(!cache.contains(&key(1)));
        cache.validate().unwrap();
    }
    assert_eq!(read(&cache, &key(1), 4096), CacheRead::Loaded);
}

#[test]
fn a_pinned_block_stays_whatever_happens() {
    for policy in CachePolicy::ALL {
        let cache = CacheOptions::new(1 << 20).shards(1).policy(policy).build().unwrap();
        let pinned = cache.pin_or_load(&key(1), 4096, |buf| load(&key(1), buf)).unwrap();
        let other = cache.pin(&key(1)).unwrap();
        assert!(pinned.is_in_cache() && pinned.as_ref() == &pinned[..]);
        assert_eq!(format!("{pinned:?}"), "CachedBlock { len_bytes: 4096, is_in_cache: true }");
        for offset in 2..5000 {
            read(&cache, &key(offset), 4096);
        }
        assert!(cache.contains(&key(1)) && is_block(&key(1), &pinned), "it was not evicted");
        assert!(cache.invalidate(&key(1)) && !cache.contains(&key(1)));
        assert_eq!(cache.stats().doomed, 1);
        for offset in 5000..9000 {
            read(&cache, &key(offset), 4096);
        }
        cache.validate().unwrap();
        assert!(is_block(&key(1), &pinned) && is_block(&key(1), &other), "whoever has it keeps it");
        drop(pinned);
        assert!(is_block(&key(1), &other));
        assert_eq!(cache.resize(0), 0);
        assert!(cache.stats().used_bytes > 0, "one is still pinned");
        assert!(is_block(&key(1), &other));
        drop(other);
        let stats = cache.stats();
        assert_eq!((stats.doomed, stats.blocks, stats.used_bytes), (0, 0, 0), "{stats:?}");
        cache.validate().unwrap();
    }
}

#[test]
fn a_cache_without_a_budget_loads_each_time() {
    let cache = CacheOptions::new(0).build().unwrap();
    assert_eq!(read(&cache, &key(1), 4096), CacheRead::Loaded);
    assert_eq!(read(&cache, &key(1), 4096), CacheRead::Loaded);
    let owned = cache.pin_or_load(&key(1), 4096, |buf| load(&key(1), buf)).unwrap();
    assert!(!owned.is_in_cache() && is_block(&key(1), &owned));
    assert_eq!(cache.stats().used_bytes, 0);
    assert_eq!(cache.resize(1 << 20), 1 << 20);
    assert_eq!(read(&cache, &key(1), 4096), CacheRead::Loaded);
    assert_eq!(read(&cache, &key(1), 4096), CacheRead::Hit);
    assert_eq!(cache.resize(u64::MAX), cache.budget_max_bytes());
    assert_eq!(read(&cache, &key(1), 4096), CacheRead::Hit, "more room costs nothing");
    assert_eq!(cache.resize(0), 0);
    assert_eq!((cache.stats().blocks, cache.stats().used_bytes), (0, 0));
    cache.validate().unwrap();
}

#[test]
fn options_that_cannot_be_are_refused() {
    for (options, named) in [
        (CacheOptions::new(1 << 20).shards(3), "shards"),
        (CacheOptions::new(1 << 20).shards(0), "shards"),
        (CacheOptions::new(1 << 20).shards(512), "shards"),
        (CacheOptions::new(1 << 20).budget_max_bytes(1 << 19), "budget_max_bytes"),
        (CacheOptions::new(1 << 20).budget_max_bytes(1 << 60), "budget_max_bytes"),
    ] {
        assert!(matches!(options.build(), Err(Error::InvalidOption { option, .. }) if option == named), "{options:?}");
    }
    assert!("no such".parse::<CachePolicy>().unwrap_err().contains("lru"));
}

/// A loop over twice what fits: LRU has no hit, so it is LRU that decides, at every size of the cache.
#[test]
fn the_policy_decides_who_leaves_at_every_size() {
    for budget_bytes in (300..3000).step_by(130).map(|kib| kib << 10) {
        for len in [512, 4096] {
            let cache = CacheOptions::new(budget_bytes).shards(1).policy(CachePolicy::Lru).build().unwrap();
            let keys = 2 * budget_bytes / len as u64;
            for round in 0..6 {
                for offset in 0..keys {
                    let outcome = read(&cache, &key(offset), len);
                    assert_eq!(outcome, CacheRead::Loaded, "{offset} in round {round} of {budget_bytes} bytes");
                }
            }
            let stats = cache.stats();
            let few = stats.admissions / 50;
            assert!(stats.invalidations <= few, "{budget_bytes} of {len}: {stats:?}");
            assert!(stats.used_bytes > budget_bytes * 4 / 5, "{budget_bytes} of {len}: {stats:?}");
            cache.validate().unwrap();
        }
    }
}

#[test]
fn all_sums_add_up_under_mixed_lengths_and_changing_budgets() {
    for policy in CachePolicy::ALL {
        let cache = CacheOptions::new(4 << 20).shards(2).policy(policy).build().unwrap();
        let mut state = 7;
        for step in 0..30_000 {
            let offset = random(&mut state) % 3000;
            match random(&mut state) % 100 {
                0 => drop(cache.invalidate(&key(offset))),
                1 if step % 10 == 0 => {
                    cache.resize(random(&mut state) % (8 << 20));
                }
                _ => drop(read(&cache, &key(offset), len_of(offset, 200_000))),
            }
            if step % 1000 == 0 {
                cache.validate().unwrap();
                let stats = cache.stats();
                assert!(stats.used_bytes <= stats.budget_bytes, "{stats:?}");
            }
        }
        let stats = cache.stats();
        assert!(stats.hits > 1000 && stats.evictions > 1000, "{stats:?}");
        cache.resize(0);
        assert_eq!(cache.stats().used_bytes, 0);
        cache.validate().unwrap();
    }
}

#[test]
fn threads_that_read_free_pin_and_resize_get_the_right_bytes() {
    for policy in CachePolicy::ALL {
        let cache = &CacheOptions::new(2 << 20).shards(2).policy(policy).build().unwrap();
        let (stop, reads) = (&AtomicBool::new(false), &AtomicU64::new(0));
        thread::scope(|scope| {
            for thread in 0..6 {
                scope.spawn(move || {
                    let mut state = thread + 1;
                    while !stop.load(Relaxed) {
                        let offset = random(&mut state) % 400;
                        let len = len_of(offset, 60_000);
                        match random(&mut state) % 16 {
                            0 => drop(cache.invalidate(&key(offset))),
                            1 => {
                                let pinned =
                                    cache.pin_or_load(&key(offset), len, |buf| load(&key(offset), buf)).unwrap();
                                assert!(is_block(&key(offset), &pinned));
                                thread::yield_now();
                                assert!(is_block(&key(offset), &pinned));
                            }
                            2 => {
                                let mut bytes = vec![0; len];
                                fill(&key(offset), &mut bytes);
                                cache.insert(&key(offset), &bytes);
                            }
                            _ => drop(read(cache, &key(offset), len)),
                        }
                        reads.fetch_add(1, Relaxed);
                    }
                });
            }
            scope.spawn(move || {
                let mut state = 99;
                while reads.load(Relaxed) < 60_000 {
                    cache.resize(random(&mut state) % (4 << 20));
                    cache.validate().unwrap();
                    thread::sleep(Duration::from_millis(2));
                }
                stop.store(true, Relaxed);
            });
        });
        cache.validate().unwrap();
        let stats = cache.stats();
        assert_eq!(stats.doomed, 0);
        assert!(stats.hits > 100 && stats.used_bytes <= stats.budget_bytes, "{stats:?}");
        cache.resize(0);
        assert_eq!(cache.stats().used_bytes, 0);
    }
}
