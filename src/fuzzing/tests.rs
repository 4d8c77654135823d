//! Files that the fuzz targets found to take hours or all memory: each is small, and claims much.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::format::Name;
use crate::{CheckpointOptions, Error, Operation, PageId, Store, VerifyOptions, VerifyReport};

const END: u64 = 1 << 40;

fn file(forge: Forge, numbers: Numbers) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    fs::write(&path, forge.file(numbers)).unwrap();
    (dir, path)
}

fn numbers() -> Numbers {
    Numbers { generation: 2, sequence: 5, end_units: 100, page_limit: 512, ..Numbers::default() }
}

fn node(forge: &mut Forge, words: &[u64], count: u64) -> [u64; 4] {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(forge.node_bytes(), 0);
    let [offset, generation, checksum, _] = forge.block(&bytes);
    [offset, generation, checksum, count]
}

/// A tree of few nodes, in each of which all children are the same one, down to this leaf.
fn bomb(forge: &mut Forge, words: &[u64], leaf_count: u64) -> Root {
    let mut child = node(forge, words, leaf_count);
    let height = 4;
    for _ in 0..height {
        let count = (child[3] * 128).min(END);
        child = node(forge, &child.repeat(forge.node_bytes() / CHILD_BYTES), count);
    }
    Root { child, height }
}

fn verified(path: &PathBuf) -> VerifyReport {
    Store::options().verify(path, &VerifyOptions::new(), &mut |_| ()).unwrap()
}

#[test]
fn a_file_may_claim_any_length_and_any_number_of_pages() {
    let numbers = Numbers { end_units: END, page_limit: PAGES_MAX, ..numbers() };
    let (dir, path) = file(Forge::new(0, 0), numbers);
    let report = verified(&path);
    assert!(report.is_clean() && report.pages == 0, "{report:?}");

    let snapshot = Store::options().open_snapshot(&path).unwrap();
    assert_eq!(snapshot.iter().count(), 0);
    assert!(matches!(snapshot.read(PageId(PAGES_MAX - 1), &mut [0; 512]), Err(Error::NoSuchPage { .. })));
    drop(snapshot);

    let salvaged = dir.path().join("salvaged");
    let report = Store::options().salvage(&path, &salvaged, &mut |_| ()).unwrap();
    assert!(report.is_complete() && fs::metadata(&salvaged).unwrap().len() < 1 << 20, "{report:?}");
    assert!(verified(&salvaged).is_clean());

    let store = Store::options().open(&path).unwrap();
    assert_eq!(store.pages().iter().count(), 0);
    let page = store.pages().allocate().unwrap();
    assert_eq!(store.pages().iter().map(Result::unwrap).collect::<Vec<_>>(), [page]);
    store.checkpoint(CheckpointOptions::new()).unwrap();
    assert_eq!(store.pages().iter().count(), 1);
}

