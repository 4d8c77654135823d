//! The block cache's own code under a scheduler that chooses who runs next, at every access of an atomic or a lock.
//!
//! ```text
//! RUSTFLAGS="--cfg mapfall_model -C debug-assertions" CARGO_TARGET_DIR=target/model \
//!     cargo test --release --test cache_model --no-default-features
//! ```
//!
//! `MAPFALL_MODEL_SCHEDULES=20` tries twenty times as many schedules, `MAPFALL_MODEL_SEED=2` others. They are drawn
//! step by step, or by [PCT](https://doi.org/10.1145/1736020.1736040): priorities, and a few places where one drops,
//! which finds what takes a thread that stands still for long. A schedule that fails is printed, to be replayed by
//! `shuttle::replay`. `tests/cache_mutants.rs` shows that these tests find what they are for.
//!
//! A block says when its load began. So it shows if one comes back that was freed after that.
#![cfg(mapfall_model)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mapfall::{BlockCache, CacheKey, CacheOptions, CachePolicy, CacheRead, CacheStats, Error};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, thread};

/// Room for eight units of blocks beside the smallest tables there are.
const SMALL: u64 = 24 << 10;
const LARGER: u64 = 40 << 10;

fn setting(name: &str) -> u64 {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(1)
}

/// Runs this under many schedules.
fn explore(schedules: usize, run: fn()) {
    let (seed, schedules) = (setting("MAPFALL_MODEL_SEED"), schedules * setting("MAPFALL_MODEL_SCHEDULES") as usize);
    let mut schedulers: Vec<Box<dyn Scheduler + Send>> =
        vec![Box::new(RandomScheduler::new_from_seed(seed, schedules / 4))];
    for depth in [2, 3, 5] {
        schedulers.push(Box::new(PctScheduler::new_from_seed(seed, depth, schedules / 4)));
    }
    for scheduler in schedulers {
        let mut config = Config::new();
        config.stack_size = 256 << 10;
        config.silence_warnings = true;
        Runner::new(scheduler, config).run(run);
    }
}

fn random(below: u64) -> u64 {
    thread_rng().gen_range(0..below)
}

/// Lets others run, as an atomic does.
fn step() {
    shuttle::sync::atomic::AtomicBool::new(false).load(std::sync::atomic::Ordering::SeqCst);
}

/// Five blocks, of which two or three fit.
const LENS: [usize; 5] = [1500, 40, 2040, 600, 3000];

fn key(number: u64) -> CacheKey {
    CacheKey { file: 1, offset: number, generation: 7 }
}

fn len(number: u64) -> usize {
    LENS[number as usize % LENS.len()]
}

/// Fills a block, with others running meanwhile: each word names it and its version.
fn fill(number: u64, version: u64, buf: &mut [u8]) -> mapfall::Result<()> {
    let piece = buf.len().div_ceil(16) * 8;
    for part in buf.chunks_mut(piece) {
        step();
        part.chunks_mut(8).for_each(|word| word.copy_from_slice(&(version << 8 | number).to_le_bytes()[..word.len()]));
    }
    Ok(())
}

/// The version of a block that is whole.
fn version(number: u64, buf: &[u8]) -> u64 {
    assert_eq!(buf.len(), len(number), "block {number}");
    let first = u64::from_le_bytes(buf[..8].try_into().unwrap());
    assert_eq!(first & 0xFF, number, "another block's bytes");
    for word in buf.chunks(8) {
        assert_eq!(word, &first.to_le_bytes()[..word.len()], "block {number} is torn, or changed while it was pinned");
    }
    first >> 8
}

fn problem() -> Error {
    Error::InvalidOption { option: "model", expected: "a load that fails", found: "one".to_owned() }
}

/// The cache, and what must be true of the blocks it serves.
struct World {
    cache: BlockCache,
    /// The last version given out.
    versions: AtomicU64,
    /// What a block that is found must not be older than.
    floors: [AtomicU64; 5],
}

/// The version of blocks that were put in, not loaded: whoever does that sees to it that they are not freed.
const PUT: u64 = 1 << 40;

