//! The block cache against a model that knows what every block is: a hit is the last bytes that came in under a key, a
//! freed block is gone, pins keep their bytes, the budget is kept, and every counter adds up.
//!
//! One thread only, so that what is found happens again: threads are for `tests/cache_model.rs`.

#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapfall::{BlockCache, CacheKey, CacheOptions, CachePolicy, CacheRead, CachedBlock, Error};
use mapfall_fuzz::exhaustive;

const STEPS_MAX: usize = 100;
const PINS_MAX: usize = 8;
/// Room for a few units of blocks beside the smallest tables there are, and for more.
const BUDGETS: [u64; 4] = [24 << 10, 40 << 10, 96 << 10, 0];
const BUDGET_MAX: u64 = 128 << 10;
const LENS: [usize; 8] = [40, 1500, 600, 3000, 1, 2040, 5000, 512];

#[derive(Arbitrary, Debug)]
struct Plan {
    policy: u8,
    budget: u8,
    shards: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Get(u8),
    GetOrLoad(u8),
    /// Under the same key, with another length.
    GetOfLength(u8, u16),
    LoadFails(u8),
    /// Freed while it is loaded.
    LoadOfFreed(u8),
    Pin(u8),
    PinOrLoad(u8),
    Unpin(u8),
    Insert(u8),
    Invalidate(u8),
    InvalidateMany(u8),
    Resize(u8),
}

const ALPHABET: [Step; 17] = [
    Step::Get(1),
    Step::GetOrLoad(1),
    Step::GetOrLoad(3),
    Step::GetOrLoad(6),
    Step::GetOfLength(1, 700),
    Step::LoadFails(1),
    Step::LoadOfFreed(1),
    Step::Pin(1),
    Step::PinOrLoad(1),
    Step::PinOrLoad(3),
    Step::Unpin(0),
    Step::Insert(1),
    Step::Invalidate(1),
    Step::InvalidateMany(1),
    Step::Resize(0),
    Step::Resize(1),
    Step::Resize(3),
];

fuzz_target!(
    init: exhaustive::if_wanted(&ALPHABET, |steps| {
        for policy in 0..4 {
            check(&Plan { policy, budget: 0, shards: false, steps: steps.to_vec() });
        }
    }),
    |plan: Plan| check(&plan)
);

fn check(plan: &Plan) {
    let policy = CachePolicy::ALL[plan.policy as usize % 4];
    let options = CacheOptions::new(BUDGETS[plan.budget as usize % 4]).budget_max_bytes(BUDGET_MAX).policy(policy);
    let cache = options.shards(if plan.shards { 2 } else { 1 }).build().expect("a cache");
    let mut run = Run { cache: &cache, blocks: BTreeMap::new(), versions: 0, pins: Vec::new() };
    for step in plan.steps.iter().take(STEPS_MAX) {
        run.step(*step);
        run.check(step);
    }
    run.pins.clear();
    run.check(&"the end");
    cache.resize(0);
    cache.validate().expect("a cache without room");
    let stats = cache.stats();
    assert_eq!((stats.used_bytes, stats.blocks, stats.block_bytes, stats.doomed), (0, 0, 0, 0), "{stats:?}");
}

struct Run<'a> {
    cache: &'a BlockCache,
    /// What a hit of a key must be: version and length. Those that are not here must not be found.
    blocks: BTreeMap<u8, (u64, usize)>,
    versions: u64,
    pins: Vec<(CachedBlock<'a>, u8, u64)>,
}

fn key(number: u8) -> CacheKey {
    CacheKey { file: 1, offset: u64::from(number) * 512, generation: 7 }
}

fn len(number: u8) -> usize {
    LENS[number as usize % LENS.len()]
}

/// Each byte tells of the key, the version and its place.
fn fill(number: u8, version: u64, buf: &mut [u8]) {
    let seed = (u64::from(number) << 32 ^ version).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for (index, word) in (0_u64..).zip(buf.chunks_mut(8)) {
        word.copy_from_slice(&(seed ^ index).to_le_bytes()[..word.len()]);
    }
}

fn is(number: u8, version: u64, buf: &[u8]) -> bool {
    let mut expected = vec![0; buf.len()];
    fill(number, version, &mut expected);
    expected == buf
}

fn problem() -> Error {
    Error::InvalidOption { option: "load", expected: "one that fails", found: "one".to_owned() }
}

impl<'a> Run<'a> {
    fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    /// A block was found.
    fn hit(&self, number: u8, buf: &[u8]) {
        let Some((version, len)) = self.blocks.get(&number) else { panic!("block {number} was freed, or never there") };
        assert_eq!(buf.len(), *len, "block {number}");
        assert!(is(number, *version, buf), "block {number} is not its version {version}");
    }

    fn get(&mut self, number: u8, len: usize) {
        let version = self.next_version();
        let mut buf = vec![0xEE; len];
        let load = |buf: &mut [u8]| {
            fill(number, version, buf);
            Ok(())
        };
        match self.cache.get_or_load(&key(number), &mut buf, load).expect("a load") {
            CacheRead::Loaded => {
                assert!(is(number, version, &buf), "not what was loaded");
                self.blocks.insert(number, (version, len));
            }
            CacheRead::Hit => self.hit(number, &buf),
            CacheRead::Joined => panic!("nobody else loads"),
        }
    }

