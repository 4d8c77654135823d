//! Files that change under their readers: cut, regrown, punched, rewritten, unlinked and replaced, by other processes
//! and by ourselves. Whatever happens, a read gives bytes that the file had or a typed error, and the process lives.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/blocks.rs"]
mod blocks;
#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;

use std::fs::{self, File};
use std::hint;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use mapfall::{BlockIo, Error, FallbackReason, IoOptions, MapStats, MmapFile};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use blocks::{Change, Kind, Own, Script, Seen, State, Target, filled, read_along};
use children::{Progress, child, maps_files, words};
use common::{other_hand, scratch};

fn progress_in(dir: &Path) -> Progress {
    let path = dir.join("progress");
    Progress::of(&File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap())
}

fn map_stats(file: &MmapFile) -> MapStats {
    file.stats().map.unwrap()
}

fn fallbacks(file: &MmapFile, reason: FallbackReason) -> u64 {
    file.stats().fallbacks.get(reason)
}

#[test]
#[ignore = "the other process of the tests below"]
fn writer() {
    let Some(words) = words() else { return };
    let [dir, kind, seed] = words.split('|').collect::<Vec<_>>()[..] else { panic!("{words}") };
    let seed = seed.parse().unwrap();
    let script = Script::new(Kind::ALL[kind.parse::<usize>().unwrap()], seed);
    script.carry_out(seed, &progress_in(Path::new(dir)), &other_hand(&Path::new(dir).join("data")));
}

/// A file as a script finds it.
fn file_for(kind: Kind, seed: u64) -> (TempDir, Script) {
    let dir = scratch();
    let script = Script::new(kind, seed);
    fs::write(dir.path().join("data"), script.first().bytes).unwrap();
    (dir, script)
}

/// Readers in as many threads, and `carry_out` beside them. Returns what they saw.
fn under_readers(
    (dir, script): (&TempDir, &Script),
    readers: u64,
    file: &dyn BlockIo,
    carry_out: impl FnOnce(&Progress),
) -> Seen {
    let progress = progress_in(dir.path());
    let stop = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let read = |seed| read_along(script, file, &progress, seed, &stop);
        let threads: Vec<_> = (0..readers).map(|seed| scope.spawn(move || read(seed))).collect();
        carry_out(&progress);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(Seen::default(), Seen::and)
    });
    assert_eq!(
        progress.done().load(Ordering::SeqCst),
        script.changes.len() as u64,
        "the writer did not come to its end"
    );
    assert!(seen.quiet_blocks > 0 && seen.past_end > 0, "{seen:?}");
    seen
}

fn by_another_process(dir: &TempDir, kind: Kind, seed: u64) {
    let kind = Kind::ALL.into_iter().position(|each| each == kind).unwrap();
    let words = format!("{}|{kind}|{seed}", dir.path().display());
    // Its end is looked at by whoever counts its changes: readers must be stopped first.
    let _ = child("writer", &words).stdout(Stdio::null()).status();
}

/// What must hold of the statistics after a script, and of the file now that it is at rest.
fn check_after(script: &Script, seen: &Seen, file: &MmapFile) {
    let stats = file.stats();
    assert!(stats.paths_add_up(), "{stats:?}");
    assert_eq!((stats.reads, stats.failed_reads), (seen.blocks, seen.past_end));
    let map = stats.map.as_ref().unwrap();
    assert!(stats.mmap.reads > 0 && map.refusals == 0 && map.maps == 1, "{stats:?}");
    let mut state = script.first();
    script.changes.iter().for_each(|change| state.apply(change));
    assert_eq!(file.len().unwrap(), state.len as u64);
    served_by_the_map_again(file, &state);
}

/// Reads all of a file at rest until the map serves it. It may have become suspect, so that can take some reads.
fn served_by_the_map_again(file: &MmapFile, state: &State) {
    let mut found = vec![0; state.len.min(state.bytes.len())];
    if found.is_empty() {
        return;
    }
    let before = file.stats().mmap.reads;
    for _ in 0..10_000 {
        found.fill(0xee);
        file.read_at(0, &mut found).unwrap();
        assert!(found == state.bytes[..found.len()], "a file at rest is not what it is");
        if file.stats().mmap.reads > before {
            return;
        }
    }
    panic!("the map does not come back: {:?}", file.stats());
}

fn torture(kind: Kind, seed: u64, readers: u64) {
    if !maps_files("a script carried out under readers") {
        return;
    }
    let (dir, script) = file_for(kind, seed);
    let file = IoOptions::new().open_mmap(dir.path().join("data")).unwrap();
    let seen = under_readers((&dir, &script), readers, &file, |_| by_another_process(&dir, kind, seed));
    assert!(map_stats(&file).faults_recovered > 0, "no fault was recovered");
    check_after(&script, &seen, &file);
}

