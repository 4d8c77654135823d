//! The page table in memory: entries of two words, read without a lock.
//!
//! Entries are in chunks, which never move, below two levels of pointers. A lookup is three loads, of which the first
//! two are of memory so small that it stays in the processor's cache. (Segments that double in length would save a
//! level, but finding one takes `bsr`, which on x86-64 waits for whatever was in its target register before: in a batch
//! that was the entry looked up last, so that the waits for entries did not overlap.)

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::format::Entry;
use crate::sys::sync::{AtomicU64, fence};
use crate::sys::zeroed::{Pair, Zeroed, get_or_try_make, no_address_space};

// A model has few of everything.
const CHUNK_BITS: u32 = if cfg!(all(test, mapfall_model)) { 2 } else { 20 };
const CHUNK_PAGES: u64 = 1 << CHUNK_BITS;
/// Pointers in each level: together with the chunks enough for 40 bits of pages.
const LEVEL_BITS: u32 = if cfg!(all(test, mapfall_model)) { 1 } else { 10 };
const LEVEL: usize = 1 << LEVEL_BITS;

/// Pages of a run: those of the smallest leaf.
const RUN_PAGES: u64 = if cfg!(all(test, mapfall_model)) { 2 } else { 256 };

/// Entries that are in memory together.
#[derive(Debug)]
struct Chunk {
    entries: Zeroed<Pair>,
    /// For each run the offset of its first page, units, where its pages lie one behind the other and none was stored
    /// since they were loaded; else 0.
    runs: Zeroed<Pair>,
}

impl Chunk {
    /// Nothing where there is no address space for it.
    fn new(page: u64) -> Option<Self> {
        // Small stores are in the beginning of the first one, which is not to take 2 MiB at once.
        let plain_bytes = if page < CHUNK_PAGES { 1 } else { 0 };
        let entries = Zeroed::try_new(CHUNK_PAGES as usize, plain_bytes)?;
        Some(Chunk { entries, runs: Zeroed::try_new((CHUNK_PAGES / RUN_PAGES / 2) as usize, 0)? })
    }
}

type Chunks = Box<[OnceLock<Chunk>]>;

/// Entries by page number. Those that nobody stored have a first word of [`crate::format::NOT_LOADED`].
#[derive(Debug)]
pub(crate) struct Words {
    levels: Box<[OnceLock<Chunks>]>,
}

fn empty<T>() -> Box<[OnceLock<T>]> {
    (0..LEVEL).map(|_| OnceLock::new()).collect()
}

impl Words {
    pub(crate) fn new() -> Self {
        Words { levels: empty() }
    }

    /// Where an entry is: in the first level, in the second, in its chunk.
    #[inline]
    fn place(page: u64) -> (usize, usize, usize) {
        let chunk = page >> CHUNK_BITS;
        let first = usize::try_from(chunk >> LEVEL_BITS).unwrap_or(usize::MAX);
        (first, chunk as usize % LEVEL, (page % CHUNK_PAGES) as usize)
    }

    /// The entry of a page, where its chunk is there.
    #[inline]
    pub(crate) fn get(&self, page: u64) -> Option<&[AtomicU64; 2]> {
        let (first, second, place) = Self::place(page);
        self.levels.get(first)?.get()?.get(second)?.get()?.entries.values().get(place)
    }

