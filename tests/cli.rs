//! The command line as its users meet it: what it writes, what it refuses and how, and how it ends when interrupted.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/common.rs"]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use common::scratch;

const MIB: usize = 1 << 20;

/// `mapfall grid` with its words, run in `dir`.
fn grid(dir: &Path, words: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("mapfall"));
    command.current_dir(dir).env_remove("MAPFALL_LOG").env_remove("TMPDIR").arg("grid").args(words.split_whitespace());
    command
}

fn run(dir: &Path, words: &str) -> Output {
    grid(dir, words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn succeeds(dir: &Path, words: &str) -> String {
    let output = run(dir, words);
    assert!(output.status.success(), "{words}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Bytes that differ from block to block.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index / 512 * 31 + index) as u8).collect()
}

fn ios<'a>(cells: &'a [Value], cache: &str) -> BTreeSet<&'a str> {
    cells.iter().filter(|cell| cell["cache"] == cache).map(|cell| cell["io"].as_str().unwrap()).collect()
}

#[test]
fn the_whole_grid_of_a_given_file() {
    let dir = scratch();
    let data = dir.path().join("data");
    fs::write(&data, content(2 * MIB)).unwrap();
    let before = fs::metadata(&data).unwrap();

    let table = succeeds(dir.path(), "--file data --block 4KiB,64KiB --rounds 2 --reuse-map --seed 7 --json out.json");

    let after = fs::metadata(&data).unwrap();
    assert_eq!((before.modified().unwrap(), before.len()), (after.modified().unwrap(), after.len()));
    assert!(fs::read(&data).unwrap() == content(2 * MIB), "the file was changed");
    assert_eq!(names(dir.path()), ["data", "mapfall-grid.html", "out.json"].map(str::to_owned).into());
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    for part in ["warm seq 4 KiB", "cold rand 64 KiB", "mmap/pread", "pread/bare", "mmap/limit"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }

    let outcome = json(&dir.path().join("out.json"));
    assert_eq!(outcome["complete"], true);
    assert_eq!(outcome["config"]["file_bytes"], 2 * MIB);
    assert_eq!(outcome["config"]["seed"], 7);
    assert_eq!(outcome["config"]["file_is_temporary"], false);
    assert!(outcome["machine"]["kernel"].as_str().unwrap().starts_with("Linux"));
    let cells = outcome["cells"].as_array().unwrap();
    let warm = ["pread", "mmap", "mmap-reused", "bare", "bare-reused", "bare-pread", "limit"];
    assert_eq!(ios(cells, "warm"), warm.into());
    assert_eq!(cells.iter().filter(|cell| cell["cache"] == "warm").count(), 4 * warm.len());
    for cell in cells {
        check_cell(cell);
    }
    check_cold(&outcome);
    let ratios = outcome["ratios"].as_array().unwrap();
    let ratio = ratios.iter().find(|ratio| ratio["of"] == "mmap" && ratio["to"] == "pread").unwrap();
    assert!(ratio["min"].as_f64() <= ratio["median"].as_f64() && ratio["median"].as_f64() <= ratio["max"].as_f64());
}

/// Every field that the JSON promises, with a value that can be.
fn check_cell(cell: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number in {cell}"));
    assert!(["seq", "rand"].contains(&cell["pattern"].as_str().unwrap()));
    assert!(["warm", "cold"].contains(&cell["cache"].as_str().unwrap()));
    assert!([4096, 65536].contains(&cell["block_bytes"].as_u64().unwrap()));
    assert_eq!(cell["threads"], 1);
    let rate = &cell["gib_per_s"];
    assert!(0.0 < number(&rate["min"]) && number(&rate["min"]) <= number(&rate["median"]));
    assert!(number(&rate["median"]) <= number(&rate["max"]));
    assert!(number(&cell["ns_per_read"]) > 0.0);
    for field in ["minor_faults", "major_faults", "user_s", "sys_s"] {
        assert!(number(&cell[field]) >= 0.0);
    }
    assert_eq!(cell["partial"], false);
    assert_eq!(cell["passes"].as_array().unwrap().len(), 2);
    let reads = 2 * MIB as u64 / cell["block_bytes"].as_u64().unwrap();
    assert!(cell["passes"].as_array().unwrap().iter().all(|pass| pass["reads"] == reads));
    if cell["cache"] == "warm" {
        let sum = number(&cell["copy_s"]) + number(&cell["rest_s"]);
        assert!(number(&cell["copy_s"]) >= 0.0 && sum >= 0.999 * number(&cell["pass_s"]));
        assert_eq!(cell["major_faults"], 0);
    } else {
        assert!(cell["copy_s"].is_null() && cell["drop_method"].is_string());
    }
}

/// A cold cell is there with its contenders, or the outcome says why it is not.
fn check_cold(outcome: &Value) {
    let skipped = outcome["skipped"].as_array().unwrap();
    let whole_cells = skipped.iter().filter(|skipped| skipped["io"].is_null());
    assert!(
        whole_cells
            .clone()
            .all(|skipped| skipped["cache"] == "cold" && !skipped["reason"].as_str().unwrap().is_empty())
    );
    let cells = outcome["cells"].as_array().unwrap();
    let measured = cells.iter().filter(|cell| cell["cache"] == "cold" && cell["io"] == "pread").count();
    assert_eq!(measured + whole_cells.count(), 4);
    if measured > 0 {
        assert_eq!(ios(cells, "cold"), ["pread", "mmap", "bare"].into());
        assert!(skipped.iter().any(|skipped| skipped["io"] == "limit"));
    }
}

#[test]
fn the_report_is_one_file_and_escapes_what_it_shows() {
    let dir = scratch();
    fs::write(dir.path().join("<b>&data"), content(MIB)).unwrap();
    succeeds(dir.path(), "--file <b>&data --block 4KiB --rounds 1 --report sub.html");
    assert_eq!(names(dir.path()), ["<b>&data", "sub.html"].map(str::to_owned).into());
    let html = fs::read_to_string(dir.path().join("sub.html")).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert!(html.contains("&lt;b&gt;&amp;data") && !html.contains("<b>&data"));
    for quadrant in ["Sequential, warm", "Random, warm", "Sequential, cold", "Random, cold"] {
        assert!(html.contains(quadrant), "{quadrant}");
    }
    assert!(html.contains("<svg") && html.contains("Where the time goes") && html.contains("How it was measured"));
    for loads in ["http:", "https:", "<script", "<link", "<img", "url(", "@import"] {
        assert!(!html.contains(loads), "{loads}");
    }
}

#[test]
fn a_temporary_file_is_made_where_asked_and_removed() {
    let dir = scratch();
    fs::create_dir(dir.path().join("there")).unwrap();
    let output =
        run(dir.path(), "--dir there --size 1MiB --block 4KiB --rounds 1 --cache warm --no-report --json out.json");
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("making a temporary file of 1 MiB in there"), "{}", text(&output.stderr));
    assert_eq!(names(dir.path()), ["out.json", "there"].map(str::to_owned).into());
    assert!(names(&dir.path().join("there")).is_empty());
    let outcome = json(&dir.path().join("out.json"));
    assert_eq!(outcome["config"]["file_is_temporary"], true);
    assert!(outcome["config"]["file"].as_str().unwrap().contains("/there/mapfall-grid-"));
}

