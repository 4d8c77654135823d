//! What came of a phase, in figures: for text, JSON and the report, and read back from the JSON of a child process.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::measure::{Measured, Recorder, Series};
use super::resources::Resources;
use crate::{IoStats, StoreCacheStats};

/// Percentiles that are always there: enough to draw the curve.
const PERCENTILES: [f64; 19] = [
    0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.99, 99.999, 100.0,
];

/// What came of a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseOutcome {
    /// `load`, `run` or `replay`.
    pub phase: String,
    /// Whether it was done to its end.
    pub complete: bool,
    /// Threads that did operations.
    pub threads: usize,
    /// Operations a second that were asked for.
    pub target_per_s: Option<f64>,
    /// Records that were there when it began.
    pub records_before: u64,
    /// Records that were there when it ended.
    pub records_after: u64,
    /// Operations that were done, the warm-up's not among them.
    pub operations: u64,
    /// Operations of the warm-up.
    pub warm_up_operations: u64,
    /// Those that did not end well: not found, wrong bytes, an error.
    pub failed: u64,
    /// From the first operation's start to the last one's end.
    pub run_time_s: f64,
    /// Operations a second.
    pub throughput_per_s: f64,
    /// Each kind of operation, and what else has latencies.
    pub series: Vec<SeriesFigures>,
    /// All operations together.
    pub all: Option<Latency>,
    /// All operations together, from when they should have begun.
    pub all_intended: Option<Latency>,
    /// Throughput and latencies over time.
    pub intervals: Vec<Interval>,
    /// Checkpoints while operations ran, and the one behind them.
    pub checkpoints: Vec<CheckpointFigures>,
    /// What it cost the machine.
    pub resources: Option<Resources>,
    /// What the file's I/O did.
    pub io: IoFigures,
    /// What a cache did.
    pub cache: Option<CacheFigures>,
    /// What the index takes.
    pub index: Option<IndexFigures>,
    /// What is to be known of the figures.
    pub notes: Vec<String>,
}

/// What has latencies of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesFigures {
    /// YCSB's name of it.
    pub name: String,
    /// Whether it is a kind of operation, and not a part of one or something else.
    pub is_operation: bool,
    /// From when it began.
    pub measured: Latency,
    /// From when it should have begun, with a target.
    pub intended: Option<Latency>,
    /// Without a target: corrected for coordinated omission as if each thread's operations should have begun at the
    /// mean time from one to the next.
    pub corrected: Option<Latency>,
    /// How often it ended in which way.
    pub returns: BTreeMap<String, u64>,
    /// Errors by their kind.
    pub errors: BTreeMap<String, u64>,
}

/// A histogram in some numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many values it has.
    pub count: u64,
    /// Their mean.
    pub mean_ns: f64,
    /// The least.
    pub min_ns: u64,
    /// The greatest.
    pub max_ns: u64,
    /// Percentiles, each with the value that so many percent are not above.
    pub percentiles: Vec<(f64, u64)>,
}

impl Latency {
    pub(super) fn of(histogram: &Histogram<u64>, extra: &[f64]) -> Latency {
        let mut percentiles = PERCENTILES.to_vec();
        percentiles.extend(extra);
        percentiles.sort_by(f64::total_cmp);
        percentiles.dedup();
        let value = |percentile: f64| (percentile, histogram.value_at_quantile(percentile / 100.0));
        Latency {
            count: histogram.len(),
            mean_ns: histogram.mean(),
            min_ns: histogram.min(),
            max_ns: histogram.max(),
            percentiles: percentiles.into_iter().map(value).collect(),
        }
    }

    /// One of its percentiles.
    #[must_use]
    pub fn percentile_ns(&self, percentile: f64) -> Option<u64> {
        self.percentiles.iter().find(|(known, _)| (known - percentile).abs() < 1e-9).map(|(_, value)| *value)
    }
}

/// A stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// When it ended, from the start.
    pub end_s: f64,
    /// How long it was.
    pub length_s: f64,
    /// Operations that ended in it.
    pub operations: u64,
    /// By the names of what has latencies.
    pub series: BTreeMap<String, IntervalSeries>,
}