impl World {
    fn new(budget_bytes: u64) -> Arc<Self> {
        let policy = CachePolicy::ALL[random(CachePolicy::ALL.len() as u64) as usize];
        let options = CacheOptions::new(budget_bytes).budget_max_bytes(64 << 10).shards(1).policy(policy);
        let (versions, floors) = (AtomicU64::new(0), Default::default());
        Arc::new(World { cache: options.build().unwrap(), versions, floors })
    }

    fn floor(&self, number: u64) -> u64 {
        self.floors[number as usize].load(Relaxed)
    }

    fn check(&self, number: u64, floor: u64, buf: &[u8]) {
        let version = version(number, buf);
        assert!(version >= floor, "block {number} of version {version} is back: it was freed at {floor}");
    }

    fn load(&self, number: u64, buf: &mut [u8]) -> mapfall::Result<()> {
        fill(number, self.versions.fetch_add(1, Relaxed), buf)
    }

    fn get(&self, number: u64) -> bool {
        let (floor, mut buf) = (self.floor(number), vec![0xEE; len(number)]);
        let found = self.cache.get(&key(number), &mut buf);
        if found {
            self.check(number, floor, &buf);
        }
        found
    }

    fn get_or_load(&self, number: u64) -> CacheRead {
        let (floor, mut buf) = (self.floor(number), vec![0xEE; len(number)]);
        let read = self.cache.get_or_load(&key(number), &mut buf, |buf| self.load(number, buf)).unwrap();
        self.check(number, if read == CacheRead::Loaded { 0 } else { floor }, &buf);
        read
    }

    /// Looks at a block for a while.
    fn watch(&self, number: u64, floor: u64, bytes: &[u8]) {
        let before = bytes.to_vec();
        for _ in 0..random(8) {
            thread::yield_now();
        }
        self.check(number, floor, bytes);
        assert_eq!(before, bytes, "a pinned block changed");
    }

    fn pin(&self, number: u64) {
        let floor = self.floor(number);
        if let Some(block) = self.cache.pin(&key(number)) {
            self.watch(number, floor, &block);
        }
    }

    fn pin_or_load(&self, number: u64) {
        let (floor, mut loaded) = (self.floor(number), false);
        let load = |buf: &mut [u8]| {
            loaded = true;
            self.load(number, buf)
        };
        let block = self.cache.pin_or_load(&key(number), len(number), load).unwrap();
        self.watch(number, if loaded { 0 } else { floor }, &block);
    }

    fn put(&self, number: u64) {
        let mut block = vec![0; len(number)];
        fill(number, PUT, &mut block).unwrap();
        self.cache.insert(&key(number), &block);
    }

    fn invalidate(&self, number: u64) {
        let version = self.versions.load(Relaxed);
        self.cache.invalidate(&key(number));
        self.floors[number as usize].fetch_max(version, Relaxed);
    }

    /// What is true when all threads are done.
    fn end(&self) -> CacheStats {
        self.cache.validate().unwrap();
        let stats = self.cache.stats();
        assert_eq!(stats.doomed, 0, "nobody has a pin");
        assert!(stats.used_bytes <= stats.budget_bytes, "{stats:?}");
        assert_eq!(self.cache.shard_stats()[0].budget_bytes, stats.budget_bytes, "the budget that it keeps and says");
        let numbers: Vec<_> = self.cache.keys().iter().map(|(key, _)| key.offset).collect();
        for number in 0..LENS.len() as u64 {
            let there = numbers.iter().filter(|found| **found == number).count();
            assert!(there <= 1, "block {number} is there {there} times");
            assert_eq!(self.get(number), there == 1, "block {number}");
        }
        self.cache.resize(0);
        self.cache.validate().unwrap();
        let left = self.cache.stats();
        assert_eq!((left.used_bytes, left.blocks, left.block_bytes), (0, 0, 0));
        stats
    }
}

/// What a thread does.
type Run = Box<dyn FnOnce(&World) + Send>;

