//! That `tests/cache_model.rs` finds what it is for: the cache is broken in one place at a time, and each time the
//! model must fail. It builds the crate once for each, hence it is a step of its own in `.ci/run`:
//!
//! ```text
//! cargo test --release --no-default-features --test cache_mutants -- --ignored --nocapture
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// Builds the model of the crate in the directory: the program, or what was wrong.
fn build(dir: &Path) -> Result<PathBuf, String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--release", "--no-default-features", "--test", "cache_model", "--no-run"]).current_dir(dir);
    cargo.env("RUSTFLAGS", "--cfg mapfall_model -C debug-assertions");
    cargo.env("CARGO_INCREMENTAL", "1").env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_TERM_COLOR", "never");
    let output = cargo.env("CARGO_TARGET_DIR", dir.join("../mutants-target")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let program = said.lines().find_map(|line| line.trim().strip_prefix("Executable tests/cache_model.rs ("));
    let program = program.and_then(|rest| rest.strip_suffix(')')).map(|path| dir.join(path));
    program.filter(|_| output.status.success()).ok_or(said)
}

/// Runs the model until a test fails: which did, or that all passed.
fn first_failure(program: &Path, dir: &Path) -> Option<String> {
    let mut model = Command::new(program);
    model.current_dir(dir).env("RUST_BACKTRACE", "0").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut model = model.spawn().unwrap();
    let mut lines = BufReader::new(model.stdout.take().unwrap()).lines().map_while(Result::ok);
    let failed = lines.find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned));
    if failed.is_some() {
        _ = model.kill();
    }
    let status = model.wait().unwrap();
    // One that aborts has no result.
    failed.or_else(|| (!status.success()).then(|| status.to_string()))
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
    let found = first_failure(&build(&dir).unwrap(), &dir);
    assert_eq!(found, None, "the cache as it is");
    let mut missed = Vec::new();
    for (what, file, old, new) in MUTANTS {
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert_eq!(text.matches(old).count(), 1, "{file} no longer says: {old}");
        fs::write(dir.join(file), text.replace(old, new)).unwrap();
        let program = build(&dir).unwrap_or_else(|said| panic!("{what}: does not build: {said}"));
        let found = first_failure(&program, &dir);
        fs::write(dir.join(file), text).unwrap();
        println!("{what}: {}", found.as_deref().unwrap_or("NOT FOUND"));
        if found.is_none() {
            missed.push(what);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}
