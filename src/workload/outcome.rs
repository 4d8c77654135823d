//! What a grid found: the types of its JSON.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::cache_state::{CacheState, DropMethod};
use super::contender::Io;
use super::machine::Machine;
use super::pass::Explanation;
use super::pattern::Pattern;
use super::size::ByteSize;
use super::summary::Spread;

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The version of this crate.
    pub mapfall_version: &'static str,
    /// What it was measured on.
    pub machine: Machine,
    /// What was asked for.
    pub config: Settings,
    /// Whether every cell was gone through: `false` after an interruption.
    pub complete: bool,
    /// What was measured, a contender of a cell each.
    pub cells: Vec<Cell>,
    /// The contenders of a cell against each other.
    pub ratios: Vec<Ratio>,
    /// What choosing for the user is worth: the modes that do, against the best and the worst choice of a cell.
    pub choices: Vec<Choice>,
    /// What was not measured, and why.
    pub skipped: Vec<Skipped>,
    /// What else a reader of the figures must know.
    pub notes: Vec<String>,
}

/// What was asked for, spelled out.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The file that was read.
    pub file: String,
    /// Whether it was made for this run and removed after it.
    pub file_is_temporary: bool,
    /// Its length.
    pub file_bytes: u64,
    /// The block sizes.
    pub block_bytes: Vec<u64>,
    /// The patterns.
    pub pattern: Vec<Pattern>,
    /// The states of the page cache.
    pub cache: Vec<CacheState>,
    /// The contenders that were chosen.
    pub io: Vec<Io>,
    /// Whether those they are judged by took part too.
    pub references: bool,
    /// Threads of each pass.
    pub threads: Vec<usize>,
    /// Reads that are done by one call.
    pub batch: usize,
    /// Reads of a batch that may have been under way at a time.
    pub queue_depth: u32,
    /// Rounds of a warm cell.
    pub rounds: usize,
    /// Rounds of a cold or limited cell.
    pub cold_rounds: usize,
    /// What the offsets (and a temporary file's content) are made from.
    pub seed: u64,
    /// Whether 2 MiB pages were asked for: `auto`, `on` or `off`.
    pub huge: &'static str,
    /// What the kernel was told of the order of reads: `normal`, `random` or `sequential`.
    pub advice: &'static str,
    /// Whether maps that were touched before took part beside fresh ones.
    pub reuse_map: bool,
    /// Whether each read was timed for itself.
    pub latency: bool,
    /// The time after which a pass ends unfinished.
    pub pass_limit_s: f64,
    /// Reads of a pass, where that is not the number of the file's blocks.
    pub pass_reads: Option<u64>,
    /// How long at most a limited pass's reads go on before its clock starts.
    pub warm_up_s: f64,
    /// How long each pass lasted, where throughput over time was asked for.
    pub series_s: Option<f64>,
    /// Where the limit of limited cells went during a pass.
    pub limit_changes: Vec<LimitChange>,
    /// How the file was made warm.
    pub warm_method: &'static str,
}

/// What contenders are compared on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CellKey {
    /// The order of the reads.
    pub pattern: Pattern,
    /// Where the file is at the start of each pass.
    pub cache: CacheState,
    /// The bytes of a read.
    pub block_bytes: u64,
    /// The threads that share a pass.
    pub threads: usize,
}

/// As in `cold rand 4 KiB`, and `cold rand 4 KiB x2` for two threads.
impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.cache, self.pattern, ByteSize::new(self.block_bytes))?;
        if self.threads == 1 { Ok(()) } else { write!(f, " x{}", self.threads) }
    }
}

/// One contender in one cell. Where nothing else is said, a figure is the median over the passes.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The cell.
    #[serde(flatten)]
    pub key: CellKey,
    /// The contender.
    pub io: Io,
    /// Block bytes read per second.
    pub gib_per_s: Spread,
    /// How long a thread waited for one read.
    pub ns_per_read: f64,
    /// How long a pass took.
    pub pass_s: f64,
    /// Faults that needed no device, of all threads of a pass.
    pub minor_faults: u64,
    /// Faults that waited for a device.
    pub major_faults: u64,
    /// Processor seconds in user mode, of all threads of a pass.
    pub user_s: f64,
    /// Processor seconds in the kernel.
    pub sys_s: f64,
    /// The part of `pass_s` that is the copy: the pass less one that does everything but the copy. Absent in cold
    /// cells, where the pass without the copy would find another cache, for partial passes, and with `latency`.
    pub copy_s: Option<f64>,
    /// The rest of `pass_s`.
    pub rest_s: Option<f64>,
    /// Whether a pass ended at the limit: then rates are over what was read by then.
    pub partial: bool,
    /// The least share of its reads that a pass did.
    pub done_share: f64,
    /// Reads over all passes that took another path than the contender's name says.
    pub fallback_reads: u64,
    /// How much of the file was mapped with 2 MiB entries at the end of the first pass, for fresh maps.
    pub huge_mapped_bytes: Option<u64>,
    /// How the page cache was emptied, in a cold cell.
    pub drop_method: Option<DropMethod>,
    /// What the memory was limited to and what that did, in a limited cell.
    pub limited: Option<Limited>,
    /// Over all reads of all passes, with `latency`.
    pub latency_ns: Option<LatencyNs>,
    /// Each pass, in the order of rounds.
    pub passes: Vec<PassFigures>,
}

