//! Direct I/O: any offset, length and buffer, neighbours who write at the same time, ends in the middle of a block, and
//! file systems that have none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;
#[path = "support/limits.rs"]
#[allow(dead_code, reason = "every test binary takes what it needs")]
mod limits;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mapfall::{BatchRead, BlockIo, DirectFile, DirectStats, Error, IoOptions, residency};

use children::say;
use common::{other_hand, scratch, stats};
use limits::{MIB, alone_with_mounts, run, small_tmpfs};

fn bytes_at(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|place| (place ^ (place >> 9) ^ (place >> 20)) as u8).collect()
}

/// A file opened for direct I/O where the directory's file system has it. Says so if not.
fn direct(test: &str, path: &Path) -> Option<DirectFile> {
    match IoOptions::new().write(true).create(true).open_direct(path) {
        Ok(file) => Some(file),
        Err(Error::NoDirectIo { problem, .. }) => {
            say(&format!("SKIPPED {test}: {problem}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn told(file: &DirectFile) -> DirectStats {
    stats(file).direct_io.unwrap()
}

/// Memory that begins so many bytes behind a multiple of 4096.
fn memory(len: usize, off: usize) -> (Vec<u8>, std::ops::Range<usize>) {
    let bytes = vec![0xEE; len + 8192];
    let start = bytes.as_ptr().addr().next_multiple_of(4096) - bytes.as_ptr().addr() + off;
    (bytes, start..start + len)
}

#[test]
fn the_page_cache_stays_empty() {
    let dir = scratch();
    let path = dir.path().join("data");
    let Some(file) = direct("the_page_cache_stays_empty", &path) else { return };
    file.write_at(0, &bytes_at(0, 4 << 20)).unwrap();
    let mut found = vec![0; 1 << 20];
    file.read_at(4096, &mut found).unwrap();
    assert!(found == bytes_at(4096, 1 << 20));
    let mut bufs = vec![vec![0; 5_000]; 40];
    let mut batch: Vec<_> = (0..).zip(&mut bufs).map(|(at, buf)| BatchRead { offset: at * 90_001, buf }).collect();
    file.read_batch(&mut batch).unwrap();
    assert!((0..).zip(&bufs).all(|(at, buf)| *buf == bytes_at(at * 90_001, 5_000)));
    assert_eq!(residency::resident_bytes(&File::open(&path).unwrap()).unwrap(), 0);
    let served = stats(&file);
    assert_eq!((served.direct.reads, served.pread.reads, served.reads), (41, 0, 41));
    assert_eq!(served.direct_io.unwrap().refusal, None);
}

#[test]
fn what_is_aligned_goes_straight_and_what_is_not_by_a_buffer() {
    let dir = scratch();
    let Some(file) = direct("what_is_aligned_goes_straight", &dir.path().join("data")) else { return };
    let align = told(&file);
    let block = align.offset_align_bytes;
    assert!(block.is_power_of_two() && align.memory_align_bytes.is_power_of_two(), "{align:?}");
    let (mut bytes, at) = memory(1 << 20, 0);
    bytes[at.clone()].copy_from_slice(&bytes_at(0, 1 << 20));
    file.write_at(0, &bytes[at.clone()]).unwrap();
    file.read_at(0, &mut bytes[at.clone()]).unwrap();
    let after = told(&file);
    assert_eq!((after.bounced_reads, after.bounced_writes, after.merged_writes), (0, 0, 0));

    if align.memory_align_bytes > 1 {
        let (mut bytes, at) = memory(3 << 20, 1);
        bytes[at.clone()].copy_from_slice(&bytes_at(0, 3 << 20));
        file.write_at(0, &bytes[at.clone()]).unwrap();
        bytes[at.clone()].fill(0);
        file.read_at(0, &mut bytes[at.clone()]).unwrap();
        assert!(bytes[at] == bytes_at(0, 3 << 20));
        let after = told(&file);
        assert_eq!((after.bounced_reads, after.bounced_writes, after.merged_writes), (1, 1, 0));
    }
    file.write_at(block - 1, &bytes_at(block - 1, 2)).unwrap();
    assert_eq!(told(&file).merged_writes, 1);
    let mut found = vec![0; 3 << 20];
    file.read_at(0, &mut found).unwrap();
    assert!(found == bytes_at(0, 3 << 20));
}

#[test]
fn neighbours_in_a_block_do_not_undo_each_other() {
    const THREADS: u64 = 8;
    const EACH: u64 = 100;
    let dir = scratch();
    let Some(file) = direct("neighbours_in_a_block", &dir.path().join("data")) else { return };
    file.set_len(8192).unwrap();
    // Each thread has every eighth piece of 100 bytes, which share blocks; one writes whole blocks behind them.
    for round in 1..=20_u8 {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let file = &file;
                scope.spawn(move || {
                    for piece in (thread..40).step_by(THREADS as usize) {
                        file.write_at(piece * EACH, &[round; EACH as usize]).unwrap();
                    }
                });
            }
            scope.spawn(|| file.write_at(4096, &[round; 4096]).unwrap());
        });
        let mut found = vec![0; 4000];
        file.read_at(0, &mut found).unwrap();
        assert!(found.iter().all(|byte| *byte == round), "round {round}");
        let mut found = vec![0; 4096];
        file.read_at(4096, &mut found).unwrap();
        assert!(found.iter().all(|byte| *byte == round), "round {round}");
    }
}

#[test]
fn an_end_inside_of_a_block_is_never_seen_elsewhere() {
    let dir = scratch();
    let path = dir.path().join("data");
    let Some(file) = direct("an_end_inside_of_a_block", &path) else { return };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut len, mut past) = (0, 0);
                    while !is_over.load(Ordering::Relaxed) {
                        let found = file.len().unwrap();
                        assert!(found >= len && found.is_multiple_of(7), "{found} after {len}");
                        len = found;
                        // What is read was written; what was not written is not read.
                        let mut buf = [0xEE; 7];
                        match file.read_at(len, &mut buf) {
                            Ok(()) => assert_eq!(buf[..], bytes_at(len, 7)),
                            Err(Error::PastEnd { file_len_bytes, .. }) => {
                                assert!(file_len_bytes >= len && file_len_bytes.is_multiple_of(7));
                                past += 1;
                            }
                            Err(error) => panic!("{error}"),
                        }
                        let mut pair = [[0xEE; 7], [0xEE; 7]];
                        let [first, second] = &mut pair;
                        let mut batch =
                            [BatchRead { offset: len, buf: first }, BatchRead { offset: len + 7, buf: second }];
                        if file.read_batch(&mut batch).is_ok() {
                            assert_eq!(pair.concat(), bytes_at(len, 14));
                        }
                    }
                    past
                })
            })
            .collect();
        for number in 0..600 {
            file.write_at(number * 7, &bytes_at(number * 7, 7)).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| assert!(reader.join().unwrap() > 0));
    });
    assert_eq!(fs::metadata(&path).unwrap().len(), 4_200);
    assert!(fs::read(&path).unwrap() == bytes_at(0, 4_200));
    assert_eq!(told(&file).merged_writes, 600);
}

