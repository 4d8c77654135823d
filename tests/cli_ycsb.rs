//! `mapfall ycsb` as its users meet it: load in one process and run in another, what it writes, and what it refuses.
#![cfg(feature = "cli")]
// A build without the map says so on standard error, once a store, and has no reads by it to show.
#![cfg(not(mapfall_no_map))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/cli_store.rs"]
#[allow(dead_code, reason = "the suites of stores need more of it")]
mod cli;
#[path = "support/common.rs"]
mod common;

use std::fs;
use std::path::Path;

use mapfall::IoMode;
use serde_json::Value;

use cli::{ends, json, refuses, succeeds, text};
use common::scratch;

const RECORDS: &str = "-p recordcount=500 -p fieldcount=4 -p fieldlength=128 -p dataintegrity=true";

fn workload(letter: char) -> String {
    format!("-P {}/workloads/workload{letter} {RECORDS}", env!("CARGO_MANIFEST_DIR"))
}

fn load(dir: &Path) {
    let text = succeeds(dir, &format!("ycsb load {} --store s -threads 2", workload('a')));
    assert!(text.contains("[INSERT], Operations, 500\n") && text.contains("[INSERT], Return=OK, 500\n"), "{text}");
}

#[test]
fn what_one_process_loads_another_runs() {
    let dir = scratch();
    load(dir.path());
    for letter in ['a', 'b', 'c', 'd', 'e', 'f'] {
        for threads in [1, 4] {
            let words = format!("ycsb run {} -p operationcount=2000 --store s -threads {threads}", workload(letter));
            let text = succeeds(dir.path(), &words);
            for io in ["# pread", "# mmap"] {
                assert!(text.contains(io), "{text}");
            }
            assert!(!text.contains("FAILED") && !text.contains("UNEXPECTED") && !text.contains("ERROR"), "{text}");
            assert_eq!(text.matches("[OVERALL], Throughput(ops/sec), ").count(), 2);
        }
    }
    // The store is one as any other, and nothing of it was lost.
    assert!(succeeds(dir.path(), "verify s").ends_with("no problems\n"));
}

#[test]
fn text_has_ycsbs_labels_and_json_has_everything() {
    let dir = scratch();
    load(dir.path());
    let words = format!(
        "ycsb run {} -p operationcount=3000 -p hdrhistogram.percentiles=50,99,99.9 -target 20000 --io mmap --store s \
         --cache 1MiB --checkpoint-every 1000ops --json j --report r.html --hlog l.hlog",
        workload('f')
    );
    let output = ends(dir.path(), &words, 0);
    let text = text(&output.stdout);
    for label in [
        "[OVERALL], RunTime(ms), ",
        "[READ], Operations, ",
        "[READ], AverageLatency(us), ",
        "[READ], MinLatency(us), ",
        "[READ], MaxLatency(us), ",
        "[READ], 50thPercentileLatency(us), ",
        "[READ], 99.9PercentileLatency(us), ",
        "[READ], Return=OK, ",
        "[UPDATE], Operations, ",
        "[READ-MODIFY-WRITE], Operations, ",
        "[Intended-READ-MODIFY-WRITE], 99thPercentileLatency(us), ",
        "[Intended-UPDATE], 99thPercentileLatency(us), ",
        "[VERIFY], Return=OK, ",
        "[CHECKPOINT], Operations, ",
        "[CLEANUP], Operations, 1",
        "[RESOURCES], MinorFaults, ",
        "[RESOURCES], DeviceReadBytes, ",
        "[IO], Reads(mmap), ",
        "[CACHE], HitRatio, ",
        "[INDEX], Pages, ",
    ] {
        assert!(text.contains(label), "{label} is not in\n{text}");
    }
    let figures = json(&fs::read_to_string(dir.path().join("j")).unwrap());
    let contender = &figures["contenders"][0];
    assert_eq!((&contender["label"], &contender["configuration"]["io"]), (&"mmap".into(), &"mmap".into()));
    assert_eq!(contender["outcome"]["operations"], 3000);
    let series = contender["outcome"]["series"].as_array().unwrap();
    let counts = |name: &str| {
        let series = series.iter().find(|series| series["name"] == name).unwrap();
        (series["measured"]["count"].clone(), series["intended"]["count"].clone())
    };
    assert_eq!(counts("READ"), (3000.into(), 3000.into()), "those inside of others too, as in YCSB");
    assert_eq!(figures["properties"]["requestdistribution"], "zipfian");
    let report = fs::read_to_string(dir.path().join("r.html")).unwrap();
    assert!(report.contains("<svg") && !report.contains("http"), "it needs nothing else");
    assert!(fs::read_to_string(dir.path().join("l.hlog")).unwrap().contains("Tag=READ,"));

    let exported = format!(
        "ycsb run {} -p exporter=site.ycsb.measurements.exporter.JSONArrayMeasurementsExporter --io pread --store s",
        workload('c')
    );
    let array = json(&succeeds(dir.path(), &exported));
    let find = |metric: &str, name: &str| {
        let mut all = array.as_array().unwrap().iter();
        all.find(|one| one["metric"] == metric && one["measurement"] == name).map(|one| one["value"].clone())
    };
    assert_eq!(find("READ", "Operations"), Some(Value::from(1000)));
}

