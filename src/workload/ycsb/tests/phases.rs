//! Whole phases: every operation through every path, what is measured of it, and what goes wrong.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use super::super::hlog::LogFiles;
use super::super::outcome::{PhaseOutcome, SeriesFigures};
use super::super::phase::{CheckpointEvery, PhaseConfig, PhaseKind, run_phase};
use super::super::recording::Recording;
use super::super::table::Table;
use super::super::target::{Bare, Target};
use super::super::workload::Workload;
use super::workload;
use crate::{BlockIo, IoMode, IoOptions, IoStats, Operation, Result, Store, SyncKind};

const SMALL: [&str; 4] = ["recordcount=300", "operationcount=2000", "fieldcount=4", "fieldlength=128"];

fn with(pairs: &[&str]) -> Workload {
    workload(&[&SMALL[..], pairs].concat())
}

fn create(path: &Path, workload: &Workload) -> Target {
    let store = Store::options().page_bytes(workload.layout.page_bytes()).create(path).unwrap();
    Target::Table(Box::new(Table::create(store, workload.layout.clone()).unwrap()))
}

fn open(path: &Path, mode: IoMode) -> Target {
    let store = Store::options().io(IoOptions::new().mode(mode)).open(path).unwrap();
    Target::Table(Box::new(Table::open(store).unwrap()))
}

fn phase(target: &Target, workload: &Workload, config: &PhaseConfig) -> PhaseOutcome {
    run_phase(target, workload, config, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

fn load(target: &Target, workload: &Workload) -> PhaseOutcome {
    phase(target, workload, &PhaseConfig { threads: 2, ..PhaseConfig::new(PhaseKind::Load) })
}

fn run(threads: usize) -> PhaseConfig {
    PhaseConfig { threads, ..PhaseConfig::new(PhaseKind::Run) }
}

fn series<'a>(outcome: &'a PhaseOutcome, name: &str) -> &'a SeriesFigures {
    outcome.series.iter().find(|series| series.name == name).unwrap_or_else(|| panic!("no {name}"))
}

/// Workloads A to F, loaded and run as by two processes, each byte looked at.
#[test]
fn every_workload_runs_through_every_path() {
    for letter in ['a', 'b', 'c', 'd', 'e', 'f'] {
        for (integrity, order) in [
            ("dataintegrity=true", "insertorder=hashed"),
            ("dataintegrity=true", "insertorder=ordered"),
            ("dataintegrity=false", "insertorder=hashed"),
        ] {
            let mut properties = super::super::properties::Properties::new();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("workloads/workload{letter}"));
            properties.read_file(&path).unwrap();
            SMALL.iter().chain([&integrity, &order]).for_each(|pair| properties.set_pair(pair).unwrap());
            let workload = Workload::resolve(&properties).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            let loaded = load(&create(&path, &workload), &workload);
            assert_eq!((loaded.operations, loaded.records_after, loaded.failed), (300, 300, 0));
            for mode in [IoMode::Pread, IoMode::Mmap] {
                let target = open(&path, mode);
                let outcome = phase(&target, &workload, &run(2));
                assert_eq!((outcome.operations, outcome.failed, outcome.complete), (2000, 0, true), "{letter}");
                let whole: u64 =
                    outcome.series.iter().filter(|series| series.is_operation).map(|s| s.measured.count).sum();
                let parts = if letter == 'f' { 2 * series(&outcome, "READ-MODIFY-WRITE").measured.count } else { 0 };
                assert_eq!(whole, 2000 + parts, "{letter}");
                assert_eq!(outcome.all.as_ref().unwrap().count, 2000);
                let inserted = outcome.records_after - 300;
                assert_eq!(inserted > 0, letter == 'd' || letter == 'e');
                let verified = outcome.series.iter().any(|series| series.name == "VERIFY");
                assert_eq!(verified, integrity == "dataintegrity=true");
                let served_by = if crate::sys::CAN_RECOVER { mode } else { IoMode::Pread };
                assert!(outcome.io.paths.contains_key(served_by.name()), "{:?}", outcome.io);
                assert!(outcome.resources.is_some() && outcome.index.unwrap().pages > 1);
            }
        }
    }
}

