//! What one thread of a phase does.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::chooser::{Chooser, Mix};
use super::super::error::Result;
use super::super::measure::{Measured, Return};
use super::super::recording::Lines;
use super::super::resources::Resources;
use super::super::schedule::{Schedule, wait_until};
use super::super::session::{Request, Session, Step};
use super::super::workload::Operation;
use super::{PhaseKind, Slot, Stage, nanoseconds};

/// A thread that had so many errors in a row gives up: a full disk does not get emptier by trying.
const ERRORS_IN_A_ROW_MAX: u64 = 1000;
/// Seeds of threads are so far from each other.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// How a thread ended.
pub(super) struct Ended {
    pub(super) ended_at: Instant,
    pub(super) failed: u64,
    pub(super) resources: Option<Resources>,
    pub(super) given_up: Option<String>,
    pub(super) note: Option<String>,
}

/// A thread of a phase.
pub(super) struct Lane<'a> {
    stage: &'a Stage<'a>,
    lane: usize,
    slot: &'a Slot,
    session: Session<'a>,
    rng: SmallRng,
    chooser: Chooser,
    mix: Mix,
    schedule: Option<Schedule>,
    /// Operations that this thread is to do, where that is known.
    share: Option<u64>,
    /// The next one of a recording.
    replayed: usize,
    lines: Lines,
    failed: u64,
    errors_in_a_row: u64,
}

impl<'a> Lane<'a> {
    pub(super) fn new(stage: &'a Stage<'a>, lane: usize, operations_all: Option<u64>) -> Self {
        let (config, workload) = (stage.config, stage.workload);
        let seed = config.seed.wrapping_add(SEED_STEP.wrapping_mul(lane as u64 + 1));
        let share = |all: u64| all / config.threads as u64 + u64::from((lane as u64) < all % config.threads as u64);
        Lane {
            stage,
            lane,
            slot: &stage.lanes[lane],
            session: Session::new(stage.target, workload.read_all_fields, workload.write_all_fields, seed),
            rng: SmallRng::seed_from_u64(seed ^ 1),
            chooser: Chooser::new(workload, stage.shared.inserts.end()),
            mix: Mix::new(workload),
            schedule: config.target_per_s.map(|per_s| Schedule::new(per_s, lane, config.threads)),
            share: operations_all.map(share),
            replayed: lane,
            lines: Lines::default(),
            failed: 0,
            errors_in_a_row: 0,
        }
    }

    /// The warm-up, then, when all are ready, what is measured.
    pub(super) fn run(mut self) -> Result<Ended> {
        let warm_up = self.stage.config.warm_up;
        let warmed = if warm_up.is_zero() || matches!(self.stage.config.kind, PhaseKind::Load) {
            Ok(())
        } else {
            self.operate(Instant::now(), Some(warm_up), None)
        };
        self.failed = 0;
        // A recording begins anew; the warm-up was its beginning.
        self.replayed = self.lane;
        *self.slot.recorder.lock() = Default::default();
        let goes_on = self.stage.gate.pass();
        warmed?;
        let start = self.stage.start.get().copied().unwrap_or_else(Instant::now);
        if !goes_on {
            return Ok(Ended { ended_at: start, failed: 0, resources: None, given_up: None, note: None });
        }
        let before = Resources::of_this_thread();
        let operated = self.operate(start, self.stage.config.time_max, self.share);
        let ended_at = Instant::now();
        let used = before.and_then(|before| Ok(Resources::of_this_thread()?.since(before)));
        if let Some(recorder) = &self.stage.recorder {
            recorder.flush(&mut self.lines)?;
        }
        operated?;
        let note = used.as_ref().err().map(|error| format!("what a thread cost is not known: {error}"));
        let given_up = (self.errors_in_a_row >= ERRORS_IN_A_ROW_MAX)
            .then(|| format!("thread {} gave up after {ERRORS_IN_A_ROW_MAX} errors in a row", self.lane));
        Ok(Ended { ended_at, failed: self.failed, resources: used.ok(), given_up, note })
    }