/// The memory of a limited cell. Where nothing else is said, a figure is the median over the passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limited {
    /// What all of the child may use.
    pub limit_bytes: u64,
    /// The part of it that is for the child itself; the rest is the share of the file.
    pub allowance_bytes: u64,
    /// Page cache at the end.
    pub file_bytes: u64,
    /// The child's own memory at the end.
    pub anonymous_bytes: u64,
    /// Pages of files that were evicted and came back soon after, under the clock.
    pub refaulted_pages: u64,
    /// Reads before the clock started, the least.
    pub warm_up_reads: u64,
    /// For how long the child stood still for want of memory, where the kernel tells.
    pub stalled_us: Option<u64>,
}

/// One pass.
#[derive(Clone, Debug, Serialize)]
pub struct PassFigures {
    /// Counted from 0. Equal rounds of two contenders are a pair.
    pub round: usize,
    /// How long it took.
    pub pass_s: f64,
    /// How long the pass without the copy took, where there was one.
    pub skeleton_s: Option<f64>,
    /// The blocks that were read.
    pub reads: u64,
    /// Block bytes read per second.
    pub gib_per_s: f64,
    /// Faults that needed no device.
    pub minor_faults: u64,
    /// Faults that waited for a device.
    pub major_faults: u64,
    /// Processor seconds in user mode.
    pub user_s: f64,
    /// Processor seconds in the kernel.
    pub sys_s: f64,
    /// Throughput over time, where it was asked for.
    pub series: Option<SeriesFigures>,
    /// What was decided meanwhile, where it was asked for and the contender decides.
    pub explanation: Option<Explanation>,
}

/// A limit that is moved while a pass runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LimitChange {
    /// When, after the pass's start.
    pub at_s: f64,
    /// Whereto, by the file's length.
    pub percent: u16,
}

/// Throughput over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeriesFigures {
    /// The length of a slice.
    pub slice_ms: u64,
    /// Block bytes read per second in each slice.
    pub gib_per_s: Vec<f64>,
    /// What happened meanwhile, and how the throughput came back.
    pub changes: Vec<Change>,
}

/// Something that changed in the middle of a pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// When.
    pub at_s: f64,
    /// What: `shift`, or the limit from then on.
    pub what: String,
    /// The throughput that it came to: the median of the last quarter of the time up to the next change or the end.
    pub steady_gib_per_s: f64,
    /// When the mean of three slices was at 90 % of that for the first time, counted from the change.
    pub recovery_s: Option<f64>,
}

/// How long reads took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LatencyNs {
    /// Half of the reads took at most this.
    pub p50: u64,
    /// 90 % did.
    pub p90: u64,
    /// 99 % did.
    pub p99: u64,
    /// 99.9 % did.
    pub p99_9: u64,
    /// The slowest.
    pub max: u64,
}

impl LatencyNs {
    /// The percentiles of a histogram of nanoseconds.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> LatencyNs {
        let at = |quantile| histogram.value_at_quantile(quantile);
        LatencyNs { p50: at(0.5), p90: at(0.9), p99: at(0.99), p99_9: at(0.999), max: histogram.max() }
    }
}

/// The rate of one contender by the rate of another, pair by pair within the rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// The cell.
    #[serde(flatten)]
    pub key: CellKey,
    /// The contender above the line.
    pub of: Io,
    /// The contender below it.
    pub to: Io,
    /// The ratio.
    #[serde(flatten)]
    pub ratio: Spread,
    /// Whether a pass of either ended at the limit: then the two did not do the same work.
    pub partial: bool,
}

/// A mode that chooses for its user, against those who would have had to choose: `pread` and the map, each with the
/// best advice for the cell.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// The cell.
    #[serde(flatten)]
    pub key: CellKey,
    /// The mode.
    pub of: Io,
    /// The fastest that took part, by its median.
    pub best: Io,
    /// The rate of `of` by that of `best`, pair by pair within the rounds.
    pub to_best: Spread,
    /// The slower of the best `pread` and the best map.
    pub worst: Io,
    /// The rate of `of` by that of `worst`.
    pub to_worst: Spread,
    /// Whether a pass of any ended at the limit: then they did not do the same work.
    pub partial: bool,
}

/// What was not measured.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// The cell.
    #[serde(flatten)]
    pub key: CellKey,
    /// The contender; absent where it is the whole cell.
    pub io: Option<Io>,
    /// Why.
    pub reason: String,
}
