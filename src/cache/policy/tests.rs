//! Policies in a small model of the cache: what goes in comes out once, and known answers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{CachePolicy, Policy, Residents};

/// What the cache keeps beside a block.
#[derive(Clone, Copy, Default)]
struct Block {
    key: u64,
    cost: u32,
    hits: u8,
}

#[derive(Default)]
struct Blocks(RefCell<Vec<Block>>);

impl Residents for Blocks {
    fn hits(&self, slot: u32) -> u8 {
        self.0.borrow()[slot as usize].hits
    }

    fn set_hits(&self, slot: u32, hits: u8) {
        self.0.borrow_mut()[slot as usize].hits = hits;
    }

    fn hash(&self, slot: u32) -> u64 {
        self.0.borrow()[slot as usize].key.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn cost(&self, slot: u32) -> u32 {
        self.0.borrow()[slot as usize].cost
    }
}

/// A cache of keys.
struct Model {
    policy: Box<dyn Policy>,
    blocks: Blocks,
    slots: HashMap<u64, u32>,
    free: Vec<u32>,
    capacity_units: u64,
    used_units: u64,
    requests: Cell<u64>,
    hits: Cell<u64>,
}

impl Model {
    fn new(kind: CachePolicy, capacity_units: u64) -> Self {
        Model {
            policy: kind.new_policy(capacity_units),
            blocks: Blocks::default(),
            slots: HashMap::new(),
            free: Vec::new(),
            capacity_units,
            used_units: 0,
            requests: Cell::new(0),
            hits: Cell::new(0),
        }
    }

    fn hit(&mut self, slot: u32) {
        if self.policy.sees_hits() {
            self.policy.hit(slot);
        } else {
            let hits = self.blocks.hits(slot);
            self.blocks.set_hits(slot, (hits + 1).min(self.policy.hits_max()));
        }
    }

    fn forget(&mut self, slot: u32) {
        let block = self.blocks.0.borrow()[slot as usize];
        assert_eq!(self.slots.remove(&block.key), Some(slot), "slot {slot} left twice");
        self.used_units -= u64::from(block.cost);
        self.free.push(slot);
    }

    fn make_room(&mut self, units: u64) {
        while self.used_units + units > self.capacity_units {
            match self.policy.evict(&self.blocks) {
                Some(slot) => self.forget(slot),
                None => return assert_eq!(self.used_units, 0, "something is left"),
            }
        }
    }

    fn get(&mut self, key: u64, cost: u32) -> bool {
        self.requests.set(self.requests.get() + 1);
        if let Some(&slot) = self.slots.get(&key) {
            self.hits.set(self.hits.get() + 1);
            self.hit(slot);
            return true;
        }
        self.make_room(u64::from(cost));
        if u64::from(cost) > self.capacity_units {
            return false;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            let mut blocks = self.blocks.0.borrow_mut();
            blocks.push(Block::default());
            blocks.len() as u32 - 1
        });
        // The count of the block that had the slot before is still there.
        self.blocks.0.borrow_mut()[slot as usize] = Block { key, cost, hits: self.policy.hits_max() };
        self.policy.insert(slot, &self.blocks);
        self.used_units += u64::from(cost);
        self.slots.insert(key, slot);
        false
    }

    fn remove(&mut self, key: u64) {
        if let Some(&slot) = self.slots.get(&key) {
            self.policy.remove(slot, &self.blocks);
            self.forget(slot);
        }
    }

    /// The share of hits since the last call.
    fn hit_ratio(&self) -> f64 {
        self.hits.replace(0) as f64 / self.requests.replace(0) as f64
    }

    fn check(&self) {
        let mut slots = self.policy.validate(&self.blocks).unwrap();
        slots.sort_unstable();
        let mut expected: Vec<u32> = self.slots.values().copied().collect();
        expected.sort_unstable();
        assert_eq!(slots, expected);
        assert!(self.used_units <= self.capacity_units);
    }

    fn keys(&self) -> Vec<u64> {
        let mut keys: Vec<u64> = self.slots.keys().copied().collect();
        keys.sort_unstable();
        keys
    }
}

/// A key below `keys`, by Zipf's law with an exponent of about 1.
fn zipf(rng: &mut StdRng, keys: u64) -> u64 {
    (keys as f64).powf(rng.random::<f64>()) as u64
}

