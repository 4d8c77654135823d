//! One writer and many readers, each a process: the second writer is refused, no reader ever sees a byte change, and
//! what they held comes back when they end, however they end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/children.rs"]
mod children;
#[path = "support/common.rs"]
mod common;
#[path = "support/store_life.rs"]
mod life;
#[path = "support/store_readers.rs"]
mod readers;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mapfall::{CheckpointOptions, Error, IoMode, PageId, Store};
use tempfile::TempDir;

use children::{child, tell, words};
use common::scratch;
use life::{Life, Rng, State, check_snapshot, content, name_of, number_of, options};
use readers::{Told, either_mode, mode_of, read};

const MODES: [IoMode; 2] = [IoMode::Pread, IoMode::Mmap];

fn new_life(mode: IoMode, seed: u64) -> (TempDir, PathBuf, Life) {
    let dir = scratch();
    let path = dir.path().join("store");
    let life = Life::of(options(mode).create(&path).unwrap(), seed);
    (dir, path, life)
}

/// Opens the store for writing, and keeps it until its parent closes the pipe.
#[test]
#[ignore = "a child of the other tests"]
fn writer() {
    let Some(path) = words() else { return };
    let _store = Store::options().open(&path).unwrap();
    tell("at 0");
    std::io::stdin().lines().for_each(drop);
    tell("all well");
}

/// See [`readers::read`].
#[test]
#[ignore = "a child of the other tests"]
fn reader() {
    read();
}

/// Opens the last checkpoint anew again and again, until its parent closes the pipe.
#[test]
#[ignore = "a child of the other tests"]
fn opener() {
    let Some(words) = words() else { return };
    let [mode, seed, path] = words.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{words}") };
    let mut state = State::first(seed.parse().unwrap());
    let parent = thread::spawn(|| std::io::stdin().lines().for_each(drop));
    let mut opened = 0;
    while !parent.is_finished() {
        let snapshot = options(mode_of(mode)).open_snapshot(path).unwrap();
        let (number, _) = number_of(&snapshot);
        assert!(number >= state.number, "{number} after {}", state.number);
        while state.number < number {
            state.step();
        }
        check_snapshot(&snapshot, &state);
        opened += 1;
        if opened == 1 {
            tell(&format!("at {number}"));
        }
    }
    assert!(opened > 1);
    tell("all well");
}

#[test]
fn a_second_writer_process_is_refused() {
    let dir = scratch();
    let path = dir.path().join("store");
    let mut store = Some(Store::options().create(&path).unwrap());
    let locked = |path: &Path| matches!(Store::options().open(path), Err(Error::Locked { .. }));
    for end in [Told::end, |told: Told| _ = told.kill()] {
        let refused = child("writer", path.to_str().unwrap()).output().unwrap();
        assert!(!refused.status.success() && children::told(&refused).contains("Locked"), "{refused:?}");
        store.take();
        let mut writer = Told::spawn(child("writer", path.to_str().unwrap()));
        writer.expect(0);
        assert!(locked(&path));
        // A reader's opening and closing takes nothing from the writer's lock.
        drop(Store::options().open_snapshot(&path).unwrap());
        assert!(locked(&path));
        end(writer);
        store = Some(Store::options().open(&path).unwrap());
    }
}

/// What the store uses of its file.
fn used(store: &Store) -> u64 {
    store.validate().unwrap();
    store.stats().file_bytes - store.stats().free_bytes
}

#[test]
fn readers_see_nothing_change_while_everything_is_overwritten() {
    for mode in MODES {
        let (_dir, path, mut life) = new_life(mode, 5);
        let mut noise = Rng(9);
        let mut readers: Vec<Option<Told>> = (0..4).map(|_| None).collect();
        for _ in 0..120 {
            life.advance(&mut noise);
            let place = noise.below(12) as usize;
            if let Some(reader) = readers.get_mut(place) {
                match reader.take() {
                    Some(reader) if noise.one_in(2) => reader.end(),
                    Some(reader) => _ = reader.kill(),
                    None => {
                        let kept = life.state.kept.first().copied().filter(|_| noise.one_in(2));
                        let mut new = Told::reader(either_mode(&mut noise), life.state.seed, kept, &path);
                        new.expect(kept.unwrap_or(life.state.number));
                        *reader = Some(new);
                    }
                }
            }
        }
        let with_readers = std::fs::metadata(&path).unwrap().len();
        readers.into_iter().flatten().for_each(Told::end);
        life.check();
        life.check_accounts();
        life.store.checkpoint(CheckpointOptions::new().pack(true)).unwrap();
        assert_eq!(life.store.stats().deferred_bytes, 0);
        let mut longest = 0;
        for round in 0..60 {
            life.advance(&mut noise);
            longest = longest.max(std::fs::metadata(&path).unwrap().len() * u64::from(round > 5));
        }
        assert!(longest <= with_readers.max(16 << 20), "{with_readers}, then {longest}");
        life.check_accounts();
    }
}

