//! One contract, held against every implementation: whatever is asked of it, each gives the same bytes and the same
//! kind of error as a model in memory does, and counts exactly what it did.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/common.rs"]
mod common;
#[path = "support/contract.rs"]
mod contract;
#[path = "contract/reserve.rs"]
mod reserve;
#[path = "contract/threads.rs"]
mod threads;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mapfall::{BatchRead, BlockIo, Error, FallbackReason, IoMode, IoOptions, Operation, SyncKind};
use proptest::test_runner::{Config, TestRunner};

use common::{other_hand, scratch};
use contract::{Done, Kind, MIB, Model, bytes_at, can_map, overflow, past_end, punch, steps};

/// Every implementation, each with a file of its own that holds `len` bytes of `bytes_at(0, len, 0)`.
fn each(len: usize, check: impl Fn(Kind, &dyn BlockIo, &Path)) {
    for kind in Kind::ALL {
        let dir = scratch();
        let path = dir.path().join("data");
        fs::write(&path, bytes_at(0, len, 0)).unwrap();
        let file = kind.open(&path);
        check(kind, &*file, &path);
        assert!(file.stats().paths_add_up(), "{kind:?}: {:?}", file.stats());
    }
}

fn read(file: &dyn BlockIo, offset: u64, len: usize) -> Vec<u8> {
    let mut found = vec![0xEE; len];
    file.read_at(offset, &mut found).unwrap();
    found
}

fn read_error(file: &dyn BlockIo, offset: u64, len: usize) -> Error {
    file.read_at(offset, &mut vec![0xEE; len]).unwrap_err()
}

