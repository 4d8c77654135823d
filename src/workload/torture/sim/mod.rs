//! A whole store over a simulated file, decided by one seed.
//!
//! A seed is a plan: what several clients do to a store, what the system does wrong and when, in which order the
//! clients run, and how each process ends. A run is exact: the same plan makes the same calls in the same order, and
//! has the same hash. A plan that fails is shrunk by leaving things out for as long as it still fails.
//!
//! # The fault model
//!
//! **Survived**, with nothing lost that was acknowledged:
//!
//! - The power goes at any call. Of what was not synced any sectors are there, one of them torn. The store opens at the
//!   last durable checkpoint, or at the one that was being made; all of it is there, kept checkpoints too, and the
//!   accounts of space add up. The same where the process ends and the system goes on.
//! - A read, a write (a part of it done) or a change of length fails once; all writes fail; the disk is full. That
//!   operation fails with the system's error, nothing else changes, and later ones work.
//! - A sync fails, or the write of a slot; the system may forget what was written. The store takes no more writes,
//!   reads go on, and it opens again as after a crash.
//! - Several clients at once. A page is what its last write made it, or, while one is under way, either; what a
//!   checkpoint has of those is one of both.
//!
//! **Detected**, and perhaps **fatal with a clear error**: a write that was acknowledged is lost, torn or in the wrong
//! place; bits flip in the file or in what is read; bytes cannot be read any more; a stranger cuts the file. No read
//! ever gives wrong bytes, and what `verify` calls clean can be read. The store may open at an older checkpoint, whose
//! damage is found as well; or not at all, and then it says that it is damaged, or no store.
//!
//! Short reads and writes and interrupted calls are below this: [`crate::BlockIo`] is exact, and `tests/` interrupts
//! and shortens the calls themselves. A mapping that is refused, and faults in the middle of a copy, are above it: see
//! [`super::file`].

mod baton;
mod client;
mod content;
mod disk;
mod oracle;
mod plan;
mod shrink;
mod simulation;

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use self::plan::Plan;
use self::simulation::{Ran, run as run_plan};

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The first seed.
    pub first_seed: u64,
    /// How many, one after the other.
    pub seeds: u64,
    /// Operations of each.
    pub ops: usize,
    /// Threads, each with seeds of its own.
    pub threads: usize,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// Whether all seeds were run, or one failed.
    pub complete: bool,
    /// The first seed.
    pub first_seed: u64,
    /// Seeds that were run.
    pub seeds: u64,
    /// Operations of each.
    pub ops: usize,
    /// Faults that came about.
    pub faults: u64,
    /// Crashes.
    pub crashes: u64,
    /// Times that a store was opened after an epoch, and examined.
    pub opened: u64,
    /// Seeds that ended in damage that leaves nothing to open, and said so.
    pub fatal: u64,
    /// 0, or 1: the lowest seed that failed.
    pub failures: u64,
    /// The first of them.
    pub failure: Option<Failure>,
    /// The hashes of all runs as one; the same for the same seeds.
    #[serde(serialize_with = "as_hex")]
    pub hash: u64,
    /// For how long.
    pub seconds: f64,
}

/// A seed that fails, and the least that it takes.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub problem: String,
    /// The hash of its run.
    #[serde(serialize_with = "as_hex")]
    pub hash: u64,
    /// Operations and faults of the seed.
    pub size: (usize, usize),
    /// Operations and faults of what is left of it.
    pub shrunk_size: (usize, usize),
    /// What is wrong with that.
    pub shrunk_problem: String,
    /// What is left: who does what, what fails, and how it ends.
    pub shrunk_plan: String,
}

fn as_hex<S: serde::Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:016x}"))
}

/// The hash of one seed's run, and what was wrong.
#[must_use]
pub fn run_seed(seed: u64, ops: usize) -> (u64, Option<String>) {
    let ran = run_plan(&Plan::new(seed, ops));
    (ran.hash, ran.problem)
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    faults: u64,
    crashes: u64,
    opened: u64,
    fatal: u64,
    hash: u64,
    failed: Option<(u64, Ran)>,
}

