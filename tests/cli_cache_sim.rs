//! `mapfall cache-sim` as its users meet it: traces from files and pipes, what it tells of them, and what it refuses.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/cli_store.rs"]
#[allow(dead_code, reason = "the suites of stores need more of it")]
mod cli;
#[path = "support/common.rs"]
mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use cli::{json, mapfall, names, refuses, succeeds, text};
use common::scratch;

/// `mapfall cache-sim` without a report, its figures.
fn figures(dir: &Path, words: &str) -> Value {
    json(&succeeds(dir, &format!("cache-sim {words} --no-report --json -")))
}

fn of<'a>(figures: &'a Value, policy: &str, size: &str) -> &'a Value {
    let mut cells = figures["results"].as_array().unwrap().iter();
    cells.find(|cell| cell["policy"] == policy && cell["size"] == size).unwrap()
}

#[test]
fn lru_hits_what_one_counts_by_hand() {
    let dir = scratch();
    fs::write(dir.path().join("keys"), "1\n2\n3\n4\n1\n2\n5\n1\n2\n3\n4\n5\n").unwrap();
    let found = figures(dir.path(), "--trace keys --policy lru --size 3obj,4obj,100%");
    assert_eq!(found["complete"], true);
    assert_eq!((&found["trace"]["requests"], &found["trace"]["objects"]), (&12.into(), &5.into()));
    assert_eq!((&found["cold_misses"], &found["trace"]["footprint_bytes"]), (&5.into(), &Value::Null));
    for (size, hits) in [("3obj", 2), ("4obj", 4), ("100%", 7)] {
        let cell = of(&found, "lru", size);
        assert_eq!(cell["hits"], hits, "{size}");
        assert_eq!(cell["hit_ratio"].as_f64(), Some(f64::from(hits) / 12.0));
        assert_eq!(cell["hit_ratio_over_lru"], 0.0);
        assert_eq!(cell["interval_miss_ratios"].as_array().unwrap().len(), 12);
    }
    let warm = figures(dir.path(), "--trace keys --policy LRU --size 3obj --warmup 0.5");
    assert_eq!((&warm["counted_requests"], &of(&warm, "lru", "3obj")["hits"]), (&6.into(), &2.into()));
    assert_eq!(warm["cold_misses"], 1);
}

#[test]
fn all_policies_and_sizes_are_simulated_where_nothing_is_said() {
    let dir = scratch();
    let words = "cache-sim --generate zipf:0.9:20000:50000 --seed 7 --json out.json";
    let output = mapfall(dir.path(), words).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    assert_eq!(names(dir.path()), ["mapfall-cache-sim.html", "out.json"].map(str::to_owned).into());
    let found = json(&fs::read_to_string(dir.path().join("out.json")).unwrap());
    let policies = mapfall::CachePolicy::ALL;
    assert_eq!(found["results"].as_array().unwrap().len(), 8 * policies.len());
    assert_eq!(found["config"]["seed"], 7);
    for policy in policies {
        assert!(table.contains(policy.name()), "{table}");
        let ratio = |size| of(&found, policy.name(), size)["hit_ratio"].as_f64().unwrap();
        assert!(ratio("0.1%") < ratio("50%"), "{policy}");
    }
    assert!(table.contains("Hit ratio in %") && !table.contains("Byte hit ratio"), "{table}");
    assert_eq!(figures(dir.path(), "--generate zipf:0.9:20000:50000 --seed 7")["results"], found["results"]);
}