/// Readers that come while a checkpoint is made, at any of its stages.
#[test]
fn readers_that_open_while_checkpoints_are_made() {
    for mode in MODES {
        let (_dir, path, mut life) = new_life(mode, 6);
        let mut noise = Rng(10);
        life.advance(&mut noise);
        let words = |mode| format!("{mode:?} 6 {}", path.display());
        let openers: Vec<_> = MODES.iter().map(|mode| Told::spawn(child("opener", &words(mode)))).collect();
        openers.iter().for_each(|opener| _ = opener.next().unwrap());
        for _ in 0..150 {
            life.advance(&mut noise);
        }
        openers.into_iter().for_each(Told::end);
        life.check();
        life.check_accounts();
        life.store.checkpoint(CheckpointOptions::new().pack(true)).unwrap();
        assert_eq!(life.store.stats().deferred_bytes, 0);
    }
}

/// Writes every page again and makes a checkpoint.
fn overwrite(store: &Store, ids: &[PageId], number: u64) {
    ids.iter().for_each(|page| store.pages().write(*page, &content(page.0 ^ number << 32, 4096)).unwrap());
    store.checkpoint(CheckpointOptions::new()).unwrap();
}

#[test]
fn a_checkpoint_is_dropped_while_another_process_reads_it() {
    for mode in MODES {
        let (_dir, path, mut life) = new_life(mode, 7);
        let mut noise = Rng(11);
        while life.state.kept.is_empty() {
            life.advance(&mut noise);
        }
        let kept = life.state.kept[0];
        let readers = [Some(kept), None].map(|kept| Told::reader(mode, 7, kept, &path));
        readers.iter().for_each(|reader| _ = reader.next().unwrap());
        life.advance(&mut noise);
        if life.state.kept.contains(&kept) {
            life.store.drop_checkpoint(&name_of(kept)).unwrap();
        }
        let ids: Vec<_> = life.store.pages().iter().map(Result::unwrap).collect();
        (0..10).for_each(|number| overwrite(&life.store, &ids, number));
        assert!(matches!(options(mode).open_snapshot_of(&path, &name_of(kept)), Err(Error::NoSuchCheckpoint { .. })));
        assert!(life.store.stats().deferred_bytes > 0);
        let with_readers = used(&life.store);
        let [of_kept, of_last] = readers;
        of_last.end();
        of_kept.end();
        overwrite(&life.store, &ids, 11);
        assert_eq!(life.store.stats().deferred_bytes, 0);
        assert!(used(&life.store) < with_readers);
    }
}

#[test]
fn readers_that_are_killed_hold_nothing() {
    let (_dir, path, mut life) = new_life(IoMode::Pread, 8);
    let mut noise = Rng(12);
    for _ in 0..5 {
        life.advance(&mut noise);
        let mut readers = MODES.map(|mode| Told::reader(mode, 8, None, &path));
        readers.iter_mut().for_each(|reader| reader.expect(life.state.number));
        (0..3).for_each(|_| life.advance(&mut noise));
        assert!(life.store.stats().deferred_bytes > 0);
        readers.into_iter().for_each(|reader| _ = reader.kill());
        life.advance(&mut noise);
        assert_eq!(life.store.stats().deferred_bytes, 0);
        life.check_accounts();
    }
}

/// What is written after its checkpoint, and freed, is used again although it reads.
#[test]
fn a_reader_that_stays_holds_what_it_has_and_no_more() {
    for reopens in [false, true] {
        let (_dir, path, mut life) = new_life(IoMode::Pread, 16);
        let mut noise = Rng(17);
        (0..20).for_each(|_| life.advance(&mut noise));
        let mut reader = Told::reader(IoMode::Mmap, 16, None, &path);
        reader.expect(life.state.number);
        let bytes = used(&life.store);
        if reopens {
            life.advance(&mut noise);
            drop(life);
            life = Life::open(&options(IoMode::Mmap), &path, 16);
        }
        for _ in 0..200 {
            life.advance(&mut noise);
            assert!(life.store.stats().deferred_bytes <= bytes, "{:?}, {bytes}", life.store.stats());
        }
        assert!(life.store.stats().file_bytes < 16 << 20, "{:?}", life.store.stats());
        reader.end();
        life.advance(&mut noise);
        assert_eq!(life.store.stats().deferred_bytes, 0);
        life.check_accounts();
    }
}