    /// Where the run of a page says that it is, to be looked at again when it was read there.
    #[inline]
    pub(crate) fn run(&self, page: u64) -> Option<Run<'_>> {
        let (first, second, place) = Self::place(page);
        let chunk = self.levels.get(first)?.get()?.get(second)?.get()?;
        let words = run_words(chunk, place)?;
        // Pairs with the Release store in `note_run`.
        let start_units = words.load(Ordering::Acquire);
        (start_units != 0).then_some(Run { words, start_units, index: page % RUN_PAGES })
    }

    /// Stores an entry. Callers take turns (by the lock of the store).
    pub(crate) fn store(&self, page: u64, entry: Entry) {
        let (chunk, place) = self.chunk_or_make(page);
        // Before the entry, so that who looks at the run again after a read sees this no later than the entry.
        if let Some(run) = run_words(chunk, place) {
            run.store(0, Ordering::Relaxed);
        }
        store(&chunk.entries.values()[place], entry);
    }

    /// Notes that the pages from `first_page` on, as many as a run has, were just loaded and lie one behind the other.
    pub(crate) fn note_run(&self, first_page: u64, start_units: u64) {
        let (chunk, place) = self.chunk_or_make(first_page);
        if let Some(run) = run_words(chunk, place) {
            // Pairs with the Acquire load in `run`: who sees it sees the entries.
            run.store(start_units, Ordering::Release);
        }
    }

    /// Makes the chunk of a page, which takes memory as it is stored to, so that a store to it takes no address space
    /// any more. Pages are below [`crate::format::PAGES_MAX`].
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub(crate) fn reserve(&self, page: u64) -> Result<()> {
        let wanted_bytes = CHUNK_PAGES * size_of::<Pair>() as u64;
        let (chunk, _) = self.cell(page);
        get_or_try_make(chunk, || Chunk::new(page)).map(|_| ()).ok_or(Error::OutOfMemory { wanted_bytes })
    }

    /// Where the chunk of a page is, or will be, and the page's place in it.
    fn cell(&self, page: u64) -> (&OnceLock<Chunk>, usize) {
        let (first, second, place) = Self::place(page);
        (&self.levels[first].get_or_init(empty)[second], place)
    }

    /// The chunk of a page, and the page's place in there.
    fn chunk_or_make(&self, page: u64) -> (&Chunk, usize) {
        let (chunk, place) = self.cell(page);
        let make = || Chunk::new(page).unwrap_or_else(|| no_address_space::<[Pair; CHUNK_PAGES as usize]>());
        (chunk.get_or_init(make), place)
    }

    /// Whether an entry that was loaded is still what it was, as [`is_still`].
    pub(crate) fn is_still(&self, page: u64, entry: Entry) -> bool {
        self.get(page).is_some_and(|words| is_still(words, entry))
    }
}

/// The run of the page at this place of a chunk.
#[inline]
fn run_words(chunk: &Chunk, place: usize) -> Option<&AtomicU64> {
    let run = place / RUN_PAGES as usize;
    chunk.runs.values().get(run / 2).map(|pair| &pair[run % 2])
}

/// Pages that lie one behind the other, as long as none of them is stored.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    words: &'a AtomicU64,
    start_units: u64,
    index: u64,
}

impl Run<'_> {
    /// How many pages a run has. A leaf of the page table has whole runs.
    pub(crate) const PAGES: u64 = RUN_PAGES;

    /// Where the page is, in units.
    #[inline]
    pub(crate) fn offset_units(&self, page_units: u64) -> u64 {
        self.start_units + self.index * page_units
    }

    /// Whether no entry of the run was stored, after the reads that came before in this thread.
    #[inline]
    pub(crate) fn is_still(&self) -> bool {
        // Reads of the block stay before the load.
        fence(Ordering::Acquire);
        self.words.load(Ordering::Relaxed) == self.start_units
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

fn store(words: &[AtomicU64; 2], entry: Entry) {
    words[1].store(entry.1, Ordering::Relaxed);
    // Pairs with the Acquire load in `load`.
    words[0].store(entry.0, Ordering::Release);
}

/// To be called with the lock of the free space held, before space that is taken there is written, by who writes it.
///
/// Release: pairs with the Acquire fences of [`is_still`] and [`Run::is_still`]. Who read bytes that are written there
/// from now on sees at the second look every entry that was moved away before the space was free.
pub(crate) fn before_reuse() {
    fence(Ordering::Release);
}

#[cfg(all(test, mapfall_model))]
mod model;

#[cfg(all(test, not(mapfall_model)))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_its_own_entry() {
        let words = Words::new();
        let pages = [0, 1, 4095, 4096, 8191, 8192, 12287, 12288, 1 << 20, (1 << 20) - 1, 7 << 20];
        for page in pages {
            assert!(words.get(page).is_none_or(|entry| load(entry).0 == crate::format::NOT_LOADED));
            words.store(page, Entry::stored(page + 1, page, 7));
        }
        for page in pages {
            assert_eq!(load(words.get(page).unwrap()), Entry::stored(page + 1, page, 7), "{page}");
        }
        words.note_run(4096, 9);
        assert_eq!(words.run(4096 + 255).map(|run| run.offset_units(2)), Some(9 + 255 * 2));
        assert!(words.run(4095).is_none() && words.run(4096 + 256).is_none());
        let run = words.run(4100).unwrap();
        assert!(run.is_still());
        words.store(4096 + 255, Entry::ABSENT);
        assert!(!run.is_still() && words.run(4096).is_none());
        assert!(words.get(crate::format::PAGES_MAX - 1).is_none());
        assert!(words.get(u64::MAX >> 1).is_none());
    }
}
