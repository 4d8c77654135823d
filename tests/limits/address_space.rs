//! Too little address space, and too few map entries.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use mapfall::{BlockIo, FallbackReason, IoOptions};
use rustix::process::{Resource, getrlimit};

use crate::children::{maps_files, say};
use crate::common::{scratch, stats};
use crate::limits::{
    BLOCK, MIB, NoMapEntries, all_mapped, alone, block, blocks, check_block, fallbacks, limit, limit_address_space,
    make, map_stats, mapped_in_the_end,
};
use crate::{blocks_of, open, other_hand};

#[test]
fn no_address_space_then_some() {
    alone("address_space::no_address_space_then_some", || {
        if !maps_files("a map that is refused") {
            return;
        }
        let dir = scratch();
        let path = dir.path().join("data");
        make(&path, blocks_of(32 * MIB));
        limit_address_space(8 * MIB);
        let file = open(&path);
        for number in 0..300 {
            check_block(&file, number * 27);
        }
        let before = stats(&file);
        assert_eq!((before.mmap.reads, before.fallbacks.get(FallbackReason::MapRefused)), (0, 300));
        let map = before.map.unwrap();
        assert_eq!((map.maps, map.range_bytes, map.readable_bytes, map.step_downs), (0, 0, 0, 1));
        assert!(map.refusals > 1, "it was not tried again: {map:?}");
        assert!(map.last_refusal.unwrap().contains("memory"));

        limit(Resource::As, None);
        mapped_in_the_end(&file, 3, check_block);
        let map = map_stats(&file);
        assert_eq!((map.maps, map.returns, map.remaps, map.readable_bytes), (1, 1, 0, 32 * MIB));
        all_mapped(&file, 0..blocks_of(32 * MIB));
    });
}

/// Writes block after block, without memory for all of them.
fn append(file: &dyn BlockIo, numbers: Range<u64>) {
    numbers.for_each(|number| file.write_at(number * BLOCK, &block(number)).unwrap());
}

#[test]
fn address_space_for_a_short_range_only() {
    alone("address_space::address_space_for_a_short_range_only", || {
        if !maps_files("a short range") {
            return;
        }
        let dir = scratch();
        let path = dir.path().join("data");
        make(&path, blocks_of(4 * MIB));
        limit_address_space(24 * MIB);
        let file = IoOptions::new().write(true).map_range_bytes(1 << 40).open_mmap(&path).unwrap();
        let map = map_stats(&file);
        assert!((4 * MIB..24 * MIB).contains(&map.range_bytes), "{map:?}");
        assert_eq!((map.maps, map.refusals), (1, 0), "a shorter range is no refusal");
        all_mapped(&file, 0..blocks_of(4 * MIB));

        // It grows inside that range, then out of it.
        let range_blocks = blocks_of(map.range_bytes);
        append(&file, blocks_of(4 * MIB)..range_blocks);
        all_mapped(&file, 0..range_blocks);
        append(&file, range_blocks..blocks_of(64 * MIB));
        assert_eq!(file.len().unwrap(), 64 * MIB);
        all_mapped(&file, 0..range_blocks);
        let other = open(&path);
        assert_eq!(map_stats(&other).range_bytes, 0, "nothing is left for a second file");
        check_block(&other, 16_000);
        assert_eq!(fallbacks(&other, FallbackReason::MapRefused), 1);
        check_block(&file, 16_000);
        assert_eq!(fallbacks(&file, FallbackReason::BeyondRange), 1);

        limit(Resource::As, None);
        mapped_in_the_end(&file, 16_000, check_block);
        all_mapped(&file, 0..blocks_of(64 * MIB));
        assert_eq!(map_stats(&file).remaps, 1);
    });
}

