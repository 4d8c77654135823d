//! What the random steps have found, as tests of their own.

use std::os::unix::fs::FileExt;

use mapfall::{CheckpointOptions, Error, IoMode, IoOptions, Part, Store, Verification};
use tempfile::TempDir;

use crate::common::{other_hand, scratch};

fn new() -> (TempDir, Store) {
    let dir = scratch();
    let store = Store::options().unit_bytes(512).page_bytes(512).create(dir.path().join("store")).unwrap();
    (dir, store)
}

fn checkpoint(store: &Store) -> u64 {
    store.checkpoint(CheckpointOptions::new()).unwrap().generation
}

/// The page table's nodes of a checkpoint are written behind its cut. They are its own all the same.
#[test]
fn a_checkpoint_keeps_the_nodes_of_its_page_table() {
    let (_dir, store) = new();
    let page = store.pages().allocate().unwrap();
    store.pages().write(page, &[1; 512]).unwrap();
    store.checkpoint(CheckpointOptions::new().keep_as("kept")).unwrap();
    let snapshot = store.snapshot();
    store.pages().write(page, &[2; 512]).unwrap();
    checkpoint(&store);
    // Space for one node is taken as soon as there is some.
    store.blocks().write(&[3; 4096]).unwrap();
    store.blocks().write(&[3; 4096]).unwrap();
    for snapshot in [snapshot, store.snapshot_of("kept").unwrap()] {
        let mut buf = [0; 512];
        snapshot.read(page, &mut buf).unwrap();
        assert_eq!(buf, [1; 512]);
    }
}

/// A second free is refused as long as the first one has not made the space free, whoever still has it. If it were not,
/// no checkpoint could be made anymore.
#[test]
fn a_block_that_someone_still_has_is_freed_once() {
    let (dir, store) = new();
    let path = dir.path().join("store");
    let blocks: Vec<_> = (1..=4).map(|byte| store.blocks().write(&[byte; 700]).unwrap()).collect();
    checkpoint(&store);
    let refused = |store: &Store, block: usize| {
        let result = store.blocks().free(&blocks[block]);
        assert!(matches!(result, Err(Error::InvalidAddress { .. })), "block {block}: {result:?}");
    };

    store.blocks().free(&blocks[0]).unwrap();
    let pending = store.begin_checkpoint(CheckpointOptions::new()).unwrap();
    refused(&store, 0);
    drop(pending);
    refused(&store, 0);
    checkpoint(&store);

    let snapshot = store.snapshot();
    store.blocks().free(&blocks[1]).unwrap();
    checkpoint(&store);
    refused(&store, 1);
    drop(snapshot);
    refused(&store, 1);

    store.checkpoint(CheckpointOptions::new().keep_as("kept")).unwrap();
    store.blocks().free(&blocks[2]).unwrap();
    checkpoint(&store);
    refused(&store, 2);
    drop(store);
    let store = Store::options().open(&path).unwrap();
    refused(&store, 2);
    store.drop_checkpoint("kept").unwrap();
    checkpoint(&store);
    refused(&store, 2);

    let reader = Store::options().io(IoOptions::new().mode(IoMode::Mmap)).open_snapshot(&path).unwrap();
    store.blocks().free(&blocks[3]).unwrap();
    checkpoint(&store);
    refused(&store, 3);
    drop(store);
    let store = Store::options().open(&path).unwrap();
    refused(&store, 3);
    drop(reader);
    checkpoint(&store);
    store.validate().unwrap();
}

/// A block that a kept checkpoint had when the store was opened, and a reader of an older checkpoint has still.
#[test]
fn a_block_of_a_dropped_checkpoint_that_a_reader_has_is_freed_once() {
    let (dir, store) = new();
    let path = dir.path().join("store");
    let block = store.blocks().write(&[1; 700]).unwrap();
    store.checkpoint(CheckpointOptions::new().keep_as("kept")).unwrap();
    store.blocks().free(&block).unwrap();
    let reader = Store::options().open_snapshot(&path).unwrap();
    checkpoint(&store);
    drop(store);
    let store = Store::options().open(&path).unwrap();
    store.drop_checkpoint("kept").unwrap();
    checkpoint(&store);
    let result = store.blocks().free(&block);
    assert!(matches!(result, Err(Error::InvalidAddress { .. })), "{result:?}");
    drop(reader);
}

/// A checkpoint that is being dropped cannot be dropped again.
#[test]
fn a_checkpoint_is_dropped_once() {
    for commit in [true, false] {
        let (_dir, store) = new();
        store.checkpoint(CheckpointOptions::new().keep_as("kept")).unwrap();
        store.drop_checkpoint("kept").unwrap();
        let pending = store.begin_checkpoint(CheckpointOptions::new()).unwrap();
        assert!(matches!(store.drop_checkpoint("kept"), Err(Error::NoSuchCheckpoint { .. })));
        if commit {
            _ = pending.commit().unwrap()
        } else {
            drop(pending)
        }
        store.checkpoint(CheckpointOptions::new().keep_as("another")).unwrap();
        assert_eq!(store.checkpoints().len(), 1);
    }
}

/// Bytes that are moved get another checksum: it must not be that of damage.
#[test]
fn a_damaged_block_is_not_moved_whatever_is_verified() {
    for verification in [Verification::Always, Verification::Off] {
        let (dir, store) = new();
        let path = dir.path().join("store");
        let filler = store.blocks().write(&vec![1; 100_000]).unwrap();
        let block = store.blocks().write(&[2; 700]).unwrap();
        checkpoint(&store);
        store.blocks().free(&filler).unwrap();
        checkpoint(&store);
        drop(store);
        other_hand(&path).write_all_at(&[3], block.offset() + 99).unwrap();
        let store = Store::options().verification(verification).open(&path).unwrap();
        let result = store.blocks().move_down(&block);
        assert!(matches!(result, Err(Error::Corrupt { part: Part::Block, .. })), "{verification:?}: {result:?}");
        store.validate().unwrap();
    }
}
