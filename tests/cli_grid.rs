//! `mapfall grid` beyond warm and cold: patterns, batches, threads, limited memory, throughput over time, pieces of a
//! grid; and what of it is refused.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/cli_store.rs"]
#[allow(dead_code, reason = "the suites of stores need more of it")]
mod cli;
#[path = "support/common.rs"]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use mapfall::IoMode;
use mapfall::workload::memory_limit::MemoryLimit;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use children::{maps_files, say};
use cli::{ends, json, mapfall, names, refuses, succeeds, text};
use common::scratch;

const MIB: usize = 1 << 20;

fn data(dir: &Path, len: usize) {
    fs::write(dir.join("data"), (0..len).map(|index| (index / 512 * 31 + index) as u8).collect::<Vec<_>>()).unwrap();
}

/// A grid of the file `data`: its table, and its figures.
fn grid(dir: &Path, words: &str) -> (String, Value) {
    let output = ends(dir, &format!("grid --file data --json out.json --report out.html {words}"), 0);
    let table = text(&output.stdout);
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    (table, json(&fs::read_to_string(dir.join("out.json")).unwrap()))
}

fn cells(outcome: &Value) -> &[Value] {
    outcome["cells"].as_array().unwrap()
}

fn values<'a>(outcome: &'a Value, field: &str) -> BTreeSet<&'a str> {
    cells(outcome).iter().map(|cell| cell[field].as_str().unwrap()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Whether memory can be limited here; says why where it cannot.
fn can_limit() -> bool {
    match MemoryLimit::new(64 << 20) {
        Ok(_) => true,
        Err(reason) => {
            say(&format!("SKIPPED: memory cannot be limited here: {reason}"));
            false
        }
    }
}

/// The control groups of mapfall beside ours, which are none once a grid has ended.
fn groups_of(pid: u32) -> usize {
    let limit = MemoryLimit::new(64 << 20).unwrap();
    let prefix = format!("mapfall-{pid}-");
    let entries = fs::read_dir(limit.group().parent().unwrap()).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(&prefix)).count()
}

