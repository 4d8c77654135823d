//! Which block leaves the cache next: eviction policies behind one trait.
//!
//! A policy is bookkeeping over small numbers ("slots"). It sees neither keys nor bytes nor threads: the cache calls it
//! with a shard's lock held, and so does the simulator, with none. How often a block was hit since the policy last
//! looked is kept by the caller, beside the block ([`Residents`]), so that a hit costs a byte and no lock; only a
//! policy that must see every hit in order ([`Policy::sees_hits`]) makes hits take the lock.
//!
//! Costs are in units of 512 bytes.

mod ghost;
mod list;
mod lru;
mod s3fifo;
mod sieve;
mod sketch;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests;
mod wtinylfu;

use std::fmt;
use std::str::FromStr;

pub(crate) use lru::Lru;
pub(crate) use s3fifo::S3Fifo;
pub(crate) use sieve::Sieve;
pub(crate) use wtinylfu::WTinyLfu;

/// What costs are counted in.
#[cfg(feature = "workload")]
pub(crate) const UNIT_BYTES: u64 = crate::sys::frames::UNIT_BYTES as u64;

/// What a policy may ask about the blocks that it knows.
pub(crate) trait Residents {
    /// Hits since [`Residents::set_hits`], at most [`Policy::hits_max`].
    fn hits(&self, slot: u32) -> u8;
    /// Counts anew from `hits`. A hit at the same moment may be lost.
    fn set_hits(&self, slot: u32, hits: u8);
    /// The hash of the block's key.
    fn hash(&self, slot: u32) -> u64;
    /// What the block costs, units.
    fn cost(&self, slot: u32) -> u32;
}

/// Counts of a policy since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyCounts {
    /// Blocks that came in and were remembered from before.
    pub(crate) ghost_hits: u64,
    /// Blocks that were evicted as not worth keeping, in favour of what was there.
    pub(crate) refusals: u64,
}

/// A ranking of resident blocks.
///
/// Every slot that is inserted leaves by [`Policy::evict`] or [`Policy::remove`] exactly once; then its number may be
/// inserted again. All calls take amortised O(1).
pub(crate) trait Policy: Send + fmt::Debug {
    /// The number at which counting hits stops. 0 for a policy that sees them itself. Small ones save stores.
    fn hits_max(&self) -> u8;

    /// Whether [`Policy::hit`] must be called for each hit.
    fn sees_hits(&self) -> bool {
        false
    }

    /// A block was hit. Called only where [`Policy::sees_hits`].
    fn hit(&mut self, slot: u32) {
        let _ = slot;
    }

    /// How much fits. It may change at any time; more may be resident at first.
    fn set_capacity(&mut self, units: u64);

    /// A block came in. Its hits are counted from 0. Room was made before.
    fn insert(&mut self, slot: u32, residents: &dyn Residents);

    /// Takes out the block to leave next, so that there is room for a block that will be inserted. `None` where there
    /// is none.
    fn evict(&mut self, residents: &dyn Residents) -> Option<u32>;

    /// Puts back a block that was evicted but cannot leave yet, where it is not asked for again soon.
    fn keep(&mut self, slot: u32, residents: &dyn Residents) {
        self.insert(slot, residents);
    }

    /// Takes out a block that leaves for other reasons. It is known to be in.
    fn remove(&mut self, slot: u32, residents: &dyn Residents);

    /// What was counted.
    fn counts(&self) -> PolicyCounts;

    /// The memory of its lists and tables, in bytes.
    fn memory_bytes(&self) -> u64;

    /// Checks its own lists: each resident once, sums that add up. The slots it knows, in no order.
    ///
    /// # Errors
    ///
    /// What is wrong.
    fn validate(&self, residents: &dyn Residents) -> Result<Vec<u32>, String>;
}

/// Which block leaves the cache when there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CachePolicy {
    /// The least recently used. Every hit takes the lock of its shard. A scan, or a loop over more than fits, empties
    /// it.
    Lru,
    /// SIEVE: in order of arrival, but passing over once what was hit. The simplest; good where popularity changes
    /// slowly. A loop over more than fits gets no hits. Zhang et al., "SIEVE is Simpler than LRU: an Efficient Turn-Key
    /// Eviction Algorithm for Web Caches", NSDI 2024.
    Sieve,
    /// S3-FIFO: a small queue for new blocks, a main queue for those used again, and a memory of those that left. Good
    /// where many blocks are used once. Yang et al., "FIFO Queues are All You Need for Cache Eviction", SOSP 2023.
    S3Fifo,
    /// W-TinyLFU with learned admission: new blocks pass through a small window, and stay only if blocks of their kind,
    /// by hits and by frequency in a sketch, were used again more than those they would displace. Near the best on
    /// popularity, recency, scans and loops alike. Einziger et al., "TinyLFU: A Highly Efficient Cache Admission
    /// Policy", ACM Transactions on Storage 2017; learning takes the place of the adaptive window of Einziger et al.,
    /// "Adaptive Software Cache Management", Middleware 2018.
    #[default]
    WTinyLfu,
}

impl CachePolicy {
    /// All of them.
    pub const ALL: [CachePolicy; 4] =
        [CachePolicy::Lru, CachePolicy::Sieve, CachePolicy::S3Fifo, CachePolicy::WTinyLfu];

    /// Its name in options, reports and statistics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CachePolicy::Lru => "lru",
            CachePolicy::Sieve => "sieve",
            CachePolicy::S3Fifo => "s3fifo",
            CachePolicy::WTinyLfu => "wtinylfu",
        }
    }

    pub(crate) fn new_policy(self, capacity_units: u64) -> Box<dyn Policy> {
        let mut policy: Box<dyn Policy> = match self {
            CachePolicy::Lru => Box::new(Lru::new()),
            CachePolicy::Sieve => Box::new(Sieve::new()),
            CachePolicy::S3Fifo => Box::new(S3Fifo::new()),
            CachePolicy::WTinyLfu => Box::new(WTinyLfu::new()),
        };
        policy.set_capacity(capacity_units);
        policy
    }
}

impl fmt::Display for CachePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CachePolicy {
    type Err = String;

    /// A name as of [`CachePolicy::name`], in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|policy| policy.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("expected one of {names}, found {text:?}")
        })
    }
}