#[test]
fn what_goes_in_comes_out_once() {
    for kind in CachePolicy::ALL {
        for seed in 0..12 {
            let mut rng = StdRng::seed_from_u64(seed);
            let capacity = [1, 8, 80, 700, 3000, 40_000][seed as usize % 6];
            let mut model = Model::new(kind, capacity);
            for step in 0..6000 {
                let key = zipf(&mut rng, 4000);
                match rng.random_range(0..200) {
                    0..10 => model.remove(key),
                    10 => {
                        let capacity = if rng.random() { capacity } else { rng.random_range(0..=capacity) };
                        model.capacity_units = capacity;
                        model.policy.set_capacity(capacity);
                        model.make_room(0);
                    }
                    11..20 => {
                        // A block that is in use is put back.
                        if let Some(slot) = model.policy.evict(&model.blocks) {
                            model.policy.keep(slot, &model.blocks);
                        }
                    }
                    // A hit that is lost, and one that comes where none was expected.
                    20..24 => {
                        if let Some(&slot) = model.slots.get(&key) {
                            model.blocks.set_hits(slot, rng.random_range(0..=model.policy.hits_max()));
                        }
                    }
                    _ => {
                        let cost = if key.is_multiple_of(3) { 1 + (key * 7919 % 512) as u32 } else { 8 };
                        model.get(key, cost);
                    }
                }
                if step % 50 == 0 {
                    model.check();
                }
            }
            model.check();
            model.policy.set_capacity(0);
            model.capacity_units = 0;
            model.make_room(0);
            assert!(model.slots.is_empty(), "{kind}");
            assert_eq!(model.policy.evict(&model.blocks), None);
            model.check();
        }
    }
}

#[test]
fn hits_that_never_end_do_not_keep_the_hand_going() {
    /// Every block is always hit again at once.
    struct Hot;
    impl Residents for Hot {
        fn hits(&self, _slot: u32) -> u8 {
            3
        }
        fn set_hits(&self, _slot: u32, _hits: u8) {}
        fn hash(&self, slot: u32) -> u64 {
            u64::from(slot)
        }
        fn cost(&self, _slot: u32) -> u32 {
            8
        }
    }
    for kind in CachePolicy::ALL {
        let mut policy = kind.new_policy(80);
        for slot in 0..10 {
            policy.insert(slot, &Hot);
        }
        let mut gone: Vec<u32> = std::iter::from_fn(|| policy.evict(&Hot)).collect();
        gone.sort_unstable();
        assert_eq!(gone, (0..10).collect::<Vec<_>>(), "{kind}");
    }
}

#[test]
fn lru_evicts_in_order_of_use() {
    let mut model = Model::new(CachePolicy::Lru, 3);
    for key in [1, 2, 3, 1, 4] {
        model.get(key, 1);
    }
    assert_eq!(model.keys(), [1, 3, 4]);
    model.get(5, 1);
    assert_eq!(model.keys(), [1, 4, 5]);
}

#[test]
fn sieve_passes_over_what_was_hit_and_never_moves_it() {
    // From the oldest: A to G, of which A, B and G were hit.
    let mut model = Model::new(CachePolicy::Sieve, 7);
    let keys = |text: &str| text.bytes().map(u64::from).collect::<Vec<_>>();
    for key in keys("ABCDEFGABG") {
        model.get(key, 1);
    }
    // H: the hand forgives A and B, and takes C.
    model.get(u64::from(b'H'), 1);
    assert_eq!(model.keys(), keys("ABDEFGH"));
    // A is hit, which the hand is past; I takes D, J takes E.
    for key in keys("AIJ") {
        model.get(key, 1);
    }
    assert_eq!(model.keys(), keys("ABFGHIJ"));
    // The hand goes on where it was: F; then G is forgiven, and H leaves.
    for key in keys("KL") {
        model.get(key, 1);
    }
    assert_eq!(model.keys(), keys("ABGIJKL"));
}

