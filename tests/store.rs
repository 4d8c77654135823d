//! The store through its public API: pages, blocks, checkpoints, snapshots.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use mapfall::{
    CheckpointOptions, Error, IoMode, IoOptions, PageId, ProblemKind, SalvageReport, Store, StoreOptions, Verification,
    VerifyOptions,
};

const MODES: [IoMode; 5] = IoMode::ALL;

fn options(mode: IoMode) -> StoreOptions {
    Store::options().io(IoOptions::new().mode(mode).direct_fallback(true))
}

fn filled(number: u64) -> Vec<u8> {
    (0..512).flat_map(|word: u64| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word).to_le_bytes()).collect()
}

/// The accounts add up, and what is in the file is what was written.
fn check(store: &Store) {
    store.validate().unwrap();
    let report = store.verify(&VerifyOptions::new(), &mut |_| ()).unwrap();
    assert!(report.is_clean() && report.notices.is_empty(), "{report:#?}");
}

#[test]
fn pages_survive_a_checkpoint_and_nothing_else_does() {
    for mode in MODES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = options(mode).create(&path).unwrap();
        let pages = store.pages();
        let ids: Vec<_> = (0..1000).map(|_| pages.allocate().unwrap()).collect();
        assert_eq!(ids, (0..1000).map(PageId).collect::<Vec<_>>());
        for id in &ids {
            pages.write(*id, &filled(id.0)).unwrap();
        }
        let report = store.checkpoint(CheckpointOptions::new().cookie(b"one")).unwrap();
        assert_eq!((report.generation, report.pages_changed), (2, 1000));
        for id in &ids {
            pages.write(*id, &filled(id.0 + 7)).unwrap();
        }
        for id in ids.iter().step_by(2) {
            pages.free(*id).unwrap();
        }
        check(&store);
        drop((pages, store));

        for round in 0..10_u64 {
            let store = options(mode).open(&path).unwrap();
            assert_eq!(store.cookie(), b"one");
            let pages = store.pages();
            let base = if round == 0 { 0 } else { round * 100 };
            let mut buf = vec![0; 4096];
            for id in &ids {
                pages.read(*id, &mut buf).unwrap();
                assert_eq!(buf, filled(id.0 + base), "{id} in round {round}");
            }
            assert_eq!(pages.iter().map(Result::unwrap).collect::<Vec<_>>(), ids);
            for half in 0..2 {
                for id in &ids {
                    pages.write(*id, &filled(id.0 + (round + 1) * 100 + 50 * (1 - half))).unwrap();
                }
                store.checkpoint(CheckpointOptions::new()).unwrap();
            }
            check(&store);
            let len = std::fs::metadata(&path).unwrap().len();
            assert!(len < 16 << 20, "{len}");
        }
    }
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::options().create(&path).unwrap();
    assert!(matches!(Store::options().open(&path), Err(Error::Locked { .. })));
    drop(store);
    Store::options().open(&path).unwrap();
}

#[test]
fn a_snapshot_stays_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::options().create(&path).unwrap();
    let pages = store.pages();
    let ids: Vec<_> = (0..300).map(|_| pages.allocate().unwrap()).collect();
    let write = |base: u64| {
        for id in &ids {
            pages.write(*id, &filled(id.0 + base)).unwrap();
        }
    };
    write(0);
    store.checkpoint(CheckpointOptions::new().keep_as("first")).unwrap();
    let last = store.snapshot();
    let other = Store::options().open_snapshot(&path).unwrap();
    for round in 1..6 {
        write(round * 1000);
        store.checkpoint(CheckpointOptions::new()).unwrap();
        check(&store);
    }
    let first = store.snapshot_of("first").unwrap();
    let mut buf = vec![0; 4096];
    for snapshot in [&last, &first, &other, &Store::options().open_snapshot_of(&path, "first").unwrap()] {
        for id in &ids {
            snapshot.read(*id, &mut buf).unwrap();
            assert_eq!(buf, filled(id.0));
        }
        assert_eq!(snapshot.iter().count(), 300);
    }
    store.drop_checkpoint("first").unwrap();
    store.checkpoint(CheckpointOptions::new()).unwrap();
    assert!(matches!(store.snapshot_of("first"), Err(Error::NoSuchCheckpoint { .. })));
    for round in 6..9 {
        check(&store);
        write(round * 1000);
        store.checkpoint(CheckpointOptions::new()).unwrap();
        for id in &ids {
            first.read(*id, &mut buf).unwrap();
            assert_eq!(buf, filled(id.0));
        }
    }
}

