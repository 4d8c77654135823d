//! Every system call of the library fails at its first use, its second, its third, until a scenario ends with none that
//! failed. What must come of it: no panic and no signal, a typed error with the system's own number or success, no
//! descriptor and no mapping left behind, and a store that has its last acknowledged checkpoint.
//!
//! A child is traced while it runs the scenario, so the code is the library's as it is. `MAPFALL_FAULT_POINTS=all`
//! tries every point; else a sample that fits into a minute.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![cfg(target_arch = "x86_64")]

#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;
#[path = "support/forks.rs"]
mod forks;
#[path = "fault_points/kinds.rs"]
mod kinds;
#[path = "support/scenarios.rs"]
mod scenarios;
#[path = "support/tracer.rs"]
mod tracer;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, PoisonError};

use mapfall::IoMode;

use children::say;
use common::scratch;
use forks::{Ended, Shared, fork, wait};
use kinds::{EXEMPT, Fault, KINDS, Kind, Then};
use scenarios::{ERRNO, ERRORS, SCENARIOS, SMALL, Scenario, Setup, make_base};
use tracer::{Action, Call, Watch, end_of_watch, trace};

/// A process keeps no more rings than this.
const RINGS_MAX: usize = 8;

/// What open descriptors lead to, and mappings of files below a directory.
fn held(directory: &Path) -> Vec<String> {
    let directory = directory.to_str().unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut held: Vec<_> = maps.lines().filter(|line| line.contains(directory)).map(str::to_owned).collect();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        // The one that the directory is read by is gone when it is looked at.
        if let Ok(target) = fs::read_link(entry.unwrap().path()) {
            held.push(target.to_str().unwrap().to_owned());
        }
    }
    // Threads keep their rings for the next file.
    let rings = held.len();
    held.retain(|target| !target.contains("[io_uring]"));
    assert!(rings - held.len() <= RINGS_MAX, "rings are left behind");
    held.sort_unstable();
    held
}

/// Waits for threads that end after what they served is dropped.
fn held_in_the_end(directory: &Path, before: &[String]) -> Vec<String> {
    let mut after = held(directory);
    for _ in 0..200 {
        if after == before {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        after = held(directory);
    }
    after
}

/// Where the C library's code is: its heap and its threads' stacks are not the library's calls.
fn libc_code() -> Vec<Range<u64>> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let code = maps.lines().filter(|line| line.contains(" r-xp ") && line.contains("libc.so"));
    let range = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
    };
    let found: Vec<_> = code.filter_map(range).collect();
    assert!(!found.is_empty());
    found
}

fn modes() -> impl Iterator<Item = IoMode> {
    IoMode::ALL.into_iter()
}

/// Runs a scenario in a child, traced.
fn run(
    scenario: &Scenario,
    mode: IoMode,
    directory: &Path,
    (base, shared): (&Path, &Shared),
    watch: &Watch<'_>,
    on_call: impl FnMut(&Call) -> Action,
) -> Option<Ended> {
    let mut setup = Setup::new(directory, mode, SMALL, shared);
    scenario.prepare(&setup, base);
    let ended = trace(shared, watch, on_call, || {
        let before = held(directory);
        // Only now is it watched in earnest: what was before are calls of the test's own.
        tracer::begin_of_watch();
        scenario.run(&mut setup);
        end_of_watch();
        let after = held_in_the_end(directory, &before);
        if before != after {
            shared.tell(&format!("left behind: {before:#?} {after:#?}\n"));
        }
        before == after
    });
    match ended {
        Ok(ended) => Some(ended),
        Err(error) => {
            say(&format!("SKIPPED fault points: {error}"));
            None
        }
    }
}

fn make(directory: &Path, shared: &Shared) -> std::path::PathBuf {
    let base = directory.join("base");
    fs::create_dir(&base).unwrap();
    let child = fork(shared, || {
        make_base(&mut Setup::new(&base, IoMode::Pread, SMALL, shared));
        true
    });
    assert_eq!(wait(child), Ended::GOOD, "{}", shared.told());
    base.join("store")
}