#[test]
fn every_pattern_reads_the_same_by_every_contender() {
    let dir = scratch();
    data(dir.path(), MIB);
    let (table, outcome) = grid(
        dir.path(),
        "--block 4KiB --pattern zipf,zipf:1.2,scan+rand,shift,shift:50% --cache warm --rounds 1 --threads 1,2 \
         --io pread,mmap,pread-random,pread-seq,mmap-random,mmap-seq --no-reference",
    );
    assert_eq!(values(&outcome, "pattern"), ["zipf:0.99", "zipf:1.2", "scan+rand", "shift:10%", "shift:50%"].into());
    let ios = ["pread", "mmap", "pread-random", "pread-seq", "mmap-random", "mmap-seq"];
    assert_eq!(values(&outcome, "io"), ios.into());
    assert_eq!(cells(&outcome).len(), 5 * 2 * ios.len());
    assert!(cells(&outcome).iter().all(|cell| cell["passes"][0]["reads"] == 256 && cell["partial"] == false));
    for part in ["warm zipf:0.99 4 KiB: 256 reads", "warm shift:50% 4 KiB x2: 256", "this/pread"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
}

#[test]
fn batches_and_a_number_of_reads() {
    let dir = scratch();
    data(dir.path(), MIB);
    let words = "--block 4KiB --pattern rand --cache warm,cold --rounds 2 --batch 32 --pass-reads 1000";
    let (table, outcome) = grid(dir.path(), words);
    assert_eq!((&outcome["config"]["batch"], &outcome["config"]["pass_reads"]), (&32.into(), &1000.into()));
    assert!(table.contains("batches of 32") && table.contains("1000 reads a pass"), "{table}");
    for cell in cells(&outcome) {
        assert!(cell["copy_s"].is_null() && cell["partial"] == false, "{cell}");
        assert!(cell["passes"].as_array().unwrap().iter().all(|pass| pass["reads"] == 1000));
    }
}

#[test]
fn a_grid_in_pieces_is_the_whole_grid() {
    let dir = scratch();
    data(dir.path(), MIB);
    let whole = "--block 4KiB,8KiB,16KiB --pattern seq,rand --cache warm --rounds 1 --io pread --no-reference";
    let key = |cell: &Value| format!("{} {}", cell["pattern"], cell["block_bytes"]);
    let mut pieces = Vec::new();
    for part in 1..=4 {
        let (_, outcome) = grid(dir.path(), &format!("{whole} --part {part}/4"));
        pieces.extend(cells(&outcome).iter().map(key));
    }
    let (_, outcome) = grid(dir.path(), whole);
    assert_eq!(pieces, cells(&outcome).iter().map(key).collect::<Vec<_>>());
}

#[test]
fn passes_in_limited_memory() {
    if !can_limit() {
        return;
    }
    let dir = scratch();
    data(dir.path(), 32 * MIB);
    let words = "--block 4KiB --pattern rand,shift --cache limited:25%,limited:200% --rounds 2 --cold-rounds 2 \
                 --pass-limit 500ms --warm-up 100ms --threads 1,2";
    let (table, outcome) = grid(dir.path(), words);
    assert_eq!(values(&outcome, "cache"), ["limited:25%", "limited:200%"].into());
    assert_eq!(values(&outcome, "io"), ["pread", "mmap"].into(), "{}", outcome["skipped"]);
    assert_eq!(cells(&outcome).len(), 2 * 2 * 2 * 2);
    for cell in cells(&outcome) {
        let limited = &cell["limited"];
        let of = |field: &str| number(&limited[field]);
        let share = if cell["cache"] == "limited:25%" { 8 } else { 64 } * MIB;
        assert_eq!(of("limit_bytes") - of("allowance_bytes"), share as f64);
        assert!(of("file_bytes") > 0.5 * of("limit_bytes").min((32 * MIB) as f64), "memory was not full: {limited}");
        assert!(of("file_bytes") <= of("limit_bytes") && of("anonymous_bytes") > 0.0, "{limited}");
        assert!(number(&cell["gib_per_s"]["median"]) > 0.0 && cell["drop_method"].is_string());
        assert_eq!(cell["passes"].as_array().unwrap().len(), 2);
        if cell["cache"] == "limited:200%" {
            assert_eq!(limited["refaulted_pages"], 0, "all of it fits");
        }
    }
    assert!(table.contains("for the process itself"), "{table}");
    // Random reads of four times as much as fits come back for what was evicted.
    let short = cells(&outcome).iter().find(|cell| {
        cell["cache"] == "limited:25%" && cell["pattern"] == "rand" && cell["io"] == "pread" && cell["threads"] == 1
    });
    assert!(number(&short.unwrap()["limited"]["refaulted_pages"]) > 0.0);
}

#[test]
fn latencies_in_limited_memory() {
    if !can_limit() {
        return;
    }
    let dir = scratch();
    data(dir.path(), 4 * MIB);
    let words = "--block 4KiB --pattern rand --cache limited:50% --rounds 1 --pass-limit 1s --warm-up 50ms --latency";
    let (_, outcome) = grid(dir.path(), words);
    for cell in cells(&outcome) {
        let latency = ["p50", "p90", "p99", "p99_9", "max"].map(|at| cell["latency_ns"][at].as_u64().unwrap());
        assert!(latency[0] > 0 && latency.is_sorted(), "{cell}");
    }
}

#[test]
fn throughput_over_time() {
    let dir = scratch();
    data(dir.path(), 8 * MIB);
    let words = "--block 4KiB --pattern shift,rand --cache warm,cold --rounds 1 --series 1s --no-reference";
    let (table, outcome) = grid(dir.path(), words);
    assert_eq!(outcome["config"]["series_s"], 1.0);
    for cell in cells(&outcome) {
        let series = &cell["passes"][0]["series"];
        assert_eq!((series["slice_ms"].as_u64(), series["gib_per_s"].as_array().unwrap().len()), (Some(100), 10));
        let read: f64 = series["gib_per_s"].as_array().unwrap().iter().map(number).sum::<f64>() / 10.0;
        let whole = number(&cell["passes"][0]["gib_per_s"]);
        assert!((read / whole - 1.0).abs() < 0.2, "{read} and {whole} in {cell}");
        assert_eq!(cell["partial"], false);
        let changes = series["changes"].as_array().unwrap();
        if cell["pattern"] == "rand" {
            assert!(changes.is_empty());
        } else {
            assert_eq!((&changes[0]["what"], &changes[0]["at_s"]), (&"shift".into(), &0.5.into()));
            let recovery_s = &changes[0]["recovery_s"];
            assert!(
                number(&changes[0]["steady_gib_per_s"]) > 0.0 && (recovery_s.is_null() || number(recovery_s) >= 0.0)
            );
        }
    }
    assert!(table.contains("shift at 0.5 s: "), "{table}");
    let html = fs::read_to_string(dir.path().join("out.html")).unwrap();
    assert!(html.contains("Over time") && html.contains("<polyline") && html.contains("GiB/s over time"));
}

#[test]
fn a_limit_that_moves_in_the_middle_of_a_pass() {
    if !can_limit() {
        return;
    }
    let dir = scratch();
    data(dir.path(), 32 * MIB);
    let words = "--block 64KiB --pattern rand --cache limited:150% --io pread --rounds 1 --warm-up 100ms --series 2s \
                 --limit-change 25%@600ms,150%@1.4s";
    let (table, outcome) = grid(dir.path(), words);
    let [cell] = cells(&outcome) else { panic!("{outcome}") };
    let series = &cell["passes"][0]["series"];
    let slices: Vec<f64> = series["gib_per_s"].as_array().unwrap().iter().map(number).collect();
    let whats: Vec<_> = series["changes"].as_array().unwrap().iter().map(|change| &change["what"]).collect();
    assert_eq!(whats, ["limit 25%", "limit 150%"]);
    // From memory, then three of four reads from the device: the reads of the second part are evicted and come back.
    assert!(number(&cell["limited"]["refaulted_pages"]) > 0.0, "{cell}");
    assert!(slices.len() == 20 && slices[..5].iter().all(|rate| *rate > 0.0), "{slices:?}");
    assert!(table.contains("limit 25% at 0.6 s: ") && table.contains("limit 150% from 1.4 s on"), "{table}");
}

/// What `auto` held to fit, in the order of time, of the only pass of a cell.
fn moments(cell: &Value) -> &[Value] {
    cell["passes"][0]["explanation"]["moments"].as_array().unwrap()
}

#[test]
fn what_auto_decides_is_shown() {
    let dir = scratch();
    data(dir.path(), 8 * MIB);
    let words = "--block 4KiB --pattern rand --cache warm --io pread,auto --rounds 1 --no-reference --explain \
                 --batch 8 --queue-depth 4";
    let (table, outcome) = grid(dir.path(), words);
    assert_eq!(outcome["config"]["queue_depth"], 4);
    let [pread, auto] = cells(&outcome) else { panic!("{outcome}") };
    assert!(pread["passes"][0]["explanation"].is_null());
    let last = moments(auto).last().unwrap();
    // Four regions, and all of them are resident.
    assert_eq!(last["parts"].as_str().unwrap().len(), 4);
    let is_mapped = maps_files("the map's part of what_auto_decides_is_shown");
    assert!(!is_mapped || last["parts"] == "MMMM", "{last}");
    assert!(table.contains("what auto decided") && table.contains("2 MiB of the file a letter"), "{table}");
    let html = fs::read_to_string(dir.path().join("out.html")).unwrap();
    assert!(html.contains("What auto decided") && (!is_mapped || html.contains("class=\"heat-map\"")));
}

#[test]
fn auto_follows_a_limit_that_moves() {
    if !maps_files("auto_follows_a_limit_that_moves") || !can_limit() {
        return;
    }
    let dir = scratch();
    data(dir.path(), 64 * MIB);
    let words = "--block 4KiB --pattern rand --cache limited:200% --io auto --rounds 1 --warm-up 500ms --series 9s \
                 --limit-change 25%@2s,200%@5s --explain --no-reference";
    let (_, outcome) = grid(dir.path(), words);
    let [cell] = cells(&outcome) else { panic!("{outcome}") };
    // Whether the file is held to fit, and whether most of it is read through the map. What the kernel evicts at once
    // when the limit falls, `auto` has not to give back: that is counted where it is made to happen.
    let mut turns: Vec<(bool, bool)> = Vec::new();
    for moment in moments(cell) {
        let parts = moment["parts"].as_str().unwrap();
        turns.push((moment["fits"].as_bool().unwrap(), parts.matches('M').count() > parts.len() / 2));
    }
    turns.dedup();
    let mut rest = turns.iter();
    for wanted in [(true, true), (false, false), (true, true)] {
        assert!(rest.any(|turn| *turn == wanted), "mapped, then read by system calls, then mapped: {turns:?}");
    }
}

#[test]
fn an_interruption_ends_the_child_and_removes_the_group() {
    if !can_limit() {
        return;
    }
    let dir = scratch();
    data(dir.path(), 8 * MIB);
    let words = "grid --file data --block 4KiB --pattern rand --cache limited:50% --rounds 1000 --cold-rounds 1000 \
                 --no-report --warm-up 50ms --pass-limit 100ms";
    let mut command = mapfall(dir.path(), words);
    command.env("MAPFALL_LOG", "mapfall=debug").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.contains("round=1")), "no second round");
    thread::spawn(move || lines.for_each(drop));
    assert_eq!(groups_of(child.id()), 1);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut table = String::new();
    child.stdout.take().unwrap().read_to_string(&mut table).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(table.contains("Interrupted") && table.contains("limited:50% rand"), "{table}");
    assert_eq!(groups_of(child.id()), 0);
}

