//! What `auto` decides: the map for what is in the page cache, system calls for the rest, and what is read whole, read
//! ahead and given back. That it returns the right bytes whatever it decides is in `tests/contract.rs` too.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stderr, reason = "what is skipped is said")]
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(mapfall_no_map)))]

#[path = "support/common.rs"]
mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use mapfall::residency::{drop_page_cache, resident_bytes};
use mapfall::{AutoFile, AutoStats, BatchRead, BlockIo, FallbackReason, IoOptions, RegionState};

use common::scratch;

const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;

/// Each 8 bytes are their place in the file.
fn content(offset: u64, len: usize) -> Vec<u8> {
    (offset / 8..(offset + len as u64) / 8).flat_map(|word| (word * 8 + 1).to_le_bytes()).collect()
}

/// A file whose bytes say where they are, on the device, and not in the page cache where that can be had.
fn file_of(dir: &Path, len: u64) -> (PathBuf, bool) {
    let path = dir.join("data");
    let file = File::create_new(&path).unwrap();
    for offset in (0..len).step_by(MIB as usize) {
        file.write_all_at(&content(offset, MIB.min(len - offset) as usize), offset).unwrap();
    }
    file.sync_all().unwrap();
    let is_cold = make_cold(&path);
    if !is_cold {
        eprintln!("SKIPPED in part: the file stays in memory here");
    }
    (path, is_cold)
}

fn make_cold(path: &Path) -> bool {
    let file = File::open(path).unwrap();
    drop_page_cache(&file).unwrap();
    resident_bytes(&file).unwrap() == 0
}

fn check(file: &AutoFile, offset: u64, len: usize) {
    let mut found = vec![0xEE; len];
    file.read_at(offset, &mut found).unwrap();
    assert!(found == content(offset, len), "{len} bytes at {offset}");
}

fn auto(file: &AutoFile) -> AutoStats {
    let stats = file.stats();
    assert!(stats.paths_add_up(), "{stats:?}");
    stats.auto.unwrap()
}

fn regions_in(auto: &AutoStats, state: RegionState) -> u64 {
    auto.regions.iter().filter(|regions| regions.state == state).map(|regions| regions.count).sum()
}

