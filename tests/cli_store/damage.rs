//! Verification and salvage, and files that are no stores.

use std::fs;
use std::os::unix::fs::FileExt;

use mapfall::{CheckpointOptions, Store};

use crate::common::{other_hand, scratch};
use crate::support::{ends, flip, json, mapfall, names, offset_of, refuses, small_store, succeeds, text};

#[test]
fn verify_names_the_page_and_the_offset() {
    let dir = scratch();
    let path = dir.path().join("store");
    small_store(&path);
    let report = succeeds(dir.path(), "verify store");
    assert!(report.contains("100 pages") && report.contains("GiB/s") && report.ends_with("no problems\n"), "{report}");
    let figures = json(&succeeds(dir.path(), "verify store --json -"));
    assert_eq!((&figures["is_clean"], &figures["bytes_verified"]), (&true.into(), &(99 * 4096).into()));

    let offset = offset_of(dir.path(), "store", 42);
    flip(&path, offset + 100);
    let report = text(&ends(dir.path(), "verify store", 3).stdout);
    assert!(
        report.contains(&format!("1 problem:\n  damaged: page 42 at offset {offset}: expected checksum ")),
        "{report}"
    );
    let output = ends(dir.path(), "verify store --json out.json", 3);
    assert!(text(&output.stdout).contains("page 42") && text(&output.stderr) == "wrote out.json\n");
    let figures = json(&fs::read_to_string(dir.path().join("out.json")).unwrap());
    assert_eq!((&figures["is_clean"], &figures["problems_total"]), (&false.into(), &1.into()));
    let problem = &figures["problems"][0];
    assert_eq!((&problem["kind"], &problem["part"], &problem["page"]), (&"damaged".into(), &"page".into(), &42.into()));
    assert_eq!(problem["offset"], offset);

    let skipped = succeeds(dir.path(), "verify store --no-contents");
    assert!(skipped.contains("were not looked at"), "{skipped}");
    assert_eq!(json(&succeeds(dir.path(), "verify store --no-contents --json -"))["bytes_verified"], 0);
}

#[test]
fn verify_tells_a_lost_copy_from_a_lost_store() {
    let dir = scratch();
    let path = dir.path().join("store");
    small_store(&path);
    flip(&path, 4096 + 20);
    flip(&path, 8192 + 4096 + 20);
    let report = succeeds(dir.path(), "verify store");
    assert_eq!(report.matches("notice: damaged: ").count(), 2, "{report}");
    assert!(report.contains("superblock at offset 4096") && report.contains("slot at offset 12288"), "{report}");
    let dump = succeeds(dir.path(), "dump store");
    assert!(dump.contains("  superblock            damaged: "), "{dump}");

    // The other copies, and the other slot's.
    for offset in [8192, 16384, 20480] {
        flip(&path, offset + 20);
    }
    let output = ends(dir.path(), "verify store --json -", 3);
    assert_eq!(json(&text(&output.stdout))["problems"][0]["part"], "checkpoint slot");
    for command in ["info", "dump"] {
        refuses(dir.path(), &format!("{command} store"), 3, "store is damaged: checkpoint slot at offset ");
    }
    flip(&path, 20);
    for command in ["info", "compact", "dump"] {
        refuses(dir.path(), &format!("{command} store"), 3, "store is damaged: superblock at offset ");
    }
}