#[test]
fn a_size_that_does_not_fit_is_cut_aloud() {
    let dir = scratch();
    let mut child = grid(dir.path(), "--size 1000TiB --no-report --cache warm").stderr(Stdio::piped()).spawn().unwrap();
    let line = first_line_with(&mut child, "making a temporary file");
    assert!(line.contains("cut to"), "{line}");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn options_choose_what_takes_part() {
    let dir = scratch();
    fs::write(dir.path().join("data"), content(MIB)).unwrap();
    let words = "--file data --block 4096,4KiB --pattern rand --cache warm --io mmap --no-reference --threads 3 \
                 --rounds 2 --huge off --advice random --no-report --json out.json";
    succeeds(dir.path(), words);
    let outcome = json(&dir.path().join("out.json"));
    let cells = outcome["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 1, "{cells:?}");
    assert_eq!((cells[0]["io"].as_str(), cells[0]["threads"].as_u64()), (Some("mmap"), Some(3)));
    assert_eq!(outcome["config"]["huge"], "off");
    assert_eq!(outcome["config"]["advice"], "random");
    assert!(outcome["ratios"].as_array().unwrap().is_empty());
}

#[test]
fn latency_is_a_mode_of_its_own() {
    let dir = scratch();
    fs::write(dir.path().join("data"), content(MIB)).unwrap();
    let table = succeeds(dir.path(), "--file data --block 4KiB --cache warm --rounds 2 --latency --json out.json");
    assert!(table.contains("p99.9") && table.lines().all(|line| line.chars().count() <= 100), "{table}");
    for cell in json(&dir.path().join("out.json"))["cells"].as_array().unwrap() {
        let latency = ["p50", "p90", "p99", "p99_9", "max"].map(|at| cell["latency_ns"][at].as_u64().unwrap());
        assert!(latency[0] > 0 && latency.is_sorted(), "{cell}");
        assert!(cell["copy_s"].is_null());
    }
}

#[test]
fn a_pass_that_reaches_the_limit_is_marked() {
    let dir = scratch();
    fs::write(dir.path().join("data"), content(16 * MIB)).unwrap();
    let words =
        "--file data --block 512 --pattern rand --cache warm --rounds 1 --pass-limit 1ms --no-report --json out.json";
    let table = succeeds(dir.path(), words);
    assert!(table.contains("~ ended at the limit"), "{table}");
    let outcome = json(&dir.path().join("out.json"));
    let pread = outcome["cells"].as_array().unwrap().iter().find(|cell| cell["io"] == "pread").unwrap();
    assert_eq!(pread["partial"], true);
    assert!(pread["done_share"].as_f64().unwrap() < 1.0 && pread["gib_per_s"]["median"].as_f64().unwrap() > 0.0);
}

#[test]
fn odd_files_that_can_be_read_are() {
    let dir = scratch();
    fs::write(dir.path().join("zeros"), vec![0; MIB]).unwrap();
    succeeds(dir.path(), "--file zeros --block 4KiB --rounds 1 --no-report");
    fs::File::create(dir.path().join("hole")).unwrap().set_len(MIB as u64).unwrap();
    succeeds(dir.path(), "--file hole --block 4KiB --rounds 1 --no-report");
    fs::write(dir.path().join("tail"), content(MIB + 100)).unwrap();
    let table = succeeds(dir.path(), "--file tail --block 4KiB,1MiB --rounds 1 --no-report");
    assert!(table.contains("the last 100 bytes of the file are no whole block"), "{table}");
}

#[test]
fn wrong_arguments_get_one_line_and_exit_code_2() {
    let dir = scratch();
    fs::write(dir.path().join("data"), content(64 << 10)).unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let before = names(dir.path());
    for (words, expected) in [
        ("--file missing", "missing: No such file"),
        ("--file empty", "is empty"),
        ("--file folder", "a directory"),
        ("--file fifo", "a FIFO"),
        ("--file /dev/zero", "a character device"),
        ("--file data --size 1MiB", "cannot be used with"),
        ("--file data --dir folder", "cannot be used with"),
        ("--file data --block 3", "expected multiples of 512 B, found 3 B"),
        ("--file data --block 0", "expected multiples of 512 B, found 0 B"),
        ("--file data --block 4KiB,128KiB", "128 KiB is larger than the file, which has 64 KiB"),
        ("--file data --block 4KB", "found \"KB\""),
        ("--file data --block many", "found \"many\""),
        ("--file data --block", "value is required"),
        ("--size 0", "expected at least one block, found 0 B"),
        ("--size 8KiB", "16 KiB is larger than the file"),
        ("--size -1", "unexpected argument"),
        ("--dir missing", "missing is not a directory"),
        ("--dir data", "data is not a directory"),
        ("--file data --rounds 0", "1..=1000"),
        ("--file data --cold-rounds 0", "1..=1000"),
        ("--file data --threads 0", "1..=1024"),
        ("--file data --threads 1e3", "invalid digit"),
        ("--file data --seed -1", "unexpected argument"),
        ("--file data --pattern zigzag", "shift[:PERCENT%], found \"zigzag\""),
        ("--file data --cache hot", "expected warm, cold or limited:PERCENT%, found \"hot\""),
        ("--file data --io limit", "expected one of pread, mmap"),
        ("--file data --huge maybe", "possible values: auto, on, off"),
        ("--file data --advice maybe", "possible values: normal, random, sequential"),
        ("--file data --pass-limit 0s", "expected a time above 0"),
        ("--file data --pass-limit 10", "expected a time above 0"),
        ("--file data --report missing/report.html", "cannot be written"),
        ("--file data --report folder", "not a regular file"),
        ("--file data --json /dev/null", "not a regular file"),
        ("--file data --json data", "would be overwritten"),
        ("--file data --json same --report same", "name the same file"),
        ("--file data --report x --no-report", "cannot be used with"),
        ("--size 1MiB --report missing/report.html", "cannot be written"),
        ("--frobnicate", "unexpected argument"),
        ("surplus", "unexpected argument"),
    ] {
        let output = run(dir.path(), words);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {error}");
        assert_eq!(error.lines().count(), 1, "{words}: {error}");
        assert!(error.starts_with("mapfall: ") && error.contains(expected), "{words}: {error}");
        assert!(output.stdout.is_empty(), "{words}");
        assert_eq!(names(dir.path()), before, "{words}");
    }
}

#[test]
fn a_wrong_log_filter_is_refused_and_a_right_one_logs_to_standard_error() {
    let dir = scratch();
    fs::write(dir.path().join("data"), content(64 << 10)).unwrap();
    let words = "--file data --block 4KiB --rounds 1 --cache warm --no-report";
    let refused = grid(dir.path(), words).env("MAPFALL_LOG", "mapfall=loud").output().unwrap();
    assert_eq!((refused.status.code(), text(&refused.stderr).lines().count()), (Some(2), 1));
    let logged = grid(dir.path(), words).env("MAPFALL_LOG", "mapfall=debug").output().unwrap();
    assert!(
        logged.status.success() && text(&logged.stderr).contains("DEBUG") && !text(&logged.stdout).contains("DEBUG")
    );
}

#[test]
fn help_and_version_are_no_errors() {
    let dir = scratch();
    for (words, expected) in [("--help", "How it is measured"), ("-h", "--pass-limit")] {
        assert!(succeeds(dir.path(), words).contains(expected), "{words}");
    }
    let version = Command::new(assert_cmd::cargo::cargo_bin!("mapfall")).arg("--version").output().unwrap();
    assert!(version.status.success() && text(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
    let none = Command::new(assert_cmd::cargo::cargo_bin!("mapfall")).output().unwrap();
    assert_eq!(none.status.code(), Some(2));
}

#[test]
fn an_interruption_prints_what_there_is_and_leaves_no_temporary_file() {
    let dir = scratch();
    let words = "--dir . --size 4MiB --block 4KiB --cache warm --rounds 1000 --report part.html";
    let mut command = grid(dir.path(), words);
    command.env("MAPFALL_LOG", "mapfall=debug").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // In the second round every contender has a pass.
    first_line_with(&mut child, "round=1");
    assert_eq!(names(dir.path()).iter().filter(|name| name.ends_with(".tmp")).count(), 1);
    interrupt(&child);
    let mut table = String::new();
    stdout.read_to_string(&mut table).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(table.contains("Interrupted") && table.contains("mmap/pread"), "{table}");
    assert_eq!(names(dir.path()), ["part.html".to_owned()].into());
    assert!(fs::read_to_string(dir.path().join("part.html")).unwrap().contains("was interrupted"));
}

/// Reads the child's standard error up to a line, and lets the rest run dry behind it.
fn first_line_with(child: &mut Child, part: &str) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let found = lines.by_ref().find(|line| line.contains(part));
    std::thread::spawn(move || lines.for_each(drop));
    found.unwrap_or_else(|| panic!("{part} was never said"))
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}
