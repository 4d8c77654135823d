//! `mapfall torture` as its users meet it: small runs that must find nothing, what is refused, what is written, and
//! that a seed is the same run each time. That it finds what is wrong is shown with planted bugs
//! (`.ci/run 'planted bugs'`).
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/cli_store.rs"]
#[allow(dead_code, reason = "the suites of stores need more of it")]
mod cli;
#[path = "support/common.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use children::{maps_files, say};
use cli::{mapfall, text};
use common::scratch;

fn torture(dir: &Path, words: &str) -> Command {
    mapfall(dir, &format!("torture {words}"))
}

fn run(dir: &Path, words: &str) -> Output {
    torture(dir, words).output().unwrap()
}

/// What it says on standard output, where it finds nothing.
fn finds_nothing(dir: &Path, words: &str) -> String {
    let output = run(dir, words);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{words}: {out}{err}");
    out
}

fn figures(dir: &Path, words: &str) -> Value {
    serde_json::from_str(&finds_nothing(dir, &format!("{words} --json -"))).unwrap()
}

#[test]
fn a_file_that_is_taken_away_under_its_readers() {
    let dir = scratch();
    let found = figures(dir.path(), "file --dir . --rounds 300 --threads 3 --io pread,mmap,auto --seed 7");
    assert_eq!((&found["complete"], &found["failures"], &found["failure"]), (&true.into(), &0.into(), &Value::Null));
    let counts = &found["counts"];
    let number = |name: &str| counts[name].as_u64().unwrap_or_else(|| panic!("{name} of {counts}"));
    assert!(number("rounds") >= 300 && number("rounds_changed") >= number("rounds"), "{counts}");
    assert!(number("exact_blocks") > 0 && number("past_end") > 0, "{counts}");
    assert_eq!(number("checks"), number("blocks") + number("past_end"));
    assert!(found["changes"].as_u64().unwrap() >= 600, "{found}");
    let ios: Vec<_> = found["ios"].as_array().unwrap().iter().map(|io| io["io"].as_str().unwrap()).collect();
    assert_eq!(ios, ["pread", "mmap", "auto"]);
    if maps_files("the map's part of mapfall torture file") {
        assert!(number("faults_recovered") > 0 && number("fallbacks") > 0, "{counts}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn the_other_process_is_killed_and_started_again() {
    let dir = scratch();
    let found = figures(dir.path(), "file --dir . --seconds 1s --kill 30ms");
    assert!(found["kills"].as_u64().unwrap() > 3, "{found}");
    assert_eq!(found["failures"], 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
}

#[test]
fn in_less_memory_than_the_file_needs() {
    let dir = scratch();
    let output = run(dir.path(), "file --dir . --seconds 2 --size 32MiB --memory 24MiB");
    let err = text(&output.stderr);
    if err.contains("memory cannot be limited here") {
        assert_eq!(output.status.code(), Some(1));
        say(&format!("SKIPPED torture in less memory: {}", err.trim()));
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{}{err}", text(&output.stdout));
    assert!(err.contains("memory limited to 24.0 MiB"), "{err}");
}

#[test]
fn bytes_that_were_said_to_be_broken_and_are_not() {
    let dir = scratch();
    fs::write(dir.path().join("data"), vec![7; 64 << 10]).unwrap();
    let output = run(dir.path(), "file --file data --broken 64KiB --rounds 1000000 --io pread");
    assert_eq!(output.status.code(), Some(3), "a read that should have failed is a failure");
    let out = text(&output.stdout);
    assert!(out.contains("FAILED: bytes that the device cannot read were read") && out.contains("seed 1"), "{out}");
}

#[test]
fn an_interruption_ends_it_with_a_summary() {
    let dir = scratch();
    for words in ["file --dir . --seconds 10m", "sim --seeds 1000000000"] {
        let child = torture(dir.path(), words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_millis(700));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let begin = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(60));
        let out = text(&output.stdout);
        assert_eq!(output.status.code(), Some(130), "{words}: {out}{}", text(&output.stderr));
        assert!(out.contains("no failures"), "{out}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing behind");
    }
}

#[test]
fn seeds_find_nothing_and_are_the_same_each_time() {
    let dir = scratch();
    let words = "sim --seeds 40 --ops 60 --first-seed 1000";
    let (one, two) = (figures(dir.path(), words), figures(dir.path(), &format!("{words} --threads 1")));
    for name in ["hash", "seeds", "faults", "crashes", "opened", "fatal"] {
        assert_eq!(one[name], two[name], "{name}");
    }
    assert_eq!((one["failures"].as_u64(), one["seeds"].as_u64()), (Some(0), Some(40)));
    assert!(one["faults"].as_u64() > Some(0) && one["crashes"].as_u64() > Some(0), "{one}");
    let other = figures(dir.path(), "sim --seeds 40 --ops 60 --first-seed 2000");
    assert_ne!(one["hash"], other["hash"]);
    let out = finds_nothing(dir.path(), "sim --seeds 3");
    assert!(out.starts_with("3 seeds from 0, 100 operations each") && out.ends_with("no failures\n"), "{out}");
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = scratch();
    fs::write(dir.path().join("data"), "x").unwrap();
    for (words, part) in [
        ("", "expected a command"),
        ("file --threads 0", "--threads"),
        ("file --threads 65", "--threads"),
        ("file --rounds 0", "--rounds"),
        ("file --seconds 0", "--seconds"),
        ("file --seconds x", "--seconds"),
        ("file --io tape", "tape"),
        ("file --io direct", "direct"),
        ("file --size 1KiB", "--size"),
        ("file --dir no/such/dir", "no/such/dir"),
        ("file --dir data", "data"),
        ("file --file data", "--broken"),
        ("file --broken 1MiB", "--file"),
        ("file --dir . --json no/such/dir/out", "--json"),
        ("sim --seeds 0", "--seeds"),
        ("sim --ops 0", "--ops"),
        ("sim --ops 99999999", "--ops"),
        ("sim --first-seed x", "--first-seed"),
    ] {
        let output = run(dir.path(), words);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {err}");
        assert!(err.contains(part) && err.trim().lines().count() == 1, "{words}: {err}");
        assert!(output.stdout.is_empty(), "{words}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is made");
}

#[test]
fn the_hidden_command_is_for_nobody_else() {
    let dir = scratch();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("mapfall"));
    command.current_dir(dir.path()).args(["torture-changer", "data", "32768", "0", "1"]).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("mapfall torture file"), "{}", text(&output.stderr));
}
