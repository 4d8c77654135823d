//! What a simulation found: the types of its JSON.

use serde::Serialize;

use super::size::{CacheSize, Counted};
use crate::workload::trace::Format;

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The version of this crate.
    pub mapfall_version: &'static str,
    /// Whether the whole trace was gone through: `false` after an interruption. Then figures are of what was by then.
    pub complete: bool,
    /// What was asked for.
    pub config: Settings,
    /// What the trace has.
    pub trace: TraceFigures,
    /// Requests after the warm-up: those that all figures of [`Outcome::results`] are of.
    pub counted_requests: u64,
    /// Those of them that are the first for their object.
    pub cold_misses: u64,
    /// `cold_misses` by `counted_requests`: what no cache avoids, of any size and policy.
    pub cold_miss_ratio: f64,
    /// Where the intervals of [`Cell::interval_miss_ratios`] end, as numbers of requests, the warm-up's included.
    pub interval_ends: Vec<u64>,
    /// A policy at a size each: the policies in the order asked for, and for each its sizes from the smallest on.
    pub results: Vec<Cell>,
    /// What else a reader of the figures must know.
    pub notes: Vec<String>,
    /// How long the first pass over the trace took, in which its objects are found.
    pub survey_s: f64,
    /// How long the second took, with all simulations.
    pub simulate_s: f64,
}

/// What was asked for, spelled out.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The policies.
    pub policies: Vec<&'static str>,
    /// The sizes, the smallest first; of those that are the same for this trace, one.
    pub sizes: Vec<SizeFigures>,
    /// What a capacity counts.
    pub counted: Counted,
    /// The share of the requests that fill the caches before anything is counted.
    pub warmup: f64,
    /// The same as a number.
    pub warmup_requests: u64,
    /// The blocks that requests of a block trace were taken apart into; absent where they were not.
    pub block_bytes: Option<u64>,
    /// What chance began from, in a generated trace.
    pub seed: Option<u64>,
}

/// A size of the caches.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SizeFigures {
    /// As it was asked for.
    pub asked: CacheSize,
    /// What that is: bytes or objects, as [`Settings::counted`] says.
    pub capacity: u64,
}

/// What a trace has.
#[derive(Clone, Debug, Serialize)]
pub struct TraceFigures {
    /// Its name, or the names of its files.
    pub name: String,
    /// Their formats; none where the trace was generated.
    pub formats: Vec<Format>,
    /// All requests. Those of a block trace are counted by the block.
    pub requests: u64,
    /// Requests for 0 bytes, which are not among them.
    pub left_out_requests: u64,
    /// Distinct objects.
    pub objects: u64,
    /// What was requested, where the trace has sizes.
    pub requested_bytes: Option<u64>,
    /// The sum of the sizes of the distinct objects, as they first were.
    pub footprint_bytes: Option<u64>,
    /// The smallest request.
    pub min_bytes: Option<u64>,
    /// The largest.
    pub max_bytes: Option<u64>,
}

/// A policy at a size. Unless something else is said, figures are of the counted requests.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The policy.
    pub policy: &'static str,
    /// The size, as it was asked for.
    pub size: CacheSize,
    /// The size: bytes or objects, as [`Settings::counted`] says.
    pub capacity: u64,
    /// Requests for what was in.
    pub hits: u64,
    /// `hits` by the counted requests.
    pub hit_ratio: f64,
    /// What of the requested bytes was in, where the trace has sizes.
    pub hit_bytes: Option<u64>,
    /// `hit_bytes` by the requested bytes.
    pub byte_hit_ratio: Option<f64>,
    /// `hit_ratio` less that of lru at the same size, where lru took part.
    pub hit_ratio_over_lru: Option<f64>,
    /// Objects that went.
    pub evictions: u64,
    /// Requests for objects larger than the whole cache: misses that change nothing.
    pub too_large: u64,
    /// Objects that the policy sent away in favour of what was there. They are among the evictions.
    pub refusals: u64,
    /// Objects that came in and that the policy remembered from before.
    pub ghost_hits: u64,
    /// The policy's lists and tables at the end, in bytes.
    pub policy_memory_bytes: u64,
    /// The misses among the requests of each interval, from the first request on: an empty cache fills at first.
    pub interval_miss_ratios: Vec<f64>,
}
