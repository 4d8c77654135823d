//! The least recently used, on the `lru` crate.

use foldhash::fast::FixedState;
use lru::LruCache;

use super::{Policy, PolicyCounts, Residents};

/// Every hit moves its block to the front of one list.
#[derive(Debug)]
pub(crate) struct Lru {
    order: LruCache<u32, (), FixedState>,
    /// The most that were ever in it, since its map does not get smaller.
    len_max: usize,
}

impl Lru {
    pub(crate) fn new() -> Self {
        Lru { order: LruCache::unbounded_with_hasher(FixedState::default()), len_max: 0 }
    }
}

impl Policy for Lru {
    fn hits_max(&self) -> u8 {
        0
    }

    fn sees_hits(&self) -> bool {
        true
    }

    fn hit(&mut self, slot: u32) {
        self.order.promote(&slot);
    }

    fn set_capacity(&mut self, _units: u64) {}

    fn insert(&mut self, slot: u32, _residents: &dyn Residents) {
        self.order.put(slot, ());
        self.len_max = self.len_max.max(self.order.len());
    }

    fn evict(&mut self, _residents: &dyn Residents) -> Option<u32> {
        self.order.pop_lru().map(|(slot, ())| slot)
    }

    fn remove(&mut self, slot: u32, _residents: &dyn Residents) {
        self.order.pop(&slot);
    }

    fn counts(&self) -> PolicyCounts {
        PolicyCounts::default()
    }

    fn memory_bytes(&self) -> u64 {
        // A node of the list with its allocation, and the map at its lowest load.
        (self.order.len() * 32 + self.len_max * 48) as u64
    }

    fn validate(&self, _residents: &dyn Residents) -> Result<Vec<u32>, String> {
        Ok(self.order.iter().map(|(slot, ())| *slot).collect())
    }
}
