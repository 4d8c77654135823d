//! The page table in memory: entries of two words, read without a lock.
//!
//! Entries are in segments that double in length, so that nothing ever moves. A lookup is two loads, of which the first
//! is of memory so small that it stays in the processor's cache.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::format::Entry;
use crate::sys::zeroed::Zeroed;

const FIRST_BITS: u32 = 12;
const FIRST_PAGES: u64 = 1 << FIRST_BITS;
/// Segment `k` has `2^k` times the pages of the first: enough for 40 bits of pages.
const SEGMENTS: usize = 29;

/// Entries by page number. Those that nobody stored have a first word of [`crate::format::NOT_LOADED`].
#[derive(Debug)]
pub(crate) struct Words {
    segments: [OnceLock<Zeroed>; SEGMENTS],
}

impl Words {
    pub(crate) fn new() -> Self {
        Words { segments: [const { OnceLock::new() }; SEGMENTS] }
    }

    /// The segment of a page, and its place in there.
    #[inline]
    fn place(page: u64) -> (usize, usize) {
        let from_one = page.saturating_add(FIRST_PAGES);
        let segment = from_one.ilog2() - FIRST_BITS;
        (segment as usize, (from_one - (FIRST_PAGES << segment)) as usize)
    }

    /// The entry of a page, where its segment is there.
    #[inline]
    pub(crate) fn get(&self, page: u64) -> Option<&[AtomicU64; 2]> {
        let (segment, place) = Self::place(page);
        self.segments.get(segment)?.get()?.pairs().get(place)
    }

    /// The entry of a page below [`crate::format::PAGES_MAX`]. Makes its segment.
    pub(crate) fn get_or_make(&self, page: u64) -> &[AtomicU64; 2] {
        let (segment, place) = Self::place(page);
        let pairs = FIRST_PAGES as usize;
        &self.segments[segment].get_or_init(|| Zeroed::new(pairs.saturating_mul(1 << segment))).pairs()[place]
    }

    /// Whether an entry that was loaded is still what it was, as [`is_still`].
    pub(crate) fn is_still(&self, page: u64, entry: Entry) -> bool {
        self.get(page).is_some_and(|words| is_still(words, entry))
    }
}

/// Reads an entry. The words may be of two writes that follow each other; then [`is_still`] says no, or the second is
/// not finished yet.
#[inline]
pub(crate) fn load(words: &[AtomicU64; 2]) -> Entry {
    // Pairs with the Release store in `store`: who sees a new first word sees its second one.
    let low = words[0].load(Ordering::Acquire);
    Entry(low, words[1].load(Ordering::Relaxed))
}

/// Whether the entry is what it was, after the reads that came before in this thread.
#[inline]
pub(crate) fn is_still(words: &[AtomicU64; 2], entry: Entry) -> bool {
    // Reads of the block stay before the loads.
    fence(Ordering::Acquire);
    words[0].load(Ordering::Relaxed) == entry.0 && words[1].load(Ordering::Relaxed) == entry.1
}

/// Stores an entry. Callers take turns (by the lock of the store).
pub(crate) fn store(words: &[AtomicU64; 2], entry: Entry) {
    words[1].store(entry.1, Ordering::Relaxed);
    // Pairs with the Acquire load in `load`.
    words[0].store(entry.0, Ordering::Release);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_its_own_entry() {
        let words = Words::new();
        let pages = [0, 1, 4095, 4096, 8191, 8192, 12287, 12288, 1 << 20, (1 << 20) - 1, 7 << 20];
        for page in pages {
            assert!(words.get(page).is_none_or(|entry| load(entry).0 == crate::format::NOT_LOADED));
            store(words.get_or_make(page), Entry::stored(page + 1, page, 7));
        }
        for page in pages {
            assert_eq!(load(words.get(page).unwrap()), Entry::stored(page + 1, page, 7), "{page}");
        }
        assert!(words.get(crate::format::PAGES_MAX - 1).is_none());
        assert!(words.get(u64::MAX >> 1).is_none());
    }
}
