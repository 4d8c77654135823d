//! A phase: threads that do operations, for a number of them or for a time, and everything that is measured meanwhile.
//!
//! Each thread is readied, goes through the warm-up and waits for the others; the clock starts when all are there. A
//! reporter empties the threads' recorders at each interval. A thread of its own makes checkpoints, if any are wanted,
//! so that operations go on meanwhile and show what that does to them.

mod gate;
mod lane;
mod report;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::chooser::Shared;
use super::error::{Result, YcsbError};
use super::hlog::{LogFiles, LogWriter};
use super::measure::{Measured, Recorder, Return};
use super::outcome::{self, CacheFigures, CheckpointFigures, IndexFigures, Interval, IoFigures, Latency, PhaseOutcome};
use super::recording::{self, Recording};
use super::resources::Resources;
use super::target::{Target, error_kind};
use super::workload::Workload;
use gate::Gate;
use lane::{Ended, Lane};
use report::Report;

/// How often it is looked whether a checkpoint is due.
const CHECKPOINT_LOOK_EVERY: Duration = Duration::from_millis(1);

/// What is done.
#[derive(Clone, Debug)]
pub enum PhaseKind {
    /// The records of the workload are inserted.
    Load,
    /// The operations of the workload are done.
    Run,
    /// Recorded operations are done again.
    Replay {
        /// The operations.
        recording: Recording,
        /// Whether each begins when it did, and not as soon as it can.
        paced: bool,
    },
}

impl PhaseKind {
    fn name(&self) -> &'static str {
        match self {
            PhaseKind::Load => "load",
            PhaseKind::Run => "run",
            PhaseKind::Replay { .. } => "replay",
        }
    }
}

/// When checkpoints are made while operations run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointEvery {
    /// After so many operations of all threads, looked at each millisecond.
    Operations(u64),
    /// After so much time.
    Time(Duration),
}

/// How a phase is done.
#[derive(Clone, Debug)]
pub struct PhaseConfig {
    /// What is done.
    pub kind: PhaseKind,
    /// Threads that do operations, at least one.
    pub threads: usize,
    /// Operations a second of all threads together. Nothing for as many as there can be.
    pub target_per_s: Option<f64>,
    /// For how long operations are done before the clock starts.
    pub warm_up: Duration,
    /// After how long it ends at the latest.
    pub time_max: Option<Duration>,
    /// When checkpoints are made. There is one behind the last operation anyway, if anything was written.
    pub checkpoint_every: Option<CheckpointEvery>,
    /// How long the stretches of the time series are.
    pub interval: Duration,
    /// After how long a status is given.
    pub status_every: Duration,
    /// From what chance begins.
    pub seed: u64,
    /// Where operations are recorded.
    pub record: Option<PathBuf>,
    /// Where interval logs are written.
    pub logs: Option<LogFiles>,
    /// Percentiles that are wanted beside the usual ones.
    pub percentiles: Vec<f64>,
}

impl PhaseConfig {
    /// One thread, as fast as it goes, no warm-up and no end but the last operation; intervals of a second.
    #[must_use]
    pub fn new(kind: PhaseKind) -> PhaseConfig {
        PhaseConfig {
            kind,
            threads: 1,
            target_per_s: None,
            warm_up: Duration::ZERO,
            time_max: None,
            checkpoint_every: None,
            interval: Duration::from_secs(1),
            status_every: Duration::from_secs(10),
            seed: 1,
            record: None,
            logs: None,
            percentiles: Vec::new(),
        }
    }
}

/// How a phase stands.
#[derive(Debug)]
pub struct Status {
    /// Since the clock started.
    pub elapsed: Duration,
    /// Operations so far.
    pub operations: u64,
    /// How many there are to be, where that is known.
    pub operations_all: Option<u64>,
    /// Operations a second since the last status.
    pub current_per_s: f64,
    /// What was measured since the last status: the names, with the latencies.
    pub series: Vec<(String, Latency)>,
}

/// What the threads of a phase share.
struct Stage<'a> {
    target: &'a Target,
    workload: &'a Workload,
    config: &'a PhaseConfig,
    stop: &'a AtomicBool,
    shared: Shared,
    /// Past the last record that a load inserts.
    load_end: u64,
    gate: Gate,
    start: OnceLock<Instant>,
    lanes: Vec<CachePadded<Slot>>,
    recorder: Option<recording::Recorder>,
}

/// What a thread shows the reporter.
#[derive(Default)]
struct Slot {
    recorder: Mutex<Recorder>,
    operations: AtomicU64,
}