fn random_operations(kind: Kind) {
    let dir = scratch();
    let path = dir.path().join("data");
    // A case that fails is printed whole and shrunk, to be made a test of its own.
    let config = Config { cases: 128, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&steps(5 * MIB), |steps| {
        fs::write(&path, []).unwrap();
        let (file, other) = (kind.open(&path), other_hand(&path));
        let mut model = Model::default();
        steps.iter().for_each(|step| model.step(step, &*file, &other));
        model.check_whole(&*file);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{kind:?}: {error}");
    }
}

#[test]
fn random_operations_by_pread() {
    random_operations(Kind::Pread);
}

#[test]
fn random_operations_through_a_map() {
    random_operations(Kind::Mmap);
}

#[test]
fn random_operations_through_a_map_that_is_soon_outgrown() {
    random_operations(Kind::MmapTinyRange);
}

#[test]
fn random_operations_where_the_handler_is_declined() {
    random_operations(Kind::MmapWithoutHandler);
}

#[test]
fn random_operations_by_auto() {
    random_operations(Kind::Auto);
}

#[test]
fn random_operations_by_auto_with_a_tiny_range() {
    random_operations(Kind::AutoTinyRange);
}

#[test]
fn random_operations_by_auto_without_memory() {
    random_operations(Kind::AutoWithoutMemory);
}

#[test]
fn every_alignment_and_length_near_pages_ends_and_blocks() {
    let len = 20_000;
    each(len, |kind, file, _| {
        let lens = [1, 2, 63, 64, 65, 511, 512, 513, 4095, 4096, 4097, 8192, 12_289, len];
        for wanted in lens {
            for offset in [0, 1, 63, 511, 512, 4095, 4096, 4097, 8191, 12_288, len - 4096, len - 1] {
                if offset + wanted <= len {
                    let found = read(file, offset as u64, wanted);
                    assert!(found == bytes_at(offset as u64, wanted, 0), "{kind:?}: {wanted} bytes at {offset}");
                } else {
                    past_end(&read_error(file, offset as u64, wanted), offset as u64, wanted, len as u64);
                }
            }
        }
        if kind.maps() {
            let stats = file.stats();
            assert_eq!(stats.pread.reads, 0);
            assert_eq!(stats.fallbacks.get(FallbackReason::PastEnd), stats.failed_reads);
            assert_eq!(stats.fallbacks.total(), stats.failed_reads);
        }
    });
}

#[test]
fn a_read_changes_no_byte_outside_its_buffer() {
    each(10_000, |kind, file, _| {
        let mut around = [0xEE; 300];
        file.read_at(4_000, &mut around[100..200]).unwrap();
        assert_eq!(around[100..200], bytes_at(4_000, 100, 0), "{kind:?}");
        assert!(around[..100].iter().chain(&around[200..]).all(|byte| *byte == 0xEE), "{kind:?}");
    });
}

#[test]
fn empty_reads_succeed_anywhere_and_count_nothing() {
    each(100, |kind, file, _| {
        for offset in [0, 99, 100, 101, 1 << 40, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
            file.read_at(offset, &mut []).unwrap();
            let mut batch = [BatchRead { offset, buf: &mut [] }];
            file.read_batch(&mut batch).unwrap();
        }
        assert_eq!(Done::told_by(&file.stats()), Done::default(), "{kind:?}");
        assert!(kind != Kind::Mmap || !can_map() || file.stats().fallbacks.total() == 0);
    });
}

#[test]
fn reads_past_the_end_say_where_how_many_and_how_long_the_file_is() {
    each(1_000, |kind, file, _| {
        let offsets = [1_000, 1_001, 4096, 1 << 21, 1 << 44, 1 << 46, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX];
        for offset in offsets {
            for wanted in [1, 2, 5_000] {
                past_end(&read_error(file, offset, wanted), offset, wanted, 1_000);
            }
        }
        past_end(&read_error(file, 999, 2), 999, 2, 1_000);
        past_end(&read_error(file, 0, 1_001), 0, 1_001, 1_000);
        assert_eq!(file.stats().failed_reads, 29, "{kind:?}");
        assert_eq!(file.stats().reads, 0, "{kind:?}");
    });
}

#[test]
fn a_batch_fails_with_its_first_error_and_does_the_rest() {
    each(10_000, |kind, file, _| {
        let (mut first, mut second, mut third, mut fourth, mut fifth) =
            ([0xEE; 100], [0xEE; 200], [], [0xEE; 300], [0xEE; 50]);
        let result = file.read_batch(&mut [
            BatchRead { offset: 10, buf: &mut first },
            BatchRead { offset: 9_900, buf: &mut second },
            BatchRead { offset: u64::MAX, buf: &mut third },
            BatchRead { offset: u64::MAX, buf: &mut fourth },
            BatchRead { offset: 9_950, buf: &mut fifth },
        ]);
        match result {
            Err(Error::Batch { index: 1, source }) => past_end(&source, 9_900, 200, 10_000),
            other => panic!("{kind:?}: {other:?}"),
        }
        assert_eq!(first, *bytes_at(10, 100, 0), "{kind:?}");
        assert_eq!(fifth, *bytes_at(9_950, 50, 0), "{kind:?}");
        let stats = file.stats();
        assert_eq!((stats.reads, stats.read_bytes, stats.failed_reads), (2, 150, 2), "{kind:?}");
    });
}

#[test]
fn batches_of_none_of_one_and_of_many() {
    each(100_000, |kind, file, _| {
        file.read_batch(&mut []).unwrap();
        let mut bufs: Vec<_> = (0..500).map(|index| vec![0xEE; index % 70]).collect();
        let mut batch: Vec<_> = bufs
            .iter_mut()
            .enumerate()
            .map(|(index, buf)| BatchRead { offset: (index as u64 * 7_919) % 99_000, buf })
            .collect();
        file.read_batch(&mut batch).unwrap();
        for read in &batch {
            assert!(*read.buf == bytes_at(read.offset, read.buf.len(), 0), "{kind:?}");
        }
        assert_eq!(file.stats().reads, batch.iter().filter(|read| !read.buf.is_empty()).count() as u64);
    });
}

#[test]
fn writes_past_the_end_leave_zeros_in_between() {
    each(1_000, |kind, file, path| {
        file.write_at(3 * MIB + 17, b"far").unwrap();
        assert_eq!(file.len().unwrap(), 3 * MIB + 20, "{kind:?}");
        assert_eq!(read(file, 3 * MIB + 17, 3), b"far", "{kind:?}");
        assert!(read(file, 1_000, 3 * MIB as usize - 983).iter().all(|byte| *byte == 0), "{kind:?}");
        assert_eq!(read(file, 0, 1_000), bytes_at(0, 1_000, 0), "{kind:?}");
        assert_eq!(fs::metadata(path).unwrap().len(), 3 * MIB + 20);
        if kind.maps() {
            assert_eq!(file.stats().pread.reads, 0, "{kind:?}");
        }
    });
}

#[test]
fn empty_writes_succeed_anywhere_and_change_nothing() {
    each(1_000, |kind, file, _| {
        for offset in [0, 1_000, 5_000, i64::MAX as u64 + 1, u64::MAX] {
            file.write_at(offset, &[]).unwrap();
        }
        assert_eq!(file.len().unwrap(), 1_000, "{kind:?}");
        assert_eq!(Done::told_by(&file.stats()), Done::default(), "{kind:?}");
    });
}

#[test]
fn offsets_that_no_file_has_are_refused() {
    each(1_000, |kind, file, _| {
        let largest = i64::MAX as u64;
        for (offset, len) in [(largest, 1), (largest - 9, 10), (largest - 9, 100), (u64::MAX, 1), (u64::MAX - 4, 50)] {
            if offset.checked_add(len).is_some_and(|end| end <= largest) {
                continue;
            }
            overflow(file.write_at(offset, &vec![1; len as usize]), Operation::Write, offset, len);
        }
        for len in [largest + 1, u64::MAX] {
            overflow(file.set_len(len), Operation::SetLen, 0, len);
            overflow(file.reserve(len), Operation::Reserve, 0, len);
        }
        assert_eq!(file.len().unwrap(), 1_000, "{kind:?}");
        assert_eq!(read(file, 0, 1_000), bytes_at(0, 1_000, 0), "{kind:?}");
        let stats = file.stats();
        assert_eq!((stats.writes, stats.set_lens, stats.reserves), (0, 0, 0), "{kind:?}");
    });
}

#[test]
fn a_length_the_file_system_refuses_is_its_own_error_and_harms_no_reader() {
    each(1_000, |kind, file, _| {
        match file.set_len(i64::MAX as u64) {
            // Some file systems can. Then every byte of it can be read.
            Ok(()) => assert_eq!(read(file, i64::MAX as u64 - 10, 10), [0; 10], "{kind:?}"),
            Err(Error::Io { operation: Operation::SetLen, len_bytes, source, .. }) => {
                assert_eq!((len_bytes, source.raw_os_error()), (i64::MAX as u64, Some(libc::EFBIG)), "{kind:?}");
                assert_eq!(file.len().unwrap(), 1_000, "{kind:?}");
            }
            Err(error) => panic!("{kind:?}: {error}"),
        }
        assert_eq!(read(file, 0, 1_000), bytes_at(0, 1_000, 0), "{kind:?}");
    });
}

#[test]
fn what_was_cut_off_is_gone_and_comes_back_as_zeros() {
    each(3 * MIB as usize, |kind, file, _| {
        for len in [2 * MIB + 5, MIB, 4_097, 4_096, 100, 1, 0] {
            file.set_len(len).unwrap();
            assert_eq!(file.len().unwrap(), len);
            assert_eq!(file.is_empty().unwrap(), len == 0);
            past_end(&read_error(file, len, 1), len, 1, len);
            let kept = len.min(50);
            assert_eq!(read(file, len - kept, kept as usize), bytes_at(len - kept, kept as usize, 0), "{kind:?}");
            file.set_len(3 * MIB).unwrap();
            assert!(read(file, len, 10_000).iter().all(|byte| *byte == 0), "{kind:?} cut to {len}");
            assert!(read(file, 3 * MIB - 10_000, 10_000).iter().all(|byte| *byte == 0), "{kind:?} cut to {len}");
        }
        assert_eq!(file.stats().set_lens, 14);
    });
}

#[test]
fn the_length_is_asked_of_the_system() {
    each(1_000, |kind, file, path| {
        let other = other_hand(path);
        for len in [0, 5_000, 3 * MIB, 7] {
            other.set_len(len).unwrap();
            assert_eq!(file.len().unwrap(), len, "{kind:?}");
            assert_eq!(file.is_empty().unwrap(), len == 0, "{kind:?}");
        }
    });
}

#[test]
fn what_another_hand_does_is_seen_by_the_next_read() {
    each(10_000, |kind, file, path| {
        let other = other_hand(path);
        other.write_all_at(&bytes_at(5_000, 100, 9), 5_000).unwrap();
        assert_eq!(read(file, 5_000, 100), bytes_at(5_000, 100, 9), "{kind:?}: overwritten");
        other.write_all_at(&bytes_at(10_000, 10_000, 1), 10_000).unwrap();
        assert_eq!(read(file, 15_000, 5_000), bytes_at(15_000, 5_000, 1), "{kind:?}: grown");
        if punch(&other, 4_096, 4_096).is_ok() {
            assert_eq!(read(file, 4_096, 4_096), [0; 4_096], "{kind:?}: punched");
        }
        other.set_len(12_000).unwrap();
        past_end(&read_error(file, 11_999, 2), 11_999, 2, 12_000);
        assert_eq!(read(file, 11_000, 1_000), bytes_at(11_000, 1_000, 1), "{kind:?}: cut");
        other.set_len(0).unwrap();
        past_end(&read_error(file, 0, 1), 0, 1, 0);
        other.set_len(3 * MIB).unwrap();
        assert_eq!(read(file, 3 * MIB - 5, 5), [0; 5], "{kind:?}: grown from nothing");
    });
}

#[test]
fn files_opened_for_reading_refuse_every_change() {
    for kind in Kind::ALL {
        let dir = scratch();
        let path = dir.path().join("data");
        fs::write(&path, bytes_at(0, 5_000, 0)).unwrap();
        let file = kind.open_read_only(&path);
        let refused = [
            (Operation::Write, file.write_at(0, b"x")),
            (Operation::Write, file.write_at(u64::MAX, b"x")),
            (Operation::SetLen, file.set_len(0)),
            (Operation::SetLen, file.set_len(u64::MAX)),
            (Operation::Reserve, file.reserve(0)),
            (Operation::Reserve, file.reserve(u64::MAX)),
            (Operation::Sync, file.sync(SyncKind::Data)),
            (Operation::Sync, file.sync(SyncKind::All)),
        ];
        for (expected, result) in refused {
            match result {
                Err(Error::ReadOnly { operation, path: at }) => assert_eq!((operation, &*at), (expected, &*path)),
                other => panic!("{kind:?} {expected}: {other:?}"),
            }
        }
        assert_eq!(read(&*file, 0, 5_000), bytes_at(0, 5_000, 0), "{kind:?}");
        assert_eq!(Done::told_by(&file.stats()), Done { reads: 1, read_bytes: 5_000, ..Done::default() });
    }
}

#[test]
fn syncs_succeed_and_are_counted() {
    each(0, |kind, file, _| {
        file.sync(SyncKind::All).unwrap();
        file.write_at(0, &[1; 10_000]).unwrap();
        file.sync(SyncKind::Data).unwrap();
        file.set_len(0).unwrap();
        file.sync(SyncKind::All).unwrap();
        assert_eq!(file.stats().syncs, 3, "{kind:?}");
    });
}

#[test]
fn statistics_say_which_path_served() {
    each(10_000, |kind, file, _| {
        for _ in 0..10 {
            read(file, 0, 1_000);
        }
        let stats = file.stats();
        let is_direct = stats.direct_io.as_ref().is_some_and(|direct_io| direct_io.refusal.is_none());
        let (served, other) = match kind {
            _ if kind.maps_resident() => (stats.mmap, stats.pread),
            _ if is_direct => (stats.direct, stats.pread),
            _ => (stats.pread, stats.mmap),
        };
        assert_eq!((served.reads, served.bytes, other.reads, other.bytes), (10, 10_000, 0, 0), "{kind:?}");
        let is_map = !matches!(kind, Kind::Pread | Kind::Uring | Kind::UringShallow | Kind::Direct);
        assert_eq!(stats.map.is_some(), is_map, "{kind:?}");
        assert_eq!(stats.direct_io.is_some(), kind == Kind::Direct, "{kind:?}");
        let expected = if is_map && !kind.maps_resident() { 10 } else { 0 };
        assert_eq!(stats.fallbacks.total(), expected, "{kind:?}");
        assert_eq!(stats.fallbacks.iter().map(|(_, count)| count).sum::<u64>(), expected);
    });
}

#[test]
fn the_ways_to_open_a_file_agree_on_what_is_wrong() {
    let dir = scratch();
    let there = dir.path().join("there");
    fs::write(&there, []).unwrap();
    let missing = dir.path().join("missing");
    let open = |options: &IoOptions, path: &PathBuf| {
        let by_mode = options.clone().mode(IoMode::Mmap).open(path).map(drop);
        [options.open_pread(path).map(drop), options.open_mmap(path).map(drop), by_mode]
    };
    for result in open(&IoOptions::new(), &missing) {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
    for result in open(&IoOptions::new().write(true).create_new(true), &there) {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EEXIST));
    }
    for (options, expected) in
        [(IoOptions::new().create(true), "create"), (IoOptions::new().create_new(true), "create_new")]
    {
        for result in open(&options, &missing) {
            assert!(matches!(result, Err(Error::InvalidOption { option, .. }) if option == expected));
        }
    }
    for range_bytes in [0, i64::MAX as u64 + 1] {
        let result = IoOptions::new().map_range_bytes(range_bytes).open_mmap(&there);
        assert!(matches!(result, Err(Error::InvalidOption { option: "map_range_bytes", .. })));
        IoOptions::new().map_range_bytes(range_bytes).open_pread(&there).unwrap();
    }
    assert!(!missing.exists(), "a refusal makes no file");
}