#[test]
fn two_readers_of_a_file_that_is_cut_and_written_again() {
    torture(Kind::CutAndWrite, 1, 2);
}

#[test]
fn four_readers_of_a_file_that_is_cut_and_written_again() {
    torture(Kind::CutAndWrite, 2, 4);
}

#[test]
fn two_readers_of_a_long_file_that_is_cut_far_from_its_end() {
    torture(Kind::CutFarFromTheEnd, 4, 2);
}

#[test]
fn two_readers_of_a_file_to_which_anything_happens() {
    torture(Kind::Anything, 5, 2);
}

#[test]
fn four_readers_of_a_file_to_which_anything_happens() {
    torture(Kind::Anything, 6, 4);
}

#[test]
fn our_own_changes_of_length_under_readers() {
    let (kind, seed) = (Kind::AnythingButHoles, 7);
    let (dir, script) = file_for(kind, seed);
    let file = IoOptions::new().write(true).open_mmap(dir.path().join("data")).unwrap();
    let seen = under_readers((&dir, &script), 3, &file, |progress| script.carry_out(seed, progress, &Own(&file)));
    let count = |wanted: fn(&Change) -> bool| script.changes.iter().filter(|change| wanted(change)).count() as u64;
    let stats = file.stats();
    assert!(stats.paths_add_up());
    assert_eq!(stats.set_lens, count(|change| matches!(change, Change::Cut { .. } | Change::Extend { .. })));
    assert_eq!(stats.writes, count(|change| matches!(change, Change::Write { .. })));
    if maps_files("the map's part of our own changes") {
        check_after(&script, &seen, &file);
    }
}

/// Holds `pread` against the same rules: what it may do, the map may.
#[test]
fn pread_keeps_the_rules_that_the_map_is_held_against() {
    for (kind, seed) in [(Kind::CutAndWrite, 8), (Kind::Anything, 9)] {
        let (dir, script) = file_for(kind, seed);
        let file = IoOptions::new().open_pread(dir.path().join("data")).unwrap();
        let seen = under_readers((&dir, &script), 2, &file, |_| by_another_process(&dir, kind, seed));
        let stats = file.stats();
        assert!(stats.paths_add_up());
        assert_eq!((stats.reads, stats.failed_reads), (seen.blocks, seen.past_end));
    }
}

