//! A run in a process of its own: nothing of one run is left for the next, and its memory can be limited.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use mapfall::workload::memory_limit::{LimitUnavailable, MemoryLimit};
use mapfall::workload::size::ByteSize;
use mapfall::workload::ycsb::{Configuration, PageCache, PhaseOutcome, describe};
use serde::Deserialize;

use super::job::{self, Job};
use crate::fail::Failure;

/// What a process needs beside the index: code, histograms, buffers.
const PROCESS_BYTES: u64 = 48 << 20;
/// A key and its page in the index.
const INDEX_ENTRY_BYTES: u64 = 90;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A run for a child to do.
pub(super) struct Run<'a> {
    pub(super) job: &'a Job,
    pub(super) configuration: &'a Configuration,
    pub(super) warm_up: Duration,
    pub(super) seed: u64,
    pub(super) hlog: Option<&'a Path>,
}

/// As much of a child's JSON as is looked at.
#[derive(Deserialize)]
struct Figures {
    contenders: Vec<Contender>,
}

#[derive(Deserialize)]
struct Contender {
    outcome: PhaseOutcome,
}

/// Does it. The inner `Err` says why it cannot be: the page cache is not as it should be, or memory cannot be limited.
pub(super) fn run(run: &Run<'_>, stop: &AtomicBool) -> Result<Result<PhaseOutcome, String>, Failure> {
    if let Err(reason) = job::prepare(run.configuration, stop)? {
        return Ok(Err(reason));
    }
    let limit = match run.configuration.page_cache {
        PageCache::Limited(part) => match limit(run.configuration, part)? {
            Ok(limit) => Some(limit),
            Err(unavailable) => return Ok(Err(format!("memory cannot be limited here: {unavailable}"))),
        },
        _ => None,
    };
    let failed = |error: std::io::Error| Failure::while_running(format!("cannot start a child: {error}"));
    let mut command = command(run).map_err(failed)?;
    let child = match &limit {
        Some(limit) => limit.spawn(command).map_err(failed)?,
        None => command.spawn().map_err(failed)?,
    };
    let output = wait(child, stop)?;
    let usage = limit.as_ref().and_then(|limit| limit.usage().ok());
    if stop.load(Relaxed) {
        return Err(Failure::interrupted());
    }
    let message = || String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("mapfall: ").to_owned();
    let figures: Figures = match serde_json::from_slice(&output.stdout) {
        Ok(figures) => figures,
        Err(_) if usage.is_some_and(|usage| usage.oom_kills > 0) => {
            return Ok(Err("the kernel killed the run: the limit is too tight for it".to_owned()));
        }
        Err(_) => {
            let code = output.status.code().unwrap_or(1) as u8;
            return Err(Failure { message: message(), code: code.into() });
        }
    };
    let Some(Contender { mut outcome }) = figures.contenders.into_iter().next() else {
        return Err(Failure::while_running("a child has no figures"));
    };
    if let (Some(limit), Some(usage)) = (&limit, usage) {
        outcome.notes.push(format!(
            "memory limited to {} by {}: {} refaults of the page cache",
            ByteSize::new(usage.limit_bytes).rounded(),
            limit.kind(),
            usage.refaulted_pages
        ));
    }
    Ok(Ok(outcome))
}

/// So much memory that the part of the data has room beside what the process itself needs.
fn limit(configuration: &Configuration, part: f64) -> Result<Result<MemoryLimit, LimitUnavailable>, Failure> {
    let path = &configuration.file;
    let failed = |error| Failure::usage(format!("cannot open {}: {error}", path.display()));
    let data_bytes = fs::metadata(path).map_err(failed)?.len();
    let records = if configuration.is_bare { 0 } else { describe(path)?.1 };
    let own_bytes = PROCESS_BYTES + records * INDEX_ENTRY_BYTES;
    Ok(MemoryLimit::new((data_bytes as f64 * part) as u64 + own_bytes))
}

fn command(run: &Run<'_>) -> std::io::Result<Command> {
    let configuration = run.configuration;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["ycsb", "run", "--json", "-", "--page-cache", "as-is"]);
    command.args(run.job.words());
    command.args(["--io", &configuration.io, "--seed", &run.seed.to_string()]);
    command.args(["--threads", &configuration.threads.to_string()]);
    command.args(["--queue-depth", &configuration.queue_depth.to_string()]);
    command.arg(if configuration.is_bare { "--bare" } else { "--store" }).arg(&configuration.file);
    if let Some(bytes) = configuration.cache_bytes {
        command.args(["--cache", &bytes.to_string()]);
    }
    if !run.warm_up.is_zero() {
        command.args(["--warm-up", &format!("{}ms", run.warm_up.as_millis().max(1))]);
    }
    if let Some(path) = run.hlog {
        command.arg("--hlog").arg(path);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Its output. Ctrl-C reaches a child of the same terminal by itself; one that was asked to stop is ended anyway.
fn wait(child: Child, stop: &AtomicBool) -> Result<std::process::Output, Failure> {
    let pid = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || drop(sender.send(child.wait_with_output())));
    loop {
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok(output) => {
                let _ = waiting.join();
                return output.map_err(|error| Failure::while_running(format!("a child's output is lost: {error}")));
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                if stop.load(Relaxed)
                    && let Some(pid) = rustix::process::Pid::from_raw(pid as i32)
                {
                    // It ends in order, and says what it has.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
                }
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Failure::while_running("a child's output is lost"));
            }
        }
    }
}
