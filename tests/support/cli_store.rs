//! What the suites of the store's commands share: running the program, and stores to run it on.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use mapfall::{CheckpointOptions, PageId, Store};
use serde_json::Value;

use crate::common::other_hand;

/// `mapfall` with its words, run in `dir`.
pub(crate) fn mapfall(dir: &Path, words: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("mapfall"));
    command.current_dir(dir).env_remove("MAPFALL_LOG").env_remove("TMPDIR").args(words.split_whitespace());
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What it writes to standard output. It writes nothing else where it has nothing to complain of.
pub(crate) fn succeeds(dir: &Path, words: &str) -> String {
    let output = mapfall(dir, words).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{words}");
    text(&output.stdout)
}

pub(crate) fn ends(dir: &Path, words: &str, code: i32) -> Output {
    let output = mapfall(dir, words).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{words}: {}", text(&output.stderr));
    output
}

/// It says one line that has `expected`, writes nothing and leaves nothing.
pub(crate) fn refuses(dir: &Path, words: &str, code: i32, expected: &str) {
    let before = names(dir);
    let output = ends(dir, words, code);
    let error = text(&output.stderr);
    assert_eq!(error.lines().count(), 1, "{words}: {error}");
    assert!(error.starts_with("mapfall: ") && error.contains(expected), "{words}: {error}");
    assert!(output.stdout.is_empty(), "{words}");
    assert_eq!(names(dir), before, "{words}");
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub(crate) fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

pub(crate) fn filled(number: u64, len: usize) -> Vec<u8> {
    (0..len as u64 / 8).flat_map(|word| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word).to_le_bytes()).collect()
}

/// 100 pages, of which the last was never written, and a block, in a checkpoint with a cookie. Returns the block's
/// packed address in hexadecimal digits.
pub(crate) fn small_store(path: &Path) -> String {
    let store = Store::options().create(path).unwrap();
    for number in 0..100 {
        let page = store.pages().allocate().unwrap();
        assert_eq!(page, PageId(number));
        if number < 99 {
            store.pages().write(page, &filled(number, 4096)).unwrap();
        }
    }
    let block = store.blocks().write(&[b'b'; 10_000]).unwrap();
    store.checkpoint(CheckpointOptions::new().cookie(b"root\n")).unwrap();
    block.pack().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a page is, by `mapfall dump`.
pub(crate) fn offset_of(dir: &Path, file: &str, page: u64) -> u64 {
    let dump = json(&succeeds(dir, &format!("dump {file} --json -")));
    let holds = |run: &&Value| (run["first"].as_u64().unwrap()..=run["last"].as_u64().unwrap()).contains(&page);
    let run = dump["pages"].as_array().unwrap().iter().find(holds).unwrap().clone();
    run["offset"].as_u64().unwrap() + 4096 * (page - run["first"].as_u64().unwrap())
}

pub(crate) fn flip(path: &Path, offset: u64) {
    let file = other_hand(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}
