//! Whether long reads of cold regions mostly find what they want.
//!
//! Where they do, the same few blocks are read again and again. What else is in their regions is worth little then, and
//! a long read alone costs not much more for each byte than a region does: so such regions are not read whole before
//! their reads have cost as much as that.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Reads from this length on count. Shorter ones gain so much by a region that it pays in any case.
const SKEWED_BYTES: usize = 128 << 10;
/// The mean is over so many.
const READS: u32 = 16;
/// All of the reads, as their share is counted.
const ALL: u32 = 1 << 16;
/// The share from which on there is skew.
const HIGH: u32 = ALL / 16 * 3;
/// A read from the page cache takes no longer than this, and a nanosecond for so many bytes.
const HIT_NS: u64 = 20_000;
const HIT_BYTES_PER_NS: u64 = 4;
/// Above the share stands how many reads there were, up to [`READS`].
const COUNT_SHIFT: u32 = 24;

/// The share of late long reads of cold regions that found what they wanted in the page cache: a running mean.
#[derive(Debug, Default)]
pub(super) struct Skew(AtomicU32);

impl Skew {
    /// A read of a cold region has taken so long. Of two that end at once one may be lost.
    pub(super) fn note(&self, len: usize, took_ns: u64) {
        if len < SKEWED_BYTES {
            return;
        }
        let (count, share) = self.get();
        let count = (count + 1).min(READS);
        let is_hit = took_ns < HIT_NS + len as u64 / HIT_BYTES_PER_NS;
        let share = share - share / count + if is_hit { ALL / count } else { 0 };
        self.0.store(count << COUNT_SHIFT | share.min(ALL), Relaxed);
    }

    /// Whether reads as long find so much that they do not make a region worth reading.
    pub(super) fn is_high(&self, len: usize) -> bool {
        let (count, share) = self.get();
        len >= SKEWED_BYTES && count == READS && share >= HIGH
    }

    /// Whether that is so, or too few were seen to tell.
    pub(super) fn may_be_high(&self, len: usize) -> bool {
        len >= SKEWED_BYTES && self.get().0 < READS || self.is_high(len)
    }

    fn get(&self) -> (u32, u32) {
        let word = self.0.load(Relaxed);
        (word >> COUNT_SHIFT, word & ((1 << COUNT_SHIFT) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_often_counts_for_long_reads_only() {
        let (skew, len) = (Skew::default(), 256 << 10);
        assert!(skew.may_be_high(len) && !skew.is_high(len) && !skew.may_be_high(4096), "nothing is known");
        for _ in 0..100 {
            skew.note(len, 200_000);
            skew.note(4096, 500);
        }
        assert!(!skew.may_be_high(len));
        for _ in 0..100 {
            skew.note(len, 200_000);
            skew.note(len, 40_000);
        }
        assert!(skew.is_high(len));
        assert!(!skew.is_high(4096));
        for _ in 0..100 {
            skew.note(len, 200_000);
        }
        assert!(!skew.is_high(len));
    }
}
