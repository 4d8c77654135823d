//! Where the system says no, and files that are not as one would wish: every read still gives what is there or a typed
//! error, the statistics say why the map did not serve, and it serves again as soon as it can.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "limits/address_space.rs"]
mod address_space;
#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;
#[path = "limits/disk.rs"]
mod disk;
#[path = "limits/files.rs"]
mod files;
#[path = "support/limits.rs"]
mod limits;

use std::path::Path;

use mapfall::{FallbackReason, IoOptions, MmapFile};

use children::maps_files;
use common::{other_hand, scratch, stats};
use limits::{BLOCK, all_mapped, check_block, make};

fn open(path: &Path) -> MmapFile {
    IoOptions::new().open_mmap(path).unwrap()
}

fn open_to_write(path: &Path) -> MmapFile {
    IoOptions::new().write(true).open_mmap(path).unwrap()
}

fn blocks_of(bytes: u64) -> u64 {
    bytes / BLOCK
}

fn all_mapped_where_there_is_a_map(file: &MmapFile, count: u64) {
    match stats(file).map.is_some_and(|map| map.maps > 0) {
        true => all_mapped(file, 0..count),
        false => (0..count).for_each(|number| check_block(file, number)),
    }
}

#[test]
fn without_the_handler_nothing_is_mapped() {
    let dir = scratch();
    let path = dir.path().join("data");
    make(&path, 10);
    let file = IoOptions::new().fault_handler(false).open_mmap(&path).unwrap();
    for _ in 0..1_000 {
        (0..10).for_each(|number| check_block(&file, number));
    }
    let served = stats(&file);
    let map = served.map.unwrap();
    assert_eq!((served.mmap.reads, map.maps, map.range_bytes, map.returns), (0, 0, 0, 0));
    if maps_files("the reason of those who decline the handler") {
        assert_eq!(served.fallbacks.get(FallbackReason::HandlerDeclined), 10_000);
    }
    assert_eq!(served.fallbacks.total(), 10_000);
}

#[test]
fn a_build_without_the_map_says_so() {
    let dir = scratch();
    let path = dir.path().join("data");
    make(&path, 10);
    let file = open(&path);
    (0..10).for_each(|number| check_block(&file, number));
    let served = stats(&file);
    if cfg!(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(mapfall_no_map))) {
        assert_eq!((served.mmap.reads, served.fallbacks.total()), (10, 0));
    } else {
        assert_eq!((served.pread.reads, served.fallbacks.get(FallbackReason::Unsupported)), (10, 10));
        assert_eq!(served.map.unwrap().maps, 0);
    }
}
