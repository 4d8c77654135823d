//! What a store says to files and addresses that are not its own: of a newer version, of another store, of no block.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/common.rs"]
mod common;

use std::fs;
use std::path::Path;

use mapfall::{
    BlockAddr, CheckpointOptions, Error, IoMode, IoOptions, PageId, Part, ProblemKind, Snapshot, Store, StoreOptions,
    VerifyOptions,
};

use common::scratch;

const SUPERBLOCK_BYTES: usize = 512;
const SLOTS: [usize; 2] = [8192, 16384];
const SLOT_AREA_BYTES: usize = 8192;

fn options() -> StoreOptions {
    StoreOptions::default().io(IoOptions::default().mode(IoMode::Pread))
}

/// A store with a page of ones, and a block.
fn make(path: &Path) -> (Store, BlockAddr) {
    let store = options().create(path).unwrap();
    let page = store.pages().allocate().unwrap();
    store.pages().write(page, &[1; 4096]).unwrap();
    let block = store.blocks().write(&[2; 700]).unwrap();
    store.checkpoint(CheckpointOptions::new()).unwrap();
    (store, block)
}

fn page_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut page = vec![0; 4096];
    snapshot.read(PageId(0), &mut page).unwrap();
    page
}

/// Puts bytes into both superblocks, with right checksums.
fn change_superblocks(path: &Path, at: usize, bytes: &[u8]) {
    let mut file = fs::read(path).unwrap();
    for superblock in file[..2 * 4096].chunks_mut(4096) {
        superblock[at..at + bytes.len()].copy_from_slice(bytes);
        let sum = crc32fast::hash(&superblock[..SUPERBLOCK_BYTES - 4]);
        superblock[SUPERBLOCK_BYTES - 4..SUPERBLOCK_BYTES].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(path, file).unwrap();
}

#[test]
fn what_a_newer_version_made_is_refused_by_name_and_not_touched() {
    for (at, bytes, said) in [
        (8, &2_u32.to_le_bytes()[..], "expected format version 1, found 2"),
        (40, &[0x10], "unknown incompatible features 0x10"),
        (20, &[9], "unknown checksum kind 9"),
    ] {
        let dir = scratch();
        let path = dir.path().join("store");
        drop(make(&path));
        change_superblocks(&path, at, bytes);
        let before = fs::read(&path).unwrap();
        let results = [
            options().open(&path).map(drop),
            options().open_or_create(&path).map(drop),
            options().open_snapshot(&path).map(drop),
            options().verify(&path, &VerifyOptions::default(), &mut |_| ()).map(drop),
        ];
        for result in results {
            let Err(Error::Unsupported { problem, .. }) = result else { panic!("{said}: {result:?}") };
            assert_eq!(problem, said);
        }
        assert!(fs::read(&path).unwrap() == before, "{said}: the file was changed");
    }
}

#[test]
fn what_only_a_newer_version_may_write_is_read() {
    let dir = scratch();
    let path = dir.path().join("store");
    drop(make(&path));
    change_superblocks(&path, 32, &[4]);
    let before = fs::read(&path).unwrap();
    let result = options().open(&path);
    let Err(Error::Unsupported { problem, .. }) = result else { panic!("{result:?}") };
    assert_eq!(problem, "features 0x4 forbid it to write");
    let snapshot = options().open_snapshot(&path).unwrap();
    assert_eq!(page_of(&snapshot), [1; 4096]);
    assert!(snapshot.io_stats().paths_add_up() && snapshot.io_stats().read_bytes > 0);
    assert!(snapshot.cache_stats().is_none());
    assert!(fs::read(&path).unwrap() == before, "the file was changed");
}

#[test]
fn checkpoints_of_another_store_or_in_the_wrong_slot_are_damage() {
    let dir = scratch();
    let (path, other) = (dir.path().join("store"), dir.path().join("other"));
    drop(make(&path));
    drop(make(&other));
    let (own, foreign) = (fs::read(&path).unwrap(), fs::read(&other).unwrap());
    let refused = |file: &[u8], said: &str| {
        fs::write(&path, file).unwrap();
        for result in [options().open(&path).map(drop), options().open_snapshot(&path).map(drop)] {
            let Err(Error::Corrupt { part: Part::Slot, problem, .. }) = result else { panic!("{said}: {result:?}") };
            assert!(problem.contains(said), "{problem}");
        }
    };
    let slots = SLOTS[0]..SLOTS[1] + SLOT_AREA_BYTES;
    let mut file = own.clone();
    file[slots.clone()].copy_from_slice(&foreign[slots]);
    refused(&file, "it belongs to another file");
    let mut file = own.clone();
    for (at, from) in [(0, 1), (1, 0)] {
        file[SLOTS[at]..SLOTS[at] + SLOT_AREA_BYTES].copy_from_slice(&own[SLOTS[from]..SLOTS[from] + SLOT_AREA_BYTES]);
    }
    refused(&file, "belongs into the other slot");
}

#[test]
fn addresses_of_no_block_of_the_store_are_refused() {
    let dir = scratch();
    let (store, block) = make(&dir.path().join("store"));
    // As packed, but for one number: sectors of 512 bytes, the length less 1, the generation.
    let unpack = |sectors: u64, len_less_1: u64, generation: u64| {
        let mut packed = Vec::new();
        for mut number in [sectors, len_less_1, generation] {
            while number >= 0x80 {
                packed.push(number as u8 | 0x80);
                number >>= 7;
            }
            packed.push(number as u8);
        }
        BlockAddr::unpack(&[&packed[..], &[7; 4]].concat()).unwrap().0
    };
    let sectors = block.offset() / 512;
    let (read, free) =
        (|address: &BlockAddr| store.blocks().read_vec(address), |address: &BlockAddr| store.blocks().free(address));
    for (what, address) in [
        ("within a unit", unpack(sectors + 1, 699, block.generation())),
        ("in the header", unpack(8, 699, block.generation())),
    ] {
        assert!(matches!(read(&address), Err(Error::InvalidAddress { .. })), "{what}: {:?}", read(&address));
        assert!(matches!(free(&address), Err(Error::InvalidAddress { .. })), "{what}: {:?}", free(&address));
        let text = format!("{address:?}");
        assert!(text == format!("{address}") && !text.is_empty());
    }
    let later = unpack(sectors, 699, block.generation() + 1000);
    assert!(matches!(free(&later), Err(Error::InvalidAddress { .. })), "a write that was not");
    let past_end = unpack(1 << 40, 699, block.generation());
    assert!(matches!(free(&past_end), Err(Error::InvalidAddress { .. })), "past the end");
    let result = store.blocks().pin(&past_end).map(drop);
    assert!(matches!(result, Err(Error::Corrupt { .. } | Error::PastEnd { .. })), "{result:?}");
    // Of a block that was written since the last checkpoint, with another generation.
    let new = store.blocks().write(&[3; 700]).unwrap();
    let stale = unpack(new.offset() / 512, 699, block.generation());
    assert!(matches!(free(&stale), Err(Error::InvalidAddress { .. })), "{:?}", free(&stale));
    assert_eq!(store.blocks().read_vec(&new).unwrap(), [3; 700]);
    free(&new).unwrap();

    let given = vec![block, unpack(sectors + 1, 699, block.generation())];
    let report = store.verify(&VerifyOptions::new().blocks(given), &mut |_| ()).unwrap();
    let kinds: Vec<_> = report.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::OutOfRange], "{report:#?}");
    assert_eq!(store.snapshot().read_block_vec(&block).unwrap(), [2; 700]);
}