#[test]
fn s3fifo_moves_by_hits_and_by_ghost() {
    // Ten blocks: a small queue of one, a main queue of nine.
    let mut model = Model::new(CachePolicy::S3Fifo, 10);
    for key in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 1] {
        model.get(key, 1);
    }
    // 0 has two hits and moves to the main queue; 1 has one and leaves, remembered.
    model.get(10, 1);
    assert_eq!(model.keys(), [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    // 1 comes back while it is remembered, and goes to the main queue at once: what was used once passes it by.
    model.get(1, 1);
    assert_eq!(model.policy.counts().ghost_hits, 1);
    for key in 100..130 {
        model.get(key, 1);
    }
    assert!(model.slots.contains_key(&0) && model.slots.contains_key(&1));
}

#[test]
fn a_loop_larger_than_the_cache() {
    for (blocks, period) in [(100, 110), (100, 200), (300, 330), (300, 3000)] {
        let ratio = |kind| {
            let mut model = Model::new(kind, blocks * 8);
            (0..period * 20).for_each(|step| _ = model.get(step % period, 8));
            model.hit_ratio();
            (0..period * 20).for_each(|step| _ = model.get(step % period, 8));
            model.hit_ratio()
        };
        assert!(ratio(CachePolicy::Lru) < 1e-9);
        let (ratio, best) = (ratio(CachePolicy::WTinyLfu), blocks as f64 / period as f64);
        assert!(ratio > best - 0.03 && ratio <= best, "{blocks} of {period}: {ratio}");
    }
}

#[test]
fn a_scan_does_not_displace_the_working_set() {
    for (kind, loss_max) in [(CachePolicy::WTinyLfu, 0.05), (CachePolicy::S3Fifo, 0.05), (CachePolicy::Lru, 1.0)] {
        let mut rng = StdRng::seed_from_u64(5);
        let mut model = Model::new(kind, 400 * 8);
        let mut run = |model: &mut Model, requests| {
            (0..requests).for_each(|_| _ = model.get(zipf(&mut rng, 20_000), 8));
            model.hit_ratio()
        };
        run(&mut model, 60_000);
        let before = run(&mut model, 20_000);
        (0..4000).for_each(|key| _ = model.get(1_000_000 + key, 8));
        model.hit_ratio();
        let after = run(&mut model, 2000);
        assert!(after > before * (1.0 - loss_max) - 0.01, "{kind}: {before} before, {after} after");
    }
}

#[test]
fn popularity_is_kept_better_than_by_lru_and_recency_as_well() {
    let ratio = |kind, key: fn(&mut StdRng, u64) -> u64| {
        let mut rng = StdRng::seed_from_u64(6);
        let mut model = Model::new(kind, 300 * 8);
        for step in 0..60_000 {
            if step == 30_000 {
                model.hit_ratio();
            }
            model.get(key(&mut rng, step), 8);
        }
        model.hit_ratio()
    };
    let popular = |rng: &mut StdRng, _| zipf(rng, 30_000);
    assert!(ratio(CachePolicy::WTinyLfu, popular) > ratio(CachePolicy::Lru, popular) + 0.06);
    assert!(ratio(CachePolicy::Sieve, popular) > ratio(CachePolicy::Lru, popular) + 0.05);
    assert!(ratio(CachePolicy::S3Fifo, popular) > ratio(CachePolicy::Lru, popular) + 0.05);
    // A new key every fourth request, and an old one is asked for the less the older it is.
    let recent = |rng: &mut StdRng, step| (step / 4 + 5000) - (-(1.0 - rng.random::<f64>()).ln() * 450.0) as u64;
    assert!(ratio(CachePolicy::WTinyLfu, recent) > ratio(CachePolicy::Lru, recent) - 0.01);
}

#[test]
fn names_and_memory() {
    for kind in CachePolicy::ALL {
        assert_eq!(kind.name().to_uppercase().parse(), Ok(kind));
        let mut model = Model::new(kind, 10_000 * 8);
        (0..12_000).for_each(|key| _ = model.get(key, 8));
        let bytes = model.policy.memory_bytes() / 10_000;
        assert!((8..=90).contains(&bytes), "{kind}: {bytes} bytes a slot");
    }
    assert_eq!(CachePolicy::default(), CachePolicy::WTinyLfu);
    assert!("arc".parse::<CachePolicy>().unwrap_err().contains("wtinylfu"));
}
