//! How a cache is made.

use super::BlockCache;
use super::policy::CachePolicy;
use crate::error::{Error, Result};

/// A shard has this much at least, where the number of shards is not given.
const SHARE_MIN_BYTES: u64 = 8 << 20;
const SHARDS_MAX: usize = 256;

/// Makes a [`BlockCache`].
///
/// ```
/// use mapfall::{CacheOptions, CachePolicy};
///
/// let cache = CacheOptions::new(64 << 20).policy(CachePolicy::Lru).build()?;
/// assert_eq!(cache.budget_bytes(), 64 << 20);
/// # Ok::<(), mapfall::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    pub(super) budget_bytes: u64,
    budget_max_bytes: Option<u64>,
    pub(super) policy: CachePolicy,
    shards: Option<usize>,
}

impl CacheOptions {
    /// A budget in bytes, for blocks and all that the cache keeps about them. 0 is a cache that holds nothing until it
    /// is [resized](BlockCache::resize).
    #[must_use]
    pub fn new(budget_bytes: u64) -> Self {
        CacheOptions { budget_bytes, budget_max_bytes: None, policy: CachePolicy::default(), shards: None }
    }

    /// Up to what the cache can be resized, in bytes: address space that is set aside, not memory. Default: four times
    /// the budget, and 1 GiB at least.
    #[must_use]
    pub fn budget_max_bytes(mut self, budget_max_bytes: u64) -> Self {
        self.budget_max_bytes = Some(budget_max_bytes);
        self
    }

    /// Which block leaves when there is no room.
    #[must_use]
    pub fn policy(mut self, policy: CachePolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Into how many parts the cache is divided, each with a lock and an even share of the budget: a power of two from
    /// 1 to 256. Default: four for each processor, as long as each has 8 MiB of the largest budget named here.
    ///
    /// A block longer than an eighth of a share is not taken in.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Makes the cache.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a number of shards that cannot be, a largest budget below the budget, and one for
    /// which there is no address space.
    pub fn build(&self) -> Result<BlockCache> {
        let invalid = |option, expected, found: String| Err(Error::InvalidOption { option, expected, found });
        let budget_max_bytes =
            self.budget_max_bytes.unwrap_or_else(|| (self.budget_bytes.saturating_mul(4)).max(1 << 30));
        if budget_max_bytes < self.budget_bytes {
            return invalid("budget_max_bytes", "no less than the budget", format!("{budget_max_bytes} bytes"));
        }
        let shards = self.shards.unwrap_or_else(|| {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            let by_share = self.budget_bytes.max(1) / SHARE_MIN_BYTES;
            let wanted = (processors * 4).min(usize::try_from(by_share).unwrap_or(usize::MAX)).max(1);
            (1 << wanted.ilog2()).min(SHARDS_MAX)
        });
        if !shards.is_power_of_two() || shards > SHARDS_MAX {
            return invalid("shards", "a power of two from 1 to 256", shards.to_string());
        }
        BlockCache::with_shards(self, shards, budget_max_bytes).ok_or_else(|| Error::InvalidOption {
            option: "budget_max_bytes",
            expected: "address space that the system gives",
            found: format!("{budget_max_bytes} bytes, which it refused"),
        })
    }
}