/// Does a phase on a target that has what it needs. `heard` hears how it stands.
///
/// # Errors
///
/// [`YcsbError::MissingProperty`] where nothing would end it, [`YcsbError::TooFewRecords`] for a run; where files
/// cannot be written, and [`YcsbError::Store`] where the last checkpoint fails. Operations that fail are counted,
/// and the phase goes on.
pub fn run_phase(
    target: &Target,
    workload: &Workload,
    config: &PhaseConfig,
    stop: &AtomicBool,
    heard: &mut dyn FnMut(&Status),
) -> Result<PhaseOutcome> {
    let records_before = target.records();
    let (first_insert, load_end) = match config.kind {
        PhaseKind::Load => (workload.to_load()?.start, workload.to_load()?.end),
        _ => (run_records(workload, records_before)?, u64::MAX),
    };
    let operations_all = operations_all(workload, config)?;
    let recorder = config.record.as_deref().map(recording::Recorder::create).transpose()?;
    let stage = Stage {
        target,
        workload,
        config,
        stop,
        shared: Shared::new(first_insert),
        load_end,
        gate: Gate::default(),
        start: OnceLock::new(),
        lanes: (0..config.threads).map(|_| CachePadded::default()).collect(),
        recorder,
    };
    let (io_before, cache_before) = (target.io_stats(), target.cache_stats());
    let mut done = stage.run(operations_all, heard)?;
    let written = matches!(config.kind, PhaseKind::Load) || stage.has_written();
    if written {
        done.clean_up(target)?;
    }
    let (io_after, cache_after) = (target.io_stats(), target.cache_stats());
    let mut figures = done.figures(config);
    figures.records_before = records_before;
    figures.records_after = target.records();
    figures.io = IoFigures::between(&io_before, &io_after);
    figures.cache = cache_before.zip(cache_after).map(|(before, after)| CacheFigures::between(&before, &after));
    if let Target::Table(table) = target {
        let (pages, memory_bytes) = table.index_size();
        figures.index = Some(IndexFigures { pages, memory_bytes });
    }
    Ok(figures)
}

/// The records that a run chooses among.
fn run_records(workload: &Workload, found: u64) -> Result<u64> {
    let named = workload.insert_count.unwrap_or(1).saturating_add(workload.insert_start);
    let asked = workload.record_count.unwrap_or(found).max(named);
    if found < asked {
        return Err(YcsbError::TooFewRecords { asked, found });
    }
    Ok(asked)
}

/// How many operations all threads are to do, where that is known.
fn operations_all(workload: &Workload, config: &PhaseConfig) -> Result<Option<u64>> {
    let count = match &config.kind {
        PhaseKind::Load => {
            let to_load = workload.to_load()?;
            Some(to_load.end - to_load.start)
        }
        PhaseKind::Run => workload.operation_count,
        PhaseKind::Replay { recording, .. } => Some(recording.len() as u64),
    };
    if count.is_none() && config.time_max.is_none() {
        let why = "it or maxexecutiontime says when a run ends";
        return Err(YcsbError::MissingProperty { name: "operationcount", why });
    }
    Ok(count)
}

/// What is known when all threads have ended.
struct Done {
    total: Recorder,
    run_time: Duration,
    operations: u64,
    warm_up_operations: u64,
    failed: u64,
    complete: bool,
    resources: Option<Resources>,
    intervals: Vec<Interval>,
    checkpoints: Vec<CheckpointFigures>,
    notes: Vec<String>,
}

