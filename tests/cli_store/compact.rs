//! Compaction, and what an interruption leaves.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use mapfall::{CheckpointOptions, Store, VerifyOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::scratch;
use crate::support::{ends, filled, flip, json, mapfall, names, offset_of, refuses, succeeds, text};

#[test]
fn compact_makes_a_file_short_and_then_no_shorter() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = Store::options().create(&path).unwrap();
    let pages: Vec<_> = (0..4000).map(|_| store.pages().allocate().unwrap()).collect();
    for page in &pages {
        store.pages().write(*page, &filled(page.0, 4096)).unwrap();
    }
    store.checkpoint(CheckpointOptions::new().cookie(b"kept")).unwrap();
    for page in pages.iter().filter(|page| page.0 % 8 != 7) {
        store.pages().free(*page).unwrap();
    }
    store.checkpoint(CheckpointOptions::new()).unwrap();
    let reader = store.snapshot();
    refuses(dir.path(), "compact store", 4, "store is open for writing elsewhere");
    drop((store, reader));

    let before = fs::metadata(&path).unwrap().len();
    let figures = json(&succeeds(dir.path(), "compact store --json -"));
    let after = fs::metadata(&path).unwrap().len();
    assert_eq!((&figures["before_bytes"], &figures["after_bytes"]), (&before.into(), &after.into()));
    assert_eq!((&figures["complete"], &figures["pages_stuck"]), (&true.into(), &0.into()));
    assert!(after < before / 6 && figures["pages_moved"].as_u64().unwrap() > 400, "{figures}");
    let again = succeeds(dir.path(), "compact store");
    assert!(again.starts_with("compacted: store\n") && again.contains("pages moved         0\n"), "{again}");
    assert_eq!(fs::metadata(&path).unwrap().len(), after);

    assert!(succeeds(dir.path(), "verify store").ends_with("no problems\n"));
    let store = Store::options().open(&path).unwrap();
    assert_eq!((store.cookie(), store.pages().count()), (b"kept".to_vec(), 500));
    let mut buf = vec![0; 4096];
    for page in pages.iter().filter(|page| page.0 % 8 == 7) {
        store.pages().read(*page, &mut buf).unwrap();
        assert_eq!(buf, filled(page.0, 4096));
    }
}

#[test]
fn compact_says_what_keeps_a_file_long() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = Store::options().create(&path).unwrap();
    let pages: Vec<_> = (0..600).map(|_| store.pages().allocate().unwrap()).collect();
    for page in &pages {
        store.pages().write(*page, &filled(page.0, 4096)).unwrap();
    }
    store.blocks().write(&[7; 100]).unwrap();
    store.checkpoint(CheckpointOptions::new().keep_as("monday")).unwrap();
    for page in &pages[..300] {
        store.pages().free(*page).unwrap();
    }
    store.checkpoint(CheckpointOptions::new()).unwrap();
    drop(store);
    let shown = succeeds(dir.path(), "compact store");
    assert!(shown.contains("note: 4 KiB of blocks stay where they are"), "{shown}");
    assert!(shown.contains("note: what only kept checkpoints have stays"), "{shown}");

    // Pages that are damaged stay where they are, and are not made to look whole.
    let store = Store::options().open(&path).unwrap();
    store.drop_checkpoint("monday").unwrap();
    store.checkpoint(CheckpointOptions::new()).unwrap();
    drop(store);
    let offset = offset_of(dir.path(), "store", 599);
    flip(&path, offset);
    let shown = text(&ends(dir.path(), "compact store", 3).stdout);
    assert!(shown.contains("pages damaged       1: "), "{shown}");
    let report = text(&ends(dir.path(), "verify store", 3).stdout);
    assert!(report.contains(&format!("1 problem:\n  damaged: page 599 at offset {offset}: ")), "{report}");
}

#[test]
fn compact_moves_a_page_that_fits_nowhere_before_the_target_as_far_as_it_can() {
    const PAGE_BYTES: usize = 64 << 10;
    let dir = scratch();
    let path = dir.path().join("store");
    let store = Store::options().page_bytes(PAGE_BYTES as u32).create(&path).unwrap();
    let pages: Vec<_> = (0..32).map(|_| store.pages().allocate().unwrap()).collect();
    for page in &pages {
        store.pages().write(*page, &filled(page.0, PAGE_BYTES)).unwrap();
    }
    store.checkpoint(CheckpointOptions::new()).unwrap();
    for page in &pages[..16] {
        store.pages().free(*page).unwrap();
    }
    store.checkpoint(CheckpointOptions::new()).unwrap();
    // Nodes of one unit are now where the first page would have had room.
    store.checkpoint(CheckpointOptions::new().pack(true)).unwrap();
    drop(store);
    succeeds(dir.path(), "compact store");
    let info = json(&succeeds(dir.path(), "info store --json -"));
    assert!(info["free_bytes"].as_u64().unwrap() < 2 * PAGE_BYTES as u64, "{info}");
    assert!(succeeds(dir.path(), "verify store").ends_with("no problems\n"));
}