#[test]
fn bare_files_are_driven_too() {
    let dir = tempfile::tempdir().unwrap();
    let workload = with(&[
        "dataintegrity=true",
        "scanproportion=0.2",
        "readproportion=0.5",
        "updateproportion=0.2",
        "insertproportion=0.05",
        "readmodifywriteproportion=0.05",
        "maxscanlength=20",
    ]);
    let io = IoOptions::new().mode(IoMode::Mmap).write(true).create(true).open(dir.path().join("file")).unwrap();
    let target = Target::Bare(Bare::new(io, workload.layout.clone()).unwrap());
    assert_eq!(load(&target, &workload).records_after, 300);
    let outcome = phase(&target, &workload, &run(2));
    assert_eq!((outcome.operations, outcome.failed), (2000, 0));
    assert!(outcome.records_after > 300 && outcome.index.is_none());
    // A byte that is not as it should be is found.
    let record = workload.layout.record_bytes() as u64;
    let file = std::fs::File::options().write(true).open(dir.path().join("file")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1, 2, 3], 7 * record + 130).unwrap();
    let all = with(&[
        "dataintegrity=true",
        "readproportion=1",
        "updateproportion=0",
        "requestdistribution=sequential",
        "operationcount=300",
    ]);
    let outcome = phase(&target, &all, &run(1));
    assert_eq!((outcome.failed, series(&outcome, "VERIFY").returns["UNEXPECTED_STATE"]), (1, 1));
}

/// I/O that stalls, or fails, once it is told to.
#[derive(Debug)]
struct Trouble {
    inner: Box<dyn BlockIo>,
    reads: AtomicU64,
    stall_at: AtomicU64,
    fails: Arc<AtomicBool>,
}

impl BlockIo for Trouble {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if self.fails.load(Relaxed) {
            let source = io::Error::from_raw_os_error(5);
            let (operation, path) = (Operation::Read, Path::new("test").into());
            return Err(crate::Error::Io { operation, path, offset, len_bytes: buf.len() as u64, source });
        }
        if self.reads.fetch_add(1, Relaxed) == self.stall_at.load(Relaxed) {
            thread::sleep(Duration::from_secs(1));
        }
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.inner.write_at(offset, bytes)
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        self.inner.set_len(len_bytes)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.inner.sync(kind)
    }

    fn stats(&self) -> IoStats {
        self.inner.stats()
    }
}

fn troubled(path: &Path, workload: &Workload, stall_at: u64, fails: &Arc<AtomicBool>) -> Target {
    let inner = IoOptions::new().write(true).create(true).open(path).unwrap();
    let (reads, stall_at) = (AtomicU64::new(0), AtomicU64::new(stall_at));
    let io = Box::new(Trouble { inner, reads, stall_at, fails: fails.clone() });
    let store = Store::options().page_bytes(workload.layout.page_bytes()).create_io(io).unwrap();
    Target::Table(Box::new(Table::create(store, workload.layout.clone()).unwrap()))
}

