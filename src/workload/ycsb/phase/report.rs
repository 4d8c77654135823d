//! Emptying the threads' recorders at each interval, and telling how a phase stands.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::error::Result;
use super::super::hlog::LogWriter;
use super::super::measure::Recorder;
use super::super::outcome::{CheckpointFigures, Interval, IntervalSeries, Latency};
use super::lane::Ended;
use super::{Stage, Status};

/// Empties the recorders, and tells.
pub(super) struct Report<'a> {
    stage: &'a Stage<'a>,
    start: Instant,
    operations_all: Option<u64>,
    log: Option<LogWriter>,
    checkpoints: &'a Mutex<(Recorder, Vec<CheckpointFigures>)>,
    checkpoints_seen: Recorder,
    total: Recorder,
    intervals: Vec<Interval>,
    interval_begin: Duration,
    interval_operations: u64,
    status: Recorder,
    status_at: Duration,
    status_operations: u64,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        stage: &'a Stage<'a>,
        start: Instant,
        operations_all: Option<u64>,
        log: Option<LogWriter>,
        checkpoints: &'a Mutex<(Recorder, Vec<CheckpointFigures>)>,
    ) -> Self {
        Report {
            stage,
            start,
            operations_all,
            log,
            checkpoints,
            checkpoints_seen: Recorder::default(),
            total: Recorder::default(),
            intervals: Vec::new(),
            interval_begin: Duration::ZERO,
            interval_operations: 0,
            status: Recorder::default(),
            status_at: Duration::ZERO,
            status_operations: 0,
        }
    }

    pub(super) fn until_ended(
        &mut self,
        ended: &mpsc::Receiver<Result<Ended>>,
        heard: &mut dyn FnMut(&Status),
    ) -> Result<Vec<Ended>> {
        let config = self.stage.config;
        let (mut lanes, mut failures, mut first_error) = (Vec::new(), 0, None);
        while lanes.len() + failures < config.threads {
            let next = (self.interval_begin + config.interval).min(self.status_at + config.status_every);
            match ended.recv_timeout(next.saturating_sub(self.start.elapsed())) {
                Ok(Ok(lane)) => lanes.push(lane),
                Ok(Err(error)) => {
                    // What this one cannot do, the others cannot either.
                    self.stage.stop.store(true, Relaxed);
                    failures += 1;
                    first_error.get_or_insert(error);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.look(heard)?,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        match first_error {
            Some(error) => Err(error),
            None => Ok(lanes),
        }
    }

    fn look(&mut self, heard: &mut dyn FnMut(&Status)) -> Result<()> {
        let now = self.start.elapsed();
        if now >= self.interval_begin + self.stage.config.interval {
            self.end_interval(now)?;
        }
        if now >= self.status_at + self.stage.config.status_every {
            let operations = self.stage.operations();
            let recorder = std::mem::take(&mut self.status).folded();
            let series = recorder.iter().map(|(what, series)| (what.name(), Latency::of(&series.measured, &[])));
            heard(&Status {
                elapsed: now,
                operations,
                operations_all: self.operations_all,
                current_per_s: (operations - self.status_operations) as f64 / (now - self.status_at).as_secs_f64(),
                series: series.collect(),
            });
            (self.status_at, self.status_operations) = (now, operations);
        }
        Ok(())
    }

    fn end_interval(&mut self, now: Duration) -> Result<()> {
        let mut taken = Recorder::default();
        for slot in &self.stage.lanes {
            let recorder = std::mem::take(&mut *slot.recorder.lock());
            taken.add(&recorder);
        }
        self.total.add(&taken);
        self.status.add(&taken);
        let mut shown = taken.folded();
        // Those of checkpoints are few; they go into the log and the series as they come, and into the total later.
        let made = std::mem::take(&mut self.checkpoints.lock().0);
        shown.add(&made);
        self.checkpoints_seen.add(&made);
        let length = now.saturating_sub(self.interval_begin);
        if let Some(log) = &mut self.log {
            log.write(&shown, self.interval_begin, length)?;
        }
        let operations = self.stage.operations();
        let series = shown.iter().map(|(what, series)| {
            let of = &series.measured;
            let figures = IntervalSeries {
                count: of.len(),
                mean_ns: of.mean(),
                p50_ns: of.value_at_quantile(0.5),
                p99_ns: of.value_at_quantile(0.99),
                max_ns: of.max(),
            };
            (what.name(), figures)
        });
        self.intervals.push(Interval {
            end_s: now.as_secs_f64(),
            length_s: length.as_secs_f64(),
            operations: operations - self.interval_operations,
            series: series.collect(),
        });
        (self.interval_begin, self.interval_operations) = (now, operations);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(Recorder, Vec<Interval>)> {
        self.end_interval(self.start.elapsed())?;
        self.total.add(&self.checkpoints_seen);
        if let Some(log) = self.log.take() {
            log.finish()?;
        }
        Ok((self.total, self.intervals))
    }
}
