//! A persistent key-value store on mapfall: a B+tree whose nodes are pages and whose long values are blocks.
//!
//! `cargo run --release --example btree` makes one in a temporary directory and says what it did.
#![allow(clippy::print_stdout, reason = "it is there to be looked at")]

mod tree;

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use mapfall::{IoMode, IoOptions, Store, StoreOptions};

use tree::{Tree, TreeSnapshot};

const KEYS: u32 = 100_000;
/// Each so many keys have a value that takes a block of its own.
const LONG_EVERY: u32 = 1000;

fn key(number: u32) -> Vec<u8> {
    format!("user/{number:08}").into_bytes()
}

fn value(number: u32) -> Vec<u8> {
    let len_bytes = if number.is_multiple_of(LONG_EVERY) { 20_000 } else { 40 };
    format!("value {number} ").into_bytes().into_iter().cycle().take(len_bytes).collect()
}

fn options() -> StoreOptions {
    Store::options().io(IoOptions::new().mode(IoMode::Mmap))
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("tree");
    build(&path)?;
    use_it(&path)
}

/// Makes a tree, keeps a checkpoint of it, and leaves it as a crash would.
fn build(path: &Path) -> Result<(), Box<dyn Error>> {
    let tree = Tree::open(options().create(path)?)?;
    let start = Instant::now();
    // Not in the order of the keys: a prime is coprime to their number.
    for step in 0..KEYS {
        let number = (u64::from(step) * 7_919 % u64::from(KEYS)) as u32;
        tree.insert(&key(number), &value(number))?;
    }
    let root = tree.root();
    let pages = tree.store().pages().count();
    println!("inserted {} keys in {:.2?}: {pages} pages, {} blocks", root.entries, start.elapsed(), root.value_blocks);

    let report = tree.checkpoint(Some("full"))?;
    println!("checkpoint {}: {} bytes of its own, all durable", report.generation, report.bytes_written);
    println!("the longest key there can be has {} bytes", tree.key_bytes_max());

    tree.insert(b"user/lost", b"this comes after the checkpoint")?;
    Ok(())
}

/// Opens the tree again, halves it, and looks at what it was from where another process would.
fn use_it(path: &Path) -> Result<(), Box<dyn Error>> {
    let tree = Tree::open(options().open(path)?)?;
    println!("opened again: {} keys, user/lost is {:?}", tree.root().entries, tree.get(b"user/lost")?);

    let start = Instant::now();
    let mut bytes = 0;
    for entry in tree.range(..) {
        bytes += entry?.1.len();
    }
    println!("read them all in {:.2?}: {bytes} bytes of values", start.elapsed());
    for entry in tree.range(key(49_999)..=key(50_001)) {
        let (key, value) = entry?;
        println!("  {}: {} bytes", String::from_utf8_lossy(&key), value.len());
    }

    let start = Instant::now();
    for number in (0..KEYS).step_by(2) {
        tree.remove(&key(number))?;
    }
    tree.checkpoint(None)?;
    let pages = tree.store().pages().count();
    println!("removed every second one in {:.2?}: {} keys in {pages} pages", start.elapsed(), tree.root().entries);
    assert_eq!(tree.check()?, tree.root());

    let elsewhere = TreeSnapshot::new(options().open_snapshot_of(path, "full")?)?;
    println!("the kept checkpoint, opened for reading beside the writer: {} keys", elsewhere.root().entries);
    assert_eq!(elsewhere.check()?, elsewhere.root());
    assert_eq!(elsewhere.get(&key(0))?, Some(value(0)));
    assert_eq!(tree.get(&key(0))?, None);
    assert_eq!(tree.snapshot()?.range(..).count(), tree.snapshot_of("full")?.range(..).count() / 2);

    drop(elsewhere);
    tree.store().drop_checkpoint("full")?;
    let report = tree.checkpoint(None)?;
    println!("let go of it: {} units are free again", report.units_freed);
    Ok(())
}
