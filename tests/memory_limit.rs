//! A child in less memory than the machine has: what it reads is charged to its group and kept within the limit, the
//! limit can be moved while it runs, and nothing is left behind.
#![cfg(feature = "workload")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::panic;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mapfall::residency;
use mapfall::workload::memory_limit::{LimitUnavailable, MemoryLimit};
use rustix::process::{Pid, test_kill_process};

use children::say;
use common::scratch;

const MIB: u64 = 1 << 20;

/// A group with this limit, or nothing after saying why not.
fn limit(limit_bytes: u64) -> Option<MemoryLimit> {
    match MemoryLimit::new(limit_bytes) {
        Ok(limit) => Some(limit),
        Err(reason) => {
            say(&format!("SKIPPED: memory cannot be limited here: {reason}"));
            None
        }
    }
}

/// A shell that does each line it is told and then says so.
struct Shell {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Shell {
    fn in_group(limit: &MemoryLimit) -> Shell {
        let mut command = Command::new("sh");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = limit.spawn(command).unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Shell { child, said }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line} echo done").unwrap();
        let mut answer = String::new();
        self.said.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n");
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// A file that is in no page cache.
fn cold_file(path: &Path, bytes: u64) {
    fs::write(path, vec![7; bytes as usize]).unwrap();
    let file = fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    residency::drop_page_cache(&file).unwrap();
    assert_eq!(residency::resident_bytes(&file).unwrap(), 0);
}

#[test]
fn what_the_child_reads_stays_within_the_limit_which_can_be_moved() {
    let Some(limit) = limit(32 * MIB) else { return };
    let dir = scratch();
    let path = dir.path().join("data");
    cold_file(&path, 64 * MIB);
    let mut shell = Shell::in_group(&limit);
    let read = format!("cat '{}' >/dev/null;", path.display());

    shell.tell(&read);
    let usage = limit.usage().unwrap();
    assert_eq!((usage.limit_bytes, limit.limit_bytes().unwrap()), (32 * MIB, 32 * MIB));
    assert!(usage.used_bytes <= 32 * MIB && usage.file_bytes > 16 * MIB, "{usage:?}");
    assert!(usage.limit_hits > 0 && usage.anonymous_bytes > 0 && usage.oom_kills == 0, "{usage:?}");
    let resident = residency::resident_bytes(&fs::File::open(&path).unwrap()).unwrap();
    assert!(resident > 16 * MIB && resident <= 32 * MIB, "{resident}");

    limit.set(16 * MIB).unwrap();
    let usage = limit.usage().unwrap();
    assert!(usage.limit_bytes == 16 * MIB && usage.used_bytes <= 16 * MIB, "{usage:?}");

    limit.set(128 * MIB).unwrap();
    shell.tell(&read);
    let usage = limit.usage().unwrap();
    assert!(usage.file_bytes >= 64 * MIB, "{usage:?}");
    shell.end();
}

#[test]
fn the_group_goes_with_its_value_and_takes_its_processes_along() {
    let Some(limit) = limit(32 * MIB) else { return };
    let group = limit.group().to_owned();
    let mut shell = Shell::in_group(&limit);
    shell.tell("sleep 1000 &");
    let pid = Pid::from_child(&shell.child);
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(listed.lines().count(), 2, "the shell and its child: {listed}");
    let sleeping = listed.lines().find(|line| *line != pid.as_raw_nonzero().to_string()).unwrap();
    let sleeping = Pid::from_raw(sleeping.parse().unwrap()).unwrap();
    drop(limit);
    assert!(!group.exists());
    assert!(!shell.child.wait().unwrap().success());
    // Gone, or a zombie that its new parent has not waited for yet.
    let state = fs::read_to_string(format!("/proc/{}/stat", sleeping.as_raw_nonzero())).unwrap_or_default();
    assert!(test_kill_process(sleeping).is_err() || state.contains(") Z "), "{state}");
}

#[test]
fn a_panic_removes_the_group() {
    let Some(limit) = limit(32 * MIB) else { return };
    let group = limit.group().to_owned();
    assert!(group.exists());
    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let _limit = limit;
        panic!("on purpose");
    }));
    assert!(panicked.is_err() && !group.exists());
}

#[test]
fn a_group_that_a_dead_process_left_is_removed_by_the_next() {
    let Some(first) = limit(32 * MIB) else { return };
    // No process has this number: it is above the greatest there can be.
    let abandoned = first.group().with_file_name("mapfall-4194305-0");
    let others = first.group().with_file_name(format!("mapfall-{}-again", std::process::id()));
    for path in [&abandoned, &others] {
        fs::create_dir(path).unwrap();
    }
    let second = limit(32 * MIB);
    assert!(!abandoned.exists() && others.exists() && first.group().exists());
    assert_ne!(Some(first.group()), second.as_ref().map(MemoryLimit::group));
    fs::remove_dir(others).unwrap();
}

#[test]
fn a_limit_that_cannot_be_is_refused_and_leaves_nothing() {
    if limit(32 * MIB).is_none() {
        return;
    }
    match MemoryLimit::new(u64::MAX) {
        Err(LimitUnavailable::Refused { path, .. }) => assert!(!path.exists()),
        Err(LimitUnavailable::NotSet { group, .. }) => assert!(!group.exists()),
        other => panic!("{other:?}"),
    }
}
