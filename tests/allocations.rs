//! Every allocation fails at its turn: the first of a scenario, the second, the third, until it ends with none that
//! failed. What must come of it: a typed error, or the end of the process that Rust has for that (`SIGABRT`); never a
//! panic, never a wait that does not end, and a store that has its last acknowledged checkpoint.
//!
//! `MAPFALL_FAULT_POINTS=all` tries every one; else a sample that fits into some seconds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;
#[path = "support/failing_heap.rs"]
mod failing_heap;
#[path = "support/forks.rs"]
mod forks;
#[path = "support/scenarios.rs"]
mod scenarios;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;

use mapfall::IoMode;

use children::{leave_no_core_file, say};
use common::scratch;
use failing_heap::Failing;
use forks::{Ended, Shared, be_silent, fork, wait};
use scenarios::{ERRORS, SCENARIOS, SMALL, Scenario, Setup, make_base};

#[global_allocator]
static HEAP: Failing = Failing;

/// The end that Rust has for a process without memory.
const ABORTED: Ended = Ended::Signal(6);
/// The word that says whether an allocation of a child has failed.
const FAILED: usize = 8;

/// Runs a scenario in a child whose `nth` allocation fails.
fn run(scenario: &Scenario, mode: IoMode, directory: &Path, base: &Path, shared: &Shared, nth: u64) -> Ended {
    let mut setup = Setup::new(directory, mode, SMALL, shared);
    scenario.prepare(&setup, base);
    wait(fork(shared, || {
        be_silent();
        Failing::fail(nth);
        scenario.run(&mut setup);
        shared.word(FAILED).store(u64::from(Failing::stop()), SeqCst);
        true
    }))
}

#[test]
fn allocations_fail_one_by_one() {
    let all = std::env::var_os("MAPFALL_FAULT_POINTS").is_some_and(|value| value == "all");
    leave_no_core_file();
    let (dir, shared) = (scratch(), Shared::new());
    let base = dir.path().join("base");
    fs::create_dir(&base).unwrap();
    make_base(&mut Setup::new(&base, IoMode::Pread, SMALL, &shared));
    let base = base.join("store");
    for scenario in &SCENARIOS {
        let (mut points, mut errors, mut aborted) = (0, 0, 0);
        for mode in IoMode::ALL {
            let mut nth = 1;
            loop {
                let ended = run(scenario, mode, dir.path(), &base, &shared, nth);
                let name = || format!("allocation {nth}, {} by {}: {}", scenario.name, mode.name(), shared.told());
                assert!(ended == Ended::GOOD || ended == ABORTED, "{ended:?}: {}", name());
                if ended == Ended::GOOD && shared.word(FAILED).load(SeqCst) == 0 {
                    assert_eq!(shared.word(ERRORS).load(SeqCst), 0, "{}", name());
                    break;
                }
                points += 1;
                aborted += u64::from(ended == ABORTED);
                errors += u64::from(shared.word(ERRORS).load(SeqCst) > 0);
                let mut setup = Setup::new(dir.path(), IoMode::Pread, SMALL, &shared);
                let check = fork(&shared, || {
                    scenario.check(&mut setup);
                    true
                });
                assert_eq!(wait(check), Ended::GOOD, "afterwards, {}", name());
                // Further and further apart, where not all are tried.
                nth += if all { 1 } else { nth };
            }
        }
        say(&format!("{:10} {points:6} points, {errors:6} typed errors, {aborted:6} ends by SIGABRT", scenario.name));
        assert!(points > 0 && aborted > 0);
    }
}