/// Runs these side by side, and then looks at what is left.
fn together(world: &Arc<World>, threads: Vec<Run>) -> CacheStats {
    let start = |run: Run| {
        let world = Arc::clone(world);
        thread::spawn(move || run(&world))
    };
    let handles: Vec<_> = threads.into_iter().map(start).collect();
    for handle in handles {
        handle.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    world.end()
}

#[test]
fn readers_without_pins_see_whole_blocks_while_others_take_their_place() {
    explore(8000, || {
        let world = World::new(SMALL);
        world.get_or_load(0);
        let reader = || -> Run { Box::new(|world| (0..3).for_each(|_| _ = world.get([0, 0, 2][random(3) as usize]))) };
        let writer = |first: u64| -> Run {
            Box::new(move |world| {
                (0..3).for_each(|step| _ = world.get_or_load([2, 0, 4, 0][(first + step) as usize % 4]))
            })
        };
        together(&world, vec![reader(), reader(), writer(0), writer(2)]);
    });
}

#[test]
fn pins_against_evictions_invalidations_and_resizes() {
    explore(8000, || {
        let world = World::new(SMALL);
        world.get_or_load(0);
        together(
            &world,
            vec![
                Box::new(|world| (0..2).for_each(|_| world.pin(0))),
                Box::new(|world| [0, 2].into_iter().for_each(|number| world.pin_or_load(number))),
                Box::new(|world| [4, 2].into_iter().for_each(|number| _ = world.get_or_load(number))),
                Box::new(|world| [0, 2].into_iter().for_each(|number| world.invalidate(number))),
                Box::new(|world| [LARGER, 0, SMALL].into_iter().for_each(|bytes| _ = world.cache.resize(bytes))),
            ],
        );
    });
}

#[test]
fn a_block_that_many_miss_is_loaded_once() {
    explore(4000, || {
        let world = World::new(SMALL);
        let get = || -> Run { Box::new(|world| _ = world.get_or_load(0)) };
        let stats = together(&world, vec![get(), get(), get(), Box::new(|world| world.pin_or_load(0))]);
        assert_eq!(world.versions.load(Relaxed), 1, "loads");
        assert_eq!((stats.admissions, stats.blocks), (1, 1));
    });
}

/// How many threads loaded, and how many were told of the failure.
#[test]
fn a_failed_load_is_told_to_those_who_wait_for_it() {
    explore(4000, || {
        let world = World::new(SMALL);
        let (loads, failures) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let thread = |pins: bool| -> Run {
            let (loads, failures) = (Arc::clone(&loads), Arc::clone(&failures));
            Box::new(move |world| {
                let load = |buf: &mut [u8]| {
                    fill(0, 1, buf)?;
                    loads.fetch_add(1, Relaxed);
                    Err(problem())
                };
                let failed = match pins {
                    true => world.cache.pin_or_load(&key(0), len(0), load).is_err(),
                    false => world.cache.get_or_load(&key(0), &mut vec![0; len(0)], load).is_err(),
                };
                failures.fetch_add(failed.into(), Relaxed);
            })
        };
        let stats = together(&world, vec![thread(false), thread(true), thread(false)]);
        assert_eq!(failures.load(Relaxed), 3, "nobody got a block that could not be loaded");
        assert_eq!(loads.load(Relaxed) + stats.joins, 3, "who waited did not load as well");
        assert_eq!((stats.failed_loads, stats.blocks), (loads.load(Relaxed), 0));
    });
}

#[test]
fn a_loader_that_panics_lets_those_who_wait_go_on() {
    explore(2000, || {
        let world = World::new(SMALL);
        let panics = |pins: bool| -> Run {
            Box::new(move |world| {
                let load = |buf: &mut [u8]| -> mapfall::Result<()> {
                    step();
                    buf.fill(0xEE);
                    // Without the hook, which would print the schedule.
                    resume_unwind(Box::new("the loader's"))
                };
                let read = || match pins {
                    true => _ = world.cache.pin_or_load(&key(0), len(0), load).map(|_| ()),
                    false => _ = world.cache.get_or_load(&key(0), &mut vec![0; len(0)], load),
                };
                _ = catch_unwind(AssertUnwindSafe(read));
            })
        };
        let get = || -> Run { Box::new(|world| _ = world.get_or_load(0)) };
        let stats = together(&world, vec![panics(false), get(), panics(true), get()]);
        assert_eq!(stats.blocks, 1);
    });
}

#[test]
fn a_block_that_is_freed_while_it_is_loaded_does_not_come_back() {
    explore(8000, || {
        let world = World::new(SMALL);
        together(
            &world,
            vec![
                Box::new(|world| _ = world.get_or_load(0)),
                Box::new(|world| world.pin_or_load(0)),
                Box::new(|world| {
                    for _ in 0..2 {
                        world.invalidate(0);
                        world.get(0);
                        world.pin(0);
                    }
                }),
                Box::new(|world| (0..2).for_each(|_| _ = world.get(0))),
            ],
        );
    });
}

#[test]
fn a_block_that_is_put_in_while_it_is_loaded_is_there_once() {
    explore(4000, || {
        let world = World::new(SMALL);
        together(
            &world,
            vec![
                Box::new(|world| world.pin_or_load(0)),
                Box::new(|world| world.put(0)),
                Box::new(|world| world.invalidate(0)),
            ],
        );
    });
}

#[test]
fn a_block_of_another_length_under_the_same_name() {
    explore(4000, || {
        let world = World::new(SMALL);
        world.get_or_load(0);
        let other = |world: &World| {
            let load = |buf: &mut [u8]| fill(0, 1, buf);
            assert_eq!(world.cache.pin_or_load(&key(0), 700, load).unwrap().len(), 700);
        };
        together(
            &world,
            vec![
                Box::new(move |world| {
                    other(world);
                    world.cache.invalidate(&key(0));
                }),
                Box::new(|world| world.invalidate(0)),
            ],
        );
    });
}

#[test]
fn a_resize_keeps_its_word_whoever_else_is_busy() {
    explore(6000, || {
        let world = World::new(LARGER);
        world.get_or_load(0);
        together(
            &world,
            vec![
                Box::new(|world| {
                    for budget_bytes in [SMALL, 0, SMALL, LARGER] {
                        world.cache.resize(budget_bytes);
                        let stats = world.cache.stats();
                        assert!(stats.used_bytes <= budget_bytes, "{stats:?}");
                    }
                }),
                Box::new(|world| [2, 4, 0].into_iter().for_each(|number| _ = world.get_or_load(number))),
                Box::new(|world| [4, 0].into_iter().for_each(|number| world.put(number))),
                Box::new(|world| (0..3).for_each(|_| _ = world.get(0))),
            ],
        );
    });
}

#[test]
fn two_resizes_at_once_leave_one_budget() {
    explore(2000, || {
        let world = World::new(LARGER);
        let resize = |bytes: u64| -> Run { Box::new(move |world| _ = world.cache.resize(bytes)) };
        together(&world, vec![resize(SMALL), resize(LARGER), Box::new(|world| _ = world.get_or_load(0))]);
    });
}

/// Whatever comes to mind, at random.
#[test]
fn anything_at_any_time() {
    explore(8000, || {
        let world = World::new(SMALL);
        let thread = || -> Run {
            Box::new(|world| {
                for _ in 0..4 {
                    let number = [0, 0, 2, 4, 1, 3][random(6) as usize];
                    match random(16) {
                        0..3 => _ = world.get(number),
                        3..6 => _ = world.get_or_load(number),
                        6..8 => world.pin(number),
                        8..11 => world.pin_or_load(number),
                        11 => world.put(number),
                        12..14 => world.invalidate(number),
                        14 => _ = world.cache.resize([0, SMALL, SMALL, LARGER][random(4) as usize]),
                        _ => _ = world.cache.invalidate_where(|key| key.offset == number),
                    }
                }
            })
        };
        together(&world, vec![thread(), thread(), thread(), thread()]);
    });
}