#[test]
fn blocks_of_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::options().unit_bytes(512).page_bytes(512).create(&path).unwrap();
    let blocks = store.blocks();
    let contents: Vec<Vec<u8>> = (1..200_usize).map(|len| vec![len as u8; len * 37]).collect();
    let addresses: Vec<_> = contents.iter().map(|bytes| blocks.write(bytes).unwrap()).collect();
    store.checkpoint(CheckpointOptions::new()).unwrap();
    for (address, content) in addresses.iter().zip(&contents) {
        let mut buf = vec![0; content.len()];
        blocks.read(address, &mut buf).unwrap();
        assert_eq!(buf, *content);
    }
    for address in addresses.iter().step_by(2) {
        blocks.free(address).unwrap();
        assert!(matches!(blocks.free(address), Err(Error::InvalidAddress { .. })));
    }
    check(&store);
    store.checkpoint(CheckpointOptions::new()).unwrap();
    check(&store);
    let live: Vec<_> = addresses.iter().skip(1).step_by(2).copied().collect();
    let report = store.verify(&VerifyOptions::new().blocks(live), &mut |_| ()).unwrap();
    assert!(report.is_clean() && report.blocks == 99, "{report:#?}");
    let report = store.verify(&VerifyOptions::new().blocks([addresses[1]]), &mut |_| ()).unwrap();
    assert!(report.problems.iter().all(|problem| problem.kind == ProblemKind::Leaked), "{report:#?}");
    assert!(!report.is_clean());
    assert!(matches!(blocks.free(&addresses[0]), Err(Error::InvalidAddress { .. })));
}

#[test]
fn compaction_makes_the_file_short_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::options().create(&path).unwrap();
    let pages = store.pages();
    let ids: Vec<_> = (0..4000).map(|_| pages.allocate().unwrap()).collect();
    for id in &ids {
        pages.write(*id, &filled(id.0)).unwrap();
    }
    let block = store.blocks().write(&[7; 10_000]).unwrap();
    store.checkpoint(CheckpointOptions::new().cookie(b"kept")).unwrap();
    for id in ids.iter().filter(|id| id.0 % 8 != 7) {
        pages.free(*id).unwrap();
    }
    store.checkpoint(CheckpointOptions::new()).unwrap();
    let before = std::fs::metadata(&path).unwrap().len();

    let done = std::sync::atomic::AtomicBool::new(false);
    let moved = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buf = vec![0; 4096];
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for id in ids.iter().filter(|id| id.0 % 8 == 7) {
                    pages.read(*id, &mut buf).unwrap();
                    assert_eq!(buf, filled(id.0));
                }
            }
        });
        let mut compaction = store.compaction().unwrap();
        while compaction.step(100).unwrap() {
            store.checkpoint(CheckpointOptions::new().pack(true)).unwrap();
            check(&store);
        }
        let moved = store.blocks().move_down(&block).unwrap().expect("it was at the end");
        for _ in 0..3 {
            store.checkpoint(CheckpointOptions::new().pack(true)).unwrap();
            check(&store);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        moved
    });
    let mut buf = vec![0; 10_000];
    store.blocks().read(&moved, &mut buf).unwrap();
    assert_eq!(buf, [7; 10_000]);
    let after = std::fs::metadata(&path).unwrap().len();
    assert!(after < before / 6, "{before} to {after}");
    drop((pages, store));
    let store = Store::options().open(&path).unwrap();
    assert_eq!((store.cookie(), store.pages().count()), (b"kept".to_vec(), 500));
    check(&store);
}