    fn pin(&mut self, pinned: CachedBlock<'a>, number: u8, version: u64) {
        if self.pins.len() == PINS_MAX {
            self.pins.remove(0);
        }
        self.pins.push((pinned, number, version));
    }

    fn step(&mut self, step: Step) {
        let cache = self.cache;
        match step {
            Step::Get(number) => {
                let mut buf = vec![0xEE; len(number)];
                if cache.get(&key(number), &mut buf) {
                    self.hit(number, &buf);
                }
            }
            Step::GetOrLoad(number) => self.get(number, len(number)),
            Step::GetOfLength(number, len) => self.get(number, usize::from(len % 6000)),
            Step::LoadFails(number) => {
                let mut buf = vec![0; len(number)];
                match cache.get_or_load(&key(number), &mut buf, |_| Err(problem())) {
                    Ok(CacheRead::Hit) => self.hit(number, &buf),
                    Ok(other) => panic!("{other:?} of a load that failed"),
                    Err(error) => assert!(matches!(error, Error::InvalidOption { .. }), "{error}"),
                }
            }
            Step::LoadOfFreed(number) => {
                let version = self.next_version();
                let load = |buf: &mut [u8]| {
                    fill(number, version, buf);
                    cache.invalidate(&key(number));
                    Ok(())
                };
                let mut buf = vec![0; len(number)];
                match cache.get_or_load(&key(number), &mut buf, load).expect("a load") {
                    CacheRead::Hit => self.hit(number, &buf),
                    _ => {
                        assert!(is(number, version, &buf));
                        self.blocks.remove(&number);
                    }
                }
            }
            Step::Pin(number) => {
                if let Some(pinned) = cache.pin(&key(number)) {
                    self.hit(number, &pinned);
                    let version = self.blocks[&number].0;
                    self.pin(pinned, number, version);
                }
            }
            Step::PinOrLoad(number) => {
                let version = self.next_version();
                let mut loaded = false;
                let load = |buf: &mut [u8]| {
                    loaded = true;
                    fill(number, version, buf);
                    Ok(())
                };
                let pinned = cache.pin_or_load(&key(number), len(number), load).expect("a load");
                if loaded {
                    self.blocks.insert(number, (version, len(number)));
                }
                self.hit(number, &pinned);
                let version = self.blocks[&number].0;
                self.pin(pinned, number, version);
            }
            Step::Unpin(which) => {
                if !self.pins.is_empty() {
                    self.pins.remove(which as usize % self.pins.len());
                }
            }
            Step::Insert(number) => {
                // It says that the block is there, not that it is the one that was offered.
                let version = self.next_version();
                let mut bytes = vec![0; len(number)];
                fill(number, version, &mut bytes);
                let was_there = cache.contains(&key(number));
                if cache.insert(&key(number), &bytes) && !was_there {
                    self.blocks.insert(number, (version, len(number)));
                }
            }
            Step::Invalidate(number) => {
                let was_there = cache.contains(&key(number));
                assert_eq!(cache.invalidate(&key(number)), was_there, "block {number}");
                self.blocks.remove(&number);
            }
            Step::InvalidateMany(bit) => {
                let bit = 1_u8 << (bit % 8);
                let which = |number: u8| number & bit != 0;
                cache.invalidate_where(|key| which((key.offset / 512) as u8));
                self.blocks.retain(|number, _| !which(*number));
            }
            Step::Resize(budget) => {
                let budget_bytes = BUDGETS[budget as usize % 4];
                assert_eq!(cache.resize(budget_bytes), budget_bytes);
            }
        }
    }

    fn check(&self, step: &dyn std::fmt::Debug) {
        self.cache.validate().unwrap_or_else(|problem| panic!("after {step:?}: {problem}"));
        for (pinned, number, version) in &self.pins {
            assert!(is(*number, *version, pinned), "after {step:?}: block {number} changed while it was pinned");
        }
        let stats = self.cache.stats();
        // A pinned block keeps what lies before it in memory, until it is unpinned.
        let budget_bytes = if self.pins.is_empty() { stats.budget_bytes } else { BUDGET_MAX };
        assert!(stats.used_bytes <= budget_bytes, "after {step:?}: {stats:?}");
        assert!(stats.doomed <= self.pins.len() as u64, "after {step:?}: {stats:?}");
        assert_eq!(stats.admissions, stats.blocks + stats.evictions + stats.invalidations, "after {step:?}: {stats:?}");
        let keys = self.cache.keys();
        assert_eq!(keys.len() as u64, stats.blocks, "after {step:?}");
        for (found, len_bytes) in keys {
            let number = (found.offset / 512) as u8;
            let expected = self.blocks.get(&number);
            assert_eq!(expected.map(|(_, len)| *len), Some(len_bytes as usize), "after {step:?}: block {number}");
            let mut buf = vec![0; len_bytes as usize];
            // No lookup of the caller's: the counts that it changes are looked at above.
            assert!(self.cache.get(&found, &mut buf), "after {step:?}: block {number} is not found");
            self.hit(number, &buf);
        }
    }
}
