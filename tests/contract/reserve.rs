//! The contract of `reserve`: at least so long, never shorter, zeros where nothing was, and space behind them.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mapfall::{BlockIo, IoOptions, IoStats, Result, SyncKind};

use crate::common::{other_hand, scratch};
use crate::contract::{Kind, MIB, bytes_at, past_end};
use crate::{each, read, read_error};

#[test]
fn what_is_reserved_reads_as_zeros_at_once_and_has_space_behind_it() {
    each(1_000, |kind, file, path| {
        let len = 5 * MIB + 17;
        file.reserve(len).unwrap();
        assert_eq!(file.len().unwrap(), len, "{kind:?}");
        assert_eq!(read(file, len - 1, 1), [0], "{kind:?}");
        assert!(read(file, 1_000, len as usize - 1_000).iter().all(|byte| *byte == 0), "{kind:?}");
        assert_eq!(read(file, 0, 1_000), bytes_at(0, 1_000, 0), "{kind:?}");
        past_end(&read_error(file, len, 1), len, 1, len);
        let stats = file.stats();
        assert_eq!((stats.reserves, stats.set_lens, stats.writes), (1, 0, 0), "{kind:?}");
        if stats.reserve_fallbacks == 0 {
            assert!(fs::metadata(path).unwrap().blocks() * 512 >= len, "{kind:?}");
        }
        if kind.maps() {
            assert_eq!((stats.mmap.reads, stats.pread.reads), (3, 0), "{kind:?}");
            assert_eq!(stats.map.unwrap().readable_bytes, len, "{kind:?}");
        }
        file.write_at(len - 100, &bytes_at(len - 100, 100, 1)).unwrap();
        assert_eq!(file.len().unwrap(), len, "{kind:?}");
        assert_eq!(read(file, len - 100, 100), bytes_at(len - 100, 100, 1), "{kind:?}");
    });
}

#[test]
fn a_file_that_is_long_enough_is_left_alone() {
    each(1_000, |kind, file, path| {
        let len = 3 * MIB;
        file.set_len(len).unwrap();
        // What is left to be written would come with blocks of its own.
        file.sync(SyncKind::All).unwrap();
        let told = |path| {
            let found = fs::metadata(path).unwrap();
            (found.len(), found.blocks(), found.ctime(), found.ctime_nsec())
        };
        let before = told(path);
        for enough in [0, 1, 1_000, len - 1, len] {
            file.reserve(enough).unwrap();
        }
        assert_eq!(told(path), before, "{kind:?}");
        let stats = file.stats();
        assert_eq!((stats.reserves, stats.reserve_fallbacks), (5, 0), "{kind:?}");
        assert_eq!(read(file, 0, 1_000), bytes_at(0, 1_000, 0), "{kind:?}");
    });
}

#[test]
fn what_was_cut_off_is_reserved_again_as_zeros() {
    each(3 * MIB as usize, |kind, file, _| {
        for len in [2 * MIB + 5, MIB, 4_097, 4_096, 100, 1, 0] {
            file.set_len(len).unwrap();
            file.reserve(3 * MIB).unwrap();
            assert_eq!(file.len().unwrap(), 3 * MIB, "{kind:?}");
            assert!(read(file, len, (3 * MIB - len) as usize).iter().all(|byte| *byte == 0), "{kind:?} cut to {len}");
            let kept = len.min(50);
            assert_eq!(read(file, len - kept, kept as usize), bytes_at(len - kept, kept as usize, 0), "{kind:?}");
        }
    });
}

#[test]
fn the_length_that_another_hand_has_set_is_what_counts() {
    each(1_000, |kind, file, path| {
        let other = other_hand(path);
        other.write_all_at(&bytes_at(0, 2 * MIB as usize, 3), 0).unwrap();
        file.reserve(MIB).unwrap();
        assert_eq!(file.len().unwrap(), 2 * MIB, "{kind:?}");
        assert_eq!(read(file, MIB, 100), bytes_at(MIB, 100, 3), "{kind:?}");
        other.set_len(10).unwrap();
        file.reserve(MIB).unwrap();
        assert_eq!(file.len().unwrap(), MIB, "{kind:?}");
        assert_eq!(read(file, 0, 10), bytes_at(0, 10, 3), "{kind:?}");
        assert!(read(file, 10, 10_000).iter().all(|byte| *byte == 0), "{kind:?}");
    });
}

#[test]
fn what_is_appended_meanwhile_stays() {
    const BLOCK: u64 = 4096;
    each(0, |kind, file, _| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let reserver = scope.spawn(|| {
                let mut longest = 0;
                while !stop.load(Ordering::Relaxed) {
                    longest = longest.max(file.len().unwrap() + 100);
                    file.reserve(longest).unwrap();
                    assert!(file.len().unwrap() >= longest, "{kind:?}");
                }
            });
            for number in 0..300 {
                file.write_at(number * BLOCK, &bytes_at(number * BLOCK, BLOCK as usize, 1)).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            reserver.join().unwrap();
        });
        assert!(read(file, 0, 300 * BLOCK as usize) == bytes_at(0, 300 * BLOCK as usize, 1), "{kind:?}");
    });
}

/// An implementation of somebody else's, which does not know of `reserve`.
#[derive(Debug)]
struct Foreign(Box<dyn BlockIo>);

impl BlockIo for Foreign {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        self.0.set_len(len_bytes)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.0.sync(kind)
    }

    fn stats(&self) -> IoStats {
        self.0.stats()
    }
}

#[test]
fn an_implementation_without_its_own_sets_the_length() {
    let dir = scratch();
    let path = dir.path().join("data");
    fs::write(&path, bytes_at(0, 1_000, 0)).unwrap();
    let file = Foreign(Kind::Pread.open(&path));
    for (wanted, expected) in [(0, 1_000), (1_000, 1_000), (5_000, 5_000), (4_999, 5_000)] {
        file.reserve(wanted).unwrap();
        assert_eq!(file.len().unwrap(), expected);
    }
    let stats = file.stats();
    assert_eq!((stats.set_lens, stats.reserves), (1, 0));
    assert_eq!(read(&file, 1_000, 4_000), [0; 4_000]);
    assert_eq!(read(&file, 0, 1_000), bytes_at(0, 1_000, 0));
    let file = Foreign(Box::new(IoOptions::new().open_pread(&path).unwrap()));
    file.reserve(5_000).unwrap();
    file.reserve(5_001).unwrap_err();
}