#[test]
fn a_file_that_is_made_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    for kind in Kind::ALL {
        let dir = scratch();
        let path = dir.path().join("data");
        kind.open(&path).write_at(0, b"x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{kind:?}");
        assert_eq!(read(&*kind.open(&path), 0, 1), b"x", "opened again it keeps what it holds");
    }
}

/// More than the largest folio of a page cache, so that a look at the last page can prove a block far from it.
const LONG: u64 = 12 * MIB;

#[test]
fn blocks_that_end_in_zeros_are_right_wherever_they_are() {
    for kind in Kind::ALL {
        let dir = scratch();
        let path = dir.path().join("data");
        let file = kind.open(&path);
        file.set_len(LONG).unwrap();
        let block = 4096;
        for number in 0..LONG / block {
            // Every second block is written, and its last quarter left as zeros.
            if number % 2 == 0 {
                file.write_at(number * block, &bytes_at(number * block, 3072, 1)).unwrap();
            }
        }
        for number in 0..LONG / block {
            let mut expected = vec![0; block as usize];
            if number % 2 == 0 {
                expected[..3072].copy_from_slice(&bytes_at(number * block, 3072, 1));
            }
            assert!(read(&*file, number * block, block as usize) == expected, "{kind:?}: block {number}");
        }
        past_end(&read_error(&*file, LONG - 1, 2), LONG - 1, 2, LONG);
        let stats = file.stats();
        assert!(stats.paths_add_up());
        if kind.maps() {
            let map = stats.map.unwrap();
            assert!(map.tail_probes > 0 && map.tail_stats > 0, "{kind:?}: {map:?}");
            assert_eq!(map.tail_probes + map.tail_stats, LONG / block, "every block ends in a zero");
            assert_eq!((stats.pread.reads, map.faults_recovered), (0, 0), "{kind:?}");
        }
    }
}

