//! Files that may not grow, by a limit on their size or by a full file system, and space that is reserved before it is
//! needed.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mapfall::{BlockIo, Error, FallbackReason, IoOptions, Operation, SyncKind};
use rustix::process::Resource;

use crate::children::maps_files;
use crate::common::{scratch, stats};
use crate::limits::{
    BLOCK, MIB, all_mapped, alone, alone_with_mounts, block, blocks, check_block, check_hole, fallbacks, fill,
    ignore_file_size_signal, limit, make, map_stats, mapped_in_the_end, run, small_tmpfs,
};
use crate::{blocks_of, open_to_write};

fn open_either(maps: bool, path: &Path) -> Box<dyn BlockIo> {
    let options = IoOptions::new().write(true);
    match maps {
        false => Box::new(options.open_pread(path).unwrap()),
        true => Box::new(options.open_mmap(path).unwrap()),
    }
}

/// The system's own refusal, with this number.
fn refused(result: mapfall::Result<()>, expected: Operation, errno: i32) {
    match result {
        Err(Error::Io { operation, source, .. }) => {
            assert_eq!((operation, source.raw_os_error()), (expected, Some(errno)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_limit_on_file_sizes() {
    alone("disk::a_limit_on_file_sizes", || {
        ignore_file_size_signal();
        for maps in [false, true] {
            let dir = scratch();
            let path = dir.path().join("data");
            make(&path, blocks_of(MIB) / 2);
            let file = open_either(maps, &path);
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let read = || {
                    while !stop.load(Ordering::Relaxed) {
                        (0..blocks_of(MIB) / 2).for_each(|number| check_block(&*file, number));
                    }
                };
                let readers = [scope.spawn(read), scope.spawn(read)];
                limit(Resource::Fsize, Some(MIB));
                for _ in 0..50 {
                    refused(file.set_len(MIB + 1), Operation::SetLen, libc::EFBIG);
                    refused(file.reserve(MIB + 1), Operation::Reserve, libc::EFBIG);
                    refused(file.write_at(MIB, b"x"), Operation::Write, libc::EFBIG);
                    refused(file.write_at(MIB - 10, &[7; 20]), Operation::Write, libc::EFBIG);
                    assert!((MIB / 2..=MIB).contains(&file.len().unwrap()));
                }
                limit(Resource::Fsize, None);
                stop.store(true, Ordering::Relaxed);
                readers.into_iter().for_each(|reader| reader.join().unwrap());
            });
            let before = stats(&*file);
            assert_eq!((before.writes, before.write_bytes, before.failed_reads), (0, 0, 0));
            assert_eq!((before.set_lens, before.reserves, before.reserve_fallbacks), (0, 0, 0));
            // The part that was written is there, as documented.
            let mut found = vec![0xEE; 10];
            file.read_at(MIB - 10, &mut found).unwrap();
            assert_eq!(found, [7; 10]);
            file.set_len(2 * MIB).unwrap();
            file.write_at(2 * MIB - BLOCK, &block(511)).unwrap();
            check_block(&*file, 511);
            if maps && maps_files("the map's part of file size limits") {
                assert_eq!(stats(&*file).pread.reads, 0);
            }
        }
    });
}

#[test]
fn a_file_system_that_is_full() {
    alone_with_mounts("disk::a_file_system_that_is_full", || {
        let dir = scratch();
        if !small_tmpfs(dir.path(), 8 * MIB) {
            return;
        }
        let path = dir.path().join("data");
        make(&path, 100);
        let file = open_to_write(&path);
        let mut count = 100;
        let error = loop {
            match file.write_at(count * BLOCK, &blocks(count..count + 16)) {
                Ok(()) => count += 16,
                Err(error) => break error,
            }
        };
        assert!((1_000..2_048).contains(&count));
        assert!(matches!(error, Error::Io { operation: Operation::Write, .. }), "{error}");
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        let maps = maps_files("the map of a file on a full file system");
        for number in 0..count {
            check_block(&file, number);
        }
        let served = stats(&file);
        assert_eq!((served.reads, served.failed_reads), (count, 0));
        assert_eq!(served.pread.reads, if maps { 0 } else { count }, "all of it is there to be mapped");
        file.sync(SyncKind::All).unwrap();

        // Room again.
        file.set_len(50 * BLOCK).unwrap();
        file.write_at(50 * BLOCK, &blocks(50..200)).unwrap();
        (0..200).for_each(|number| check_block(&file, number));
    });
}

#[test]
fn holes_on_a_full_file_system() {
    alone_with_mounts("disk::holes_on_a_full_file_system", || {
        let dir = scratch();
        if !small_tmpfs(dir.path(), 8 * MIB) || !maps_files("holes that cannot be filled") {
            return;
        }
        let path = dir.path().join("data");
        make(&path, 100);
        let file = open_to_write(&path);
        file.set_len(4 * MIB).unwrap();
        fill(&dir.path().join("rest"));
        all_mapped(&file, 0..100);

        // The hole faults under the map, and the system call finds the zeros that are in it.
        check_hole(&file, 700);
        let map = map_stats(&file);
        // The end of the file is such a hole too, and was looked at: that sends no read to a system call.
        assert_eq!((map.faults_recovered, map.step_downs), (2, 0));
        assert_eq!(fallbacks(&file, FallbackReason::Fault), 1);
        assert_eq!(fallbacks(&file, FallbackReason::SuspectRegion), 0);
        // From now on its neighbourhood is left alone, the rest of the file is not.
        check_hole(&file, 701);
        assert_eq!(fallbacks(&file, FallbackReason::SuspectRegion), 1);
        all_mapped(&file, 0..100);
        for number in 0..1_000 {
            check_hole(&file, 600 + number % 400);
        }
        let later = stats(&file);
        assert_eq!(later.fallbacks.get(FallbackReason::Fault) + 1, later.map.unwrap().faults_recovered);
        assert!((2..50).contains(&later.fallbacks.get(FallbackReason::Fault)), "{:?}", later.fallbacks);

        fs::remove_file(dir.path().join("rest")).unwrap();
        mapped_in_the_end(&file, 700, check_hole);
    });
}

#[test]
fn more_broken_places_than_are_remembered() {
    alone_with_mounts("disk::more_broken_places_than_are_remembered", || {
        let dir = scratch();
        if !small_tmpfs(dir.path(), 8 * MIB) || !maps_files("many holes that cannot be filled") {
            return;
        }
        let path = dir.path().join("data");
        make(&path, 100);
        let file = open_to_write(&path);
        file.set_len(1 << 30).unwrap();
        fill(&dir.path().join("rest"));
        for number in 1..512 {
            check_hole(&file, number * blocks_of(2 * MIB));
        }
        let before = stats(&file);
        let map = before.map.unwrap();
        assert!(map.step_downs > 0 && map.readable_bytes == 0, "the whole map stands aside: {map:?}");
        assert!(before.fallbacks.get(FallbackReason::SuspectRegion) > 300, "{:?}", before.fallbacks);
        assert!(map.faults_recovered < 200, "a fault for nearly every read: {map:?}");
        (0..100).for_each(|number| check_block(&file, number));

        fs::remove_file(dir.path().join("rest")).unwrap();
        for number in [0, 99] {
            mapped_in_the_end(&file, number, check_block);
        }
        assert!(map_stats(&file).returns > 0);
    });
}

// ---- Space that is reserved ----

#[test]
fn reserved_space_is_there_when_the_rest_is_gone() {
    alone_with_mounts("disk::reserved_space_is_there_when_the_rest_is_gone", || {
        let dir = scratch();
        if !small_tmpfs(dir.path(), 4 * MIB) {
            return;
        }
        for maps in [false, true] {
            let path = dir.path().join("data");
            make(&path, 100);
            let file = open_either(maps, &path);
            for _ in 0..3 {
                refused(file.reserve(8 * MIB), Operation::Reserve, libc::ENOSPC);
                assert_eq!(file.len().unwrap(), 100 * BLOCK);
            }
            let end = blocks_of(MIB);
            file.reserve(MIB).unwrap();
            fill(&dir.path().join("rest"));
            check_hole(&*file, 100);
            check_hole(&*file, end - 1);
            refused(file.reserve(MIB + 1), Operation::Reserve, libc::ENOSPC);
            refused(file.write_at(MIB, b"x"), Operation::Write, libc::ENOSPC);
            file.write_at(100 * BLOCK, &blocks(100..end)).unwrap();
            (0..end).for_each(|number| check_block(&*file, number));
            let served = stats(&*file);
            assert_eq!((served.reserves, served.reserve_fallbacks, served.failed_reads), (1, 0, 0));
            if maps && maps_files("the map of reserved space") {
                assert_eq!(served.pread.reads, 0);
            }
            fs::remove_file(path).unwrap();
            fs::remove_file(dir.path().join("rest")).unwrap();
        }
    });
}

/// ext4 makes the file longer, piece by piece, until there is no space left.
#[test]
fn a_reservation_that_fails_half_way_is_undone() {
    let test = "disk::a_reservation_that_fails_half_way_is_undone";
    alone_with_mounts(test, || {
        let dir = scratch();
        let (image, root) = (dir.path().join("image"), dir.path().join("root"));
        File::create(&image).unwrap().set_len(16 * MIB).unwrap();
        fs::create_dir(&root).unwrap();
        if !run(test, "mkfs.ext4", &["-q", "-F"], &image)
            || !run(test, "mount", &["-o", "loop", image.to_str().unwrap()], &root)
        {
            return;
        }
        for maps in [false, true] {
            let path = root.join("data");
            make(&path, 100);
            let file = open_either(maps, &path);
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let reserver = scope.spawn(|| {
                    let mut refusals = 0;
                    while !stop.load(Ordering::Relaxed) || refusals < 5 {
                        refused(file.reserve(1 << 30), Operation::Reserve, libc::ENOSPC);
                        refusals += 1;
                    }
                });
                // What is appended meanwhile has its place, and is not cut off.
                for number in 100..300 {
                    file.write_at(number * BLOCK, &block(number)).unwrap();
                    check_block(&*file, number);
                }
                stop.store(true, Ordering::Relaxed);
                reserver.join().unwrap();
            });
            assert_eq!(file.len().unwrap(), 300 * BLOCK);
            file.reserve(8 * MIB).unwrap();
            check_hole(&*file, blocks_of(8 * MIB) - 1);
            (0..300).for_each(|number| check_block(&*file, number));
            let served = stats(&*file);
            assert_eq!((served.reserves, served.reserve_fallbacks, served.failed_reads), (1, 0, 0));
            drop(file);
            fs::remove_file(path).unwrap();
        }
    });
}

#[test]
fn where_no_space_can_be_allocated_the_length_is_set() {
    let test = "disk::where_no_space_can_be_allocated_the_length_is_set";
    alone_with_mounts(test, || {
        let dir = scratch();
        if !run(test, "mount", &["-t", "ramfs", "none"], dir.path()) {
            return;
        }
        for maps in [false, true] {
            let path = dir.path().join(maps.to_string());
            make(&path, 100);
            let file = open_either(maps, &path);
            for (wanted, fallbacks) in [(4 * BLOCK, 0), (200 * BLOCK, 1), (150 * BLOCK, 1), (MIB, 2)] {
                file.reserve(wanted).unwrap();
                assert_eq!(file.len().unwrap(), wanted.max([100, 200][usize::from(fallbacks > 0)] * BLOCK));
                assert_eq!(stats(&*file).reserve_fallbacks, fallbacks);
            }
            check_hole(&*file, blocks_of(MIB) - 1);
            let served = stats(&*file);
            assert_eq!((served.reserves, served.set_lens), (4, 0));

            // Each sets the length that it has promised, and what was appended since is longer than that.
            let end = blocks_of(2 * MIB);
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let reserve = || {
                    while !stop.load(Ordering::Relaxed) {
                        file.reserve(file.len().unwrap() + 1).unwrap();
                    }
                };
                let reservers = [scope.spawn(reserve), scope.spawn(reserve)];
                (0..end).for_each(|number| file.write_at(number * BLOCK, &block(number)).unwrap());
                stop.store(true, Ordering::Relaxed);
                reservers.into_iter().for_each(|reserver| reserver.join().unwrap());
            });
            (0..end).for_each(|number| check_block(&*file, number));
        }
    });
}