#[test]
fn a_limit_without_the_right_to_it_is_skipped_aloud() {
    let dir = scratch();
    data(dir.path(), MIB);
    // Nobody: it may read the file, and may make no control group.
    let mut command = mapfall(dir.path(), "grid --file data --block 4KiB --cache warm,limited:25% --rounds 1 --json -");
    command.arg("--no-report");
    if rustix::process::geteuid().is_root() {
        // What is in the page cache is told only to who may write the file.
        for (path, mode) in [(dir.path().to_owned(), 0o755), (dir.path().join("data"), 0o666)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        command.uid(65534).gid(65534);
    } else if can_limit() {
        return say("SKIPPED: this user may limit memory");
    }
    let output = match command.output() {
        Ok(output) if output.status.code() == Some(126) || output.stdout.is_empty() => {
            return say(&format!("SKIPPED: nobody cannot run it here: {}", text(&output.stderr)));
        }
        Ok(output) => output,
        Err(error) => return say(&format!("SKIPPED: nobody cannot run it here: {error}")),
    };
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("skipped limited:25% rand 4 KiB: memory cannot be limited"));
    let outcome = json(&text(&output.stdout));
    assert_eq!(values(&outcome, "cache"), ["warm"].into());
    let skipped = outcome["skipped"].as_array().unwrap();
    assert!(skipped.iter().any(|skipped| skipped["cache"] == "limited:25%" && skipped["io"].is_null()));
}