#[test]
fn salvage_saves_what_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (path, saved) = (dir.path().join("store"), dir.path().join("saved"));
    let store = Store::options().create(&path).unwrap();
    let pages = store.pages();
    let ids: Vec<_> = (0..1000).map(|_| pages.allocate().unwrap()).collect();
    for id in &ids[..999] {
        pages.write(*id, &filled(id.0)).unwrap();
    }
    let block = store.blocks().write(&[7; 10_000]).unwrap();
    store.checkpoint(CheckpointOptions::new().cookie(b"root").keep_as("kept")).unwrap();
    drop((pages, store));
    let whole = std::fs::read(&path).unwrap();

    let check_saved = |lost: &[u64], report: &SalvageReport| {
        assert_eq!(report.pages_lost.iter().map(|(page, _)| *page).collect::<Vec<_>>(), lost, "{report:#?}");
        let store = Store::options().open(&saved).unwrap();
        check(&store);
        assert_eq!(store.cookie(), b"root");
        let mut buf = vec![0; 4096];
        for id in ids.iter().filter(|id| !lost.contains(&id.0)) {
            store.pages().read(*id, &mut buf).unwrap();
            assert_eq!(buf, if id.0 < 999 { filled(id.0) } else { vec![0; 4096] });
        }
        assert_eq!(store.pages().count(), 1000 - lost.len() as u64);
        let mut buf = vec![0; 10_000];
        store.blocks().read(&block, &mut buf).unwrap();
        assert_eq!(buf, [7; 10_000]);
        drop(store);
        std::fs::remove_file(&saved).unwrap();
    };
    let salvage = || Store::options().salvage(&path, &saved, &mut |_| ()).unwrap();
    let report = salvage();
    assert!(report.is_complete() && report.pages_saved == 1000 && report.kept_lost == ["kept"], "{report:#?}");
    check_saved(&[], &report);

    let find = |bytes: &[u8]| whole.windows(bytes.len()).position(|window| window == bytes).unwrap();
    let mut damaged = whole.clone();
    for page in [3, 500] {
        damaged[find(&filled(page)) + 100] ^= 1;
    }
    damaged[..24576].fill(0xff);
    std::fs::write(&path, &damaged).unwrap();
    assert!(matches!(Store::options().open(&path), Err(Error::NotAStore { .. })));
    let report = salvage();
    assert!(report.from_record, "{report:#?}");
    check_saved(&[3, 500], &report);
    assert_eq!(std::fs::read(&path).unwrap(), damaged, "the damaged file is only read");
}

#[test]
fn a_closed_store_has_no_free_end_and_needs_none_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let len = || std::fs::metadata(&path).unwrap().len();
    let store = Store::options().create(&path).unwrap();
    let page = store.pages().allocate().unwrap();
    store.pages().write(page, &filled(1)).unwrap();
    store.checkpoint(CheckpointOptions::new()).unwrap();
    assert!(len() >= 1 << 20, "it grows ahead of need");
    drop(store);
    let closed = len();
    assert!(closed < 100_000, "{closed}");
    for round in 2..5 {
        let before = len();
        let store = Store::options().open(&path).unwrap();
        assert_eq!(len(), before);
        check(&store);
        store.pages().write(page, &filled(round)).unwrap();
        store.checkpoint(CheckpointOptions::new()).unwrap();
        check(&store);
        drop(store);
        assert!(len() < 3 * closed, "{}", len());
        let store = Store::options().open(&path).unwrap();
        let mut buf = vec![0; 4096];
        store.pages().read(page, &mut buf).unwrap();
        assert_eq!(buf, filled(round));
    }
}