/// Omission that is coordinated: an operation that takes a second is one of thousands; those that it kept from
/// beginning are seen only from when they should have begun.
#[test]
fn a_stall_is_seen_in_intended_latency() {
    let dir = tempfile::tempdir().unwrap();
    let workload = with(&["readproportion=1", "updateproportion=0", "operationcount=4000"]);
    let target = troubled(&dir.path().join("store"), &workload, 1000, &Arc::default());
    load(&target, &workload);
    let outcome = phase(&target, &workload, &PhaseConfig { target_per_s: Some(2000.0), ..run(1) });
    assert_eq!((outcome.operations, outcome.failed), (4000, 0));
    let reads = series(&outcome, "READ");
    let p99 = |latency: &super::super::outcome::Latency| latency.percentile_ns(99.0).unwrap();
    assert!(p99(&reads.measured) < 200_000_000, "{:?}", reads.measured);
    // A quarter of the operations were to begin in that second, the 99th percentile of all near its beginning.
    assert!(p99(reads.intended.as_ref().unwrap()) > 800_000_000, "{:?}", reads.intended);
    assert!(reads.measured.max_ns >= 1_000_000_000 && reads.corrected.is_none());
    assert!(outcome.run_time_s > 1.9, "the schedule is kept");
    assert_eq!(outcome.all_intended.as_ref().unwrap().count, 4000);

    // Without a target the stall shows where it is corrected for.
    let target = troubled(&dir.path().join("other"), &workload, 1000, &Arc::default());
    load(&target, &workload);
    let outcome = phase(&target, &workload, &run(1));
    let reads = series(&outcome, "READ");
    assert!(p99(&reads.measured) < 200_000_000 && p99(reads.corrected.as_ref().unwrap()) > 500_000_000, "{reads:?}");
}

#[test]
fn errors_are_counted_by_kind_and_end_what_cannot_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let workload = with(&["readproportion=1", "updateproportion=0", "operationcount=100000"]);
    let fails = Arc::new(AtomicBool::new(false));
    let target = troubled(&dir.path().join("store"), &workload, u64::MAX, &fails);
    load(&target, &workload);
    fails.store(true, Relaxed);
    let outcome = phase(&target, &workload, &run(1));
    assert_eq!((outcome.complete, outcome.failed), (false, 1000));
    let failed = series(&outcome, "READ-FAILED");
    assert_eq!((failed.returns["ERROR"], failed.errors["Io"]), (1000, 1000));
    assert!(outcome.notes[0].contains("gave up after 1000 errors"), "{:?}", outcome.notes);
}

/// What a log has, read back by the crate that standard tools agree with.
fn read_back(path: &Path, tag: Option<&str>) -> Histogram<u64> {
    let log = std::fs::read(path).unwrap();
    let mut sum = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
    for entry in IntervalLogIterator::new(&log) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        if interval.tag().map(|tag| tag.as_str().to_owned()).as_deref() == tag {
            let bytes = base64(interval.encoded_histogram());
            let one: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            sum.add(&one).unwrap();
        }
    }
    sum
}

