//! Threads that read regions whole, so that no reader has to wait for that.
//!
//! There are a few for the whole process. They are started when there is work, and end when there has been none for a
//! while. A job that waits holds no file open. Whoever closes a file takes its jobs back, and waits for those under
//! way, so that a file that was closed has no descriptor and no map left.

use std::collections::VecDeque;
use std::sync::Weak;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::core::Core;

/// More would only compete for the device: a load is 2 MiB long, and the kernel reads ahead of it.
const THREADS_MAX: usize = 2;
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
}

#[derive(Debug)]
struct Job {
    core: Weak<Core>,
    work: Work,
}

struct Pool {
    state: Mutex<PoolState>,
    has_work: Condvar,
    is_done: Condvar,
}

struct PoolState {
    jobs: VecDeque<Job>,
    /// The files of the jobs under way.
    working: Vec<Weak<Core>>,
    threads: usize,
    idle: usize,
}

static POOL: Pool = Pool {
    state: Mutex::new(PoolState { jobs: VecDeque::new(), working: Vec::new(), threads: 0, idle: 0 }),
    has_work: Condvar::new(),
    is_done: Condvar::new(),
};

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

/// Takes all work for a file back that nobody has begun, and returns when nobody is at any of it.
pub(super) fn withdraw(core: &Weak<Core>) {
    let mut state = POOL.state.lock();
    state.jobs.retain(|job| !job.core.ptr_eq(core));
    while state.working.iter().any(|other| other.ptr_eq(core)) {
        POOL.is_done.wait(&mut state);
    }
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
        if let Some(Job { core: itself, work }) = state.jobs.pop_front() {
            // With the lock held: whoever withdraws the file's work sees either the job, or that it is under way.
            let Some(core) = itself.upgrade() else { continue };
            state.working.push(itself.clone());
            drop(state);
            core.work(work);
            // Before it is said that this is done: the file may be open no longer than that.
            drop(core);
            state = POOL.state.lock();
            if let Some(at) = state.working.iter().position(|other| other.ptr_eq(&itself)) {
                state.working.swap_remove(at);
            }
            POOL.is_done.notify_all();
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