#[test]
fn every_mode_of_the_io_layer_can_be_named() {
    let dir = scratch();
    load(dir.path());
    for mode in IoMode::ALL {
        let words = format!("ycsb run {} -p operationcount=200 --store s --io {mode} --json -", workload('c'));
        let figures = json(&succeeds(dir.path(), &words));
        assert_eq!(figures["contenders"][0]["outcome"]["failed"], 0, "{mode}");
    }
}

#[test]
fn scans_go_to_the_depth_asked_for() {
    let dir = scratch();
    load(dir.path());
    succeeds(dir.path(), &format!("ycsb load {} --bare b", workload('e')));
    for file in ["--store s", "--bare b"] {
        for depth in [1, 3, 1024] {
            let words = format!("ycsb run {} {file} --io uring --queue-depth {depth} --json -", workload('e'));
            let contender = json(&succeeds(dir.path(), &words))["contenders"][0].clone();
            assert_eq!(contender["configuration"]["queue_depth"], depth, "{file}");
            assert_eq!(contender["outcome"]["failed"], 0, "{file} {depth}");
            // By whichever of the two the machine allows.
            let paths = contender["outcome"]["io"]["paths"].as_object().unwrap();
            assert!(paths.contains_key("ring") || paths.contains_key("pool"), "{file} {depth}: {paths:?}");
        }
    }
    let words = format!(
        "ycsb compare {} -p operationcount=100 --store s --io uring,pread --queue-depth 1,32 --rounds 1 --json - \
         --no-report",
        workload('e')
    );
    let found = json(&text(&ends(dir.path(), &words, 0).stdout));
    let labels: Vec<_> = found["contenders"].as_array().unwrap().iter().map(|one| one["label"].clone()).collect();
    assert_eq!(labels, ["uring, depth 1", "uring, depth 32", "pread, depth 1", "pread, depth 32"]);
}

