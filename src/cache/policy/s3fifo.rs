//! S3-FIFO: a small queue for what is new, a main queue for what was used again, and a ghost queue.

use super::ghost::{Ghost, mix};
use super::list::{Links, List, NONE, at};
use super::{Policy, PolicyCounts, Residents};

/// Yang et al., "FIFO Queues are All You Need for Cache Eviction", SOSP 2023. A new block goes through a small queue of
/// a tenth of the room. With two hits there it goes on to the main queue; else it leaves and its hash is remembered,
/// and if it comes back meanwhile it goes to the main queue at once. There each hit, up to three, buys another round.
#[derive(Debug)]
pub(crate) struct S3Fifo {
    capacity_units: u64,
    links: Links,
    small: List,
    main: List,
    in_main: Vec<bool>,
    ghost: Ghost,
    /// Blocks that were put into the ghost queue.
    time: u64,
    ghost_hits: u64,
}

impl S3Fifo {
    pub(crate) fn new() -> Self {
        S3Fifo {
            capacity_units: 0,
            links: Links::default(),
            small: List::new(),
            main: List::new(),
            in_main: Vec::new(),
            ghost: Ghost::new(),
            time: 0,
            ghost_hits: 0,
        }
    }

    fn push_main(&mut self, slot: u32, residents: &dyn Residents) {
        self.in_main[at(slot)] = true;
        self.links.push(&mut self.main, slot, residents.cost(slot));
    }

    /// Takes the oldest of the small queue out, or moves it to the main queue.
    fn evict_small(&mut self, residents: &dyn Residents) -> Option<u32> {
        let slot = self.small.oldest;
        self.links.unlink(&mut self.small, slot, residents.cost(slot));
        if residents.hits(slot) > 1 {
            residents.set_hits(slot, 0);
            self.push_main(slot, residents);
            return None;
        }
        self.time += 1;
        self.ghost.put(mix(residents.hash(slot)), 0, self.time);
        Some(slot)
    }
}

impl Policy for S3Fifo {
    fn hits_max(&self) -> u8 {
        3
    }

    fn set_capacity(&mut self, units: u64) {
        self.capacity_units = units;
    }

    fn insert(&mut self, slot: u32, residents: &dyn Residents) {
        self.links.cover(slot);
        if at(slot) >= self.in_main.len() {
            self.in_main.resize(at(slot) + 1, false);
            self.ghost.cover(self.in_main.len());
        }
        residents.set_hits(slot, 0);
        // As many are remembered as the main queue has blocks.
        let known = self.ghost.take(mix(residents.hash(slot)), self.time);
        if known.is_some_and(|known| known.age < u64::from(self.main.len.max(self.small.len))) {
            self.ghost_hits += 1;
            self.push_main(slot, residents);
        } else {
            self.in_main[at(slot)] = false;
            self.links.push(&mut self.small, slot, residents.cost(slot));
        }
    }

    fn evict(&mut self, residents: &dyn Residents) -> Option<u32> {
        while self.small.oldest != NONE && (self.small.units > self.capacity_units / 10 || self.main.oldest == NONE) {
            if let Some(slot) = self.evict_small(residents) {
                return Some(slot);
            }
        }
        // A block has at most three hits; more that come in meanwhile must not keep this going.
        let mut rounds_left = u64::from(self.main.len) * 4;
        loop {
            let slot = self.main.oldest;
            if slot == NONE {
                return None;
            }
            let hits = residents.hits(slot);
            if hits == 0 || rounds_left == 0 {
                self.links.unlink(&mut self.main, slot, residents.cost(slot));
                return Some(slot);
            }
            residents.set_hits(slot, hits - 1);
            self.links.rotate(&mut self.main);
            rounds_left -= 1;
        }
    }

    fn keep(&mut self, slot: u32, residents: &dyn Residents) {
        self.push_main(slot, residents);
    }

    fn remove(&mut self, slot: u32, residents: &dyn Residents) {
        let list = if self.in_main[at(slot)] { &mut self.main } else { &mut self.small };
        self.links.unlink(list, slot, residents.cost(slot));
    }

    fn counts(&self) -> PolicyCounts {
        PolicyCounts { ghost_hits: self.ghost_hits, refusals: 0 }
    }

    fn memory_bytes(&self) -> u64 {
        self.links.memory_bytes() + self.in_main.capacity() as u64 + self.ghost.memory_bytes()
    }

    fn validate(&self, residents: &dyn Residents) -> Result<Vec<u32>, String> {
        let mut slots = self.links.validate(&self.small, residents)?;
        let main = self.links.validate(&self.main, residents)?;
        if slots.iter().any(|slot| self.in_main[at(*slot)]) || main.iter().any(|slot| !self.in_main[at(*slot)]) {
            return Err("a block is in one queue and marked as in the other".to_owned());
        }
        slots.extend(main);
        Ok(slots)
    }
}