#[test]
fn the_page_table_of_a_kept_checkpoint_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().create(dir.path().join("store")).unwrap();
    let pages = store.pages();
    let page = pages.allocate().unwrap();
    pages.write(page, &filled(0)).unwrap();
    store.checkpoint(CheckpointOptions::new().keep_as("first")).unwrap();
    for round in 1..6 {
        pages.write(page, &filled(round)).unwrap();
        store.checkpoint(CheckpointOptions::new()).unwrap();
    }
    let mut buf = vec![0; 4096];
    store.snapshot_of("first").unwrap().read(page, &mut buf).unwrap();
    assert_eq!(buf, filled(0));
}

#[test]
fn a_block_is_freed_once_whatever_still_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::options().create(&path).unwrap();
    let blocks = store.blocks();
    let held = blocks.write(&[1; 5000]).unwrap();
    store.checkpoint(CheckpointOptions::new().keep_as("first")).unwrap();
    let pending = blocks.write(&[2; 5000]).unwrap();
    store.checkpoint(CheckpointOptions::new()).unwrap();
    let refused = |store: &Store| {
        for address in [&held, &pending] {
            assert!(matches!(store.blocks().free(address), Err(Error::InvalidAddress { .. })));
        }
        check(store);
    };
    blocks.free(&held).unwrap();
    let cut = store.begin_checkpoint(CheckpointOptions::new()).unwrap();
    blocks.free(&pending).unwrap();
    assert!(blocks.free(&held).is_err() && blocks.free(&pending).is_err());
    cut.commit().unwrap();
    refused(&store);
    store.checkpoint(CheckpointOptions::new()).unwrap();
    refused(&store);
    store.checkpoint(CheckpointOptions::new()).unwrap();
    drop((blocks, store));
    let store = Store::options().open(&path).unwrap();
    refused(&store);
    store.drop_checkpoint("first").unwrap();
    assert!(matches!(store.drop_checkpoint("first"), Err(Error::NoSuchCheckpoint { .. })));
    store.checkpoint(CheckpointOptions::new()).unwrap();
    refused(&store);
}

/// Pages that were written one behind the other are read without their entries, until one of them is written again.
#[test]
fn pages_in_a_row_are_read_whole_while_they_are_written() {
    for (mode, verification) in [(IoMode::Mmap, Verification::Off), (IoMode::Pread, Verification::Always)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let options = options(mode).verification(verification);
        let store = options.create(&path).unwrap();
        let ids: Vec<_> = (0..1100).map(|_| store.pages().allocate().unwrap()).collect();
        let numbered = |id: PageId, version: u64| filled(id.0 << 32 | version);
        for id in &ids {
            store.pages().write(*id, &numbered(*id, 0)).unwrap();
        }
        store.checkpoint(CheckpointOptions::new()).unwrap();
        drop(store);

        let store = options.open(&path).unwrap();
        let last = store.snapshot();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (pages, mut buf, mut seen) = (store.pages(), vec![0; 4096], vec![0; ids.len()]);
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for (id, seen) in ids.iter().zip(&mut seen) {
                        pages.read(*id, &mut buf).unwrap();
                        let version = (*seen..4).find(|version| buf == numbered(*id, *version));
                        *seen = version.unwrap_or_else(|| panic!("page {id} is no version from {seen} on"));
                    }
                }
            });
            for version in 1..4 {
                for start in [1, 0, 2] {
                    for id in ids.iter().skip(start).step_by(3) {
                        store.pages().write(*id, &numbered(*id, version)).unwrap();
                    }
                    // What was overwritten is used again.
                    store.checkpoint(CheckpointOptions::new()).unwrap();
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut buf = vec![0; 4096];
        for id in &ids {
            last.read(*id, &mut buf).unwrap();
            assert!(buf == numbered(*id, 0), "page {id} of the snapshot");
            store.pages().read(*id, &mut buf).unwrap();
            assert!(buf == numbered(*id, 3), "page {id}");
        }
        drop(last);
        check(&store);
    }
}