    fn operate(&mut self, start: Instant, time_max: Option<Duration>, count_max: Option<u64>) -> Result<()> {
        let stop = self.stage.stop;
        let end = time_max.map(|time| start + time);
        let is_measured = count_max.is_some() || self.stage.start.get().is_some();
        let mut done = 0;
        while count_max.is_none_or(|max| done < max) && !stop.load(Relaxed) {
            let Some((request, at)) = self.next() else { break };
            let due = at.or(self.schedule.map(|schedule| schedule.at(done))).map(|after| start + after);
            if let Some(due) = due {
                let due = due.min(end.unwrap_or(due));
                if !wait_until(due, || stop.load(Relaxed)) {
                    self.not_done(&request);
                    break;
                }
            }
            if end.is_some_and(|end| due.is_some_and(|due| due >= end)) {
                self.not_done(&request);
                break;
            }
            self.session.run(&request);
            if request.operation == Operation::Insert {
                self.stage.shared.inserts.done(request.number);
            }
            done += 1;
            let Some((began, ended)) = self.session.steps.last().map(|step| (step.start, step.end)) else { continue };
            self.record(due);
            if let Some(recorder) = self.stage.recorder.as_ref().filter(|_| is_measured) {
                let at_ns = nanoseconds(began.saturating_duration_since(start));
                recorder.note(&mut self.lines, at_ns, &request)?;
            }
            if self.errors_in_a_row >= ERRORS_IN_A_ROW_MAX || end.is_some_and(|end| ended >= end) {
                break;
            }
        }
        Ok(())
    }

    /// An insert that is not tried must not keep those behind it from being seen.
    fn not_done(&self, request: &Request) {
        if request.operation == Operation::Insert {
            self.stage.shared.inserts.done(request.number);
        }
    }

    /// The next operation, and when it is to begin where a recording says so.
    fn next(&mut self) -> Option<(Request, Option<Duration>)> {
        let stage = self.stage;
        let insert = || Request { operation: Operation::Insert, number: stage.shared.inserts.next(), length: 1 };
        match &stage.config.kind {
            PhaseKind::Load => Some(insert()).filter(|request| request.number < stage.load_end).map(|r| (r, None)),
            PhaseKind::Replay { recording, paced } => {
                let (at_ns, request) = recording.requests.get(self.replayed)?;
                self.replayed += stage.config.threads;
                Some((*request, paced.then(|| Duration::from_nanos(*at_ns))))
            }
            PhaseKind::Run => Some((
                match self.mix.operation(&mut self.rng) {
                    Operation::Insert => insert(),
                    operation => Request {
                        operation,
                        number: self.chooser.choose(&mut self.rng, &stage.shared),
                        length: match operation {
                            Operation::Scan => self.mix.scan_length(&mut self.rng),
                            _ => 1,
                        },
                    },
                },
                None,
            )),
        }
    }

    fn record(&mut self, due: Option<Instant>) {
        let slot = self.slot;
        let mut recorder = slot.recorder.lock();
        let last = self.session.steps.len() - 1;
        let mut has_error = false;
        for (index, Step { what, start, end, result, error }) in self.session.steps.iter_mut().enumerate() {
            let latency_ns = nanoseconds(end.saturating_duration_since(*start));
            let what = match *what {
                Measured::Operation(operation) if index < last => Measured::Part(operation),
                what => what,
            };
            // As in YCSB a part of an operation should have begun when the operation should have.
            let late = |due: Instant| nanoseconds(end.saturating_duration_since(due));
            recorder.record(what, latency_ns, due.filter(|_| what != Measured::Verify).map(late));
            recorder.count(what, *result);
            if let Some(error) = error.take() {
                recorder.error(what, error);
            }
            has_error |= *result == Return::Error;
            if index == last || (*result == Return::UnexpectedState && what == Measured::Verify) {
                self.failed += u64::from(*result != Return::Ok);
            }
        }
        drop(recorder);
        self.errors_in_a_row = if has_error { self.errors_in_a_row + 1 } else { 0 };
        slot.operations.store(slot.operations.load(Relaxed) + 1, Relaxed);
    }
}
