//! What came of it, in numbers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use super::reader::{Counters, Failure, IoModeName};
use crate::{BlockIo, IoMode, IoStats};

/// How it stands.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Rounds of a cut and growth in which a read was checked.
    pub rounds: u64,
    /// Rounds of the changing process, those included that no read saw.
    pub rounds_changed: u64,
    /// Reads that were checked, each for all of its bytes or its error.
    pub checks: u64,
    /// Those of them that gave bytes.
    pub blocks: u64,
    /// Those of them that gave bytes while nothing changed: they were exactly what the file held.
    pub exact_blocks: u64,
    /// Reads past the end.
    pub past_end: u64,
    /// Those of them while nothing changed.
    pub exact_past_end: u64,
    /// Blocks with zeros that only a cut during the read explains, as `pread` has them too.
    pub cut_while_read: u64,
    /// Blocks with zeros in a page in which a hole was being punched, which a map of XFS shows (see [`super`]).
    pub punched_while_read: u64,
    /// Reads that failed since the device does, as they must.
    pub device_errors: u64,
    /// Faults under the copy that were recovered from.
    pub faults_recovered: u64,
    /// Reads that the map left to a system call.
    pub fallbacks: u64,
    /// For how long.
    pub seconds: f64,
}

impl Counts {
    pub(super) fn of(
        counters: &[Counters],
        files: &[Box<dyn BlockIo>],
        rounds_changed: u64,
        elapsed: Duration,
    ) -> Counts {
        let mut counts = Counts { rounds_changed, seconds: elapsed.as_secs_f64(), ..Counts::default() };
        for reader in counters {
            counts.rounds += reader.rounds.load(Relaxed);
            counts.blocks += reader.blocks.load(Relaxed);
            counts.exact_blocks += reader.exact_blocks.load(Relaxed);
            counts.past_end += reader.past_end.load(Relaxed);
            counts.exact_past_end += reader.exact_past_end.load(Relaxed);
            counts.cut_while_read += reader.cut_while_read.load(Relaxed);
            counts.punched_while_read += reader.punched_while_read.load(Relaxed);
            counts.device_errors += reader.device_errors.load(Relaxed);
        }
        for stats in files.iter().map(|file| file.stats()) {
            counts.faults_recovered += stats.map.as_ref().map_or(0, |map| map.faults_recovered);
            counts.fallbacks += stats.fallbacks.total();
        }
        counts.checks = counts.blocks + counts.past_end + counts.device_errors;
        counts
    }
}

/// What one path did.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct IoOutcome {
    /// The path.
    pub io: IoModeName,
    /// Reads that succeeded.
    pub reads: u64,
    /// Reads that failed.
    pub failed_reads: u64,
    /// Reads that each way served, by name.
    pub served: BTreeMap<&'static str, u64>,
    /// Faults under the copy that were recovered from.
    pub faults_recovered: u64,
    /// Why reads were left to a system call, and how many, by name.
    pub fallbacks: BTreeMap<&'static str, u64>,
    /// Times that the whole map stood aside.
    pub step_downs: u64,
    /// Blocks that end in a zero byte and were proven by a look at the file's last page, or at its length.
    pub tail_checks: u64,
}

impl IoOutcome {
    pub(super) fn new(io: IoMode, stats: &IoStats) -> Self {
        let map = stats.map.clone().unwrap_or_default();
        let served = stats.paths().into_iter().map(|(name, path)| (name, path.reads));
        let fallbacks = stats.fallbacks.iter().map(|(reason, count)| (reason.name(), count));
        IoOutcome {
            io: IoModeName(io),
            reads: stats.reads,
            failed_reads: stats.failed_reads,
            served: served.filter(|(_, count)| *count > 0).collect(),
            faults_recovered: map.faults_recovered,
            fallbacks: fallbacks.filter(|(_, count)| *count > 0).collect(),
            step_downs: map.step_downs,
            tail_checks: map.tail_probes + map.tail_stats,
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// Whether it came to a limit or a failure, and was not interrupted.
    pub complete: bool,
    /// 0, or 1: the first ends it.
    pub failures: u64,
    /// The first read that cannot have been.
    pub failure: Option<Box<Failure>>,
    /// How it stood in the end.
    pub counts: Counts,
    /// What each path did.
    pub ios: Vec<IoOutcome>,
    /// Changes of the file.
    pub changes: u64,
    /// Times that the file's name was another file's for a moment.
    pub renames: u64,
    /// Changes that the system refused, on a full disk as a rule.
    pub refused_changes: u64,
    /// Holes that the file system cannot punch.
    pub refused_holes: u64,
    /// Times that the changing process was killed.
    pub kills: u64,
    /// Reading threads.
    pub threads: usize,
    /// The length of what is changed and read.
    pub file_bytes: u64,
    /// What the device cannot read.
    pub broken_bytes: u64,
    /// What chance began from.
    pub seed: u64,
}

impl Failure {
    /// One that is no read's.
    pub(super) fn other(what: &str, seed: u64) -> Box<Failure> {
        Box::new(Failure {
            what: what.to_owned(),
            io: IoModeName(IoMode::Pread),
            offset: 0,
            len_bytes: 0,
            expected: String::new(),
            found: String::new(),
            during: Vec::new(),
            changes_before: 0,
            seed,
        })
    }
}
