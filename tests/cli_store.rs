//! The store's commands as their users meet them: what they write and tell, what they refuse and how, and what they
//! make of damaged files.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/common.rs"]
mod common;
#[path = "cli_store/compact.rs"]
mod compact;
#[path = "cli_store/damage.rs"]
mod damage;
#[path = "support/cli_store.rs"]
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use mapfall::{CheckpointOptions, PageId, Store};
use serde_json::Value;

use common::scratch;
use support::{ends, filled, flip, json, mapfall, refuses, small_store, succeeds, text};

#[test]
fn a_store_is_made_as_asked_and_not_twice() {
    let dir = scratch();
    let made = succeeds(dir.path(), "create a");
    assert!(made.starts_with("made a: pages of 4 KiB, units of 4 KiB, crc32, UUID "), "{made}");
    let words = "create b --page 16KiB --unit 512 --checksum xxh3 --json -";
    let made = json(&succeeds(dir.path(), words));
    let info = json(&succeeds(dir.path(), "info b --json -"));
    assert_eq!(made, info);
    assert_eq!((&info["page_bytes"], &info["unit_bytes"]), (&16384.into(), &512.into()));
    assert_eq!((&info["checksum"], &info["generation"], &info["pages"]), (&"xxh3".into(), &1.into(), &0.into()));
    // The unit follows the page down.
    assert_eq!(json(&succeeds(dir.path(), "create c --page 1KiB --json -"))["unit_bytes"], 1024);
    for name in ["a", "b", "c"] {
        let verified = succeeds(dir.path(), &format!("verify {name}"));
        assert!(verified.ends_with("no problems\n"), "{verified}");
    }
    let before = fs::read(dir.path().join("a")).unwrap();
    refuses(dir.path(), "create a", 2, "a is there already");
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), before);
}