#[test]
fn a_page_table_whose_nodes_are_in_many_places_is_damage() {
    let mut forge = Forge::new(0, 0);
    // Pages that were never written.
    let leaf = [2, 0].repeat(256);
    let pages = bomb(&mut forge, &leaf, 256);
    let numbers = Numbers { pages, page_limit: PAGES_MAX, ..numbers() };
    let (dir, path) = file(forge, numbers);
    assert!(!verified(&path).is_clean());
    let snapshot = Store::options().open_snapshot(&path).unwrap();
    let (mut pages, mut errors) = (0, 0);
    for page in snapshot.iter() {
        match page {
            Ok(_) => pages += 1,
            Err(Error::Corrupt { .. }) => errors += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(pages < 100 * 256 && errors == 1, "{pages} pages, {errors} errors");
    drop(snapshot);
    let salvaged = dir.path().join("salvaged");
    let report = Store::options().salvage(&path, &salvaged, &mut |_| ()).unwrap();
    assert!(!report.is_complete(), "{report:?}");
}

#[test]
fn lists_of_extents_whose_nodes_are_in_many_places_are_damage() {
    let mut forge = Forge::new(0, 0);
    let held = bomb(&mut forge, &[60, 1, 1, 2].repeat(128), 128);
    let space = bomb(&mut forge, &[u64::MAX; 512], 32768);
    let (_dir, path) = file(forge, Numbers { held, space, end_units: END, ..numbers() });
    assert!(!verified(&path).is_clean());
    let store = Store::options().open(&path).unwrap();
    assert!(store.validate().is_err());
    assert!(store.pages().allocate().is_ok());
}

/// Each leaf of the space map claims room and has none: they are gone through once, and not from the root on for each.
#[test]
fn a_space_map_may_claim_room_that_it_does_not_have() {
    let mut forge = Forge::new(0, 0);
    let space = bomb(&mut forge, &[u64::MAX; 512], 0);
    let (_dir, path) = file(forge, Numbers { space, end_units: END, ..numbers() });
    let store = Store::options().open(&path).unwrap();
    let page = store.pages().allocate().unwrap();
    let written = store.pages().write(page, &[1; 512]);
    assert!(matches!(written, Err(Error::Corrupt { .. })), "{written:?}");
    let reads = store.io_stats().reads;
    assert!(reads < 2 * crate::tree::FEW_NODES, "{reads} reads");
}

/// All free space is kept for the next checkpoint, since the file claims to have so much that it would take: it is
/// looked for in leaves that are not there, in front of one that is.
#[test]
fn what_is_kept_for_a_checkpoint_may_be_more_than_there_is() {
    let mut forge = Forge::new(0, 0);
    let mut child = node(&mut forge, &[u64::MAX; 512], 32768);
    for _ in 0..2 {
        child = node(&mut forge, &[&[0; 127 * 4], &child[..]].concat(), 32768);
    }
    let (name, pages) = ("one".to_owned(), Tree { root: Child::NONE, height: 0 });
    let names =
        Names(vec![Name { name, generation: 1, sequence: 1, page_limit: 0, pages, cookie: Vec::new() }]).encode();
    let mut names_at = forge.block(&names);
    names_at[3] = names.len() as u64;
    let space = Root { child, height: 2 };
    let (_dir, path) = file(forge, Numbers { space, names: names_at, raw_units: END, end_units: END, ..numbers() });
    let store = Store::options().open(&path).unwrap();
    let page = store.pages().allocate().unwrap();
    let written = store.pages().write(page, &[1; 512]);
    assert!(matches!(written, Err(Error::Io { operation: Operation::Reserve, .. })), "{written:?}");
    let reads = store.io_stats().reads;
    assert!(reads < 100, "{reads} reads");
}

/// An extent may be as long as the file claims to be.
#[test]
fn a_held_extent_may_claim_any_length() {
    let mut forge = Forge::new(0, 0);
    let child = node(&mut forge, &[200, END - 200, 1, 2], 1);
    let (_dir, path) = file(forge, Numbers { held: Root { child, height: 0 }, end_units: END, ..numbers() });
    assert!(!verified(&path).is_clean());
}

/// Leaves that claim to be full are passed over without a look at each page in them.
#[test]
fn pages_may_be_claimed_without_end() {
    let mut forge = Forge::new(0, 0);
    let mut child = node(&mut forge, &[2, 0], 1);
    child[3] = END;
    let (_dir, path) = file(forge, Numbers { pages: Root { child, height: 4 }, page_limit: PAGES_MAX, ..numbers() });
    let store = Store::options().open(&path).unwrap();
    let allocated = store.pages().allocate();
    assert!(matches!(allocated, Ok(_) | Err(Error::Corrupt { .. } | Error::NoSuchPage { .. })), "{allocated:?}");
}

/// Who rewrites the list goes by what is in it.
#[test]
fn a_held_list_may_claim_any_number_of_extents() {
    let mut forge = Forge::new(0, 0);
    let held = Root { child: node(&mut forge, &[60, 1, 1, 2].repeat(128), 1 << 36), height: 0 };
    // All space is in use, so that nothing is written over it.
    let space = Root { child: node(&mut forge, &[u64::MAX, (1 << 36) - 1], 100), height: 0 };
    let (_dir, path) = file(forge, Numbers { held, space, ..numbers() });
    assert!(!verified(&path).is_clean());
    let store = Store::options().open(&path).unwrap();
    store.checkpoint(CheckpointOptions::new().keep_as("one")).unwrap();
    store.drop_checkpoint("one").unwrap();
    let refused = store.checkpoint(CheckpointOptions::new());
    let Err(Error::Corrupt { problem, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(problem, "expected 68719476736 held extents, found 128");
}