#[test]
fn a_store_is_made_only_where_there_is_none() {
    let dir = scratch();
    let path = dir.path().join("store");
    drop(options().open_or_create(&path).unwrap());
    fs::remove_file(&path).unwrap();
    drop(make(&path));
    let store = options().open_or_create(&path).unwrap();
    assert_eq!(page_of(&store.snapshot()), [1; 4096]);
    assert!(matches!(options().open_or_create(&path), Err(Error::Locked { .. })));
    drop(store);
    let io = IoOptions::new().write(true).open(&path).unwrap();
    let result = options().create_io(io);
    assert!(matches!(result, Err(Error::InvalidOption { option: "create_io", .. })), "{result:?}");
    fs::write(dir.path().join("text"), "no store, and long enough to be none of ours").unwrap();
    let result = options().open_or_create(dir.path().join("text"));
    assert!(matches!(result, Err(Error::NotAStore { .. })), "{result:?}");
}

#[test]
fn a_thousand_checkpoints_are_kept_and_no_more() {
    let dir = scratch();
    let (store, _) = make(&dir.path().join("store"));
    for number in 0..1000 {
        store.checkpoint(CheckpointOptions::new().keep_as(&format!("{number}"))).unwrap();
    }
    let more = || store.checkpoint(CheckpointOptions::new().keep_as("more"));
    let result = more();
    assert!(matches!(&result, Err(Error::InvalidOption { option: "keep_as", .. })), "{result:?}");
    store.drop_checkpoint("500").unwrap();
    more().unwrap();
    assert_eq!(store.checkpoints().len(), 1000);
}