#[test]
fn each_format_is_read() {
    let dir = scratch();
    let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).unwrap();
    write("P6.lis", b"110765 64 0 0\n110765 64 0 1\n");
    write("Financial1.spc", b"0,20941264,8192,W,0.551706\n0,20941264,8192,R,0.554041\n");
    let record = [&1u32.to_le_bytes()[..], &7u64.to_le_bytes(), &100u32.to_le_bytes(), &(-1i64).to_le_bytes()].concat();
    let other = [&2u32.to_le_bytes()[..], &8u64.to_le_bytes(), &300u32.to_le_bytes(), &(-1i64).to_le_bytes()].concat();
    write("w.oracleGeneral.bin", &[&record[..], &record, &other].concat());
    for (words, format, objects, footprint, hits) in [
        ("P6.lis", "arc", 64, 64 * 512, 64),
        ("P6.lis --block-size 4KiB", "arc", 9, 9 * 4096, 9),
        ("P6.lis --whole", "arc", 1, 64 * 512, 1),
        ("Financial1.spc", "spc", 2, 8192, 2),
        ("w.oracleGeneral.bin", "oracle", 2, 400, 1),
        ("P6.lis --format keys", "keys", 2, 0, 0),
    ] {
        let found = figures(dir.path(), &format!("--trace {words} --size 100% --policy lru"));
        assert_eq!(found["trace"]["formats"][0], format, "{words}");
        assert_eq!(found["trace"]["objects"], objects, "{words}");
        assert_eq!(found["trace"]["footprint_bytes"].as_u64().unwrap_or(0), footprint, "{words}");
        assert_eq!(of(&found, "lru", "100%")["hits"], hits, "{words}");
    }
    let sized = figures(dir.path(), "--trace w.oracleGeneral.bin --size 350B,50% --policy lru");
    let cell = of(&sized, "lru", "350 B");
    assert_eq!((&cell["hit_bytes"], &cell["byte_hit_ratio"]), (&100.into(), &0.2.into()));
    assert_eq!((&cell["evictions"], &of(&sized, "lru", "50%")["too_large"]), (&1.into(), &1.into()));
    let table = succeeds(dir.path(), "cache-sim --trace w.oracleGeneral.bin --size 50% --no-report");
    for part in ["Byte hit ratio in %", "100 B to 300 B", "note: some objects are larger than the caches of 50%"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    let ignored = figures(dir.path(), "--trace w.oracleGeneral.bin --ignore-sizes --size 50% --policy lru");
    assert_eq!(
        (&ignored["config"]["counted"], &of(&ignored, "lru", "50%")["capacity"]),
        (&"objects".into(), &1.into())
    );
}

#[test]
fn standard_input_and_pipes_are_gone_through_twice_too() {
    let dir = scratch();
    let words = "cache-sim --trace - --size 50% --policy lru --no-report --json -";
    let mut child = mapfall(dir.path(), words);
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"1\n2\n1\n2\n3\n4\n4\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let found = json(&text(&output.stdout));
    assert_eq!((&found["trace"]["name"], &found["trace"]["objects"]), (&"standard input".into(), &4.into()));
    assert_eq!((&of(&found, "lru", "50%")["capacity"], &of(&found, "lru", "50%")["hits"]), (&2.into(), &3.into()));
    assert!(text(&output.stderr).contains("copying standard input to a temporary file in ."));
    assert!(names(dir.path()).is_empty(), "the copy is removed");

    mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let path = dir.path().join("fifo");
    let writer = std::thread::spawn(move || File::options().write(true).open(path).unwrap().write_all(b"x\nx\n"));
    let output = mapfall(dir.path(), "cache-sim --trace fifo --no-report").output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success() && text(&output.stdout).contains("50.00"), "{}", text(&output.stdout));
}

#[test]
fn the_report_is_one_file_with_a_plot_for_each_view() {
    let dir = scratch();
    let lines: String = (0..3000u32).map(|at| format!("<k>{}&,{}\n", at * at % 101, 100 + at * at % 101)).collect();
    fs::write(dir.path().join("<t>"), lines).unwrap();
    let output = mapfall(dir.path(), "cache-sim --trace <t> --size 10%,20%,50% --report r.html").output().unwrap();
    assert_eq!(text(&output.stderr), "wrote r.html\n");
    let html = fs::read_to_string(dir.path().join("r.html")).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert!(html.contains("&lt;t&gt;") && !html.contains("<t>"));
    // Hits and bytes by size, and misses over time for each size.
    assert_eq!(html.matches("<figure>").count(), 5);
    assert_eq!(html.matches("<figure>\n<div class=\"scroll\"><svg ").count(), 5);
    assert_eq!(html.matches("<polyline").count(), (5 + 3) * mapfall::CachePolicy::ALL.len());
    for title in ["Hit ratio", "Byte hit ratio", "Miss ratio over time", "All figures", "The trace"] {
        assert!(html.contains(&format!("<h2>{title}</h2>")), "{title}");
    }
    for loads in ["http:", "https:", "<script", "<link", "<img", "url(", "@import", "NaN", "inf"] {
        assert!(!html.contains(loads), "{loads}");
    }
}

