//! A cell in limited memory: each pass in a child of its own, all of them in one control group.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::cell::Bench;
use super::child::{Done, Reply, Request};
use super::tally::Tally;
use super::{Config, Event};
use crate::workload::cache_state::{CacheState, Reached};
use crate::workload::contender::Io;
use crate::workload::error::{Error, Result};
use crate::workload::memory_limit::{MemoryLimit, MemoryUsage};
use crate::workload::outcome::{CellKey, Limited, Skipped};
use crate::workload::pass::End;

/// What a child may use beside the share of the file and what its offsets and buffers take: its own code and heap, and
/// the page tables of a map.
const ALLOWANCE_BYTES: u64 = 8 << 20;
/// The offsets of a pass, and for a moment as many of its warm-up.
const BYTES_PER_READ: u64 = 2 * size_of::<u64>() as u64;
/// The warm-up reads at most so many times what memory may hold.
const WARM_UP_FACTOR: u64 = 2;
/// A child that is so late is given up: one read may wait long where memory is short.
const GRACE: Duration = Duration::from_secs(60);
/// How often the flag to stop is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Signals that a user ends a program with, and that the children of a terminal's program get too.
const SIGNALS_OF_USERS: [i32; 3] = [1, 2, 15];

/// How a pass is made in a process of its own: a program that calls [`super::serve`] with the path that comes as its
/// last argument, standard input and standard output.
#[derive(Clone, Debug)]
pub struct Helper {
    /// The program.
    pub program: PathBuf,
    /// What comes before the path of the file.
    pub args: Vec<OsString>,
}

impl Config {
    /// The file's share of memory in a limited cell.
    fn share_bytes(&self, file_bytes: u64, percent: u16) -> u64 {
        (u128::from(file_bytes) * u128::from(percent) / 100) as u64
    }

    /// What a child may have for itself: the same for all contenders of a cell.
    fn allowance_bytes(&self, key: &CellKey, reads: u64) -> u64 {
        let buffers_bytes = key.block_bytes * (key.threads * self.batch) as u64;
        ALLOWANCE_BYTES + buffers_bytes + reads * BYTES_PER_READ
    }
}

