//! Threads that read regions whole, so that no reader has to wait for that.
//!
//! There are a few for the whole process. They are started when there is work, and end when there has been none for a
//! while. A job holds no file open: it finds out that the file was closed, and is done.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Weak;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::core::Core;

/// More would only compete for the device: a load is 2 MiB long, and the kernel reads ahead of it.
pub(super) const THREADS_MAX: usize = 2;
/// Jobs that may wait. Who comes later goes without, and asks again when it matters as much then.
const QUEUE_MAX: usize = 256;
/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(2);

/// What a thread is to do for a file.
#[derive(Debug)]
pub(super) enum Work {
    /// Reads one region, if it is still queued, since its reads cost too much.
    Region(u64),
    /// Reads one region, if it is still queued, ahead of a scan.
    Ahead(u64),
    /// Reads what is not there of these regions, in order, a few at a time.
    Rest(Range<u64>),
}

#[derive(Debug)]
struct Job {
    core: Weak<Core>,
    work: Work,
}

struct Pool {
    state: Mutex<PoolState>,
    has_work: Condvar,
}

struct PoolState {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static POOL: Pool =
    Pool { state: Mutex::new(PoolState { jobs: VecDeque::new(), threads: 0, idle: 0 }), has_work: Condvar::new() };

/// Queues work for a file. False where too much waits already, or no thread can be had.
pub(super) fn submit(core: &Weak<Core>, work: Work) -> bool {
    let mut state = POOL.state.lock();
    if state.jobs.len() >= QUEUE_MAX || state.idle == 0 && !start_thread(&mut state) {
        return false;
    }
    state.jobs.push_back(Job { core: core.clone(), work });
    drop(state);
    POOL.has_work.notify_one();
    true
}

/// Starts one more thread if there may be one. False if there is none at all then.
fn start_thread(state: &mut PoolState) -> bool {
    if state.threads < THREADS_MAX {
        match thread::Builder::new().name("mapfall-load".to_owned()).spawn(run) {
            Ok(_) => state.threads += 1,
            Err(error) => tracing::debug!(%error, "no thread to read regions"),
        }
    }
    state.threads > 0
}

fn run() {
    let mut state = POOL.state.lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            if let Some(core) = job.core.upgrade()
                && let Some(rest) = core.work(job.work)
            {
                // Behind whatever else waits.
                POOL.state.lock().jobs.push_back(Job { core: job.core, work: rest });
            }
            state = POOL.state.lock();
            continue;
        }
        state.idle += 1;
        let timed_out = POOL.has_work.wait_for(&mut state, IDLE).timed_out();
        state.idle -= 1;
        if timed_out && state.jobs.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}