#[test]
fn wrong_arguments_get_one_line_and_exit_code_2() {
    let dir = scratch();
    let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).unwrap();
    write("keys", b"1\n2\n");
    write("empty", b"# nothing\n");
    write("bad.lis", b"1 2 0 0\n1 x 0 1\n");
    write("cut.oracleGeneral", &[1; 30]);
    write("cut.gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0, 1]);
    write("sized", b"a,1\nb,2\n");
    fs::create_dir(dir.path().join("folder")).unwrap();
    for (words, expected) in [
        ("", "required arguments were not provided"),
        ("--trace missing", "cannot open missing: No such file"),
        ("--trace folder", "cannot open folder: is a directory"),
        ("--trace empty", "empty: expected requests for more than 0 bytes, found none, and 0"),
        ("--trace bad.lis", "bad.lis, line 2: expected START COUNT IGNORED NUMBER"),
        ("--trace cut.oracleGeneral", "record 2 at byte 24: expected 24 bytes, found the end after 6"),
        ("--trace cut.gz", "cannot read cut.gz after 0 bytes of it (unpacked)"),
        ("--trace keys --generate loop:1:1", "cannot be used with"),
        ("--trace keys --format csv", "expected one of keys, arc, spc, oracle, found \"csv\""),
        ("--trace keys --policy best", "expected one of lru"),
        ("--trace keys --size 64MiB", "--size: expected a percentage or a number of objects (1000obj)"),
        ("--trace keys --size 0%", "expected a percentage above 0% and up to 100%"),
        (
            "--trace sized --size 2obj",
            "--size: expected a percentage or bytes (64MiB), since objects have 1 to 2 bytes",
        ),
        ("--trace sized --size 64KB", "found \"KB\""),
        ("--trace keys --warmup 1", "expected a share from 0 to below 1, found \"1\""),
        ("--trace keys --block-size 100", "--block-size: expected a multiple of 512 B, found 100 B"),
        ("--trace keys --block-size 0", "--block-size: expected a multiple of 512 B, found 0 B"),
        ("--trace keys --block-size 4KiB --whole", "cannot be used with"),
        ("--generate zipf:1:2", "expected zipf:SKEW:OBJECTS:REQUESTS, loop:"),
        ("--generate zipf:-1:2:3", "expected a skew from 0 to 10, found \"-1\""),
        ("--trace - --trace -", "standard input can be gone through only once"),
        ("--trace keys --json keys", "--json names keys"),
        ("--trace keys --report keys", "keys is the file to read and would be overwritten"),
        ("--trace keys --json x --report x", "name the same file"),
        ("--trace keys --report folder", "not a regular file"),
    ] {
        refuses(dir.path(), &format!("cache-sim {words}"), 2, expected);
    }
}

#[test]
fn an_interruption_tells_what_there_is() {
    let dir = scratch();
    let words = "cache-sim --trace - --no-report";
    let mut command = mapfall(dir.path(), words);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Open until the end: `wait` would close it.
    let _stdin = child.stdin.take();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().starts_with("copying standard input"));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let rest: Vec<String> = said.map_while(Result::ok).collect();
    assert_eq!(rest, ["interrupted: ending here", "mapfall: interrupted before there was anything to show"]);
    assert!(names(dir.path()).is_empty(), "the copy is removed");
}

#[test]
fn help_tells_formats_generators_and_figures() {
    let dir = scratch();
    let help = succeeds(dir.path(), "cache-sim --help");
    let parts = ["oracleGeneral", "scan-zipf:SKEW", "interval_miss_ratios", "Exit codes:\n  0    all is well\n"];
    for part in parts {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
    for line in help.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    // Every figure of the JSON that the help names is there.
    let found = figures(dir.path(), "--generate loop:3:9 --size 2obj");
    let listed = help.split("JSON (--json):").nth(1).unwrap().split("Exit codes").next().unwrap();
    for field in found.as_object().unwrap().keys().chain(found["results"][0].as_object().unwrap().keys()) {
        assert!(listed.contains(field.as_str()) || field == "mapfall_version", "{field}");
    }
}