/// Random blocks of the file, without end.
fn blocks(len: u64, seed: u64) -> impl Iterator<Item = u64> {
    let step = |at: &u64| Some(at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(Some(seed), step).map(move |at| (at >> 24) % (len / BLOCK as u64) * BLOCK as u64)
}

/// Reads random blocks until something is so.
fn read_until(file: &AutoFile, len: u64, mut is_done: impl FnMut(&AutoStats) -> bool) -> AutoStats {
    let began = Instant::now();
    let mut blocks = blocks(len, 7);
    loop {
        for offset in blocks.by_ref().take(500) {
            check(file, offset, BLOCK);
        }
        let auto = auto(file);
        if is_done(&auto) {
            return auto;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "not reached: {auto:?}");
    }
}

#[test]
fn what_is_resident_is_read_from_the_map() {
    let (dir, len) = (scratch(), 64 * MIB);
    let (path, _) = file_of(dir.path(), len);
    fs::read(&path).unwrap();
    let file = IoOptions::new().open_auto(&path).unwrap();
    for offset in blocks(len, 1).take(20_000) {
        check(&file, offset, BLOCK);
    }
    let (stats, auto) = (file.stats(), auto(&file));
    assert_eq!((stats.mmap.reads, stats.pread.reads), (20_000, 0), "{stats:?} {auto:?}");
    assert_eq!(regions_in(&auto, RegionState::Mapped), 32);
    assert!(auto.looks <= 32 && auto.samples >= 20_000 / 64, "no question for each read: {auto:?}");
    assert!(auto.fits && auto.loads == 0 && auto.capacity_bytes > 0, "{auto:?}");
}

#[test]
fn what_is_not_is_read_by_system_call_until_it_is_worth_reading_whole() {
    let (dir, len) = (scratch(), 64 * MIB);
    let (path, is_cold) = file_of(dir.path(), len);
    let file = IoOptions::new().open_auto(&path).unwrap();
    check(&file, 33 * MIB, BLOCK);
    let first = auto(&file);
    if is_cold {
        assert_eq!((file.stats().pread.reads, first.cold_reads), (1, 1));
    }
    let auto = read_until(&file, len, |auto| regions_in(auto, RegionState::Mapped) == 32);
    if is_cold {
        assert!(auto.loads > 0 && auto.load_bytes > 0 && !auto.load_time.is_zero(), "{auto:?}");
    }
    assert_eq!(auto.load_failures, 0);
    let before = file.stats().pread.reads;
    for offset in blocks(len, 3).take(1_000) {
        check(&file, offset, BLOCK);
    }
    assert_eq!(file.stats().pread.reads, before, "all of it is mapped now");
}

#[test]
fn where_reading_whole_has_paid_the_first_read_does_it() {
    let (dir, len) = (scratch(), 64 * MIB);
    let (path, is_cold) = file_of(dir.path(), len);
    if !is_cold {
        return;
    }
    let file = IoOptions::new().open_auto(&path).unwrap();
    let half = len / 2;
    let learned = read_until(&file, half, |auto| regions_in(auto, RegionState::Mapped) == 16);
    for offset in blocks(half, 3).take(20_000) {
        check(&file, offset, BLOCK);
    }
    let before = file.stats().pread.reads;
    for region in 20..26 {
        check(&file, region * 2 * MIB + MIB, BLOCK);
    }
    let auto = auto(&file);
    assert_eq!((auto.loads_at_once - learned.loads_at_once, file.stats().pread.reads - before), (6, 0), "{auto:?}");
}

#[test]
fn where_pages_go_long_reads_are_asked_about_before_they_fault() {
    let (dir, len) = (scratch(), 32 * MIB);
    let (path, is_cold) = file_of(dir.path(), len);
    fs::read(&path).unwrap();
    let file = IoOptions::new().open_auto(&path).unwrap();
    // All of it is known to be there by one question; then what nobody has touched goes.
    check(&file, 0, BLOCK);
    assert_eq!(regions_in(&auto(&file), RegionState::Mapped), 16);
    drop_page_cache(&File::open(&path).unwrap()).unwrap();
    if !is_cold || resident_bytes(&File::open(&path).unwrap()).unwrap() > 2 * MIB {
        eprintln!("SKIPPED: the file stays in memory here");
        return;
    }
    for region in 1..16 {
        check(&file, region * 2 * MIB + MIB, 64 << 10);
    }
    let (stats, auto) = (file.stats(), auto(&file));
    // The first one took its faults, and told.
    assert!(auto.evictions_seen > 1 && stats.pread.reads > 0, "{stats:?}");
    assert!(stats.mmap.reads < 15, "{stats:?}");
}

#[test]
fn where_many_regions_are_in_use_those_around_them_are_read() {
    let (dir, len) = (scratch(), 128 * MIB);
    let (path, is_cold) = file_of(dir.path(), len);
    // Not at each time: where the device is slow for a moment, one read of a region tells enough.
    let is_found = (0..20).any(|_| {
        assert!(!is_cold || make_cold(&path));
        let file = IoOptions::new().open_auto(&path).unwrap();
        for offset in blocks(len, 5).take(20_000) {
            check(&file, offset, BLOCK);
        }
        let auto = auto(&file);
        auto.groups > 0 && regions_in(&auto, RegionState::Mapped) == 64
    });
    assert!(is_found || !is_cold, "never, in twenty rounds");
}

/// How often this process has a file mapped or open.
fn uses_of(path: &Path) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let opened = descriptors.filter(|entry| fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|to| to == path));
    maps.lines().filter(|line| line.ends_with(path.to_str().unwrap())).count() + opened.count()
}

#[test]
fn a_file_that_is_closed_while_it_is_read_in_the_background_is_closed() {
    let (dir, len) = (scratch(), 64 * MIB);
    let (path, _) = file_of(dir.path(), len);
    let path = path.canonicalize().unwrap();
    let mut loading = 0;
    for round in 0..40 {
        let is_cold = make_cold(&path);
        let file = IoOptions::new().open_auto(&path).unwrap();
        for offset in blocks(len, round).take(2_000) {
            check(&file, offset, BLOCK);
            loading = regions_in(&auto(&file), RegionState::Loading);
            if loading > 0 || !is_cold {
                break;
            }
        }
        assert!(uses_of(&path) > 0);
        drop(file);
        assert_eq!(uses_of(&path), 0, "{loading} regions were being read");
    }
}