#[test]
fn blocks_that_end_in_zeros_in_a_long_file_that_is_cut() {
    for kind in Kind::ALL {
        let dir = scratch();
        let path = dir.path().join("data");
        fs::write(&path, vec![0; LONG as usize]).unwrap();
        let (file, other) = (kind.open(&path), other_hand(&path));
        for cut in [LONG - 100, 9 * MIB + 700, 8 * MIB, 3 * MIB + 1, 5_000, 4_096, 1] {
            // The last byte that is left, the first that is gone, and blocks across the end.
            other.set_len(cut).unwrap();
            past_end(&read_error(&*file, cut, 1), cut, 1, cut);
            for wanted in [2, 512, 4096, 100_000] {
                let offset = cut.saturating_sub(wanted / 2);
                past_end(&read_error(&*file, offset, wanted as usize), offset, wanted as usize, cut);
            }
            for wanted in [1, 512, 4096, 100_000] {
                let wanted = cut.min(wanted) as usize;
                assert!(read(&*file, cut - wanted as u64, wanted).iter().all(|byte| *byte == 0), "{kind:?}");
            }
            other.set_len(LONG).unwrap();
            assert!(read(&*file, LONG - 4096, 4096).iter().all(|byte| *byte == 0), "{kind:?}");
        }
        assert!(file.stats().paths_add_up());
    }
}
