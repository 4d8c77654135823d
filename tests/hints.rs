//! Hints mean the same on every path: what is wanted soon comes into the page cache, what is not leaves it, and no hint
//! changes what is read.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;

use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use mapfall::{AccessHint, BlockIo, CheckpointOptions, Error, IoMode, IoOptions, PageId, Store, residency};

use children::say;
use common::scratch;

const MIB: u64 = 1 << 20;
const LEN: u64 = 32 * MIB;
/// Every path that has a page cache.
const CACHED: [IoMode; 3] = [IoMode::Pread, IoMode::Mmap, IoMode::Uring];

fn bytes_at(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|place| (place ^ (place >> 9) ^ (place >> 20)) as u8).collect()
}

fn open(mode: IoMode, path: &Path) -> Box<dyn BlockIo> {
    IoOptions::new().mode(mode).direct_fallback(true).open(path).unwrap()
}

fn resident(path: &Path) -> u64 {
    residency::resident_bytes(&File::open(path).unwrap()).unwrap()
}

/// A file on the device, none of it in the page cache. Says so where that cannot be.
fn cold(test: &str, path: &Path) -> bool {
    fs::write(path, bytes_at(0, LEN as usize)).unwrap();
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    residency::drop_page_cache(&file).unwrap();
    let is_cold = resident(path) == 0;
    if !is_cold {
        say(&format!("SKIPPED {test}: the file cannot be dropped from the page cache"));
    }
    is_cold
}

