//! Stores to measure: where they are, what their pages hold, and in which order they were written.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use mapfall::{CheckpointOptions, PageId, Store};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::run::Result;

/// Pages of the usual length, and of the length of a unit.
pub(crate) const PAGE_BYTES: usize = 4096;
const SCANNED_BYTES: usize = 4 << 20;

/// A directory below the target directory, removed when the value is dropped.
pub(crate) fn directory() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("store-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// A number from the environment.
pub(crate) fn setting<T: FromStr>(name: &str, usual: T) -> Result<T>
where
    T::Err: fmt::Display,
{
    match env::var(name) {
        Ok(text) => text.parse().map_err(|error| format!("{name}: {error}, found {text:?}").into()),
        Err(_) => Ok(usual),
    }
}

/// Bytes that do not compress and say which page they are of.
pub(crate) struct Content {
    bytes: Vec<u8>,
}

impl Content {
    pub(crate) fn new() -> Self {
        let mut bytes = vec![0; PAGE_BYTES];
        SmallRng::seed_from_u64(11).fill_bytes(&mut bytes);
        Content { bytes }
    }

    pub(crate) fn of(&mut self, page: u64) -> &[u8] {
        self.bytes[..16].copy_from_slice(&stamp(page));
        &self.bytes
    }
}

fn stamp(page: u64) -> [u8; 16] {
    let mut stamp = [0; 16];
    stamp[..8].copy_from_slice(&page.to_le_bytes());
    stamp[8..].copy_from_slice(&(!page).rotate_left(20).to_le_bytes());
    stamp
}

/// The numbers below `count` in an order that is the same each time.
pub(crate) fn shuffled(count: u64, seed: u64) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..count).collect();
    numbers.shuffle(&mut SmallRng::seed_from_u64(seed));
    numbers
}

/// Makes a store of as many pages as `order` has, written in that order, with one checkpoint.
pub(crate) fn make(path: &Path, order: &[u64]) -> Result<Store> {
    let store = Store::options().page_bytes(u32::try_from(PAGE_BYTES)?).create(path)?;
    let pages = store.pages();
    for number in 0..order.len() as u64 {
        assert_eq!(pages.allocate()?, PageId(number));
    }
    let mut content = Content::new();
    for page in order {
        pages.write(PageId(*page), content.of(*page))?;
    }
    let _ = store.checkpoint(CheckpointOptions::new())?;
    Ok(store)
}

/// Where the bytes of each page are, found by looking through the whole file. Each page was written once.
pub(crate) fn offsets(path: &Path, pages: u64) -> Result<Vec<u64>> {
    let mut offsets = vec![0; usize::try_from(pages)?];
    let mut file = File::open(path)?.take(u64::MAX);
    let (mut bytes, mut at, mut found) = (Vec::new(), 0, 0);
    loop {
        bytes.clear();
        let read = (&mut file).take(SCANNED_BYTES as u64).read_to_end(&mut bytes)?;
        if read == 0 {
            break;
        }
        for (unit, bytes) in (0..).zip(bytes.chunks_exact(PAGE_BYTES)) {
            let mut page = [0; 8];
            page.copy_from_slice(&bytes[..8]);
            let page = u64::from_le_bytes(page);
            if page < pages && bytes[..16] == stamp(page) {
                offsets[page as usize] = at + unit * PAGE_BYTES as u64;
                found += 1;
            }
        }
        at += read as u64;
    }
    assert_eq!(found, pages, "every page is in the file once");
    Ok(offsets)
}
