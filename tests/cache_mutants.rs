//! That `tests/cache_model.rs` finds what it is for: the cache is broken in one place at a time, and each time the
//! model must fail. It builds the crate once for each, hence it is run by hand:
//!
//! ```text
//! cargo test --release --no-default-features --test cache_mutants -- --ignored
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// What is broken, in which file, what stands there, and what is put in its place.
const MUTANTS: [(&str, &str, &str, &str); 15] = [
    (
        "no second look at the state after the copy",
        "src/sys/frames.rs",
        "let whole = (words[STATE].load(Relaxed) ^ state) & !PINS == 0;",
        "let whole = true;",
    ),
    (
        "a stamp is given out more than once",
        "src/sys/frames.rs",
        "let stamp = self.stamp.fetch_add(1, Relaxed) + 1;",
        "let stamp = 1_u64;",
    ),
    (
        "a pinned block is evicted",
        "src/sys/frames.rs",
        "if state & KIND != LIVE || state & PINS != 0 {",
        "if state & KIND != LIVE {",
    ),
    (
        "a pinned block's memory is freed by an invalidation",
        "src/sys/frames.rs",
        "match state & PINS {",
        "match 0_u64 {",
    ),
    (
        "the last pin of a doomed block does not free it",
        "src/sys/frames.rs",
        "before & (KIND | PINS) == DOOMED | 1 &&",
        "before & KIND == EMPTY &&",
    ),
    (
        "a block comes in without its pin",
        "src/sys/frames.rs",
        "        self.publish_with(1);\n",
        "        self.publish_with(0);\n",
    ),
    (
        "an invalidation does not reach a load",
        "src/cache/shard.rs",
        "let cancelled = inside.flights.cancel(|loaded| loaded == key);",
        "let cancelled = false;",
    ),
    (
        "an invalidation during the copy is not seen",
        "src/cache/shard.rs",
        "if is_cancelled(&inside.flights) || is_there() {",
        "if is_there() {",
    ),
    (
        "a block is there twice",
        "src/cache/shard.rs",
        "let comes_in = !is_there && !inside",
        "let comes_in = (is_there || true) && !inside",
    ),
    (
        "a freed block is seen for a moment",
        "src/cache/shard.rs",
        "let comes_in = !is_there && !inside.flights.is_cancelled(flight.id);",
        "let comes_in = !is_there;",
    ),
    (
        "who waits is not told of a failure",
        "src/cache/shard.rs",
        "Landing::Failed(Arc::new(error.again()))",
        "{ _ = Arc::new(error.again()); Landing::Look }",
    ),
    ("a panic leaves those who wait alone", "src/cache/shard.rs", "if !self.ended {", "if !self.ended && false {"),
    (
        "a resize does not wait for what is being filled",
        "src/cache/shard.rs",
        "if inside.filling + inside.copying == 0 {",
        "if inside.filling + inside.copying < 100 {",
    ),
    (
        "a resize is not told that a slot is filled",
        "src/cache/shard.rs",
        "        inside.filling -= 1;\n        self.shard.ended.notify_all();\n        self.filling.take()",
        "        inside.filling -= 1;\n        self.filling.take()",
    ),
    ("two resizes run at once", "src/cache/mod.rs", "        let _turn = self.resizing.lock();\n", ""),
];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => _ = fs::copy(&path, to.join(name)).unwrap(),
        }
    }
}

#[test]
#[ignore = "builds the crate many times"]
fn the_model_finds_every_mutant() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    _ = fs::remove_dir_all(&dir);
    for part in ["src", "tests", "benches", "examples"] {
        copy(&root.join(part), &dir.join(part));
    }
    for file in ["Cargo.toml", "Cargo.lock", "README.md"] {
        fs::copy(root.join(file), dir.join(file)).unwrap();
    }
    let model = || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--release", "--no-default-features", "--test", "cache_model"]).current_dir(&dir);
        cargo.env("RUSTFLAGS", "--cfg mapfall_model -C debug-assertions").env("RUST_BACKTRACE", "0");
        // What takes time is the building.
        cargo
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        let output = cargo.env("CARGO_TARGET_DIR", dir.join("../mutants-target")).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (passed, said) = model();
    assert!(passed, "the cache as it is: {said}");
    let mut missed = Vec::new();
    for (what, file, old, new) in MUTANTS {
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert_eq!(text.matches(old).count(), 1, "{file} no longer says: {old}");
        fs::write(dir.join(file), text.replace(old, new)).unwrap();
        let (passed, said) = model();
        fs::write(dir.join(file), text).unwrap();
        println!("{what}: {}", if passed { "NOT FOUND" } else { "found" });
        // One that does not build is not found. One that aborts is, though there is no result then.
        if passed || !said.contains("running 11 tests") {
            missed.push(what);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}
