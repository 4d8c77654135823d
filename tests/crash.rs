//! The store after a crash: random use of a file in memory, and the files that a machine without power may leave of it.
//!
//! `MAPFALL_CRASH_STATES=100000 cargo test --release --test crash -- --ignored --nocapture` is the long run. A failure
//! prints what `MAPFALL_CRASH_SEED` must be for it to happen again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/driver.rs"]
mod driver;
#[path = "crash/failures.rs"]
mod failures;
#[path = "support/model.rs"]
mod model;
#[path = "support/sim.rs"]
mod sim;

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mapfall::{Error, VerifyOptions};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use driver::{Driver, Setup};
use model::{Model, examine, no_errors};
use sim::{Content, Loss, SECTOR, SimFile, Step};

/// Crash states of the test that always runs, where code is optimized and where it is not.
const STATES: u64 = if cfg!(debug_assertions) { 2000 } else { 8000 };
/// Of the crashes of a run, so many are tried: few of many runs find more than many of few.
const SHARE: f64 = 0.15;

/// Says how to do it again when a test fails.
struct Case {
    seed: u64,
    /// The number of the crash, its place in the log, and what it lost.
    crash: Option<(usize, usize, Loss)>,
}

#[allow(clippy::print_stderr, reason = "how to do it again")]
impl Drop for Case {
    fn drop(&mut self) {
        if thread::panicking() {
            match self.crash {
                Some((number, at, loss)) => {
                    eprintln!("MAPFALL_CRASH_SEED={}/{number}: crash after step {at}, loss {loss:?}", self.seed);
                }
                None => eprintln!("MAPFALL_CRASH_SEED={}: before any crash", self.seed),
            }
        }
    }
}

/// What is to be checked of a store that nobody has open.
fn verify_clean(sim: &SimFile, setup: &Setup, state: &Model) {
    let snapshot = setup.options().open_snapshot_io(sim.boxed()).unwrap();
    examine(&snapshot, state, &mut no_errors);
    let report = setup.options().verify_io(sim.boxed(), &VerifyOptions::new(), &mut |_| ()).unwrap();
    assert!(report.is_clean() && report.notices.is_empty(), "{report:#?}");
}

/// The crashes that a log is tried with.
fn crashes(sim: &SimFile, rng: &mut SmallRng) -> Vec<(usize, Loss)> {
    let steps = sim.log_from(0);
    let mut crashes = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        if !matches!(step, Step::Sync | Step::FailedSync { .. }) {
            continue;
        }
        crashes.extend([
            (at, Loss::All),
            (at, Loss::Nothing),
            (at, Loss::AllButTheLast),
            (at + 1, Loss::Random(rng.random())),
        ]);
        crashes.extend((0..4).map(|_| (at, Loss::Random(rng.random()))));
        if let Some(Step::Write { bytes, .. }) = steps[..at].last().filter(|step| step.is_slot_write()) {
            crashes.extend((0..bytes.len() / SECTOR).map(|sector| (at, Loss::Sector(sector))));
            crashes.extend((0..8).map(|_| (at, Loss::Random(rng.random()))));
        }
    }
    crashes.extend((0..steps.len().min(150)).map(|_| (rng.random_range(0..=steps.len()), Loss::Random(rng.random()))));
    crashes
}

/// Opens what a crash left, checks it, goes on with it, and checks that.
fn recover(setup: Setup, seed: u64, content: Content, states: &[Arc<Model>], depth: u32) -> u64 {
    let mut recovered = Driver::recover(setup, seed, content, states);
    for _ in 0..recovered.rng.random_range(1..10) {
        recovered.step();
    }
    recovered.checkpoint(None, 0, true).unwrap();
    recovered.check();
    recovered.reopen().unwrap();
    verify_clean(&recovered.sim, &setup, &recovered.work);
    let mut done = 1;
    if depth > 0 && recovered.rng.random_bool(0.1) {
        let log_len = recovered.sim.log_len();
        for _ in 0..4 {
            let at = recovered.rng.random_range(0..=log_len);
            let content = recovered.sim.crash(at, Loss::Random(recovered.rng.random()));
            let seed = recovered.rng.random();
            done += recover(setup, seed, content, &recovered.states_at(at), depth - 1);
        }
    }
    done
}

/// A crash while the store is made leaves a store without anything, or none.
fn recover_unborn(setup: &Setup, content: Content) {
    let sim = SimFile::from_content(content);
    let empty = Model { generation: 1, ..Model::default() };
    match (setup.options().open_snapshot_io(sim.boxed()), setup.options().open_io(sim.boxed())) {
        (Ok(snapshot), Ok(store)) => {
            examine(&snapshot, &empty, &mut no_errors);
            examine(&store, &empty, &mut no_errors);
        }
        (Err(error), Err(_)) => {
            assert!(matches!(error, Error::NotAStore { .. } | Error::Corrupt { .. }), "{error}");
        }
        (snapshot, store) => panic!("opened one way only: {snapshot:?}, {store:?}"),
    }
}

/// One run of a store, and some of its crashes, or the one with this number. Returns how many files were opened.
fn session(seed: u64, only: Option<usize>) -> u64 {
    let mut case = Case { seed, crash: None };
    let mut rng = SmallRng::seed_from_u64(seed);
    let setup = Setup::random(&mut rng);
    let mut driver = Driver::create(setup, rng.random());
    for _ in 0..rng.random_range(10..80) {
        driver.step();
    }
    driver.check();
    let mut done = 0;
    for (number, (at, loss)) in crashes(&driver.sim, &mut rng).into_iter().enumerate() {
        let (seed, place) = (rng.random(), rng.random::<f64>());
        if only.map_or(place >= SHARE, |only| only != number) {
            continue;
        }
        case.crash = Some((number, at, loss));
        let content = driver.sim.crash(at, loss);
        let states = driver.states_at(at);
        if states.is_empty() {
            recover_unborn(&setup, content);
            done += 1;
        } else {
            done += recover(setup, seed, content, &states, 2);
        }
    }
    done
}

#[allow(clippy::print_stdout, reason = "how much was done")]
/// Runs sessions until there were so many crash states.
fn run(states: u64, first_seed: u64) {
    if let Ok(wanted) = env::var("MAPFALL_CRASH_SEED") {
        let (seed, number) = wanted.split_once('/').map_or((&wanted[..], None), |(seed, number)| (seed, Some(number)));
        session(seed.parse().unwrap(), number.map(|number| number.parse().unwrap()));
        return;
    }
    let (next, done) = (AtomicU64::new(first_seed), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) < states {
                    done.fetch_add(session(next.fetch_add(1, Ordering::Relaxed), None), Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} crash states of {} runs", done.into_inner(), next.into_inner() - first_seed);
}

#[test]
fn a_crash_leaves_the_last_checkpoint_or_the_one_in_progress() {
    run(STATES, 0);
}

#[test]
#[ignore = "takes minutes"]
fn very_many_crashes() {
    let states = env::var("MAPFALL_CRASH_STATES").map_or(100_000, |states| states.parse().unwrap());
    let seed = env::var("MAPFALL_CRASH_FIRST_SEED").map_or(1 << 32, |seed| seed.parse().unwrap());
    run(states, seed);
}