#[test]
fn every_call_is_known() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (dir, shared, libc) = (scratch(), Shared::new(), libc_code());
    let base = make(dir.path(), &shared);
    let mut unknown = BTreeSet::new();
    let mut seen = BTreeMap::new();
    for mode in modes() {
        for scenario in &SCENARIOS {
            let exempt = EXEMPT.map(|(call, _)| call);
            let ended = run(scenario, mode, dir.path(), (&base, &shared), &Watch::AllBut(&exempt), |call| {
                match KINDS.iter().find(|kind| kind.has(call, &libc)) {
                    Some(kind) => *seen.entry(kind.name).or_insert(0) += 1,
                    None if kinds::is_of_the_heap(call, &libc) => {}
                    None => _ = unknown.insert((call.number, scenario.name)),
                }
                Action::Go
            });
            let Some(ended) = ended else { return };
            assert_eq!(ended, Ended::GOOD, "{} by {}: {}", scenario.name, mode.name(), shared.told());
            assert_eq!(shared.word(ERRORS).load(SeqCst), 0, "{}", shared.told());
        }
    }
    say(&format!("{seen:?}"));
    assert!(unknown.is_empty(), "calls that are neither made to fail nor exempt: {unknown:?}");
    let unused = KINDS.iter().map(|kind| kind.name).filter(|name| !seen.contains_key(name));
    let unused: Vec<_> = unused.filter(|name| !kinds::BY_CHANCE.contains(name)).collect();
    assert!(unused.is_empty(), "no scenario makes these calls: {unused:?}");
}

/// What came of the points of a kind.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    points: u64,
    errors: u64,
    survived: u64,
}

/// What is wrong after a fault, if anything.
fn wrong(fault: &Fault, ended: Ended, kind: &Kind, shared: &Shared) -> Option<String> {
    let (errors, errno) = (shared.word(ERRORS).load(SeqCst), shared.word(ERRNO).load(SeqCst));
    match ended {
        Ended::GOOD => {}
        Ended::Exit(1) if kind.may_leave => {}
        _ => return Some(format!("{ended:?}")),
    }
    match fault.then {
        Then::Survives if errors > 0 => Some("it was not survived".to_owned()),
        Then::Error if errors > 0 && errno != fault.errno() as u64 && !kind.other_errors(&shared.told()) => {
            Some(format!("errno {errno} and not {}", fault.errno()))
        }
        _ => None,
    }
}

/// One at a time: a process forked while another thread panics could wait for that thread's locks for good.
static TURN: Mutex<()> = Mutex::new(());

fn points(kinds: &[Kind]) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let all = std::env::var_os("MAPFALL_FAULT_POINTS").is_some_and(|value| value == "all");
    let (dir, shared, libc) = (scratch(), Shared::new(), libc_code());
    let base = make(dir.path(), &shared);
    let mut tallies: BTreeMap<(&str, &str), Tally> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut turn = 0_u64;
    for mode in modes() {
        for scenario in &SCENARIOS {
            for kind in kinds {
                for fault in kind.faults {
                    turn += 1;
                    // Every third combination or so, and of its points some, each time the same.
                    if !all && !((turn * 0x9e37_79b1) >> 13).is_multiple_of(3) {
                        continue;
                    }
                    let mut nth = 1;
                    loop {
                        let (count, done) = (Cell::new(0), Cell::new(false));
                        let watch = Watch::Only(kind.calls);
                        let ended = run(scenario, mode, dir.path(), (&base, &shared), &watch, |call| {
                            if kind.has(call, &libc) {
                                count.set(count.get() + 1);
                                if count.get() == nth {
                                    done.set(true);
                                    return fault.action(call);
                                }
                            }
                            Action::Go
                        });
                        let Some(ended) = ended else { return };
                        if !done.get() {
                            break;
                        }
                        let told = || shared.told();
                        let name = || format!("{nth}. {} {fault:?}, {} by {}", kind.name, scenario.name, mode.name());
                        if let Some(wrong) = wrong(fault, ended, kind, &shared) {
                            failures.push(format!("{}: {wrong}\n{}", name(), told()));
                        }
                        let tally = tallies.entry((kind.name, scenario.name)).or_default();
                        tally.points += 1;
                        match shared.word(ERRORS).load(SeqCst) {
                            0 => tally.survived += 1,
                            _ => tally.errors += 1,
                        }
                        let mut setup = Setup::new(dir.path(), IoMode::Pread, SMALL, &shared);
                        let check = fork(&shared, || {
                            scenario.check(&mut setup);
                            true
                        });
                        if wait(check) != Ended::GOOD {
                            failures.push(format!("{}: afterwards\n{}", name(), told()));
                        }
                        // Further and further apart, where not all are tried.
                        nth += if all { 1 } else { 2 + nth * 2 };
                    }
                }
            }
        }
    }
    for ((kind, scenario), Tally { points, errors, survived }) in &tallies {
        say(&format!("{kind:14} {scenario:10} {points:6} points, {errors:6} typed errors, {survived:6} survived"));
    }
    let shown = failures.iter().take(30).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} failures, the first of them:\n{shown}", failures.len());
    assert!(!tallies.is_empty());
}

#[test]
fn calls_on_files_fail_one_by_one() {
    points(&KINDS[..kinds::ON_FILES]);
}

#[test]
fn calls_for_memory_rings_and_threads_fail_one_by_one() {
    points(&KINDS[kinds::ON_FILES..]);
}