#[test]
fn wrong_input_is_one_line_and_code_2() {
    let dir = scratch();
    load(dir.path());
    let run = format!("ycsb run {} --store s", workload('a'));
    for (words, expected) in [
        (format!("{run} -p recordcuont=5"), "unknown property recordcuont, is recordcount meant?"),
        (format!("{run} -p db=redis"), "the database is the store named by --store"),
        (format!("{run} -p readproportion=0.9"), "expected proportions of the operations that add up to 1, found 1.4"),
        (format!("{run} -target 0"), "--target: target: expected a number of operations a second above 0, found \"0\""),
        (format!("{run} -threads 0"), "expected a number of threads from 1 to 1024"),
        (format!("ycsb run {} --store none", workload('a')), "cannot open none: No such file"),
        (format!("ycsb compare {} --store none", workload('a')), "cannot open none: No such file"),
        (format!("{run} -p recordcount=501"), "at least 501 records (recordcount), found 500: load it first"),
        (format!("{run} -p insertstart=500"), "insertstart: expected less than recordcount, found \"500\""),
        (format!("{run} -p insertcount=501"), "insertcount: expected at most recordcount - insertstart, found \"501\""),
        (
            "ycsb run --store s -p operationcount=9 -p fieldcount=4 -p fieldlength=128 -p dataintegrity=true \
             -p insertstart=400 -p insertcount=101"
                .to_owned(),
            "at least 501 records (recordcount), found 500",
        ),
        (format!("{run} -p fieldlength=64"), "loaded with fieldlength=128, found fieldlength=64"),
        (format!("{run} -p dataintegrity=false"), "loaded with dataintegrity=true, found dataintegrity=false"),
        (format!("{run} -p measurementtype=raw"), "measurementtype=raw is not supported"),
        (format!("{run} --io pread,uring2"), "expected pread, mmap, auto, uring or direct"),
        (format!("{run} --queue-depth 0"), "0 is not in 1..=1024"),
        (format!("ycsb compare {} --store s --queue-depth 8,1025", workload('a')), "1025 is not in 1..=1024"),
        (format!("{run} --page-cache hot"), "expected as-is, warm, cold or limited:PART"),
        (format!("{run} -P none"), "cannot read the properties file none"),
        (format!("{run} -p recordcount"), "-p: expected name=value"),
        (format!("{run} --hlog l"), "a log is of one run"),
        (format!("{run} --report s"), "would be overwritten"),
        (format!("{run} --checkpoint-every 5"), "such as 100000ops"),
        (format!("ycsb run {} --store s --bare b", workload('a')), "cannot be used with"),
        (format!("ycsb run {}", workload('a')), "--store <FILE>|--bare <FILE>"),
        ("ycsb load --store t".to_owned(), "expected the property recordcount"),
        (format!("ycsb load {} --store t --page 100", workload('a')), "page_bytes"),
        (format!("ycsb load {} --store s --page 4KiB", workload('a')), "is there already, and has its pages"),
        (format!("ycsb compare {} --store s --io pread", workload('a')), "at least two configurations"),
        (format!("ycsb trace replay {} --store s --trace none", workload('a')), "cannot open none"),
    ] {
        refuses(dir.path(), &words, 2, expected);
    }
    fs::write(dir.path().join("other"), "no store").unwrap();
    refuses(dir.path(), &format!("ycsb run {} --store other", workload('a')), 3, "other");
    succeeds(dir.path(), "create empty");
    refuses(dir.path(), &format!("ycsb run {} --store empty", workload('a')), 2, "no records of mapfall ycsb in it");
    // What is empty can be loaded, and what has something else in it cannot.
    succeeds(dir.path(), &format!("ycsb load {} --store empty", workload('a')));
    succeeds(dir.path(), &format!("ycsb run {} --store empty", workload('a')));
    cli::small_store(&dir.path().join("taken"));
    refuses(dir.path(), &format!("ycsb load {} --store taken", workload('a')), 2, "it has pages of someone else's");
}

#[test]
fn a_comparison_tells_what_its_rounds_support() {
    let dir = scratch();
    load(dir.path());
    let words = format!(
        "ycsb compare {} -p operationcount=2000 --store s --threads 1,2 --cache none,1MiB --page-cache warm --rounds 3 \
         --json - --report r.html",
        workload('c')
    );
    let output = ends(dir.path(), &words, 0);
    let found = json(&text(&output.stdout));
    let contenders = found["contenders"].as_array().unwrap();
    assert_eq!(contenders.len(), 8);
    assert_eq!(contenders[0]["compared_with"], Value::Null);
    for one in &contenders[1..] {
        assert_eq!(one["compared_with"], contenders[0]["label"], "{}", one["label"]);
        assert_eq!(one["outcomes"].as_array().unwrap().len(), 3);
        let ratio = &one["throughput_ratio"];
        let number = |value: &Value| value.as_f64().unwrap();
        assert!(number(&ratio["spread"]["min"]) <= number(&ratio["spread"]["max"]));
        let (low, high) = (number(&ratio["interval"][0]), number(&ratio["interval"][1]));
        assert!(low <= high);
        let expected = if low > 1.0 {
            "above"
        } else if high < 1.0 {
            "below"
        } else {
            "not_shown"
        };
        assert_eq!(ratio["verdict"], expected);
        assert!(one["outcomes"][0]["resources"]["minor_faults"].is_u64());
    }
    let report = fs::read_to_string(dir.path().join("r.html")).unwrap();
    assert!(report.contains("<h2>Ratios</h2>") && report.contains("nothing to draw"), "all are over in an interval");
    let two = format!("ycsb compare {} --store s --rounds 2 --no-report", workload('c'));
    let table = text(&ends(dir.path(), &two, 0).stdout);
    assert!(table.contains("too few rounds") && table.contains("minor faults"), "{table}");
}

