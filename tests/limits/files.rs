//! Files that are empty, that grow, that go, that are many, that are none.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use mapfall::{BlockIo, Error, FallbackReason, FileKind, IoOptions, MmapFile, Operation, SyncKind};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Resource, getrlimit};

use crate::children::{maps_files, say};
use crate::common::{scratch, stats};
use crate::limits::{BLOCK, MIB, alone, blocks, check_block, limit, make};
use crate::{all_mapped_where_there_is_a_map, blocks_of, open, open_to_write, other_hand};

#[test]
fn an_empty_file_that_grows() {
    let dir = scratch();
    let by_us = |file: &MmapFile, _: &Path| file.write_at(0, &blocks(0..50)).unwrap();
    let by_us_twice = |file: &MmapFile, _: &Path| {
        file.set_len(50 * BLOCK).unwrap();
        file.write_at(0, &blocks(0..50)).unwrap();
    };
    let by_another_descriptor = |_: &MmapFile, path: &Path| other_hand(path).write_all_at(&blocks(0..50), 0).unwrap();
    let by_another_process = |_: &MmapFile, path: &Path| {
        let source = path.with_extension("source");
        make(&source, 50);
        let script = "cat \"$0\" >> \"$1\"";
        assert!(Command::new("sh").args(["-c", script]).arg(source).arg(path).status().unwrap().success());
    };
    let hands: [fn(&MmapFile, &Path); 4] = [by_us, by_us_twice, by_another_descriptor, by_another_process];
    for (number, grow) in hands.into_iter().enumerate() {
        let path = dir.path().join(number.to_string());
        fs::write(&path, []).unwrap();
        let file = open_to_write(&path);
        assert!(file.is_empty().unwrap());
        let error = file.read_at(0, &mut [0]).unwrap_err();
        assert!(matches!(error, Error::PastEnd { offset: 0, wanted_bytes: 1, file_len_bytes: 0 }), "{error}");
        grow(&file, &path);
        (0..50).for_each(|number| check_block(&file, number));
        if maps_files("the map of a file that was empty") {
            let served = stats(&file);
            assert_eq!((served.mmap.reads, served.pread.reads), (50, 0), "hand {number}");
            assert_eq!((served.fallbacks.total(), served.fallbacks.get(FallbackReason::PastEnd)), (1, 1));
            let map = served.map.unwrap();
            assert_eq!((map.maps, map.faults_recovered, map.refusals), (1, 0, 0));
        }
    }
}

/// Grows a file far past its range under readers. `grow` appends blocks; `known` says how many there are for sure.
fn outgrow(path: &Path, file: &MmapFile, by_us: bool) {
    let end = blocks_of(48 * MIB);
    let (known, other) = (AtomicU64::new(0), other_hand(path));
    thread::scope(|scope| {
        let (known, readers) = (&known, 3);
        for seed in 1..=readers {
            scope.spawn(move || {
                let mut number: u64 = seed;
                loop {
                    let there = known.load(Ordering::Acquire);
                    if there > 0 {
                        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        check_block(file, (number >> 33) % there);
                        // The newest is the one that a map which is too short does not reach.
                        check_block(file, there - 1);
                    }
                    if there == end {
                        break;
                    }
                }
            });
        }
        for start in (0..end).step_by(64) {
            let content = blocks(start..start + 64);
            match by_us {
                true => file.write_at(start * BLOCK, &content).unwrap(),
                false => other.write_all_at(&content, start * BLOCK).unwrap(),
            }
            known.store(start + 64, Ordering::Release);
        }
    });
}

#[test]
fn a_file_that_we_grow_out_of_its_range_under_readers() {
    let dir = scratch();
    let path = dir.path().join("data");
    fs::write(&path, []).unwrap();
    let file = IoOptions::new().write(true).map_range_bytes(2 * MIB).open_mmap(&path).unwrap();
    outgrow(&path, &file, true);
    if maps_files("remaps") {
        let served = stats(&file);
        assert_eq!((served.pread.reads, served.fallbacks.total(), served.failed_reads), (0, 0, 0));
        let map = served.map.unwrap();
        assert!(map.remaps > 1 && map.maps == map.remaps + 1 && map.range_bytes >= 48 * MIB, "{map:?}");
        assert!(map.remap_time >= map.remap_time_max && map.remap_time_max > Duration::ZERO);
        assert_eq!(map.faults_recovered, 0);
    }
}