#[test]
fn info_tells_what_is_in_a_store() {
    let dir = scratch();
    let path = dir.path().join("store");
    small_store(&path);
    let store = Store::options().open(&path).unwrap();
    store.checkpoint(CheckpointOptions::new().keep_as("\x1b[31mred")).unwrap();
    for number in 0..50 {
        store.pages().free(PageId(number)).unwrap();
    }
    store.checkpoint(CheckpointOptions::new().cookie(&[0xff, b'z'])).unwrap();

    let info = json(&succeeds(dir.path(), "info store --json -"));
    assert_eq!((&info["is_open_for_writing"], &info["format_version"]), (&true.into(), &1.into()));
    assert_eq!((&info["pages"], &info["page_limit"], &info["generation"]), (&50.into(), &100.into(), &4.into()));
    assert_eq!((&info["cookie_hex"], &info["block_bytes"]), (&"ff7a".into(), &12288.into()));
    let kept = &info["kept_checkpoints"][0];
    assert_eq!((&kept["name"], &kept["generation"], &kept["pages"]), (&"\x1b[31mred".into(), &3.into(), &100.into()));
    assert_eq!(kept["cookie_hex"], "726f6f740a");
    let bytes = |name: &str| info[name].as_u64().unwrap();
    assert_eq!(bytes("file_bytes"), fs::metadata(&path).unwrap().len());
    assert_eq!(bytes("file_bytes"), bytes("header_bytes") + bytes("used_bytes") + bytes("free_bytes"));
    assert!(bytes("held_bytes") >= 50 * 4096 && bytes("held_extents") > 0, "{info}");

    let shown = succeeds(dir.path(), "info store");
    for part in ["open for writing    yes", "50 (numbers below 100)", "\"\\xffz\" (2 bytes)", "\"root\\n\" (5 bytes)"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert!(!shown.contains('\x1b') && shown.contains("\"\\u{1b}[31mred\""), "{shown}");
    drop(store);
    assert!(succeeds(dir.path(), "info store").contains("open for writing    no"));
    ends(dir.path(), "info store --json out.json", 0);
    assert_eq!(json(&fs::read_to_string(dir.path().join("out.json")).unwrap())["pages"], 50);
}

#[test]
fn dump_shows_where_everything_is_and_what_is_there() {
    let dir = scratch();
    let path = dir.path().join("store");
    let block = small_store(&path);
    let store = Store::options().open(&path).unwrap();
    store.checkpoint(CheckpointOptions::new().keep_as("monday")).unwrap();
    store.pages().write(PageId(3), &[b'x'; 4096]).unwrap();
    store.checkpoint(CheckpointOptions::new()).unwrap();
    drop(store);

    let shown = succeeds(dir.path(), "dump store");
    for part in
        ["generation 3", "generation 4", "100 live pages, 1 level", "\"monday\"", "  0-2  ", "  4-98  ", "  99  "]
    {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let dump = json(&succeeds(dir.path(), "dump store --json -"));
    assert_eq!(dump["header"].as_array().unwrap().len(), 6);
    assert_eq!(dump["trees"][0]["count"], 100);
    let runs = dump["pages"].as_array().unwrap();
    assert_eq!(runs.iter().map(|run| run["first"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 3, 4, 99]);
    assert_eq!((&runs[3]["offset"], &runs[2]["generation_max"]), (&Value::Null, &99.into()));
    let kept = json(&succeeds(dir.path(), "dump store --checkpoint monday --json -"));
    assert_eq!((&kept["checkpoint"], kept["pages"].as_array().unwrap().len()), (&"monday".into(), 2));

    let page = succeeds(dir.path(), "dump store --page 3");
    let offset = runs[1]["offset"].as_u64().unwrap();
    let head = format!("page 3 of generation 4, at offset {offset} (4096 bytes), written as number ");
    assert!(page.starts_with(&head) && page.contains("|xxxxxxxxxxxxxxxx|\n*\n00001000\n"), "{page}");
    assert!(succeeds(dir.path(), "dump store --page 99").starts_with("page 99 of generation 4, never written\n"));
    let raw = |words: &str| mapfall(dir.path(), words).output().unwrap().stdout;
    assert_eq!(raw("dump store --page 3 --raw"), [b'x'; 4096]);
    assert_eq!(raw("dump store --page 3 --raw --checkpoint monday"), filled(3, 4096));
    assert!(succeeds(dir.path(), &format!("dump store --block {block}")).ends_with("00002710\n"));

    // What is damaged is shown, and called so.
    flip(&path, offset);
    let output = ends(dir.path(), "dump store --page 3", 3);
    assert!(text(&output.stdout).contains("00000000  87 78 78 78"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains(&format!("page 3 at offset {offset}: expected checksum ")));
    let output = ends(dir.path(), "dump store --page 3 --raw", 3);
    assert_eq!(output.stdout, [&[!b'x'][..], &[b'x'; 4095]].concat());
}

#[test]
fn wrong_arguments_get_one_line_and_exit_code_2() {
    let dir = scratch();
    let block = small_store(&dir.path().join("store"));
    fs::create_dir(dir.path().join("folder")).unwrap();
    for (words, expected) in [
        ("", "expected a command (see mapfall --help)"),
        ("frobnicate", "unrecognized subcommand 'frobnicate' (see mapfall --help)"),
        ("create", "not provided: <FILE> (see mapfall create --help)"),
        ("create new --page 6KiB", "--page, --unit: expected a unit of a power of two"),
        ("create new --unit 8KiB", "--page, --unit: expected a unit of a power of two"),
        ("create new --page 0", "--page, --unit: expected"),
        ("create new --page 8GiB", "--page: expected 512 B to 1 MiB, found 8 GiB"),
        ("create new --page 4KB", "found \"KB\""),
        ("create new --checksum md5", "possible values: crc32, xxh3"),
        ("create new --json new", "--json names new"),
        ("create missing/new", "cannot open missing/new: No such file"),
        ("create folder", "folder is a directory"),
        ("info missing", "cannot open missing: No such file"),
        ("info folder", "folder is a directory"),
        ("info /dev/null", "/dev/null is a character device"),
        ("info store --json folder", "--json: folder cannot be written"),
        ("info store --json store", "--json names store"),
        ("info store --json ./store", "would be overwritten"),
        ("verify missing", "cannot open missing: No such file"),
        ("verify folder", "folder is a directory"),
        ("verify store surplus", "unexpected argument"),
        ("salvage store", "<NEW_FILE>"),
        ("salvage folder new", "folder is a directory"),
        ("compact missing", "cannot open missing: No such file"),
        ("compact folder", "folder is a directory"),
        ("compact store --json store", "--json names store"),
        ("dump store --page -1", "unexpected argument"),
        ("dump store --page 100", "no page 100"),
        ("dump store --page 18446744073709551615", "no page 18446744073709551615"),
        ("dump store --block 00", "invalid block address"),
        ("dump store --block xy", "expected pairs of hexadecimal digits"),
        ("dump store --block ffffff0f000000000000", "where the file ends"),
        ("dump store --checkpoint monday", "no checkpoint is named \"monday\""),
        ("dump store --page 1 --json -", "cannot be used with"),
        ("dump store --raw", "expected --page or --block"),
        (&format!("dump store --page 1 --block {block}"), "cannot be used with"),
    ] {
        refuses(dir.path(), words, 2, expected);
    }
}

#[test]
fn a_read_only_file_is_read() {
    let dir = scratch();
    let path = dir.path().join("store");
    small_store(&path);
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o555)).unwrap();
    let run = |words: &str| {
        let mut command = mapfall(dir.path(), words);
        if rustix::process::geteuid().is_root() {
            // Root may write anything.
            command.uid(65534).gid(65534);
        }
        command.output()
    };
    let outputs =
        ["info store", "verify store", "dump store", "compact store", "create new", "salvage store new"].map(run);
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    if let Err(error) = &outputs[0] {
        eprintln!("SKIPPED: nobody cannot run the program there: {error}");
        return;
    }
    let outputs = outputs.map(Result::unwrap);
    for (index, output) in outputs.iter().enumerate() {
        let error = text(&output.stderr);
        match index {
            0..3 => assert_eq!((output.status.code(), error.as_str()), (Some(0), "")),
            _ => assert!(output.status.code() == Some(2) && error.contains("Permission denied"), "{index}: {error}"),
        }
    }
}

#[test]
fn a_full_standard_output_is_an_error_and_a_closed_one_is_not() {
    let dir = scratch();
    small_store(&dir.path().join("store"));
    for words in ["info store", "verify store --json -", "dump store", "dump store --page 1 --raw"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = mapfall(dir.path(), words).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(text(&output.stderr).contains("cannot write to standard output: No space left"), "{words}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = mapfall(dir.path(), words).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{words}");
    }
}

#[test]
fn the_grid_has_its_figures_on_standard_output_too() {
    let dir = scratch();
    fs::write(dir.path().join("data"), [7; 1 << 16]).unwrap();
    // It complains where nothing can be mapped.
    let output = ends(dir.path(), "grid --file data --block 4KiB --cache warm --rounds 1 --no-report --json -", 0);
    assert_eq!(json(&text(&output.stdout))["complete"], true);
}

#[test]
fn help_has_the_exit_codes() {
    let dir = scratch();
    for command in ["", "create", "info", "verify", "salvage", "compact", "dump"] {
        let help = succeeds(dir.path(), &format!("{command} --help"));
        assert!(help.contains("Exit codes:\n  0    all is well\n"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
}