impl Stage<'_> {
    fn has_written(&self) -> bool {
        match &self.config.kind {
            PhaseKind::Load => true,
            PhaseKind::Run => self.workload.writes(),
            PhaseKind::Replay { recording, .. } => recording.writes(),
        }
    }

    fn operations(&self) -> u64 {
        self.lanes.iter().map(|slot| slot.operations.load(Relaxed)).sum()
    }

    fn run(&self, operations_all: Option<u64>, heard: &mut dyn FnMut(&Status)) -> Result<Done> {
        let is_done = AtomicBool::new(false);
        let checkpoints = Mutex::new((Recorder::default(), Vec::new()));
        thread::scope(|scope| {
            let (sender, ended) = mpsc::channel();
            for lane in 0..self.config.threads {
                let sender = sender.clone();
                let spawned = thread::Builder::new().name(format!("ycsb-{lane}")).spawn_scoped(scope, move || {
                    // The receiver lives until all have ended.
                    let _ = sender.send(Lane::new(self, lane, operations_all).run());
                });
                if let Err(error) = spawned {
                    self.gate.cancel();
                    return Err(YcsbError::system(format!("start thread {lane} of {}", self.config.threads))(error));
                }
            }
            self.gate.wait_for(self.config.threads);
            let warm_up_operations = self.operations();
            self.lanes.iter().for_each(|slot| slot.operations.store(0, Relaxed));
            let (start, started_at) = (Instant::now(), SystemTime::now());
            // Nobody else sets it.
            let _ = self.start.set(start);
            let log = self.config.logs.clone().map(|files| LogWriter::new(files, started_at)).transpose();
            let log = log.inspect_err(|_| self.gate.cancel())?;
            self.gate.open();
            if let Some(every) = self.config.checkpoint_every {
                let (is_done, checkpoints) = (&is_done, &checkpoints);
                scope.spawn(move || self.make_checkpoints(every, start, is_done, checkpoints));
            }
            let mut report = Report::new(self, start, operations_all, log, &checkpoints);
            let all: Result<Vec<Ended>> = report.until_ended(&ended, heard);
            is_done.store(true, Relaxed);
            let run_time = start.elapsed();
            let lanes = all?;
            let last = lanes.iter().map(|ended| ended.ended_at).max().unwrap_or(start);
            let (total, intervals) = report.finish()?;
            let mut done = Done {
                total,
                run_time: last.saturating_duration_since(start).min(run_time),
                operations: self.operations(),
                warm_up_operations,
                failed: 0,
                complete: !self.stop.load(Relaxed),
                resources: None,
                intervals,
                checkpoints: Vec::new(),
                notes: Vec::new(),
            };
            lanes.into_iter().for_each(|ended| done.add(ended));
            Ok(done)
        })
        .map(|mut done| {
            let (recorder, made) = checkpoints.into_inner();
            done.total.add(&recorder);
            done.checkpoints = made;
            done
        })
    }

    fn make_checkpoints(
        &self,
        every: CheckpointEvery,
        start: Instant,
        is_done: &AtomicBool,
        made: &Mutex<(Recorder, Vec<CheckpointFigures>)>,
    ) {
        let (mut next_operations, mut next_time) = match every {
            CheckpointEvery::Operations(count) => (count, Duration::MAX),
            CheckpointEvery::Time(time) => (u64::MAX, time),
        };
        while !is_done.load(Relaxed) {
            if self.operations() < next_operations && start.elapsed() < next_time {
                thread::sleep(CHECKPOINT_LOOK_EVERY);
                continue;
            }
            match every {
                CheckpointEvery::Operations(count) => next_operations = self.operations() + count,
                CheckpointEvery::Time(time) => next_time = start.elapsed() + time,
            }
            let (at, begun) = (start.elapsed(), Instant::now());
            let result = self.target.checkpoint();
            let took = begun.elapsed();
            let mut made = made.lock();
            note_checkpoint(&mut made.0, Measured::Checkpoint, took, result.as_ref().err());
            if let Ok(report) = result {
                made.1.push(checkpoint_figures(at, took, report));
            }
        }
    }
}

fn checkpoint_figures(at: Duration, took: Duration, report: Option<crate::CheckpointReport>) -> CheckpointFigures {
    CheckpointFigures {
        at_s: at.as_secs_f64(),
        took_s: took.as_secs_f64(),
        pages_changed: report.map(|report| report.pages_changed),
        bytes_written: report.map(|report| report.bytes_written),
    }
}

fn note_checkpoint(recorder: &mut Recorder, what: Measured, took: Duration, error: Option<&YcsbError>) {
    recorder.record(what, nanoseconds(took), None);
    recorder.count(what, if error.is_none() { Return::Ok } else { Return::Error });
    if let Some(error) = error {
        tracing::warn!(%error, "a checkpoint failed");
        recorder.error(what, error_kind(error));
    }
}

impl Done {
    fn add(&mut self, ended: Ended) {
        self.failed += ended.failed;
        self.complete &= ended.given_up.is_none();
        if let Some(resources) = ended.resources {
            *self.resources.get_or_insert_default() += resources;
        }
        self.notes.extend(ended.given_up.into_iter().chain(ended.note));
    }

    /// The last checkpoint: what was written is durable behind it.
    fn clean_up(&mut self, target: &Target) -> Result<()> {
        let begun = Instant::now();
        let report = target.checkpoint()?;
        let took = begun.elapsed();
        note_checkpoint(&mut self.total, Measured::Cleanup, took, None);
        self.checkpoints.push(checkpoint_figures(self.run_time, took, report));
        Ok(())
    }

    fn figures(self, config: &PhaseConfig) -> PhaseOutcome {
        let run_time_s = self.run_time.as_secs_f64();
        let per_s = if run_time_s > 0.0 { self.operations as f64 / run_time_s } else { 0.0 };
        let between_ns = (config.target_per_s.is_none() && per_s > 0.0).then(|| config.threads as f64 * 1e9 / per_s);
        let (all, all_intended) = self.total.whole();
        let latency = |histogram: &hdrhistogram::Histogram<u64>| Latency::of(histogram, &config.percentiles);
        PhaseOutcome {
            phase: config.kind.name().to_owned(),
            complete: self.complete,
            threads: config.threads,
            target_per_s: config.target_per_s,
            records_before: 0,
            records_after: 0,
            operations: self.operations,
            warm_up_operations: self.warm_up_operations,
            failed: self.failed,
            run_time_s,
            throughput_per_s: per_s,
            all: (!all.is_empty()).then(|| latency(&all)),
            all_intended: all_intended.as_ref().map(latency),
            series: outcome::series(&self.total.folded(), &config.percentiles, between_ns.map(|ns| ns as u64)),
            intervals: self.intervals,
            checkpoints: self.checkpoints,
            resources: self.resources,
            io: IoFigures::default(),
            cache: None,
            index: None,
            notes: self.notes,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
