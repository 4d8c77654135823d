//! A device that fails under the map: a FUSE file system of our own, whose reads fail when they are told to.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;
#[path = "support/fuse.rs"]
mod fuse;

use std::thread;

use mapfall::{Advice, BlockIo, Error, FallbackReason, HugePages, IoOptions, MmapFile, Operation};

use children::{maps_files, say, words};
use common::stats;
use fuse::{Device, FILE_BYTES, content};

const REGION_BYTES: u64 = 2 << 20;

#[test]
#[ignore = "the process that serves the file system of the tests below"]
fn server() {
    if let Some(words) = words() {
        fuse::serve(&words);
    }
}

fn mount(test: &str, direct: bool) -> Option<Device> {
    match Device::mount("server", direct) {
        Ok(device) => Some(device),
        Err(why) => {
            say(&format!("SKIPPED {test}: {why}"));
            None
        }
    }
}

/// A map that reads no more of the device than it must.
fn open(device: &Device) -> MmapFile {
    IoOptions::new().advice(Advice::Random).huge_pages(HugePages::Off).open_mmap(device.path()).unwrap()
}

fn works(file: &dyn BlockIo, offset: u64, len: usize) {
    let mut found = vec![0xee; len];
    file.read_at(offset, &mut found).unwrap();
    assert!(found == content(offset, len), "{len} bytes at {offset}");
}

fn fails_with(errno: i32, file: &dyn BlockIo, offset: u64, len: usize) {
    match file.read_at(offset, &mut vec![0; len]) {
        Err(Error::Io { operation: Operation::Read, offset: at, len_bytes, source, .. }) => {
            assert_eq!((at, len_bytes, source.raw_os_error()), (offset, len as u64, Some(errno)));
        }
        other => panic!("{len} bytes at {offset}: {other:?}"),
    }
}

/// Reads until the map serves a read, which may take as many as a suspect region waits for.
fn mapped_again(file: &MmapFile, offset: u64, len: usize) {
    let before = stats(file).mmap.reads;
    for _ in 0..20_000 {
        works(file, offset, len);
        if stats(file).mmap.reads > before {
            return;
        }
    }
    panic!("the map does not come back: {:?}", stats(file));
}

#[test]
fn an_error_of_the_device_is_an_error_and_ends_with_it() {
    let Some(mut device) = mount("errors of a device", false) else { return };
    let pread = IoOptions::new().open_pread(device.path()).unwrap();
    let file = open(&device);
    let page = rustix::param::page_size();
    works(&file, 0, 3 * page);
    device.fails(0..u64::MAX);
    for (offset, len) in [(0, 1), (0, page), (page as u64 - 1, 2), (5 * page as u64 + 17, 2 * page)] {
        fails_with(libc::EIO, &pread, offset, len);
        fails_with(libc::EIO, &file, offset, len);
    }
    device.recovers();
    works(&pread, 0, 3 * page);
    works(&file, 0, 3 * page);
    if !maps_files("the map's part of a device's errors") {
        return;
    }
    let failed = stats(&file);
    assert_eq!(failed.failed_reads, 4);
    assert_eq!(failed.fallbacks.get(FallbackReason::Fault), 1, "one fault tells enough");
    assert_eq!(failed.map.as_ref().unwrap().faults_recovered, 2, "there, and before it at the end of the file");
    assert_eq!(failed.fallbacks.get(FallbackReason::SuspectRegion), 4, "three that failed and one that worked");
    // Nothing but the region that failed is left to system calls.
    let before = failed.mmap.reads;
    works(&file, REGION_BYTES, page);
    assert_eq!(stats(&file).mmap.reads, before + 1);
    mapped_again(&file, 0, page);
    let after = stats(&file);
    works(&file, 0, 3 * page);
    assert_eq!(stats(&file).mmap.reads, after.mmap.reads + 1, "not suspect any more");
    assert_eq!(after.map.unwrap().step_downs, 0);
}

#[test]
fn a_read_that_only_touches_the_broken_part_fails() {
    let Some(mut device) = mount("a device that fails in part", false) else { return };
    let file = open(&device);
    let page = rustix::param::page_size() as u64;
    let broken = 10 * page..11 * page;
    device.fails(broken.clone());
    fails_with(libc::EIO, &file, broken.start - 10, 20);
    fails_with(libc::EIO, &file, broken.end - 1, 2);
    works(&file, broken.start - page, page as usize);
    works(&file, broken.end, page as usize);
    // It goes on failing for as long as one likes, and the rest of the region goes on working.
    for _ in 0..300 {
        fails_with(libc::EIO, &file, broken.start, page as usize);
        works(&file, broken.end, page as usize);
    }
    if maps_files("the map's part of a device that fails in part") {
        let stats = stats(&file);
        let faults = stats.map.unwrap().faults_recovered;
        assert!(faults >= 2, "it is tried again now and then");
        assert!(faults < 40, "{faults} faults in 300 reads: suspects are not left alone");
    }
}

#[test]
fn readers_of_a_device_that_fails_and_recovers() {
    let Some(mut device) = mount("readers of a failing device", false) else { return };
    let file = open(&device);
    let page = rustix::param::page_size();
    for _ in 0..5 {
        device.fails(0..4 * REGION_BYTES);
        thread::scope(|scope| {
            for thread in 0..4 {
                let file = &file;
                scope.spawn(move || {
                    for place in 0..50 {
                        fails_with(libc::EIO, file, thread * REGION_BYTES + place * 777, page);
                        works(file, (4 + thread) * REGION_BYTES + place * 777, page);
                    }
                });
            }
        });
        device.recovers();
        for region in 0..4 {
            works(&file, region * REGION_BYTES + 99, page);
        }
    }
    let stats = stats(&file);
    assert_eq!((stats.failed_reads, stats.reads), (5 * 4 * 50, 5 * (4 * 50 + 4)));
}