#[test]
fn a_working_set_that_does_not_fit_is_not_read_whole() {
    let (dir, len) = (scratch(), 64 * MIB);
    let (path, is_cold) = file_of(dir.path(), len);
    let file = IoOptions::new().page_cache_bytes_max(16 * MIB).open_auto(&path).unwrap();
    let auto = read_until(&file, len, |auto| !auto.fits || !is_cold && auto.judgements > 3);
    if is_cold {
        assert_eq!((auto.capacity_bytes, auto.mode_changes), (16 * MIB, 1));
        assert!(auto.working_set_bytes > 16 * MIB && auto.groups == 0, "{auto:?}");
        // What was read whole before that was known is given back. It is known soon, since each load brings the next
        // judgement nearer.
        assert!(auto.loads < 16 && auto.released >= auto.loads.min(1), "{auto:?}");
        let loads = auto.loads;
        let auto = read_until(&file, len, |auto| auto.judgements > 5);
        assert!(auto.loads <= loads + 4, "only what was queued: {auto:?}");
    }
    // It comes to fit when less of it is in use.
    let began = Instant::now();
    while !self::auto(&file).fits {
        for offset in blocks(4 * MIB, 5).take(200) {
            check(&file, offset, BLOCK);
        }
        thread::sleep(Duration::from_millis(10));
        assert!(began.elapsed() < Duration::from_secs(120), "{:?}", self::auto(&file));
    }
}

#[test]
fn scans_are_read_ahead_of() {
    let (mut cold, mut steps) = (false, 0);
    for block in [4096, 65_536, 1 << 20, 3 << 20] {
        let (dir, len) = (scratch(), 96 * MIB);
        let (path, is_cold) = file_of(dir.path(), len);
        let file = IoOptions::new().open_auto(&path).unwrap();
        for offset in (0..len).step_by(block) {
            check(&file, offset, block.min((len - offset) as usize));
        }
        let auto = auto(&file);
        cold |= is_cold;
        if is_cold {
            assert!(auto.loads > 0 && (auto.ahead_used > 0 || auto.scan_steps == 0), "{block}: {auto:?}");
            // None where single reads took so long that all of the file was read before it was a scan.
            steps += auto.scan_steps;
            let stats = file.stats();
            assert!(block > 65_536 || stats.mmap.bytes > len / 2, "{block}: most of it from the map: {stats:?}");
        }
        assert_eq!(auto.dropped_behind, 0, "it fits");
    }
    assert!(!cold || steps > 0, "no scan was found");
}

#[test]
fn a_scan_of_what_does_not_fit_leaves_nothing_behind() {
    let (dir, len) = (scratch(), 96 * MIB);
    let (path, is_cold) = file_of(dir.path(), len);
    let file = IoOptions::new().page_cache_bytes_max(48 * MIB).open_auto(&path).unwrap();
    for offset in (0..len).step_by(BLOCK) {
        check(&file, offset, BLOCK);
    }
    let auto = auto(&file);
    if is_cold {
        assert!(auto.dropped_behind > 0, "{auto:?}");
        assert!(resident_bytes(&File::open(&path).unwrap()).unwrap() < len / 2);
    }
}

#[test]
fn page_tables_are_bounded() {
    let (dir, len) = (scratch(), 64 * MIB);
    let (path, _) = file_of(dir.path(), len);
    fs::read(&path).unwrap();
    let file = IoOptions::new().page_table_bytes_max(8 * 4096).open_auto(&path).unwrap();
    let auto = read_until(&file, len, |auto| auto.released > 0);
    assert!(auto.released >= 24 || auto.judgements < 3, "{auto:?}");
    assert_eq!(file.stats().pread.reads, 0, "what is given back is mapped again when it is read");
}

