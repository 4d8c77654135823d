//! Records in a store: against a map in memory, opened again, after a crash, and with damaged pages.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::error::YcsbError;
use super::super::index::Index;
use super::super::record::{Key, Layout};
use super::super::table::{Scratch, Table, describe};
use super::workload;
use crate::{CheckpointOptions, PageId, Store};

fn layout(pairs: &[&str]) -> Layout {
    workload(&[pairs, &["dataintegrity=true"]].concat()).layout
}

fn record(table: &Table, byte: u8) -> Scratch {
    Scratch { record: vec![byte; table.layout().record_bytes()], ..Scratch::default() }
}

/// Each key with its first byte, as a scan from below all finds them.
fn scanned(table: &Table) -> Vec<(Key, u8)> {
    let mut all = Vec::new();
    let lowest = Key::from_bytes(b"").unwrap();
    let count = table.scan(&lowest, u64::MAX, &mut Scratch::default(), |keys, records, span| {
        all.extend(keys.iter().copied().zip(records.chunks(span).map(|record| record[0])));
    });
    assert_eq!(count.unwrap(), all.len() as u64);
    all
}

#[test]
fn it_has_what_a_map_has() {
    for (pairs, page_bytes) in [
        (&["fieldlength=40", "fieldcount=2"][..], 512),
        (&["fieldlength=700", "fieldcount=2", "insertorder=ordered"], 512),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let layout = layout(pairs);
        let store = Store::options().page_bytes(page_bytes).create(&path).unwrap();
        let mut table = Table::create(store, layout.clone()).unwrap();
        let mut model: BTreeMap<Key, u8> = BTreeMap::new();
        let mut rng = SmallRng::seed_from_u64(9);
        for step in 0..3000_u32 {
            let (key, byte) = (Key::of(&layout, rng.random_range(0..1500)), rng.random());
            let mut scratch = record(&table, byte);
            match rng.random_range(0..10) {
                0..5 => {
                    table.insert(&key, &mut scratch).unwrap();
                    model.insert(key, byte);
                }
                5 => {
                    assert_eq!(table.replace(&key, &mut scratch).unwrap(), model.contains_key(&key));
                    model.entry(key).and_modify(|old| *old = byte);
                }
                6 => {
                    let there = table.change(&key, &mut scratch, |record| record[0] = byte).unwrap();
                    assert_eq!(there, model.contains_key(&key));
                    model.entry(key).and_modify(|old| *old = byte);
                }
                7 => {
                    let mut found = Vec::new();
                    table.scan(&key, 7, &mut scratch, |keys, _, _| found.extend_from_slice(keys)).unwrap();
                    let expected: Vec<_> = model.range(key..).take(7).map(|(key, _)| *key).collect();
                    assert_eq!(found, expected);
                }
                _ => {
                    let there = table.read(&key, &mut scratch).unwrap();
                    assert_eq!(there.then(|| scratch.record[0]), model.get(&key).copied());
                }
            }
            if step % 500 == 499 {
                table.checkpoint().unwrap();
                assert_eq!(describe(&path).unwrap(), (layout.clone(), model.len() as u64));
            }
        }
        table.checkpoint().unwrap();
        assert_eq!(scanned(&table), model.clone().into_iter().collect::<Vec<_>>());
        let (index_pages, memory_bytes) = table.index_size();
        let stride = layout.record_bytes().div_ceil(page_bytes as usize) as u64;
        assert_eq!(table.store().pages().count(), model.len() as u64 * stride + index_pages, "no page is lost");
        assert!(index_pages > 20 && memory_bytes > 0);
        // Opened again, as another process would, and grown from there.
        drop(table);
        table = Table::open(Store::options().open(&path).unwrap()).unwrap();
        assert_eq!((table.records(), scanned(&table)), (model.len() as u64, model.into_iter().collect()));
        table.insert(&Key::of(&layout, 5000), &mut record(&table, 1)).unwrap();
        table.checkpoint().unwrap();
        assert_eq!(table.index_size().0, index_pages);
    }
}

#[test]
fn a_crash_leaves_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let layout = layout(&["fieldlength=40"]);
    let table = Table::create(Store::options().page_bytes(512).create(&path).unwrap(), layout.clone()).unwrap();
    // Checkpoints run beside two threads that insert, and one that reads what is there.
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (table, layout) = (&table, &layout);
            scope.spawn(move || {
                for number in 0..1500 {
                    table.insert(&Key::of(layout, number * 2 + thread), &mut record(table, 1)).unwrap();
                    if number > 10 {
                        let key = Key::of(layout, number * 2 + thread - 20);
                        assert!(table.read(&key, &mut Scratch::default()).unwrap());
                    }
                }
            });
        }
        for _ in 0..5 {
            table.checkpoint().unwrap();
        }
    });
    drop(table);
    let table = Table::open(Store::options().open(&path).unwrap()).unwrap();
    assert!(table.records() <= 3000);
    assert_eq!(table.store().pages().count(), table.records() + table.index_size().0, "no page is lost");
    assert_eq!(scanned(&table).len() as u64, table.records());
}

#[test]
fn strangers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let stranger = Store::options().create(path("stranger")).unwrap();
    stranger.checkpoint(CheckpointOptions::new().cookie(b"mine")).unwrap();
    drop(stranger);
    assert!(matches!(describe(&path("stranger")), Err(YcsbError::NotLoaded { .. })));
    let open = |name: &str| Store::options().open(path(name)).unwrap();
    assert!(matches!(Table::open(open("stranger")), Err(YcsbError::NotLoaded { .. })));
    assert!(matches!(Table::create(open("stranger"), layout(&[])), Err(YcsbError::NotLoaded { .. })));
    assert!(matches!(Index::new(512, 200), Err(YcsbError::TooLarge { .. })));
    let table = Table::create(Store::options().create(path("own")).unwrap(), layout(&[])).unwrap();
    let other = layout(&["fieldcount=3"]);
    let message = table.layout().check_asked(&other).unwrap_err().to_string();
    assert_eq!(message, "the store was loaded with fieldcount=10, found fieldcount=3");
}

/// Each page of the index, with each byte of it that says anything changed, is an error or another index: no panic.
#[test]
fn damage_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let layout = layout(&["fieldlength=40"]);
    let table = Table::create(Store::options().page_bytes(512).create(&path).unwrap(), layout.clone()).unwrap();
    (0..60).for_each(|number| table.insert(&Key::of(&layout, number), &mut record(&table, 1)).unwrap());
    table.checkpoint().unwrap();
    drop(table);
    let store = Store::options().open(&path).unwrap();
    let cookie = store.cookie();
    let mut errors = 0;
    for page in 0..store.pages().count() {
        let mut bytes = vec![0; 512];
        store.pages().read(PageId(page), &mut bytes).unwrap();
        if !bytes.starts_with(b"mfy") {
            continue;
        }
        for at in (0..64).chain([200, 511]) {
            for changed in [bytes[at] ^ 1, bytes[at] ^ 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = changed;
                store.pages().write(PageId(page), &damaged).unwrap();
                let root = super::super::index::Root {
                    list: Some(PageId(u64::from_le_bytes(cookie[8..16].try_into().unwrap()))),
                    records: 60,
                };
                errors += usize::from(Index::open(&store.pages(), root, 1).is_err());
            }
        }
        store.pages().write(PageId(page), &bytes).unwrap();
    }
    assert!(errors > 100, "{errors}");
}