fn base64(text: &str) -> Vec<u8> {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in text.bytes().filter_map(|byte| digits.iter().position(|digit| *digit == byte)) {
        (bits, count) = ((bits << 6) | digit as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

#[test]
fn logs_have_the_percentiles_that_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let workload = with(&["operationcount=1500"]);
    let target = create(&dir.path().join("store"), &workload);
    load(&target, &workload);
    let log = dir.path().join("out.hlog");
    let logs = Some(LogFiles::Tagged(log.clone()));
    let config = PhaseConfig { target_per_s: Some(5000.0), interval: Duration::from_millis(50), logs, ..run(2) };
    let outcome = phase(&target, &workload, &config);
    assert!(outcome.intervals.len() >= 4, "{}", outcome.intervals.len());
    assert_eq!(outcome.intervals.iter().map(|interval| interval.operations).sum::<u64>(), 1500);
    for name in ["READ", "UPDATE"] {
        let found = series(&outcome, name);
        for (latency, tag) in
            [(&found.measured, name.to_owned()), (found.intended.as_ref().unwrap(), format!("Intended-{name}"))]
        {
            let back = read_back(&log, Some(&tag));
            assert_eq!((back.len(), back.max()), (latency.count, latency.max_ns));
            for (percentile, value) in &latency.percentiles {
                assert_eq!(back.value_at_quantile(percentile / 100.0), *value, "{tag} {percentile}");
            }
        }
    }
    let logs = Some(LogFiles::Each { prefix: format!("{}/ycsb-", dir.path().display()) });
    let outcome = phase(&target, &workload, &PhaseConfig { logs, ..run(1) });
    assert_eq!(read_back(&dir.path().join("ycsb-READ.hdr"), None).len(), series(&outcome, "READ").measured.count);
}

#[test]
fn checkpoints_run_beside_operations() {
    let dir = tempfile::tempdir().unwrap();
    let workload = with(&["operationcount=20000"]);
    let path = dir.path().join("store");
    let target = create(&path, &workload);
    load(&target, &workload);
    let before = match &target {
        Target::Table(table) => table.store().generation(),
        Target::Bare(_) => unreachable!(),
    };
    let outcome =
        phase(&target, &workload, &PhaseConfig { checkpoint_every: Some(CheckpointEvery::Operations(2000)), ..run(2) });
    assert!(outcome.checkpoints.len() >= 2, "{:?}", outcome.checkpoints);
    assert_eq!(series(&outcome, "CLEANUP").returns["OK"], 1);
    assert_eq!(series(&outcome, "CHECKPOINT").measured.count + 1, outcome.checkpoints.len() as u64);
    assert!(outcome.checkpoints.iter().all(|one| one.took_s > 0.0));
    drop(target);
    let Target::Table(table) = open(&path, IoMode::Pread) else { unreachable!() };
    // One that finds nothing new makes no generation.
    let made = table.store().generation() - before;
    assert!((2..=outcome.checkpoints.len() as u64).contains(&made), "{made}: {:?}", outcome.checkpoints);
}

#[test]
fn a_warm_up_is_not_measured_and_time_ends_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let workload = with(&["insertproportion=0.05", "updateproportion=0"]);
    let target = create(&dir.path().join("store"), &workload);
    load(&target, &workload);
    let config = PhaseConfig { warm_up: Duration::from_millis(30), ..run(2) };
    let outcome = phase(&target, &workload, &config);
    assert!(outcome.warm_up_operations > 0);
    assert_eq!((outcome.operations, outcome.all.as_ref().unwrap().count), (2000, 2000));
    let mut endless = workload.clone();
    endless.operation_count = None;
    let refused = run_phase(&target, &endless, &run(1), &AtomicBool::new(false), &mut |_| {});
    assert!(refused.unwrap_err().to_string().contains("operationcount"));
    let config = PhaseConfig { time_max: Some(Duration::from_millis(40)), target_per_s: Some(1000.0), ..run(2) };
    let outcome = phase(&target, &endless, &config);
    assert!((1..=41).contains(&outcome.operations), "{}", outcome.operations);
    let mut many = workload.clone();
    many.record_count = Some(100_000);
    let refused = run_phase(&target, &many, &run(1), &AtomicBool::new(false), &mut |_| {});
    assert!(refused.unwrap_err().to_string().contains("at least 100000 records"));
}

#[test]
fn what_was_recorded_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let workload = with(&["scanproportion=0.05", "readproportion=0.9", "insertproportion=0.05", "updateproportion=0"]);
    let target = create(&dir.path().join("store"), &workload);
    load(&target, &workload);
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let recorded = phase(&target, &workload, &PhaseConfig { record: Some(first.clone()), ..run(1) });
    let recording = Recording::read(&first).unwrap();
    assert_eq!(recording.len(), 2000);
    let kind = PhaseKind::Replay { recording: recording.clone(), paced: false };
    let config = PhaseConfig { record: Some(second.clone()), ..PhaseConfig::new(kind) };
    let replayed = phase(&target, &workload, &config);
    for name in ["READ", "SCAN", "INSERT"] {
        assert_eq!(series(&replayed, name).measured.count, series(&recorded, name).measured.count);
    }
    let again = Recording::read(&second).unwrap();
    let requests = |recording: &Recording| recording.requests.iter().map(|(_, request)| *request).collect::<Vec<_>>();
    assert_eq!(requests(&again), requests(&recording));
    // Paced, it takes as long as it did, and has intended latencies.
    let kind = PhaseKind::Replay { recording, paced: true };
    let paced = phase(&target, &workload, &PhaseConfig { threads: 2, ..PhaseConfig::new(kind) });
    assert!(series(&paced, "READ").intended.is_some() && paced.run_time_s > 0.9 * recorded.run_time_s - 0.001);
}
