//! What a cache counts.

use super::policy::CachePolicy;

/// What a cache, or a shard of it, did since it was made, and what it holds.
///
/// `hits + misses` are all lookups. `admissions` are the blocks that are there, and `evictions`, and `invalidations`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Which block leaves when there is no room.
    pub policy: CachePolicy,
    /// How many shards this is of.
    pub shards: u64,
    /// Lookups that found the block.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Misses that waited for the load of another thread.
    pub joins: u64,
    /// Loads that failed.
    pub failed_loads: u64,
    /// Blocks that came in.
    pub admissions: u64,
    /// Blocks that were loaded or offered but did not come in: longer than the cache takes, no room beside what is
    /// pinned, or freed meanwhile.
    pub bypasses: u64,
    /// Blocks that left for want of room.
    pub evictions: u64,
    /// Of the evictions: blocks that came in not long ago, and were held to be worth less than what was there.
    pub refusals: u64,
    /// Blocks that came in and that the policy remembered from before.
    pub ghost_hits: u64,
    /// Blocks that were freed, or dropped by a change of the budget.
    pub invalidations: u64,
    /// Blocks that are there.
    pub blocks: u64,
    /// Their bytes.
    pub block_bytes: u64,
    /// Blocks that left but are still pinned by someone. Their bytes are in `used_bytes`.
    pub doomed: u64,
    /// What the cache may use, in bytes.
    pub budget_bytes: u64,
    /// What it uses, with all of its tables.
    pub used_bytes: u64,
    /// The most that it ever used. Of several shards, the sum of what each did.
    pub used_bytes_max: u64,
    /// Of `used_bytes`: tables.
    pub overhead_bytes: u64,
}

impl CacheStats {
    /// Hits per lookup, from 0 to 1. Nothing before the first lookup.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let lookups = self.hits + self.misses;
        (lookups > 0).then(|| self.hits as f64 / lookups as f64)
    }

    pub(super) fn add(&mut self, other: &CacheStats) {
        let CacheStats { policy, .. } = *other;
        self.policy = policy;
        let pairs = [
            (&mut self.shards, other.shards),
            (&mut self.hits, other.hits),
            (&mut self.misses, other.misses),
            (&mut self.joins, other.joins),
            (&mut self.failed_loads, other.failed_loads),
            (&mut self.admissions, other.admissions),
            (&mut self.bypasses, other.bypasses),
            (&mut self.evictions, other.evictions),
            (&mut self.refusals, other.refusals),
            (&mut self.ghost_hits, other.ghost_hits),
            (&mut self.invalidations, other.invalidations),
            (&mut self.blocks, other.blocks),
            (&mut self.block_bytes, other.block_bytes),
            (&mut self.doomed, other.doomed),
            (&mut self.budget_bytes, other.budget_bytes),
            (&mut self.used_bytes, other.used_bytes),
            (&mut self.used_bytes_max, other.used_bytes_max),
            (&mut self.overhead_bytes, other.overhead_bytes),
        ];
        for (sum, one) in pairs {
            *sum += one;
        }
    }
}
