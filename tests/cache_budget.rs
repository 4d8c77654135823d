//! That the cache keeps its budget, by two counts that are not its own: what is on the heap, and what is resident of
//! anonymous memory. Both are taken with all threads at a halt, so they are exact.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, OnceLock};
use std::thread;

use mapfall::{BlockCache, CacheKey, CacheOptions, CachePolicy};

#[path = "support/heap.rs"]
mod heap;

#[global_allocator]
static HEAP: heap::CountedHeap = heap::CountedHeap::new();

/// Blocks that were not what was loaded.
static WRONG: AtomicU64 = AtomicU64::new(0);

const THREADS: usize = 8;
const ROUNDS: u64 = 30;

/// What a cache takes that holds nothing: itself, and of each thread that used it some counters.
const EMPTY_BYTES: u64 = 16 << 10;

/// Of `/proc/self/smaps_rollup`, in bytes: anonymous memory, and of that what is in 2 MiB pages.
fn anonymous() -> (u64, u64) {
    let mut text = [0; 2048];
    let mut file = File::open("/proc/self/smaps_rollup").unwrap();
    let mut len = 0;
    loop {
        match file.read(&mut text[len..]).unwrap() {
            0 => break,
            more => len += more,
        }
    }
    let text = std::str::from_utf8(&text[..len]).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    };
    (field("Anonymous:"), field("AnonHugePages:"))
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// From 512 B to 300 KiB, and most are short; in every third phase all of them are.
fn len_of(offset: u64, phase: u64) -> usize {
    let mut state = offset * 77 + phase;
    let bits = random(&mut state) % if phase % 3 == 1 { 2 } else { 11 };
    (random(&mut state) as usize % (512 << bits)).clamp(512, 300 << 10)
}

/// What one thread does in a round.
fn work(cache: &BlockCache, state: &mut u64, buf: &mut [u8], phase: u64, steps: u64) {
    for _ in 0..steps {
        let offset = random(state) % (1 + random(state) % 40_000);
        let key = CacheKey { file: 1, offset, generation: phase };
        let len = len_of(offset, phase);
        let load = |buf: &mut [u8]| {
            buf.fill(offset as u8);
            Ok(())
        };
        match random(state) % 20 {
            0 => _ = cache.invalidate(&key),
            1 => {
                buf[..len].fill(offset as u8);
                cache.insert(&key, &buf[..len]);
            }
            2..4 => {
                let block = cache.pin_or_load(&key, len, load).unwrap();
                // No panic: the others would wait for this thread.
                let whole = block.len() == len && block[0] == offset as u8 && block[len - 1] == offset as u8;
                WRONG.fetch_add(u64::from(!whole), Relaxed);
            }
            _ => {
                cache.get_or_load(&key, &mut buf[..len], load).unwrap();
            }
        }
    }
}

/// Touches what a thread has of its own, its stack above all, so that it does not count as the cache's.
fn warm_up(buf: &mut [u8]) {
    black_box([1_u8; 256 << 10]);
    let cache = CacheOptions::new(1 << 20).build().unwrap();
    work(&cache, &mut 1, buf, 0, 200);
    cache.validate().unwrap();
    black_box((format!("{:?}", cache.stats()), anonymous()));
}