#[test]
fn salvage_says_what_it_saved_and_lost() {
    let dir = scratch();
    let path = dir.path().join("store");
    let block = small_store(&path);
    let saved = succeeds(dir.path(), "salvage store first");
    assert!(saved.starts_with("salvaged store into first\n") && saved.contains("pages saved         100"), "{saved}");

    // The header, and a page.
    let offset = offset_of(dir.path(), "store", 7);
    flip(&path, offset);
    other_hand(&path).write_all_at(&[0xff; 24576], 0).unwrap();
    let damaged = fs::read(&path).unwrap();
    for command in ["info", "verify", "compact", "dump"] {
        refuses(dir.path(), &format!("{command} store"), 3, "is not a mapfall store");
    }
    let output = ends(dir.path(), "salvage store second --json out.json", 3);
    let saved = text(&output.stdout);
    assert!(saved.contains("the header is lost") && saved.contains("pages saved         99\n"), "{saved}");
    assert!(saved.contains(&format!("page 7 at offset {offset}: expected checksum ")), "{saved}");
    let figures = json(&fs::read_to_string(dir.path().join("out.json")).unwrap());
    assert_eq!((&figures["is_complete"], &figures["from_record"]), (&false.into(), &true.into()));
    assert_eq!((&figures["pages_saved"], &figures["pages_lost"][0]["page"]), (&99.into(), &7.into()));
    assert_eq!(fs::read(&path).unwrap(), damaged, "the damaged file is only read");
    assert_eq!(names(dir.path()), ["first", "out.json", "second", "store"].map(str::to_owned).into());

    for saved in ["first", "second"] {
        assert!(succeeds(dir.path(), &format!("verify {saved}")).ends_with("no problems\n"));
        let bytes = mapfall(dir.path(), &format!("dump {saved} --raw --block {block}")).output().unwrap();
        assert_eq!((bytes.status.code(), bytes.stdout), (Some(0), vec![b'b'; 10_000]));
    }
    let store = Store::options().open(dir.path().join("second")).unwrap();
    assert_eq!((store.cookie(), store.pages().count()), (b"root\n".to_vec(), 99));
}

#[test]
fn salvage_tells_that_kept_checkpoints_are_lost_and_replaces_nothing() {
    let dir = scratch();
    let store = Store::options().create(dir.path().join("store")).unwrap();
    store.checkpoint(CheckpointOptions::new().keep_as("monday")).unwrap();
    refuses(dir.path(), "salvage store new", 4, "store is open for writing elsewhere");
    drop(store);
    let saved = text(&ends(dir.path(), "salvage store new", 3).stdout);
    assert!(saved.contains("checkpoints lost    \"monday\""), "{saved}");
    let before = fs::read(dir.path().join("new")).unwrap();
    refuses(dir.path(), "salvage store new", 2, "new is there already");
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    refuses(dir.path(), "salvage store link", 2, "link is there already");
    assert_eq!(fs::read(dir.path().join("new")).unwrap(), before);
    refuses(dir.path(), "salvage store missing/new", 2, "cannot make missing/new: ");
    refuses(dir.path(), "salvage missing newer", 2, "cannot open missing: No such file");
    refuses(dir.path(), "salvage store newer --json newer", 2, "--json names newer");
    fs::write(dir.path().join("empty"), "").unwrap();
    refuses(dir.path(), "salvage empty newer", 3, "empty is not a mapfall store");
}

#[test]
fn files_that_are_no_stores_are_refused() {
    let dir = scratch();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::write(dir.path().join("letter"), "Dear reader, ".repeat(10_000)).unwrap();
    fs::write(dir.path().join("zeros"), [0; 1 << 16]).unwrap();
    for name in ["empty", "letter", "zeros"] {
        let before = fs::read(dir.path().join(name)).unwrap();
        for command in ["info", "verify", "compact", "dump"] {
            refuses(dir.path(), &format!("{command} {name}"), 3, &format!("{name} is not a mapfall store: "));
        }
        refuses(dir.path(), &format!("salvage {name} new"), 3, &format!("{name} is not a mapfall store: "));
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), before);
    }
    // Cut in the header, and behind it.
    small_store(&dir.path().join("store"));
    let whole = fs::read(dir.path().join("store")).unwrap();
    for len in [1, 511, 4096, 8192, 10_000, 24_576, 30_000, whole.len() - 4096] {
        fs::write(dir.path().join("cut"), &whole[..len]).unwrap();
        ends(dir.path(), "verify cut", 3);
        assert!(matches!(mapfall(dir.path(), "compact cut").output().unwrap().status.code(), Some(0 | 3)), "{len}");
    }
}
