//! SIEVE: one list in order of arrival, and a hand that passes over what was hit.

use super::list::{Links, List, NONE};
use super::{Policy, PolicyCounts, Residents};

/// Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024. Blocks never move; the hand goes from the oldest to the
/// newest, forgives a block that was hit since it last came by, and takes the first that was not.
#[derive(Debug)]
pub(crate) struct Sieve {
    links: Links,
    list: List,
    /// The block to look at next. [`NONE`] for the oldest.
    hand: u32,
}

impl Sieve {
    pub(crate) fn new() -> Self {
        Sieve { links: Links::default(), list: List::new(), hand: NONE }
    }
}

impl Policy for Sieve {
    fn hits_max(&self) -> u8 {
        1
    }

    fn set_capacity(&mut self, _units: u64) {}

    fn insert(&mut self, slot: u32, residents: &dyn Residents) {
        self.links.cover(slot);
        residents.set_hits(slot, 0);
        self.links.push(&mut self.list, slot, residents.cost(slot));
    }

    fn evict(&mut self, residents: &dyn Residents) -> Option<u32> {
        // Every block may be forgiven once; hits that come in meanwhile must not keep the hand going.
        for _ in 0..=self.list.len {
            let slot = if self.hand == NONE { self.list.oldest } else { self.hand };
            if slot == NONE {
                return None;
            }
            self.hand = self.links.newer(slot);
            if residents.hits(slot) == 0 {
                self.links.unlink(&mut self.list, slot, residents.cost(slot));
                return Some(slot);
            }
            residents.set_hits(slot, 0);
        }
        let slot = if self.hand == NONE { self.list.oldest } else { self.hand };
        self.remove(slot, residents);
        Some(slot)
    }

    fn remove(&mut self, slot: u32, residents: &dyn Residents) {
        if self.hand == slot {
            self.hand = self.links.newer(slot);
        }
        self.links.unlink(&mut self.list, slot, residents.cost(slot));
    }

    fn counts(&self) -> PolicyCounts {
        PolicyCounts::default()
    }

    fn memory_bytes(&self) -> u64 {
        self.links.memory_bytes()
    }

    fn validate(&self, residents: &dyn Residents) -> Result<Vec<u32>, String> {
        let slots = self.links.validate(&self.list, residents)?;
        if self.hand != NONE && !slots.contains(&self.hand) {
            return Err(format!("the hand is at slot {}, which is not in", self.hand));
        }
        Ok(slots)
    }
}