impl Totals {
    fn add(&mut self, seed: u64, ran: Ran) {
        self.seeds += 1;
        self.faults += ran.faults;
        self.crashes += ran.crashes;
        self.opened += ran.opened;
        self.fatal += u64::from(ran.was_fatal);
        // Whichever thread is first.
        self.hash = self.hash.wrapping_add(ran.hash.rotate_left((seed % 64) as u32));
        if ran.problem.is_some() && self.failed.as_ref().is_none_or(|(other, _)| seed < *other) {
            self.failed = Some((seed, ran));
        }
    }
}

/// Runs seeds until all are done, one fails, or `stop`. `event` hears how many are done.
pub fn run(config: &Config, stop: &AtomicBool, event: &(dyn Fn(u64) + Sync)) -> Outcome {
    const TELL_EVERY: Duration = Duration::from_millis(100);
    let begin = Instant::now();
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let totals = Mutex::new(Totals::default());
    let work = |tells: bool| {
        let mut told = Instant::now();
        while !stop.load(Relaxed) && !failed.load(Relaxed) {
            let index = next.fetch_add(1, Relaxed);
            if index >= config.seeds {
                break;
            }
            let seed = config.first_seed.wrapping_add(index);
            let ran = run_plan(&Plan::new(seed, config.ops));
            failed.fetch_or(ran.problem.is_some(), Relaxed);
            totals.lock().unwrap_or_else(PoisonError::into_inner).add(seed, ran);
            let done = done.fetch_add(1, Relaxed) + 1;
            if tells && told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                event(done);
            }
        }
    };
    thread::scope(|scope| {
        let work = &work;
        (1..config.threads).for_each(|_| _ = scope.spawn(move || work(false)));
        work(true);
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failure = totals.failed.map(|(seed, ran)| failure(seed, config.ops, ran));
    Outcome {
        complete: failure.is_some() || totals.seeds == config.seeds,
        first_seed: config.first_seed,
        seeds: totals.seeds,
        ops: config.ops,
        faults: totals.faults,
        crashes: totals.crashes,
        opened: totals.opened,
        fatal: totals.fatal,
        failures: u64::from(failure.is_some()),
        failure,
        hash: totals.hash,
        seconds: begin.elapsed().as_secs_f64(),
    }
}

fn failure(seed: u64, ops: usize, ran: Ran) -> Failure {
    let plan = Plan::new(seed, ops);
    let (shrunk, shrunk_problem) = shrink::shrink(&plan, ran.problem.clone().unwrap_or_default());
    Failure {
        seed,
        problem: ran.problem.unwrap_or_default(),
        hash: ran.hash,
        size: (plan.op_count(), plan.fault_count()),
        shrunk_size: (shrunk.op_count(), shrunk.fault_count()),
        shrunk_problem,
        shrunk_plan: shrunk.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_same_run_each_time() {
        let mut hashes = std::collections::BTreeSet::new();
        for seed in 0..60 {
            let (hash, problem) = run_seed(seed, 80);
            assert_eq!(problem, None, "seed {seed}");
            assert_eq!(run_seed(seed, 80), (hash, None), "seed {seed}");
            hashes.insert(hash);
        }
        assert_eq!(hashes.len(), 60, "each seed is another run");
    }

    #[test]
    fn a_page_that_damage_hid_may_be_there_when_the_damage_is_gone() {
        assert_eq!(run_seed(4_041_506, 100).1, None);
    }

    #[test]
    fn threads_change_nothing() {
        let stop = AtomicBool::new(false);
        let outcome = |threads| run(&Config { first_seed: 500, seeds: 40, ops: 60, threads }, &stop, &|_| ());
        let (one, two) = (outcome(1), outcome(2));
        assert_eq!(one.failures, 0, "{:?}", one.failure);
        assert_eq!((one.hash, one.seeds, one.crashes, one.faults), (two.hash, two.seeds, two.crashes, two.faults));
        assert!(one.crashes > 0 && one.faults > 0 && one.opened > 0);
    }
}