#[test]
fn unlinked_and_renamed_over_while_read() {
    let dir = scratch();
    let path = dir.path().join("data");
    let content = filled(1, 0, 300_000);
    fs::write(&path, &content).unwrap();
    let file = IoOptions::new().open_mmap(&path).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let read = || {
            let mut buf = vec![0; 5_000];
            while !stop.load(Ordering::Relaxed) {
                for place in (0..content.len() - buf.len()).step_by(3_001) {
                    file.read_at(place as u64, &mut buf).unwrap();
                    assert!(buf == content[place..place + buf.len()]);
                }
            }
        };
        let threads = [scope.spawn(read), scope.spawn(read)];
        for version in 2..40 {
            let other = dir.path().join("other");
            fs::write(&other, filled(version, 0, 1_000)).unwrap();
            fs::rename(&other, &path).unwrap();
            other_hand(&path).set_len(10).unwrap();
            if version % 3 == 0 {
                fs::remove_file(&path).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let stats = file.stats();
    assert!(stats.paths_add_up() && stats.failed_reads == 0);
    if maps_files("the map's part of unlinking") {
        assert_eq!((stats.pread.reads, stats.fallbacks.total()), (0, 0), "nothing happened to the file itself");
        assert_eq!(stats.map.unwrap().faults_recovered, 0);
    }
}

/// A file of `pages` pages, all of it read once, so that what is published is its whole length.
fn known(dir: &TempDir, pages: usize) -> (File, MmapFile, State) {
    let path = dir.path().join("data");
    let bytes = filled(1, 0, pages * rustix::param::page_size());
    fs::write(&path, &bytes).unwrap();
    let file = IoOptions::new().open_mmap(&path).unwrap();
    let mut found = vec![0; bytes.len()];
    file.read_at(0, &mut found).unwrap();
    assert!(found == bytes);
    let state = State::of(bytes);
    (other_hand(&path), file, state)
}

/// The range is past the end, and the error says so.
fn past_end(file: &MmapFile, offset: usize, len: usize, expected_len: usize) {
    match file.read_at(offset as u64, &mut vec![0xee; len]) {
        Err(Error::PastEnd { offset: at, wanted_bytes, file_len_bytes }) => {
            assert_eq!((at, wanted_bytes, file_len_bytes), (offset as u64, len as u64, expected_len as u64));
        }
        other => panic!("{len} bytes at {offset} of {expected_len}: {other:?}"),
    }
}

/// The range is there, and the map serves it.
fn mapped(file: &MmapFile, state: &State, offset: usize, len: usize) {
    let before = file.stats();
    let mut found = vec![0xee; len];
    file.read_at(offset as u64, &mut found).unwrap();
    assert!(found == state.bytes[offset..offset + len]);
    let after = file.stats();
    assert_eq!((after.mmap.reads, after.pread.reads), (before.mmap.reads + 1, before.pread.reads));
}

#[test]
fn a_cut_in_the_middle_of_a_page_is_seen_at_every_byte() {
    if !maps_files("a cut that raises no fault") {
        return;
    }
    let page = rustix::param::page_size();
    let dir = scratch();
    // One that ends at the cut, one byte before it, one after it, and one that the cut goes through.
    for cut in [page + 1, page + 100, page + 511, page + 512, page + 513, 2 * page - 1] {
        let (other, file, mut state) = known(&dir, 3);
        let change = Change::Cut { len: cut };
        other.change(&change);
        state.apply(&change);
        let block = (cut - 1) / 512 * 512;
        let untrusted = map_stats(&file).tail_stats;
        if cut % 512 == 0 {
            past_end(&file, block + 1, 512, cut);
        } else {
            past_end(&file, block, 512, cut);
        }
        assert_eq!(fallbacks(&file, FallbackReason::CutShort), 1, "no page is gone, so only the length tells");
        assert_eq!(map_stats(&file).tail_stats, untrusted + 1);
        assert_eq!(map_stats(&file).faults_recovered, 0);
        assert_eq!(map_stats(&file).readable_bytes, cut as u64);
        past_end(&file, block, cut - block + 1, cut);
        assert_eq!(fallbacks(&file, FallbackReason::PastEnd), 1, "known by now");
        mapped(&file, &state, block, cut - block);
        mapped(&file, &state, cut - 1, 1);
        // From missing to right.
        let change = Change::Write { start: cut, end: 3 * page, version: 2 };
        other.change(&change);
        state.apply(&change);
        mapped(&file, &state, block, 512);
        mapped(&file, &state, 3 * page - 1, 1);
        assert!(file.stats().paths_add_up());
    }
}

#[test]
fn a_cut_far_from_the_end_is_seen_too() {
    if !maps_files("a cut that a look at the last page finds") {
        return;
    }
    let page = rustix::param::page_size();
    let dir = scratch();
    let (other, file, mut state) = known(&dir, 1 << 12);
    let zero_ended = (1..).find(|end| end % 64 == 0 && state.bytes[end - 1] == 0).unwrap();
    let before = map_stats(&file);
    mapped(&file, &state, 0, zero_ended);
    let after = map_stats(&file);
    assert_eq!(after.tail_probes, before.tail_probes + 1, "far from the end no system call is needed");
    assert_eq!(after.tail_stats, before.tail_stats);

    let change = Change::Cut { len: page / 2 };
    other.change(&change);
    state.apply(&change);
    past_end(&file, page / 2 - 10, 100, page / 2);
    assert_eq!(map_stats(&file).faults_recovered, after.faults_recovered + 1, "the last page is gone");
    assert_eq!(fallbacks(&file, FallbackReason::PastEnd), 1);
    mapped(&file, &state, page / 2 - 10, 10);
}

#[test]
fn blocks_that_end_in_zeros_are_not_taken_for_cut_ones() {
    let dir = scratch();
    let path = dir.path().join("data");
    fs::write(&path, vec![0; 10_000]).unwrap();
    let file = IoOptions::new().open_mmap(&path).unwrap();
    for (offset, len) in [(0, 1), (0, 4096), (1, 9_999), (9_999, 1), (0, 10_000)] {
        let mut found = vec![0xee; len];
        file.read_at(offset, &mut found).unwrap();
        assert!(found.iter().all(|byte| *byte == 0));
    }
    if maps_files("the map's part of zero-ended blocks") {
        assert_eq!((file.stats().mmap.reads, file.stats().fallbacks.total()), (5, 0));
        assert_eq!(map_stats(&file).tail_stats, 5);
    }
}

#[test]
fn a_fault_at_any_byte_of_a_copy_is_recovered() {
    if !maps_files("recovered faults") {
        return;
    }
    let page = rustix::param::page_size();
    let dir = scratch();
    // The first byte of the page that is gone is the first, the last, the only, or some byte of the read.
    for (offset, len) in [(page, 1), (page, 100), (page - 1, 2), (page - 100, 101), (page - 1, 2 * page), (1, 2 * page)]
    {
        let (other, file, mut state) = known(&dir, 3);
        let change = Change::Cut { len: page };
        other.change(&change);
        state.apply(&change);
        past_end(&file, offset, len, page);
        assert_eq!(map_stats(&file).faults_recovered, 1, "{len} bytes at {offset}");
        assert_eq!(fallbacks(&file, FallbackReason::Fault), 1);
        past_end(&file, offset, len, page);
        assert_eq!(map_stats(&file).faults_recovered, 1, "known by now");
        assert_eq!(fallbacks(&file, FallbackReason::PastEnd), 1);
        mapped(&file, &state, 0, page);

        let change = Change::Write { start: page, end: 3 * page, version: 3 };
        other.change(&change);
        state.apply(&change);
        mapped(&file, &state, offset, len);
        let stats = file.stats();
        assert!(stats.paths_add_up() && stats.map.unwrap().step_downs == 0);
    }
}

/// The file is cut in a page; then, at the same time, one reads that page and another writes again what was cut off.
/// So every read must find it cut or whole: never whole with the zeros of the cut page, which were never its bytes.
fn grows_back_while_read(file: &dyn BlockIo, other: &File, state: &State, place: usize, far: bool) {
    const ROUNDS: u64 = 8_000;
    let page = rustix::param::page_size();
    let (cuts, reads) = (AtomicU64::new(0), AtomicU64::new(0));
    let wait_for = |counter: &AtomicU64, round| {
        for spins in 0_u32.. {
            if counter.load(Ordering::SeqCst) >= round {
                return;
            }
            if spins % 4096 == 4095 { thread::yield_now() } else { hint::spin_loop() }
        }
    };
    let spin = |rng: &mut SmallRng| (0..rng.random_range(0..60)).for_each(|_| hint::spin_loop());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = SmallRng::seed_from_u64(1);
            for round in 1..=ROUNDS {
                wait_for(&reads, round - 1);
                let cut = place + rng.random_range(1..page);
                other.change(&Change::Cut { len: cut });
                cuts.store(round, Ordering::SeqCst);
                spin(&mut rng);
                other.change(&Change::Write { start: cut, end: place + page, version: 1 });
                if far {
                    other.change(&Change::Extend { len: state.len });
                }
            }
        });
        let mut rng = SmallRng::seed_from_u64(2);
        let mut found = vec![0; page];
        let mut wrong = 0;
        for round in 1..=ROUNDS {
            let start = rng.random_range(0..page);
            wait_for(&cuts, round);
            spin(&mut rng);
            match file.read_at((place + start) as u64, &mut found[start..]) {
                Ok(()) => wrong += u64::from(found[start..] != state.bytes[place + start..place + page]),
                Err(Error::PastEnd { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            // The next cut must find it whole, and published so.
            while file.len().unwrap() < state.len as u64 {
                thread::yield_now();
            }
            file.read_at((place + page - 1) as u64, &mut [0]).unwrap();
            reads.store(round, Ordering::SeqCst);
        }
        assert_eq!(wrong, 0, "reads of {ROUNDS} that were given the zeros of a cut page as data");
    });
}

#[test]
fn a_cut_page_that_grows_back_while_it_is_read() {
    let page = rustix::param::page_size();
    for (pages, place) in [(3, 2 * page), (1 << 12, 0)] {
        let dir = scratch();
        let (other, file, state) = known(&dir, pages);
        let pread = IoOptions::new().open_pread(dir.path().join("data")).unwrap();
        for file in [&pread as &dyn BlockIo, &file] {
            grows_back_while_read(file, &other, &state, place, pages > 3);
        }
        assert!(file.stats().paths_add_up());
    }
}

#[test]
fn cut_to_nothing_and_grown_again_many_times() {
    let page = rustix::param::page_size();
    let dir = scratch();
    let (other, file, mut state) = known(&dir, 3);
    let maps = maps_files("the faults of a file cut to nothing");
    for round in 1..=200 {
        let regrowth = match round % 2 {
            0 => Change::Extend { len: 3 * page },
            _ => Change::Write { start: 0, end: 3 * page, version: round },
        };
        other.change(&Change::Cut { len: 0 });
        past_end(&file, page, page, 0);
        other.change(&regrowth);
        state.apply(&Change::Cut { len: 0 });
        state.apply(&regrowth);
        let mut found = vec![0xee; 3 * page];
        file.read_at(0, &mut found).unwrap();
        assert!(found == state.bytes, "round {round}");
        if maps {
            assert_eq!(map_stats(&file).faults_recovered, round);
            mapped(&file, &state, 0, 3 * page);
        }
    }
    assert!(file.stats().paths_add_up());
}