/// Nothing that was made since a reader opened its checkpoint is held for it: not a unit more with each checkpoint.
#[test]
fn what_is_held_does_not_grow() {
    for in_process in [false, true] {
        let (_dir, path, life) = new_life(IoMode::Pread, 18);
        let ids = [life.store.pages().allocate().unwrap()];
        overwrite(&life.store, &ids, 0);
        let reader =
            if in_process { life.store.snapshot() } else { options(IoMode::Pread).open_snapshot(&path).unwrap() };
        (1..4).for_each(|number| overwrite(&life.store, &ids, number));
        let held = life.store.stats().deferred_bytes;
        (4..50).for_each(|number| overwrite(&life.store, &ids, number));
        assert_eq!(life.store.stats().deferred_bytes, held);
        life.store.validate().unwrap();
        drop(reader);
        overwrite(&life.store, &ids, 50);
        assert_eq!(life.store.stats().deferred_bytes, 0);
    }
}

/// What a reader of the last writer's has is free in the space map that the next writer finds.
#[test]
fn a_new_writer_leaves_alone_what_older_readers_have() {
    for mode in MODES {
        let (_dir, path, mut life) = new_life(mode, 9);
        let mut noise = Rng(13);
        life.advance(&mut noise);
        let mut old = Told::reader(mode, 9, None, &path);
        old.expect(life.state.number);
        (0..3).for_each(|_| life.advance(&mut noise));
        drop(life);

        let mut life = Life::open(&options(mode), &path, 9);
        assert!(life.store.stats().is_quarantined);
        let before = life.store.stats().file_bytes;
        (0..3).for_each(|_| life.advance(&mut noise));
        life.check_accounts();
        assert!(life.store.stats().file_bytes > before);
        // One that came later has nothing to do with it.
        let mut new = Told::reader(mode, 9, None, &path);
        new.expect(life.state.number);
        life.advance(&mut noise);
        assert!(life.store.stats().is_quarantined);
        old.end();
        life.advance(&mut noise);
        assert!(!life.store.stats().is_quarantined);
        life.check_accounts();
        (0..20).for_each(|_| life.advance(&mut noise));
        new.end();
        life.advance(&mut noise);
        assert_eq!(life.store.stats().deferred_bytes, 0);
        life.check();
        life.check_accounts();
    }
}

/// The file gets long and short again under those who read it: other processes, and threads of this one.
#[test]
fn the_tail_is_cut_off_under_readers() {
    for mode in MODES {
        let (_dir, path, mut life) = new_life(mode, 14);
        let mut noise = Rng(15);
        (0..3).for_each(|_| life.advance(&mut noise));
        let openers: Vec<_> =
            MODES.iter().map(|mode| Told::spawn(child("opener", &format!("{mode:?} 14 {}", path.display())))).collect();
        openers.iter().for_each(|opener| _ = opener.next().unwrap());
        // Pages beside those of the model; the model's count is right at each checkpoint.
        let pages = life.store.pages();
        let page_of = |number: u64| content(number, pages.page_bytes());
        let stop = AtomicBool::new(false);
        let (mut longest, mut shortest) = (0, u64::MAX);
        thread::scope(|scope| {
            let snapshot = life.store.snapshot();
            let state = life.state.clone();
            let stop = &stop;
            let mut held = Some(scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    check_snapshot(&snapshot, &state);
                }
            }));
            for round in 0..12_u64 {
                let made: Vec<_> = (0..1500).map(|_| pages.allocate().unwrap()).collect();
                made.iter().for_each(|page| pages.write(*page, &page_of(page.0)).unwrap());
                let (gone, kept) = made.split_at(1480);
                let length = std::fs::metadata(&path).unwrap().len();
                longest = longest.max(length);
                let moved = AtomicBool::new(false);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        let mut buf = vec![0; pages.page_bytes()];
                        while !moved.load(Ordering::Relaxed) {
                            for page in kept {
                                pages.read(*page, &mut buf).unwrap();
                                assert!(buf == page_of(page.0), "page {page}");
                            }
                        }
                    });
                    gone.iter().for_each(|page| pages.free(*page).unwrap());
                    life.store.compaction().unwrap().step(u64::MAX).unwrap();
                    moved.store(true, Ordering::Relaxed);
                });
                kept.iter().for_each(|page| pages.free(*page).unwrap());
                life.advance(&mut noise);
                for _ in 0..3 {
                    life.store.checkpoint(CheckpointOptions::new().pack(true)).unwrap();
                }
                if round == 6 {
                    stop.store(true, Ordering::Relaxed);
                    held.take().unwrap().join().unwrap();
                }
                shortest = shortest.min(std::fs::metadata(&path).unwrap().len());
            }
        });
        assert!(longest > shortest * 2, "{shortest} to {longest}");
        openers.into_iter().for_each(Told::end);
        life.check();
        life.check_accounts();
    }
}