#[test]
fn the_child_speaks_only_to_a_grid() {
    let dir = scratch();
    data(dir.path(), MIB);
    for line in ["", "{}\n", "nonsense\n"] {
        let mut command = mapfall(dir.path(), "grid-pass data");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(text(&output.stderr).contains("this command is for mapfall grid"), "{}", text(&output.stderr));
    }
    assert!(!succeeds(dir.path(), "--help").contains("grid-pass"));
}

#[test]
fn wrong_options_get_one_line_and_exit_code_2() {
    let dir = scratch();
    data(dir.path(), 64 << 10);
    let before = names(dir.path());
    for (words, expected) in [
        ("--pattern zipf:0", "expected a skew above 0, up to 10, found \"0\""),
        ("--pattern zipf:hot", "expected a skew"),
        ("--pattern shift:60%", "expected 1% to 50%, found \"60%\""),
        ("--pattern shift:10", "expected 1% to 50%, found \"10\""),
        ("--pattern seq:1", "shift[:PERCENT%], found \"seq:1\""),
        ("--cache limited", "expected warm, cold or limited:PERCENT%, found \"limited\""),
        ("--cache limited:25", "expected 1% to 1000%, found \"25\""),
        ("--cache limited:0%", "expected 1% to 1000%, found \"0%\""),
        ("--cache limited:1001%", "expected 1% to 1000%"),
        ("--cache limited:-5%", "expected 1% to 1000%"),
        ("--io bare", "mmap-seq, found \"bare\""),
        ("--threads 1,0", "1..=1024"),
        ("--batch 0", "1..=65536"),
        ("--batch 65537", "1..=65536"),
        ("--batch 2 --latency", "cannot be used with"),
        ("--pass-reads 0", "1..=1073741824"),
        ("--warm-up 1", "expected a time above 0"),
        ("--series 10", "expected a time above 0"),
        ("--series 500ms", "expected at least 1s, found 500ms"),
        ("--series 5s --latency", "cannot be used with"),
        ("--series 5s --pass-reads 7", "cannot be used with"),
        ("--limit-change 25%@1s", "required arguments were not provided: --series"),
        ("--limit-change 25%@1s --series 5s", "expected --cache limited:PERCENT% beside it"),
        ("--limit-change 25% --series 5s", "expected a limit and a time such as 25%@4s, found \"25%\""),
        ("--limit-change 25@1s --series 5s", "expected 1% to 1000%, found \"25\""),
        ("--limit-change 25%@1 --series 5s", "expected a time above 0"),
        ("--limit-change 25%@6s --series 5s --cache limited:50%", "inside the 5s of --series, found 25%@6s"),
        ("--limit-change 25%@2s,50%@1s --series 5s --cache limited:50%", "one after the other"),
        ("--queue-depth 0", "1..=1024"),
        ("--queue-depth 1025", "1..=1024"),
        ("--explain", "expected auto in --io"),
        ("--part 3", "expected a part such as 2/8, found \"3\""),
        ("--part 0/8", "expected a part"),
        ("--part 9/8", "expected a part"),
    ] {
        refuses(dir.path(), &format!("grid --file data {words}"), 2, expected);
        assert_eq!(names(dir.path()), before, "{words}");
    }
    let help = succeeds(dir.path(), "grid --help");
    for part in IoMode::ALL.map(IoMode::name) {
        assert!(help.contains(part), "{part}");
    }
    assert!(help.contains("Limited: to a share"));
}