impl Bench<'_> {
    /// Makes all passes of a limited cell. The inner `Err` says why the cell had to be skipped.
    pub(super) fn measure_limited(
        &mut self,
        key: &CellKey,
        percent: u16,
        contenders: &[Io],
        tally: &mut Tally,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Reached<()>> {
        let config = self.config;
        let Some(helper) = &config.helper else {
            return Ok(Err("there is no program to make the passes in a process of its own".to_owned()));
        };
        let share_bytes = config.share_bytes(self.file_bytes, percent);
        let extent = self.extent(key);
        let allowance_bytes = config.allowance_bytes(key, extent.reads);
        let limit_bytes = share_bytes.saturating_add(allowance_bytes);
        let limit = match MemoryLimit::new(limit_bytes) {
            Ok(limit) => limit,
            Err(reason) => return Ok(Err(format!("memory cannot be limited: {reason}"))),
        };
        let steps = config.limit_changes.iter().map(|change| {
            let share_bytes = config.share_bytes(self.file_bytes, change.percent);
            (Duration::from_secs_f64(change.at_s), share_bytes.saturating_add(allowance_bytes))
        });
        let steps: Vec<(Duration, u64)> = steps.collect();
        let mut turns = contenders.to_vec();
        for round in 0..config.rounds(key.cache) {
            for &io in &turns {
                if self.given_up.iter().any(|skipped| skipped.key == *key && skipped.io == Some(io)) {
                    continue;
                }
                watch(Event::PassBegins { cell: key, io, round });
                let begun = Instant::now();
                let drop_method = match self.prepare(CacheState::Cold)? {
                    Ok(drop_method) => drop_method,
                    Err(reason) => return Ok(Err(reason)),
                };
                let request = Request {
                    io,
                    pattern: key.pattern,
                    extent,
                    seed: config.seed_of(round),
                    batch: config.batch,
                    queue_depth: config.queue_depth,
                    huge_pages: config.huge_pages,
                    advice: config.advice,
                    latency: config.latency,
                    fill_bytes: share_bytes.min(self.file_bytes),
                    warm_up_bytes: share_bytes.saturating_mul(WARM_UP_FACTOR),
                    warm_up_limit: config.warm_up,
                    pass_limit: config.pass_limit,
                    series: config.series,
                    explain: config.explain,
                };
                let set = |bytes| limit.set(bytes).map_err(Error::system("set the limit of", limit.group()));
                set(limit_bytes)?;
                let run = ChildRun { limit: &limit, steps: &steps, stop: self.stop };
                match run.pass(helper, &config.path, &request)? {
                    Ok(measured) => {
                        if let Some(facts) = tally.facts(io) {
                            facts.fallback_reads += measured.done.fallback_reads;
                            facts.drop_method = facts.drop_method.max(drop_method);
                        }
                        tally.record_limited(io, measured.limited(limit_bytes, allowance_bytes));
                        let pass = measured.done.into_pass();
                        if pass.end == End::Stopped {
                            return Err(Error::Interrupted);
                        }
                        tracing::debug!(cell = %key, %io, round, elapsed = ?pass.elapsed, "pass in a child");
                        tally.record(io, round, false, pass);
                    }
                    Err(reason) => {
                        watch(Event::Note(&format!("{io} is left out of {key}: {reason}")));
                        self.given_up.push(Skipped { key: *key, io: Some(io), reason });
                    }
                }
                watch(Event::PassEnds { cell: key, taken: begun.elapsed() });
            }
            tally.check_round(round, None)?;
            turns.rotate_left(1);
        }
        Ok(Ok(()))
    }
}

/// What a child did, and what memory did meanwhile.
struct Measured {
    done: Done,
    warm_up_reads: u64,
    before: MemoryUsage,
    after: MemoryUsage,
}

impl Measured {
    fn limited(&self, limit_bytes: u64, allowance_bytes: u64) -> Limited {
        let (before, after) = (&self.before, &self.after);
        Limited {
            limit_bytes,
            allowance_bytes,
            file_bytes: after.file_bytes,
            anonymous_bytes: after.anonymous_bytes,
            refaulted_pages: after.refaulted_pages.saturating_sub(before.refaulted_pages),
            warm_up_reads: self.warm_up_reads,
            stalled_us: before.stalled_us.zip(after.stalled_us).map(|(before, after)| after.saturating_sub(before)),
        }
    }
}

/// A child that makes one pass.
struct ChildRun<'a> {
    limit: &'a MemoryLimit,
    /// When, from the start of the clock, the limit goes whereto.
    steps: &'a [(Duration, u64)],
    stop: &'a AtomicBool,
}