#[test]
fn a_run_in_little_memory_is_one_or_says_why_not() {
    let dir = scratch();
    load(dir.path());
    let words = format!("ycsb run {} --store s --io pread --page-cache limited:25% --json -", workload('c'));
    let output = cli::mapfall(dir.path(), &words).output().unwrap();
    let said = text(&output.stderr);
    if output.status.success() {
        let found = json(&text(&output.stdout));
        let notes = found["contenders"][0]["outcome"]["notes"].to_string();
        assert!(notes.contains("memory limited to") && notes.contains("cgroup v"), "{notes}");
        let compare = format!(
            "ycsb compare {} --store s --page-cache limited:90% --rounds 3 --json - --report r.html",
            workload('c')
        );
        ends(dir.path(), &compare, 0);
        let report = fs::read_to_string(dir.path().join("r.html")).unwrap();
        let notes: Vec<_> = report.lines().filter(|line| line.starts_with("<li>")).collect();
        let different: std::collections::BTreeSet<_> = notes.iter().collect();
        assert!(notes.len() >= 2 && different.len() == notes.len(), "each is said once: {notes:?}");
    } else {
        assert!(said.contains("skipped: "), "{said}");
        eprintln!("SKIPPED: memory cannot be limited here: {said}");
    }
}

#[test]
fn operations_are_recorded_and_traces_replayed() {
    let dir = scratch();
    load(dir.path());
    let words = format!("ycsb trace record {} --store s --trace t -threads 2 --json -", workload('a'));
    json(&succeeds(dir.path(), &words));
    let lines = fs::read_to_string(dir.path().join("t")).unwrap();
    assert_eq!(lines.lines().count(), 1001);
    let replay = |words: &str| {
        let words =
            format!("ycsb trace replay {} -p operationcount=5000 --store s --io mmap --json - {words}", workload('a'));
        json(&succeeds(dir.path(), &words))["contenders"][0]["outcome"].clone()
    };
    let count = |outcome: &Value, name: &str| {
        let mut series = outcome["series"].as_array().unwrap().iter();
        series.find(|series| series["name"] == name).map_or(0, |series| series["measured"]["count"].as_u64().unwrap())
    };
    let again = replay("--trace t --threads 3");
    for name in ["READ", "UPDATE"] {
        assert_eq!(count(&again, name), lines.matches(&format!(" {name} ")).count() as u64);
    }
    fs::write(dir.path().join("P1.lis"), "0 64 0 0\n0 64 0 1\n").unwrap();
    assert_eq!(count(&replay("--trace P1.lis"), "READ"), 128);
    assert_eq!(count(&replay("--generate zipf:0.9:1000:700"), "READ"), 700);
    fs::write(dir.path().join("t"), lines + "5 GET 1\n").unwrap();
    let broken = format!("ycsb trace replay {} --store s --trace t", workload('a'));
    refuses(dir.path(), &broken, 2, "t: line 1002: expected one of READ, UPDATE");
}

#[test]
fn a_bare_file_is_driven_as_a_store_is() {
    let dir = scratch();
    succeeds(dir.path(), &format!("ycsb load {} --bare b", workload('a')));
    assert_eq!(fs::metadata(dir.path().join("b")).unwrap().len(), 500 * 512);
    for letter in ['a', 'e', 'f'] {
        let text = succeeds(dir.path(), &format!("ycsb run {} --bare b --threads 2", workload(letter)));
        assert!(!text.contains("FAILED") && text.contains("[VERIFY], Return=OK"), "{text}");
    }
    let status = format!(
        "ycsb run {} -p maxexecutiontime=2 -p operationcount=0 -p status.interval=1 -s --bare b --io mmap",
        workload('c')
    );
    let output = ends(dir.path(), &status, 0);
    let said = text(&output.stderr);
    assert!(said.contains("1 sec: ") && said.contains("current ops/sec;") && said.contains("[READ: Count="), "{said}");
}
