//! One cache over one sequence of requests, without the blocks: what a policy would have hit.
//!
//! It treats a policy as the cache does: hits are counted beside the block up to [`Policy::hits_max`], room is made
//! before a block comes in, and a block that is larger than the cache stays out. Only the policy's own reckoning is in
//! units; what fits is told by exact weights.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::BuildHasher;

use super::policy::{CachePolicy, Policy, PolicyCounts, Residents};

/// What was counted since [`Simulation::start_counting`], or since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SimCounts {
    pub(crate) requests: u64,
    pub(crate) hits: u64,
    pub(crate) requested_bytes: u64,
    pub(crate) hit_bytes: u64,
    pub(crate) evictions: u64,
    /// Requests for objects larger than the whole cache.
    pub(crate) too_large: u64,
    /// The policy's own.
    pub(crate) policy: PolicyCounts,
}

/// What is in, by slot.
#[derive(Debug, Default)]
struct Slots {
    hits: Vec<Cell<u8>>,
    objects: Vec<u32>,
    weights: Vec<u64>,
    costs_units: Vec<u32>,
    free: Vec<u32>,
}

impl Slots {
    fn take(&mut self, object: u32, weight: u64, cost_units: u32) -> u32 {
        if let Some(slot) = self.free.pop() {
            let index = slot as usize;
            self.hits[index].set(0);
            self.objects[index] = object;
            self.weights[index] = weight;
            self.costs_units[index] = cost_units;
            return slot;
        }
        // Objects are numbered by `u32` too, and each has at most one slot.
        let slot = self.objects.len() as u32;
        self.hits.push(Cell::new(0));
        self.objects.push(object);
        self.weights.push(weight);
        self.costs_units.push(cost_units);
        slot
    }
}

impl Residents for Slots {
    fn hits(&self, slot: u32) -> u8 {
        self.hits[slot as usize].get()
    }

    fn set_hits(&self, slot: u32, hits: u8) {
        self.hits[slot as usize].set(hits);
    }

    fn hash(&self, slot: u32) -> u64 {
        // An object's number stands for its key, and is as unique.
        foldhash::quality::FixedState::default().hash_one(self.objects[slot as usize])
    }

    fn cost(&self, slot: u32) -> u32 {
        self.costs_units[slot as usize]
    }
}

/// A cache of a capacity under a policy.
#[derive(Debug)]
pub(crate) struct Simulation {
    policy: Box<dyn Policy>,
    hits_max: u8,
    sees_hits: bool,
    capacity: u64,
    used: u64,
    unit: u64,
    /// The slots of the objects that are in.
    resident: HashMap<u32, u32, foldhash::fast::FixedState>,
    slots: Slots,
    counts: SimCounts,
    /// The policy's counts when counting started.
    policy_before: PolicyCounts,
}

impl Simulation {
    /// A cache for objects of so much weight together. The policy is told of weights in units of `unit`, rounded up.
    pub(crate) fn new(policy: CachePolicy, capacity: u64, unit: u64) -> Self {
        let unit = unit.max(1);
        let policy = policy.new_policy(capacity.div_ceil(unit));
        Simulation {
            hits_max: policy.hits_max(),
            sees_hits: policy.sees_hits(),
            policy,
            capacity,
            used: 0,
            unit,
            resident: HashMap::default(),
            slots: Slots::default(),
            counts: SimCounts::default(),
            policy_before: PolicyCounts::default(),
        }
    }

    /// Asks for an object, by its number, which has this weight if it has to come in. Says whether it was in.
    ///
    /// One that is in keeps the weight that it came in with.
    pub(crate) fn request(&mut self, object: u32, weight: u64, size_bytes: u64) -> bool {
        self.counts.requests += 1;
        self.counts.requested_bytes += size_bytes;
        if let Some(&slot) = self.resident.get(&object) {
            self.counts.hits += 1;
            self.counts.hit_bytes += size_bytes;
            let hits = &self.slots.hits[slot as usize];
            if hits.get() < self.hits_max {
                hits.set(hits.get() + 1);
            }
            if self.sees_hits {
                self.policy.hit(slot);
            }
            return true;
        }
        if weight <= self.capacity {
            self.bring_in(object, weight);
        } else {
            self.counts.too_large += 1;
        }
        false
    }

    fn bring_in(&mut self, object: u32, weight: u64) {
        while weight > self.capacity - self.used
            && let Some(slot) = self.policy.evict(&self.slots)
        {
            self.counts.evictions += 1;
            self.used -= self.slots.weights[slot as usize];
            self.resident.remove(&self.slots.objects[slot as usize]);
            self.slots.free.push(slot);
        }
        // As much as a policy can be told: at the usual unit, 2 TiB.
        let cost_units = u32::try_from(weight.div_ceil(self.unit)).unwrap_or(u32::MAX);
        let slot = self.slots.take(object, weight, cost_units);
        self.used += weight;
        self.resident.insert(object, slot);
        self.policy.insert(slot, &self.slots);
    }

    /// Counts from nothing. What is in stays in.
    pub(crate) fn start_counting(&mut self) {
        self.counts = SimCounts::default();
        self.policy_before = self.policy.counts();
    }

    pub(crate) fn counts(&self) -> SimCounts {
        let now = self.policy.counts();
        let policy = PolicyCounts {
            ghost_hits: now.ghost_hits - self.policy_before.ghost_hits,
            refusals: now.refusals - self.policy_before.refusals,
        };
        SimCounts { policy, ..self.counts }
    }