#[test]
fn a_file_that_others_grow_out_of_its_range_under_readers() {
    let dir = scratch();
    let path = dir.path().join("data");
    fs::write(&path, []).unwrap();
    let file = IoOptions::new().map_range_bytes(2 * MIB).open_mmap(&path).unwrap();
    outgrow(&path, &file, false);
    if maps_files("remaps") {
        // While one reader makes the larger map, the others go on by system call where it is needed.
        let served = stats(&file);
        assert_eq!(served.fallbacks.total(), served.fallbacks.get(FallbackReason::BeyondRange));
        assert_eq!(served.pread.reads, served.fallbacks.total());
        assert!(served.mmap.reads > served.pread.reads && served.failed_reads == 0);
        let map = served.map.unwrap();
        assert!(map.remaps > 1 && map.maps == map.remaps + 1 && map.range_bytes >= 48 * MIB, "{map:?}");
        assert_eq!((map.faults_recovered, map.refusals), (0, 0));
    }
    all_mapped_where_there_is_a_map(&file, blocks_of(48 * MIB));
}

#[test]
fn thousands_of_files_at_once() {
    const FILES: u64 = 3_000;
    alone("files::thousands_of_files_at_once", || {
        limit(Resource::Nofile, None);
        if getrlimit(Resource::Nofile).current.is_some_and(|files| files < FILES + 100) {
            return say("SKIPPED thousands_of_files_at_once: the hard limit on open files is lower");
        }
        let dir = scratch();
        let files: Vec<_> = (0..FILES)
            .map(|number| {
                let path = dir.path().join(number.to_string());
                fs::write(&path, blocks(number..number + 3)).unwrap();
                open(&path)
            })
            .collect();
        let maps = maps_files("the maps of thousands of files");
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for (number, file) in (0..).zip(&files) {
                        let mut found = vec![0; 3 * BLOCK as usize];
                        file.read_at(0, &mut found).unwrap();
                        assert!(found == blocks(number..number + 3));
                    }
                });
            }
        });
        for file in &files {
            let served = stats(file);
            assert_eq!((served.mmap.reads, served.pread.reads), if maps { (2, 0) } else { (0, 2) });
        }
    });
}

#[test]
fn unlinked_or_renamed_over_it_stays_the_file_it_is() {
    let dir = scratch();
    let (path, other) = (dir.path().join("data"), dir.path().join("other"));
    make(&path, 100);
    let file = open_to_write(&path);
    fs::write(&other, [0; 10]).unwrap();
    fs::rename(&other, &path).unwrap();
    all_mapped_where_there_is_a_map(&file, 100);
    fs::remove_file(&path).unwrap();
    file.write_at(100 * BLOCK, &blocks(100..200)).unwrap();
    file.sync(SyncKind::All).unwrap();
    all_mapped_where_there_is_a_map(&file, 200);
    assert_eq!(file.len().unwrap(), 200 * BLOCK);
}

// ---- What is no regular file, and what may not be written ----

/// Some block device that may be opened, loop devices without a file among them.
fn block_device() -> Option<PathBuf> {
    let is_one = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device()) && File::open(path).is_ok()
    };
    fs::read_dir("/dev").unwrap().map(|entry| entry.unwrap().path()).find(is_one)
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let dir = scratch();
    let fifo = dir.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let socket = dir.path().join("socket");
    // A socket's path has room for about a hundred bytes.
    let listener = UnixListener::bind(&socket);
    let mut kinds = vec![
        (dir.path().to_owned(), FileKind::Directory),
        (fifo, FileKind::Fifo),
        (PathBuf::from("/dev/zero"), FileKind::CharacterDevice),
    ];
    match listener {
        Ok(_) => kinds.push((socket, FileKind::Socket)),
        Err(error) => say(&format!("SKIPPED the socket: {error}")),
    }
    match block_device() {
        Some(path) => kinds.push((path, FileKind::BlockDevice)),
        None => say("SKIPPED the block device: there is none that may be opened"),
    }
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    kinds.push((link, FileKind::CharacterDevice));
    for (path, expected) in kinds {
        for write in [false, true] {
            // A FIFO that is waited for never comes back.
            let (done, waited) = mpsc::channel();
            let (opened, options) = (path.clone(), IoOptions::new().write(write).create(write));
            thread::spawn(move || {
                let results = [options.open_pread(&opened).map(drop), options.open_mmap(&opened).map(drop)];
                done.send(results).unwrap();
            });
            let results = waited.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{path:?} hangs"));
            for result in results {
                match result {
                    Err(Error::NotARegularFile { path: at, found }) => {
                        assert_eq!((&*at, found), (&*path, expected), "for writing: {write}");
                    }
                    other => panic!("{path:?} for writing: {write}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_file_that_may_not_be_written() {
    let dir = scratch();
    let path = dir.path().join("data");
    make(&path, 10);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let file = open(&path);
    all_mapped_where_there_is_a_map(&file, 10);
    for (expected, result) in [(Operation::Write, file.write_at(0, b"x")), (Operation::SetLen, file.set_len(0))] {
        assert!(matches!(result, Err(Error::ReadOnly { operation, .. }) if operation == expected));
    }
    all_mapped_where_there_is_a_map(&file, 10);
    if rustix::process::geteuid().is_root() {
        return say("SKIPPED opening it for writing: root may");
    }
    let error = IoOptions::new().write(true).open_mmap(&path).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
}