/// Waits for read-ahead that is under way.
fn comes_in(path: &Path, bytes: u64) {
    let begun = Instant::now();
    while resident(path) < bytes {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {bytes} bytes came", resident(path));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn check(file: &dyn BlockIo, offset: u64, len: usize) {
    let mut found = vec![0; len];
    file.read_at(offset, &mut found).unwrap();
    assert!(found == bytes_at(offset, len), "{len} bytes at {offset}");
}

#[test]
fn what_is_wanted_comes_and_nothing_else() {
    for mode in CACHED {
        let dir = scratch();
        let path = dir.path().join("data");
        if !cold("what_is_wanted_comes_and_nothing_else", &path) {
            return;
        }
        let file = open(mode, &path);
        // Longer than any read-ahead by itself.
        file.advise(4 * MIB..20 * MIB, AccessHint::WillNeed).unwrap();
        comes_in(&path, 16 * MIB);
        assert!(resident(&path) < 26 * MIB, "{mode:?}: {} bytes", resident(&path));
        check(&*file, 5 * MIB + 3, 100_000);
        file.advise(LEN - 1..u64::MAX / 2, AccessHint::WillNeed).unwrap();
        file.advise(2 * LEN..3 * LEN, AccessHint::WillNeed).unwrap();
    }
}

/// Says that a range is not wanted until no more than this is resident: the system passes over pages that it is still
/// busy with.
fn goes(file: &dyn BlockIo, range: Range<u64>, path: &Path, left_bytes: u64) -> u64 {
    let began = Instant::now();
    loop {
        file.advise(range.clone(), AccessHint::DontNeed).unwrap();
        let left = resident(path);
        if left <= left_bytes {
            return left;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{left} bytes of {range:?} stay");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_is_not_wanted_goes_even_if_it_is_mapped() {
    for mode in CACHED {
        let dir = scratch();
        let path = dir.path().join("data");
        if !cold("what_is_not_wanted_goes_even_if_it_is_mapped", &path) {
            return;
        }
        let file = open(mode, &path);
        let read_all = || (0..32).for_each(|part| check(&*file, part * MIB, MIB as usize));
        read_all();
        // The system may have taken a few of them for something else already.
        let begun = Instant::now();
        while resident(&path) != LEN {
            assert!(begun.elapsed() < Duration::from_secs(60), "{mode:?}: {} bytes stay", resident(&path));
            read_all();
        }
        // Pages at the ends of the range may reach out of it, and stay.
        let left = goes(&*file, 8 * MIB..16 * MIB, &path, 28 * MIB);
        assert!(left >= 24 * MIB, "{mode:?}: {left} bytes");
        // An empty range is none, and not all that follows.
        file.advise(MIB..MIB, AccessHint::DontNeed).unwrap();
        assert_eq!(resident(&path), left, "{mode:?}");
        read_all();
        goes(&*file, 0..u64::MAX / 2, &path, 0);
        read_all();
    }
}

#[test]
fn what_is_in_no_order_is_not_read_ahead() {
    for mode in CACHED {
        let dir = scratch();
        let path = dir.path().join("data");
        if !cold("what_is_in_no_order_is_not_read_ahead", &path) {
            return;
        }
        let file = open(mode, &path);
        let page = rustix::param::page_size() as u64;
        file.advise(0..0, AccessHint::Random).unwrap();
        for number in 0..16 {
            check(&*file, number * page, 100);
        }
        // The map also looks at the byte before the end of the file.
        assert!(resident(&path) <= 17 * page, "{mode:?}: more was read than was asked for");
        file.advise(0..0, AccessHint::Normal).unwrap();
        for number in 16..32 {
            check(&*file, number * page, 100);
        }
        assert!(resident(&path) > 33 * page, "{mode:?}: nothing was read ahead");
    }
}

#[test]
fn no_hint_changes_what_is_read() {
    let dir = scratch();
    for mode in IoMode::ALL {
        let path = dir.path().join(mode.name());
        fs::write(&path, bytes_at(0, 3 * MIB as usize)).unwrap();
        let file = IoOptions::new().mode(mode).write(true).direct_fallback(true).open(&path).unwrap();
        for hint in AccessHint::ALL {
            for range in [0..0, 0..1, 4095..4097, MIB..2 * MIB + 1, 0..3 * MIB, 3 * MIB..4 * MIB, 0..i64::MAX as u64] {
                file.advise(range, hint).unwrap();
                check(&*file, MIB - 7, 10_000);
                // What is not on the device yet is not lost.
                file.write_at(MIB, &bytes_at(MIB, 5_000)).unwrap();
            }
            #[allow(clippy::reversed_empty_ranges, reason = "that is what is refused")]
            for range in [5..4, u64::MAX..0, 0..u64::MAX, 0..1 << 63] {
                let Range { start, end } = range;
                match file.advise(range, hint) {
                    Err(Error::InvalidRange { start: from, end: to }) => assert_eq!((from, to), (start, end)),
                    other => panic!("{mode:?}: {other:?}"),
                }
            }
        }
        file.set_len(100).unwrap();
        file.advise(0..MIB, AccessHint::DontNeed).unwrap();
        check(&*file, 0, 100);
    }
}

#[test]
fn a_file_without_a_page_cache_gets_none() {
    let dir = scratch();
    let path = dir.path().join("data");
    if !cold("a_file_without_a_page_cache_gets_none", &path) {
        return;
    }
    let file = match IoOptions::new().open_direct(&path) {
        Ok(file) => file,
        Err(error) => return say(&format!("SKIPPED a_file_without_a_page_cache_gets_none: {error}")),
    };
    file.advise(0..LEN, AccessHint::WillNeed).unwrap();
    check(&file, 12_345, 100_000);
    assert_eq!(resident(&path), 0);
}

#[test]
fn pages_are_where_they_are() {
    for mode in CACHED {
        let dir = scratch();
        let path = dir.path().join("store");
        let options = Store::options().page_bytes(64 << 10).io(IoOptions::new().mode(mode));
        let store = options.clone().create(&path).unwrap();
        let pages = store.pages();
        let ids: Vec<_> = (0..128_u8)
            .map(|number| {
                let page = pages.allocate().unwrap();
                pages.write(page, &vec![number; 64 << 10]).unwrap();
                page
            })
            .collect();
        store.checkpoint(CheckpointOptions::new()).unwrap();
        drop((pages, store));
        let store = options.open(&path).unwrap();
        let pages = store.pages();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        pages.advise(ids.iter().copied(), AccessHint::DontNeed).unwrap();
        residency::drop_page_cache(&file).unwrap();
        let before = resident(&path);
        if before > MIB {
            say("SKIPPED pages_are_where_they_are: the file cannot be dropped from the page cache");
            return;
        }
        pages.advise(ids[..64].iter().copied(), AccessHint::WillNeed).unwrap();
        comes_in(&path, 4 * MIB);
        assert!(resident(&path) < 7 * MIB, "{mode:?}: {} bytes", resident(&path));
        pages.advise(ids.iter().copied().chain([PageId(1 << 30)]), AccessHint::DontNeed).unwrap();
        // The page cache's own pages may be large, and reach out of a row of ours.
        assert!(resident(&path) <= before + 4 * MIB, "{mode:?}: {} bytes stay", resident(&path));
        for (number, page) in (0..).zip(&ids) {
            let mut buf = vec![0; 64 << 10];
            pages.read(*page, &mut buf).unwrap();
            assert!(buf.iter().all(|byte| *byte == number));
        }
        pages.advise([], AccessHint::Random).unwrap();
        pages.advise([], AccessHint::WillNeed).unwrap();
    }
}

#[test]
fn a_hint_outlives_a_larger_map() {
    let dir = scratch();
    let path = dir.path().join("data");
    fs::write(&path, bytes_at(0, MIB as usize)).unwrap();
    let file = IoOptions::new().write(true).map_range_bytes(2 * MIB).open_mmap(&path).unwrap();
    file.advise(0..0, AccessHint::Random).unwrap();
    file.write_at(0, &bytes_at(0, 8 * MIB as usize)).unwrap();
    check(&file, 7 * MIB, 100_000);
    let Some(map) = file.stats().map.filter(|map| map.maps > 0) else { return };
    assert!(map.remaps > 0, "{map:?}");
    // The flags of the map that was made since, as the kernel tells them: rr is "random reads".
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    // A part ends with the flags of the mapping whose path is in it.
    let maps = smaps.split_inclusive("VmFlags:").zip(smaps.split("VmFlags:").skip(1));
    let ours: Vec<_> = maps.filter(|(map, _)| map.contains(path.to_str().unwrap())).collect();
    assert!(ours.len() >= 2, "the old map stays until the file is closed");
    for (_, flags) in ours {
        assert!(flags.lines().next().unwrap().contains(" rr"), "a map was not told");
    }
}