#[test]
fn another_hand_by_the_page_cache() {
    let dir = scratch();
    let path = dir.path().join("data");
    let Some(file) = direct("another_hand_by_the_page_cache", &path) else { return };
    let other = other_hand(&path);
    other.write_all_at(&bytes_at(0, 10_000), 0).unwrap();
    let mut found = vec![0; 10_000];
    file.read_at(0, &mut found).unwrap();
    assert!(found == bytes_at(0, 10_000));
    file.write_at(5, b"by the direct way").unwrap();
    let mut found = [0; 17];
    other.read_exact_at(&mut found, 5).unwrap();
    assert_eq!(&found, b"by the direct way");
    assert_eq!(other.metadata().unwrap().len(), 10_000);
}

#[test]
fn a_file_system_without_direct_io() {
    let test = "a_file_system_without_direct_io";
    alone_with_mounts(test, || {
        let dir = scratch();
        // No tmpfs before 6.6, and no ramfs, has it.
        let kinds = [("tmpfs", &["-t", "tmpfs", "none"]), ("ramfs", &["-t", "ramfs", "none"])];
        let mut refused = 0;
        for (kind, mount) in kinds {
            let at = dir.path().join(kind);
            fs::create_dir(&at).unwrap();
            let mounted = if kind == "tmpfs" { small_tmpfs(&at, 4 * MIB) } else { run(test, "mount", mount, &at) };
            if !mounted {
                continue;
            }
            let path = at.join("data");
            let options = IoOptions::new().write(true).create(true);
            match options.open_direct(&path) {
                Err(Error::NoDirectIo { path: told, problem }) => {
                    assert_eq!(&*told, &*path);
                    assert!(!problem.is_empty());
                    refused += 1;
                }
                Ok(file) => {
                    file.write_at(3, b"it has").unwrap();
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            let file = options.direct_fallback(true).open_direct(&path).unwrap();
            file.write_at(1, &bytes_at(1, 20_000)).unwrap();
            let mut bufs = vec![vec![0; 3_000]; 5];
            let mut batch: Vec<_> =
                (0..).zip(&mut bufs).map(|(at, buf)| BatchRead { offset: at * 3_333 + 1, buf }).collect();
            file.read_batch(&mut batch).unwrap();
            assert!((0..).zip(&bufs).all(|(at, buf)| *buf == bytes_at(at * 3_333 + 1, 3_000)));
            let served = stats(&file);
            let direct_io = served.direct_io.unwrap();
            assert_eq!((served.direct.reads, served.ring.reads + served.pool.reads), (0, 5), "{kind}");
            assert_eq!((direct_io.offset_align_bytes, direct_io.merged_writes, direct_io.bounced_reads), (1, 0, 0));
            assert!(direct_io.refusal.is_some());
        }
        if refused == 0 {
            say(&format!("SKIPPED {test}: every file system that could be mounted has direct I/O"));
        }
    });
}