impl ChildRun<'_> {
    /// The inner `Err` says why this pass cannot be.
    fn pass(&self, helper: &Helper, path: &Path, request: &Request) -> Result<Reached<Measured>> {
        let mut command = Command::new(&helper.program);
        command.args(&helper.args).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = match self.limit.spawn(command) {
            Ok(child) => child,
            Err(error) => return Ok(Err(format!("a child cannot be started in limited memory: {error}"))),
        };
        let mut running = Running { child };
        match self.talk(&mut running.child, request) {
            Ok(measured) => {
                // The end of its input tells the child to end.
                drop(running.child.stdin.take());
                Ok(Ok(measured))
            }
            Err(Trouble::Stopped) => Err(Error::Interrupted),
            Err(Trouble::Child(reason)) => {
                let killed = self.limit.usage().is_ok_and(|usage| usage.oom_kills > 0);
                let why = if killed { ": the kernel killed it, since memory was too small for it" } else { "" };
                Ok(Err(format!("{reason}{why}")))
            }
        }
    }

    fn talk(&self, child: &mut Child, request: &Request) -> Result<Measured, Trouble> {
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Trouble::Child("its child has no pipes".to_owned()));
        };
        let asked = serde_json::to_writer(&mut input, request).map_err(io::Error::from);
        let asked = asked.and_then(|()| input.write_all(b"\n"));
        child.stdin = Some(input);
        asked.map_err(|error| self.silence(child, &error.to_string()))?;
        let replies = replies(output);
        let warm_up_reads = match self.wait(child, &replies, request.warm_up_limit + GRACE, &[])? {
            Reply::Started { warm_up_reads } => warm_up_reads,
            reply => return Err(Trouble::unexpected(reply)),
        };
        let before = self.usage()?;
        let time = request.series.unwrap_or(request.pass_limit);
        let done = match self.wait(child, &replies, time + GRACE, self.steps)? {
            Reply::Done(done) => done,
            reply => return Err(Trouble::unexpected(reply)),
        };
        Ok(Measured { done, warm_up_reads, before, after: self.usage()? })
    }

    /// The next reply, and what is to be done to the limit while it is waited for.
    fn wait(
        &self,
        child: &mut Child,
        replies: &Receiver<String>,
        time: Duration,
        mut steps: &[(Duration, u64)],
    ) -> Result<Reply, Trouble> {
        let start = Instant::now();
        loop {
            if self.stop.load(Relaxed) {
                return Err(Trouble::Stopped);
            }
            let elapsed = start.elapsed();
            if let Some((_, bytes)) = steps.first().filter(|(at, _)| *at <= elapsed) {
                let set = self.limit.set(*bytes);
                set.map_err(|error| Trouble::Child(format!("the limit cannot be moved to {bytes} B: {error}")))?;
                steps = &steps[1..];
                continue;
            }
            if elapsed >= time {
                return Err(Trouble::Child(format!("its child did not answer for {:.0} s", elapsed.as_secs_f64())));
            }
            let to_step = steps.first().map_or(LOOK_EVERY, |(at, _)| at.saturating_sub(elapsed));
            match replies.recv_timeout(LOOK_EVERY.min(to_step)) {
                Ok(line) => {
                    let reply = serde_json::from_str(&line);
                    return reply.map_err(|error| Trouble::Child(format!("its child answered {line:?}: {error}")));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.silence(child, "it answered nothing")),
            }
        }
    }

    fn usage(&self) -> Result<MemoryUsage, Trouble> {
        self.limit.usage().map_err(|error| Trouble::Child(format!("its memory cannot be counted: {error}")))
    }

    /// What has become of a child that says nothing any more.
    fn silence(&self, child: &mut Child, otherwise: &str) -> Trouble {
        match child.wait() {
            Ok(status) if status.signal().is_some_and(|signal| SIGNALS_OF_USERS.contains(&signal)) => Trouble::Stopped,
            Ok(status) => Trouble::Child(format!("its child ended: {status}")),
            Err(_) => Trouble::Child(format!("its child is lost: {otherwise}")),
        }
    }
}

/// Why there is no measurement.
enum Trouble {
    Stopped,
    Child(String),
}

impl Trouble {
    fn unexpected(reply: Reply) -> Trouble {
        Trouble::Child(match reply {
            Reply::Failed { reason } => reason,
            reply => format!("its child answered {reply:?}"),
        })
    }
}

/// A child that is waited for, and killed first where it has not ended by itself.
struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        const PAUSE: Duration = Duration::from_millis(5);
        const PAUSES: u32 = 200;
        for _ in 0..PAUSES {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            if self.child.stdin.is_some() {
                break;
            }
            thread::sleep(PAUSE);
        }
        // Either fails where it has ended by now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that a child writes, as they come.
fn replies(output: impl io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    // It ends with the child, or when nobody listens any more.
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