/// Latencies in a stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntervalSeries {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean_ns: f64,
    /// The middle one.
    pub p50_ns: u64,
    /// 99 of 100 are not above.
    pub p99_ns: u64,
    /// The greatest.
    pub max_ns: u64,
}

/// A checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointFigures {
    /// When it began, from the start.
    pub at_s: f64,
    /// How long it took.
    pub took_s: f64,
    /// Pages that had changed. Nothing of a bare file.
    pub pages_changed: Option<u64>,
    /// Bytes that it wrote beside the pages.
    pub bytes_written: Option<u64>,
}

/// What the file's I/O did in a phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoFigures {
    /// Reads that came.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Reads by the path that served them, with their bytes.
    pub paths: BTreeMap<String, (u64, u64)>,
    /// Why reads took the slower path, where any did.
    pub fallbacks: BTreeMap<String, u64>,
    /// Writes, and their bytes.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Waits for the device.
    pub syncs: u64,
    /// Page tables of the process at the end, in bytes, with a map.
    pub page_table_bytes: Option<u64>,
}

impl IoFigures {
    pub(super) fn between(before: &IoStats, after: &IoStats) -> IoFigures {
        let paths = before.paths().into_iter().zip(after.paths()).map(|((name, before), (_, after))| {
            (name.to_owned(), (after.reads - before.reads, after.bytes - before.bytes))
        });
        let fallbacks = after
            .fallbacks
            .iter()
            .map(|(reason, count)| (reason.name().to_owned(), count.saturating_sub(before.fallbacks.get(reason))));
        IoFigures {
            reads: after.reads - before.reads,
            read_bytes: after.read_bytes - before.read_bytes,
            paths: paths.filter(|(_, (reads, _))| *reads > 0).collect(),
            fallbacks: fallbacks.filter(|(_, count)| *count > 0).collect(),
            writes: after.writes - before.writes,
            write_bytes: after.write_bytes - before.write_bytes,
            syncs: after.syncs - before.syncs,
            page_table_bytes: after.map.as_ref().and_then(|map| map.process_page_table_bytes),
        }
    }
}

/// What a cache did in a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheFigures {
    /// Its policy.
    pub policy: String,
    /// Its budget.
    pub budget_bytes: u64,
    /// What of it was in use at the end.
    pub used_bytes: u64,
    /// Reads that it served.
    pub hits: u64,
    /// Reads that it had to load.
    pub misses: u64,
    /// The share of hits, of the reads that asked it.
    pub hit_ratio: Option<f64>,
    /// Reads that went past it, since the file served them as fast.
    pub bypassed_reads: u64,
    /// Blocks that were sent away for others.
    pub evictions: u64,
}

impl CacheFigures {
    pub(super) fn between(before: &StoreCacheStats, after: &StoreCacheStats) -> CacheFigures {
        let (hits, misses) = (after.cache.hits - before.cache.hits, after.cache.misses - before.cache.misses);
        CacheFigures {
            policy: after.cache.policy.name().to_owned(),
            budget_bytes: after.cache.budget_bytes,
            used_bytes: after.cache.used_bytes,
            hits,
            misses,
            hit_ratio: (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64),
            bypassed_reads: after.bypass.bypassed_reads - before.bypass.bypassed_reads,
            evictions: after.cache.evictions - before.cache.evictions,
        }
    }
}

/// What the index takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFigures {
    /// Pages of the store.
    pub pages: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// All of a recorder, in figures. `between_ns`: the mean time from one operation of a thread to the next, where there
/// was no target.
pub(super) fn series(total: &Recorder, extra: &[f64], between_ns: Option<u64>) -> Vec<SeriesFigures> {
    let figures = |(what, series): (Measured, &Series)| {
        let is_operation = matches!(what, Measured::Operation(_));
        let corrected = between_ns.filter(|_| is_operation && series.intended.is_none());
        SeriesFigures {
            name: what.name(),
            is_operation,
            measured: Latency::of(&series.measured, extra),
            intended: series.intended.as_ref().map(|intended| Latency::of(intended, extra)),
            corrected: corrected.map(|between_ns| {
                let corrected = series.measured.clone_correct(between_ns.max(1));
                Latency::of(&corrected, extra)
            }),
            returns: series.returns(),
            errors: series.errors.clone(),
        }
    };
    total.iter().map(figures).collect()
}