/// Runs threads over a cache whose budget changes all the time, and compares what it takes with what it may.
fn keeps(options: &CacheOptions, steps: u64, budget: impl Fn(u64) -> u64) {
    HEAP.touch();
    let (cache, halt) = (OnceLock::<BlockCache>::new(), Barrier::new(THREADS + 1));
    let mut sound: Result<(), String> = Ok(());
    let mut worst: Option<(i64, String)> = None;
    thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let (cache, halt) = (&cache, &halt);
            scope.spawn(move || {
                let (mut state, mut buf) = (thread + 1, vec![1; 300 << 10]);
                warm_up(&mut buf);
                halt.wait();
                for round in 0..ROUNDS {
                    halt.wait();
                    work(cache.get().unwrap(), &mut state, &mut buf, round / 5, steps);
                    halt.wait();
                }
                // What this thread has is counted until the end.
                halt.wait();
            });
        }
        warm_up(&mut [1; 300 << 10]);
        let mut state = 99;
        halt.wait();
        let before = (HEAP.bytes(), anonymous().0);
        let cache = cache.get_or_init(|| options.build().unwrap());
        for round in 0..ROUNDS {
            halt.wait();
            for _ in 0..random(&mut state) % 4 {
                thread::sleep(std::time::Duration::from_millis(random(&mut state) % 5));
                cache.resize(budget(random(&mut state)));
            }
            halt.wait();
            let (heap, (anonymous, huge)) = (HEAP.bytes(), anonymous());
            let (heap, anonymous) = (heap - before.0, anonymous.saturating_sub(before.1));
            let excess = (heap + anonymous) as i64 - cache.budget_bytes() as i64;
            if worst.as_ref().is_none_or(|(most, _)| excess > *most) {
                let text = format!(
                    "round {round}: {heap} heap, {anonymous} anonymous of which {huge} huge: {:?}",
                    cache.stats()
                );
                worst = Some((excess, text));
            }
            sound = sound.clone().and_then(|()| cache.validate());
        }
        halt.wait();
    });
    sound.unwrap();
    assert_eq!(WRONG.load(Relaxed), 0);
    let (excess, what) = worst.unwrap();
    assert!(excess <= EMPTY_BYTES as i64, "{excess} bytes too many in {what}");
}

fn an_empty_cache_takes_next_to_nothing() {
    HEAP.touch();
    warm_up(&mut [1; 300 << 10]);
    let before = (HEAP.bytes(), anonymous().0);
    let cache = CacheOptions::new(0).shards(4).budget_max_bytes(1 << 30).build().unwrap();
    cache.get(&CacheKey { file: 1, offset: 2, generation: 3 }, &mut [0; 512]);
    let now = (HEAP.bytes(), anonymous().0);
    let taken = now.0 - before.0 + now.1.saturating_sub(before.1);
    assert!(taken <= EMPTY_BYTES, "{taken} bytes: {before:?}, {now:?}");
}

fn a_small_share_is_kept() {
    for policy in CachePolicy::ALL {
        let options = CacheOptions::new(512 << 10).policy(policy).shards(1).budget_max_bytes(4 << 20);
        keeps(&options, 100, |random| [100 << 10, 300 << 10, 512 << 10, 1000 << 10, 0][random as usize % 5]);
    }
}

fn a_middling_share_is_kept() {
    for policy in CachePolicy::ALL {
        let options = CacheOptions::new(8 << 20).policy(policy).shards(2).budget_max_bytes(32 << 20);
        keeps(&options, 120, |random| (1 << 20) + random % (15 << 20));
    }
}

fn a_share_in_large_pages_is_kept() {
    for policy in CachePolicy::ALL {
        let options = CacheOptions::new(48 << 20).policy(policy).shards(1).budget_max_bytes(128 << 20);
        keeps(&options, 250, |random| {
            [34 << 20, 64 << 20, 100 << 20, 33 << 20][random as usize % 4] + random % 700_000
        });
    }
}

fn a_share_that_goes_from_large_pages_to_small_ones_is_kept() {
    for policy in CachePolicy::ALL {
        let options = CacheOptions::new(48 << 20).policy(policy).shards(1).budget_max_bytes(128 << 20);
        keeps(&options, 150, |random| [3 << 20, 40 << 20, 17 << 20, 90 << 20][random as usize % 4] + random % 700_000);
    }
}

/// One test, since others would count in what the process has: their threads already do.
#[test]
fn the_budget_is_kept() {
    an_empty_cache_takes_next_to_nothing();
    a_small_share_is_kept();
    a_middling_share_is_kept();
    a_share_in_large_pages_is_kept();
    a_share_that_goes_from_large_pages_to_small_ones_is_kept();
}
