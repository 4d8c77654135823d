//! The bytes of blocks for `loom`: of each unit the first 16, as two words that are copied one after the other.
//!
//! Beside them is what a borrow sees, in a cell of which `loom` finds an access that is not ordered with a write.
//!
//! # Safety
//!
//! A model's threads are one of the system's, and each access ends before another thread runs.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64;

use super::UNIT_BYTES;

const WORD_BYTES: usize = 8;
const WORDS: usize = 2;

struct Unit {
    words: [AtomicU64; WORDS],
    borrowed: UnsafeCell<[u8; WORDS * WORD_BYTES]>,
}

pub(super) struct Bytes(Vec<Unit>);

// SAFETY: as the module says.
unsafe impl Sync for Bytes {}

impl Bytes {
    pub(super) fn new(bytes: usize) -> Option<Self> {
        let unit = || Unit { words: [AtomicU64::new(0), AtomicU64::new(0)], borrowed: UnsafeCell::new([0; 16]) };
        Some(Bytes((0..bytes.div_ceil(UNIT_BYTES)).map(|_| unit()).collect()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len() * UNIT_BYTES
    }

    pub(super) fn advise_huge(&self, _: usize, _: bool) {}

    pub(super) unsafe fn release(&self, range: Range<usize>) -> Option<Range<usize>> {
        Some(range)
    }

    pub(super) unsafe fn copy_out(&self, start: usize, buf: &mut [u8]) {
        for (word, part) in self.0[start / UNIT_BYTES].words.iter().zip(buf.chunks_mut(WORD_BYTES)) {
            part.copy_from_slice(&word.load(Relaxed).to_le_bytes()[..part.len()]);
        }
    }

    pub(super) unsafe fn copy_in(&self, start: usize, bytes: &[u8]) {
        let unit = &self.0[start / UNIT_BYTES];
        for (word, part) in unit.words.iter().zip(bytes.chunks(WORD_BYTES)) {
            let mut value = [0; WORD_BYTES];
            value[..part.len()].copy_from_slice(part);
            word.store(u64::from_le_bytes(value), Relaxed);
        }
        // SAFETY: as the module says; `loom` finds borrows that are not over.
        unit.borrowed.with_mut(|at| unsafe { (&mut *at)[..bytes.len()].copy_from_slice(bytes) });
    }

    pub(super) unsafe fn slice(&self, range: Range<usize>) -> &[u8] {
        let unit = &self.0[range.start / UNIT_BYTES];
        // SAFETY: as above.
        unit.borrowed.with(|at| unsafe { &(&*at)[..range.len()] })
    }

    #[allow(clippy::mut_from_ref, reason = "as the other one")]
    pub(super) unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [u8] {
        let unit = &self.0[range.start / UNIT_BYTES];
        // SAFETY: as above.
        unit.borrowed.with_mut(|at| unsafe { &mut (&mut *at)[..range.len()] })
    }
}
