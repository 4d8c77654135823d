//! What the processes share: how many changes were begun and how many are done, what the last of them were, and how far
//! the readers are.
//!
//! | word | written by | what it is |
//! |---|---|---|
//! | `BEGUN`, `DONE` | the changing process | changes begun, and done; numbers begin with 1 |
//! | `ROUNDS` | the changing process | rounds done |
//! | `REFUSED`, `HOLES_REFUSED`, `RENAMES` | the changing process | changes that the system refused, and new names |
//! | `STOP` | the readers' process | it is over |
//! | `ROUNDS_READ` | readers | the last round of which a read was checked |
//! | `APPLIED` | each reader its own | changes that it has gone through |
//! | `RING` | the changing process | the last changes |
//!
//! A change is in the ring before it is begun, and is overwritten only when all readers have gone through it. One that
//! came out differently (a full disk) is put right before it is done.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::change::{CHANGE_WORDS, Change};
use crate::sys::shared::SharedWords;

// A cache line is 8 words. What one side writes all the time is not on a line with what the other does.
const BEGUN: usize = 0;
const DONE: usize = 1;
pub(super) const ROUNDS: usize = 2;
pub(super) const REFUSED: usize = 3;
pub(super) const HOLES_REFUSED: usize = 4;
pub(super) const RENAMES: usize = 5;
pub(super) const STOP: usize = 8;
pub(super) const ROUNDS_READ: usize = 16;
const APPLIED: usize = 24;
/// Readers, and one for who looks at the file in the end.
pub(super) const READERS_MAX: usize = 65;
const LINE_WORDS: usize = 8;
const RING: usize = APPLIED + READERS_MAX * LINE_WORDS;
/// Changes that are remembered.
pub(super) const RING_CHANGES: u64 = 1 << 15;
const WORDS: usize = RING + RING_CHANGES as usize * CHANGE_WORDS;

/// A reader that is not there does not hold anything up.
pub(super) const NOT_READING: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Shared {
    words: SharedWords,
}

impl Shared {
    /// With the file that the other process gets it by.
    pub(super) fn create() -> io::Result<(Self, File)> {
        let (words, file) = SharedWords::create(WORDS)?;
        let shared = Shared { words };
        (0..READERS_MAX).for_each(|reader| shared.applied(reader).store(NOT_READING, Ordering::SeqCst));
        Ok((shared, file))
    }

    pub(super) fn of(file: &File) -> io::Result<Self> {
        let words = SharedWords::map(file)?;
        match words.words().len() {
            WORDS => Ok(Shared { words }),
            other => Err(io::Error::other(format!("expected {WORDS} shared words, found {other}"))),
        }
    }

    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        &self.words.words()[index]
    }

    pub(super) fn applied(&self, reader: usize) -> &AtomicU64 {
        self.word(APPLIED + reader * LINE_WORDS)
    }

    /// The changes that all readers have gone through.
    pub(super) fn applied_by_all(&self) -> u64 {
        (0..READERS_MAX).map(|reader| self.applied(reader).load(Ordering::Acquire)).min().unwrap_or(NOT_READING)
    }

    /// Changes that are done, for before a read. What the file was by then is seen by the read.
    pub(super) fn done(&self) -> u64 {
        let done = self.word(DONE).load(Ordering::SeqCst);
        fence(Ordering::SeqCst);
        done
    }

    /// Changes that were begun, for after a read. What the read saw was begun by then.
    pub(super) fn begun(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.word(BEGUN).load(Ordering::SeqCst)
    }

    /// A change with its number is about to be made.
    pub(super) fn begin(&self, number: u64, change: Change) {
        self.note(number, change);
        self.word(BEGUN).store(number, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// It is done, and this is what it was.
    pub(super) fn end(&self, number: u64, change: Change) {
        fence(Ordering::SeqCst);
        self.note(number, change);
        self.word(DONE).store(number, Ordering::SeqCst);
    }

    fn note(&self, number: u64, change: Change) {
        let first = Self::slot(number);
        for (index, word) in (first..).zip(change.to_words()) {
            self.word(index).store(word, Ordering::Relaxed);
        }
    }

    fn slot(number: u64) -> usize {
        RING + (number % RING_CHANGES) as usize * CHANGE_WORDS
    }

    /// A change that was begun, as far as its reader holds it.
    pub(super) fn change(&self, number: u64) -> Change {
        let first = Self::slot(number);
        let words = std::array::from_fn(|index| self.word(first + index).load(Ordering::Relaxed));
        Change::from_words(words).unwrap_or(Change::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_go_from_one_to_the_other() {
        let (one, file) = Shared::create().unwrap();
        let other = Shared::of(&file).unwrap();
        assert_eq!(other.applied_by_all(), NOT_READING);
        let change = Change::Write { start: 1, end: 9, version: 3 };
        one.begin(1, change);
        assert_eq!((other.done(), other.begun(), other.change(1)), (0, 1, change));
        one.end(1, Change::Write { start: 1, end: 4, version: 3 });
        assert_eq!((other.done(), other.change(1)), (1, Change::Write { start: 1, end: 4, version: 3 }));
        other.applied(7).store(1, Ordering::Release);
        assert_eq!(one.applied_by_all(), 1);
        Shared::of(&tempfile::tempfile().unwrap()).unwrap_err();
    }
}