/// Rounds of a device that fails and works again, in places that change, by every path that reads through the map.
/// `MAPFALL_FUSE_ROUNDS=100000 cargo test --release --test fuse -- --ignored --nocapture very_many` is the long run.
fn rounds(rounds: u64) {
    let Some(mut device) = mount("rounds of a failing device", false) else { return };
    let files: [Box<dyn BlockIo>; 2] =
        [Box::new(open(&device)), Box::new(IoOptions::new().open_auto(device.path()).unwrap())];
    let page = rustix::param::page_size() as u64;
    let mut random = 1_u64;
    let mut below = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    let (mut worked, mut failed) = (0, 0);
    for _ in 0..rounds {
        // A few regions, so that there are reads of those that were suspect before.
        let start = below(16) * REGION_BYTES + below(REGION_BYTES / page / 2) * page;
        let broken = start..start + (1 + below(4)) * page;
        device.fails(broken.clone());
        for file in &files {
            let len = 1 + below(2 * page) as usize;
            fails_with(libc::EIO, &**file, broken.start + below(broken.end - broken.start), len);
            works(&**file, below(16) * REGION_BYTES + REGION_BYTES / 4 * 3 + below(page), len);
        }
        device.recovers();
        for file in &files {
            works(&**file, broken.start, (broken.end - broken.start) as usize);
        }
        worked += 4;
        failed += 2;
    }
    let stats: Vec<_> = files.iter().map(|file| stats(&**file)).collect();
    assert_eq!(
        stats.iter().map(|stats| (stats.reads, stats.failed_reads)).collect::<Vec<_>>(),
        [(rounds * 2, rounds); 2]
    );
    let faults: u64 = stats.iter().filter_map(|stats| stats.map.as_ref()).map(|map| map.faults_recovered).sum();
    say(&format!("{rounds} rounds: {worked} reads worked, {failed} failed as they must, {faults} faults recovered"));
    if maps_files("the map's part of rounds of a failing device") {
        assert!(faults > 0);
    }
}

#[test]
fn rounds_of_a_device_that_fails_and_recovers() {
    rounds(200);
}

#[test]
#[ignore = "takes minutes"]
fn very_many_rounds_of_a_device_that_fails_and_recovers() {
    rounds(std::env::var("MAPFALL_FUSE_ROUNDS").map_or(100_000, |rounds| rounds.parse().unwrap()));
}

#[test]
fn when_too_much_has_failed_the_whole_map_steps_down_for_a_while() {
    let Some(mut device) = mount("a map that steps down", false) else { return };
    if !maps_files("a map that steps down") {
        return;
    }
    let file = open(&device);
    device.fails(0..FILE_BYTES);
    let mut region = 0;
    while stats(&file).map.unwrap().step_downs == 0 {
        assert!(region * REGION_BYTES < FILE_BYTES, "{:?}", stats(&file));
        fails_with(libc::EIO, &file, region * REGION_BYTES, 100);
        region += 1;
    }
    let down = stats(&file).map.unwrap();
    assert_eq!((down.readable_bytes, down.returns), (0, 0));
    let faults = region + 1; // the first of them was at the end of the file
    assert_eq!(down.faults_recovered, faults);
    // No fault while it is down.
    fails_with(libc::EIO, &file, 0, 100);
    assert_eq!(stats(&file).map.unwrap().faults_recovered, faults);
    assert_eq!(stats(&file).fallbacks.get(FallbackReason::SuspectRegion), 1);
    device.recovers();
    mapped_again(&file, 3, 100);
    let back = stats(&file).map.unwrap();
    assert_eq!((back.step_downs, back.returns, back.readable_bytes), (1, 1, FILE_BYTES));
    for region in 0..region {
        works(&file, region * REGION_BYTES, 100);
    }
    assert_eq!(stats(&file).map.unwrap().faults_recovered, faults, "and nothing is suspect");
}

#[test]
fn a_device_that_is_gone() {
    let Some(mut device) = mount("a device that is gone", false) else { return };
    let file = open(&device);
    works(&file, 0, 100);
    device.fails(0..u64::MAX);
    device.dies();
    fails_with(libc::ENOTCONN, &file, 0, 100);
    fails_with(libc::ENOTCONN, &file, FILE_BYTES - 100, 100);
    stats(&file);
}

#[test]
fn a_file_system_that_cannot_map_is_read_by_pread() {
    let Some(mut device) = mount("a file system that cannot map", true) else { return };
    let file = open(&device);
    works(&file, 12_345, 10_000);
    device.fails(0..100);
    fails_with(libc::EIO, &file, 0, 10);
    device.recovers();
    (0..1000).for_each(|place| works(&file, place * 100, 100));
    let stats = stats(&file);
    assert_eq!((stats.mmap.reads, stats.pread.reads), (0, 1001));
    if maps_files("a refused map") {
        assert_eq!(stats.fallbacks.get(FallbackReason::MapRefused), 1002);
        let map = stats.map.unwrap();
        assert!(map.maps == 0 && map.range_bytes == 0 && map.returns == 0);
        assert!((2..100).contains(&map.refusals), "{} tries in 1002 reads", map.refusals);
        let enodev = std::io::Error::from_raw_os_error(libc::ENODEV).to_string();
        assert_eq!(map.last_refusal, Some(enodev));
    }
}