#[test]
fn a_batch_is_the_same_as_its_reads() {
    let (dir, len) = (scratch(), 32 * MIB);
    let (path, _) = file_of(dir.path(), len);
    let file = IoOptions::new().open_auto(&path).unwrap();
    let mut offsets = blocks(len, 11);
    for round in 0..50_u64 {
        let places: Vec<u64> = offsets.by_ref().take(32).collect();
        let mut bufs = vec![[0; BLOCK]; places.len()];
        let reads = places.iter().zip(&mut bufs);
        let mut batch: Vec<BatchRead<'_>> = reads.map(|(offset, buf)| BatchRead { offset: *offset, buf }).collect();
        file.read_batch(&mut batch).unwrap();
        for (offset, buf) in places.iter().zip(&bufs) {
            assert!(buf[..] == content(*offset, BLOCK), "round {round}, {offset}");
        }
    }
    let stats = file.stats();
    assert_eq!(stats.reads, 50 * 32);
    assert!(stats.paths_add_up());
}

#[test]
fn a_declined_handler_is_a_reason_and_no_error() {
    let (dir, len) = (scratch(), 4 * MIB);
    let (path, _) = file_of(dir.path(), len);
    fs::read(&path).unwrap();
    let file = IoOptions::new().fault_handler(false).open_auto(&path).unwrap();
    check(&file, 0, BLOCK);
    assert_eq!(file.stats().fallbacks.get(FallbackReason::HandlerDeclined), 1);
}

#[test]
fn a_file_of_a_tebibyte_costs_nothing_until_it_is_read() {
    let dir = scratch();
    let path = dir.path().join("data");
    let made = File::create_new(&path).unwrap();
    if let Err(error) = made.set_len(1 << 40) {
        eprintln!("SKIPPED: no file of 1 TiB here: {error}");
        return;
    }
    let resident = || {
        let status = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        anonymous.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    };
    let before = resident();
    let file = IoOptions::new().open_auto(&path).unwrap();
    let opened = resident().saturating_sub(before);
    assert!(opened < MIB, "{opened} bytes to open it");
    let mut buf = [1; BLOCK];
    file.read_at((1 << 40) - BLOCK as u64, &mut buf).unwrap();
    assert_eq!(buf, [0; BLOCK]);
    let noted: u64 = auto(&file).regions.iter().map(|regions| regions.count).sum();
    assert!((1..=16).contains(&noted), "{noted} regions are noted");
}

#[test]
fn files_that_are_closed_while_they_are_read_whole_are_closed() {
    let (dir, len) = (scratch(), 64 * MIB);
    let (path, _) = file_of(dir.path(), len);
    for round in 0..20 {
        make_cold(&path);
        let file = IoOptions::new().open_auto(&path).unwrap();
        for offset in blocks(len, round).take(300) {
            check(&file, offset, BLOCK);
        }
    }
    // A thread may still be at it for the last one.
    let began = Instant::now();
    let is_open = || {
        let files = fs::read_dir("/proc/self/fd").unwrap();
        files.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).any(|target| target == path)
    };
    while is_open() {
        assert!(began.elapsed() < Duration::from_secs(60), "a descriptor is left");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn threads_that_read_and_change_the_file_get_what_was_there() {
    let (dir, len) = (scratch(), 48 * MIB);
    let (path, _) = file_of(dir.path(), len);
    let file = IoOptions::new().write(true).page_cache_bytes_max(24 * MIB).open_auto(&path).unwrap();
    let other = File::options().write(true).open(&path).unwrap();
    thread::scope(|scope| {
        for seed in 0..3 {
            let file = &file;
            scope.spawn(move || {
                for offset in blocks(len, seed).take(20_000) {
                    let mut found = vec![0xEE; BLOCK];
                    if file.read_at(offset, &mut found).is_ok() {
                        // Whole, or cut off and grown back: each 8 bytes are what was written, or zeros.
                        for (word, place) in found.chunks(8).zip((offset..).step_by(8)) {
                            let word = u64::from_le_bytes(word.try_into().unwrap());
                            assert!(word == place + 1 || word == 0, "{word} at {place}");
                        }
                    }
                }
            });
        }
        for round in 0..40_u64 {
            let cut = (round * 7 % 46 + 1) * MIB + round * 512;
            other.set_len(cut).unwrap();
            other.set_len(len).unwrap();
            drop_page_cache(&other).unwrap();
            let offset = cut / MIB * MIB;
            file.write_at(offset, &content(offset, MIB as usize)).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(file.stats().paths_add_up());
}