    /// The memory of the policy's lists and tables, in bytes.
    pub(crate) fn policy_memory_bytes(&self) -> u64 {
        self.policy.memory_bytes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lru() -> CachePolicy {
        "lru".parse().unwrap()
    }

    /// What is in, the least recently used first, with costs: nothing but a list.
    #[derive(Default)]
    struct LruModel {
        order: Vec<(u32, u64)>,
        evictions: u64,
    }

    impl LruModel {
        fn request(&mut self, object: u32, cost: u64, capacity: u64) -> bool {
            if let Some(at) = self.order.iter().position(|(known, _)| *known == object) {
                let entry = self.order.remove(at);
                self.order.push(entry);
                return true;
            }
            if cost <= capacity {
                while self.order.iter().map(|(_, cost)| cost).sum::<u64>() + cost > capacity {
                    self.order.remove(0);
                    self.evictions += 1;
                }
                self.order.push((object, cost));
            }
            false
        }
    }

    /// The policy knows what is in, and it fits.
    fn check(simulation: &Simulation) {
        let mut known = simulation.policy.validate(&simulation.slots).unwrap();
        let mut slots: Vec<u32> = simulation.resident.values().copied().collect();
        known.sort_unstable();
        slots.sort_unstable();
        assert_eq!(known, slots);
        let weights = slots.iter().map(|slot| simulation.slots.weights[*slot as usize]);
        assert_eq!(weights.sum::<u64>(), simulation.used);
        assert!(simulation.used <= simulation.capacity);
        for (object, slot) in &simulation.resident {
            assert_eq!(simulation.slots.objects[*slot as usize], *object);
        }
    }

    fn hits(policy: CachePolicy, capacity: u64, objects: impl IntoIterator<Item = u32>) -> u64 {
        let mut simulation = Simulation::new(policy, capacity, 1);
        for object in objects {
            simulation.request(object, 1, 1);
        }
        check(&simulation);
        simulation.counts().hits
    }

    #[test]
    fn a_loop_just_too_long_never_hits_and_one_that_fits_always_does() {
        let rounds = |objects: u32| (0..10 * objects).map(move |request| request % objects);
        assert_eq!(hits(lru(), 100, rounds(101)), 0);
        for policy in CachePolicy::ALL {
            assert_eq!(hits(policy, 100, rounds(100)), 900, "{policy}");
        }
    }

    #[test]
    fn the_textbook_sequence() {
        // With three places: 1 2 3 4 miss (4 for 1), 1 2 miss (for 2, 3), 5 misses (for 4), 1 2 hit, 3 4 5 miss.
        assert_eq!(hits(lru(), 3, [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]), 2);
        assert_eq!(hits(lru(), 4, [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]), 4);
    }

    #[test]
    fn what_is_larger_than_the_cache_stays_out_and_evicts_nothing() {
        for policy in CachePolicy::ALL {
            let mut simulation = Simulation::new(policy, 10, 1);
            assert!(!simulation.request(1, 4, 400));
            assert!(!simulation.request(2, 11, 1100));
            assert!(!simulation.request(3, u64::MAX, 1));
            assert!(simulation.request(1, 4, 400) && !simulation.request(2, 11, 1100));
            let counts = simulation.counts();
            assert_eq!((counts.requests, counts.hits, counts.too_large, counts.evictions), (5, 1, 3, 0), "{policy}");
            assert_eq!((counts.requested_bytes, counts.hit_bytes), (3001, 400));
            simulation.start_counting();
            assert_eq!(simulation.counts(), SimCounts::default());
            assert!(simulation.request(1, 4, 400));
        }
    }

    #[test]
    fn hits_stop_at_what_the_policy_wants_to_know() {
        for policy in CachePolicy::ALL {
            let mut simulation = Simulation::new(policy, 10, 1);
            for _ in 0..300 {
                simulation.request(7, 1, 1);
            }
            assert_eq!(simulation.slots.hits(0), simulation.hits_max, "{policy}");
        }
    }

    proptest! {
        #[test]
        fn lru_does_what_a_list_does(
            capacity in 1..40u64,
            requests in proptest::collection::vec((0..30u32, 1..12u64), 0..400),
        ) {
            let (mut simulation, mut model) = (Simulation::new(lru(), capacity, 1), LruModel::default());
            for (object, cost) in requests {
                prop_assert_eq!(simulation.request(object, cost, cost), model.request(object, cost, capacity));
            }
            prop_assert_eq!(simulation.counts().evictions, model.evictions);
            check(&simulation);
        }

        #[test]
        fn every_policy_keeps_to_the_capacity(
            capacity in 1..40u64,
            unit in 1..5u64,
            requests in proptest::collection::vec((0..60u32, 0..12u64), 0..400),
        ) {
            for policy in CachePolicy::ALL {
                let mut simulation = Simulation::new(policy, capacity, unit);
                for (object, cost) in &requests {
                    simulation.request(*object, *cost, *cost);
                }
                check(&simulation);
                let counts = simulation.counts();
                let resident = simulation.resident.len() as u64;
                let came_in = counts.requests - counts.hits - counts.too_large;
                prop_assert_eq!(came_in, counts.evictions + resident);
            }
        }
    }
}