#[test]
fn an_outgrown_map_and_no_larger_one() {
    alone("address_space::an_outgrown_map_and_no_larger_one", || {
        if !maps_files("an outgrown map") {
            return;
        }
        let dir = scratch();
        let path = dir.path().join("data");
        make(&path, 100);
        let file = IoOptions::new().map_range_bytes(2 * MIB).open_mmap(&path).unwrap();
        all_mapped(&file, 0..100);
        let content = blocks(100..blocks_of(16 * MIB));
        limit_address_space(MIB);
        other_hand(&path).write_all_at(&content, 100 * BLOCK).unwrap();
        for number in 0..1_000 {
            check_block(&file, blocks_of(2 * MIB) + number);
        }
        // A read that begins in the range and ends behind it is no less beyond it.
        let mut found = vec![0; 2 * BLOCK as usize];
        file.read_at(2 * MIB - BLOCK, &mut found).unwrap();
        assert!(found == blocks(511..513));
        let before = stats(&file);
        assert_eq!((before.pread.reads, before.fallbacks.get(FallbackReason::BeyondRange)), (1_001, 1_001));
        let map = before.map.unwrap();
        assert_eq!((map.range_bytes, map.readable_bytes, map.remaps), (2 * MIB, 2 * MIB, 0));
        assert!((2..100).contains(&map.refusals), "refused {} times in 1,001 reads", map.refusals);
        all_mapped(&file, 0..blocks_of(2 * MIB));

        limit(Resource::As, None);
        mapped_in_the_end(&file, 4_000, check_block);
        all_mapped(&file, 0..blocks_of(16 * MIB));
        assert_eq!(map_stats(&file).remaps, 1);
    });
}

#[test]
fn more_files_than_their_ranges_have_room_for() {
    alone("address_space::more_files_than_their_ranges_have_room_for", || {
        let maps = maps_files("files that share the address space");
        let dir = scratch();
        let files: Vec<_> = (0..200)
            .map(|number| {
                let path = dir.path().join(number.to_string());
                fs::write(&path, block(number)).unwrap();
                IoOptions::new().map_range_bytes(1 << 40).open_mmap(&path).unwrap()
            })
            .collect();
        for (number, file) in files.iter().enumerate() {
            let mut found = vec![0; BLOCK as usize];
            file.read_at(0, &mut found).unwrap();
            assert!(found == block(number as u64));
            let stats = stats(file);
            assert_eq!((stats.reads, stats.mmap.reads), (1, u64::from(maps && stats.map.unwrap().maps > 0)));
        }
        let ranges = files.iter().map(|file| map_stats(file).range_bytes);
        assert!(!maps || ranges.clone().any(|bytes| bytes == 1 << 40), "none got what was asked for");
        assert!(!maps || ranges.clone().any(|bytes| bytes < 1 << 40), "all got what they asked for: it is no limit");
    });
}

#[test]
fn files_in_their_thousands_leave_address_space_to_others() {
    const FILES: u64 = 9_000;
    alone("address_space::files_in_their_thousands_leave_address_space_to_others", || {
        limit(Resource::Nofile, None);
        if getrlimit(Resource::Nofile).current.is_some_and(|files| files < FILES + 100) {
            return say("SKIPPED files_in_their_thousands: the hard limit on open files is lower");
        }
        let maps = maps_files("the address space that thousands of files take");
        let dir = scratch();
        let path = dir.path().join("data");
        make(&path, 3);
        let files: Vec<_> = (0..FILES).map(|_| open(&path)).collect();
        for file in &files {
            check_block(file, 2);
            assert_eq!(stats(file).mmap.reads, u64::from(maps));
        }
        // Without a limit of its own, what a process can still have is memory's affair.
        assert!(Vec::<u8>::new().try_reserve_exact(1 << 30).is_ok(), "the maps have taken all addresses there are");
    });
}

#[test]
fn no_map_entries_then_some() {
    alone("address_space::no_map_entries_then_some", || {
        if !maps_files("a map for which there is no entry") {
            return;
        }
        let dir = scratch();
        let path = dir.path().join("data");
        make(&path, 1_000);
        let mut outcomes = [false; 2];
        // With none left the reservation is refused, with a few the map inside it is, with more neither.
        for left in [0, 1, 2, 3, 4, 6, 8, 12] {
            let Some(taken) = NoMapEntries::but(left) else {
                say("SKIPPED no_map_entries_then_some: vm.max_map_count is too large to be used up");
                return;
            };
            let file = open(&path);
            let mapped = map_stats(&file).maps == 1;
            outcomes[usize::from(mapped)] = true;
            for number in 0..200 {
                check_block(&file, number);
            }
            let reads = stats(&file);
            if mapped {
                assert_eq!((reads.mmap.reads, reads.fallbacks.total()), (200, 0));
            } else {
                assert_eq!((reads.pread.reads, reads.fallbacks.get(FallbackReason::MapRefused)), (200, 200));
                assert!(reads.map.unwrap().last_refusal.unwrap().contains("memory"));
            }
            drop(taken);
            mapped_in_the_end(&file, 5, check_block);
            all_mapped(&file, 0..1_000);
            assert_eq!(map_stats(&file).returns, u64::from(!mapped));
        }
        assert_eq!(outcomes, [true, true], "the map must be refused with no entry left and had with a dozen");
    });
}