/// A store of large pages that can lose half of its length: 64 MiB are to be moved.
fn large_store(path: &Path) {
    const PAGE_BYTES: usize = 64 << 10;
    let store = Store::options().page_bytes(PAGE_BYTES as u32).create(path).unwrap();
    let pages: Vec<_> = (0..2048).map(|_| store.pages().allocate().unwrap()).collect();
    for page in &pages {
        store.pages().write(*page, &filled(page.0, PAGE_BYTES)).unwrap();
    }
    store.checkpoint(CheckpointOptions::new()).unwrap();
    for page in &pages[..1024] {
        store.pages().free(*page).unwrap();
    }
    store.checkpoint(CheckpointOptions::new()).unwrap();
}

/// Runs a command until a line of its log has `part`, and interrupts it. Its exit code and its standard output.
fn interrupted(dir: &Path, words: &str, part: &str) -> (Option<i32>, String) {
    let mut command = mapfall(dir, words);
    command.env("MAPFALL_LOG", "mapfall=debug").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let found = lines.by_ref().find(|line| line.contains(part));
    assert!(found.is_some(), "{part} was never said");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    lines.for_each(drop);
    let mut shown = String::new();
    child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), None);
    (status.code(), shown)
}

/// So often an interruption may come too late.
const TRIES: usize = 10;

#[test]
fn an_interrupted_compaction_is_whole_and_goes_on_when_run_again() {
    let dir = scratch();
    let path = dir.path().join("store");
    large_store(&dir.path().join("whole"));
    let (whole, figures) = (0..TRIES)
        .find_map(|_| {
            let whole = fs::copy(dir.path().join("whole"), &path).unwrap();
            let (code, shown) = interrupted(dir.path(), "compact store --json out.json", "a checkpoint is durable");
            let figures = json(&fs::read_to_string(dir.path().join("out.json")).unwrap());
            if figures["complete"] == true || figures["pages_moved"] == 1024 {
                return None;
            }
            assert_eq!(code, Some(130));
            assert!(shown.starts_with("interrupted: store\n") && shown.contains("run it again"), "{shown}");
            Some((whole, figures))
        })
        .expect("it always ended before it could be interrupted");
    let moved = figures["pages_moved"].as_u64().unwrap();
    assert!((1..1024).contains(&moved), "{figures}");

    assert!(succeeds(dir.path(), "verify store").ends_with("no problems\n"));
    let again = json(&succeeds(dir.path(), "compact store --json -"));
    // A page or two may be moved twice.
    assert!(again["pages_moved"].as_u64().unwrap() < 1024 - moved + 8, "what was moved stays moved: {again}");
    assert!(fs::metadata(&path).unwrap().len() < whole * 11 / 20);
    let store = Store::options().open(&path).unwrap();
    assert!(store.verify(&VerifyOptions::new(), &mut |_| ()).unwrap().is_clean());
    assert_eq!(store.pages().count(), 1024);
}

#[test]
fn an_interrupted_salvage_leaves_nothing() {
    let dir = scratch();
    large_store(&dir.path().join("store"));
    let before = names(dir.path());
    // Its directory is made when the handler is there.
    let has_begun =
        || names(dir.path()).iter().any(|name| name.ends_with(".part") && dir.path().join(name).join("store").exists());
    for _ in 0..TRIES {
        let mut child =
            mapfall(dir.path(), "salvage store new --json out.json").stderr(Stdio::piped()).spawn().unwrap();
        while !has_begun() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let status = child.wait().unwrap();
        if status.code() == Some(130) {
            assert_eq!(names(dir.path()), before);
            return;
        }
        assert_eq!(status.code(), Some(0));
        fs::remove_file(dir.path().join("new")).unwrap();
        fs::remove_file(dir.path().join("out.json")).unwrap();
    }
    panic!("it always ended before it could be interrupted");
}
