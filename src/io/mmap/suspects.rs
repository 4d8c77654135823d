//! The parts of a file whose pages have faulted although the file has them.
//!
//! A device that fails a read, or a full file system under a hole, faults again and again at the same place, and each
//! fault costs some microseconds. So the region around it is left to system calls for a while and then tried again.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::backoff::Backoff;

/// The size of a region: what one page-table entry of the largest usual kind maps.
const REGION_BYTES: u64 = 2 << 20;
/// More regions than this at a time, and it is the whole file that is suspect.
const REGIONS_MAX: usize = 64;
/// Reads before a region is tried again: at first, and at most.
const WAIT_READS: (u32, u32) = (16, 4096);

/// What a read should do about the regions it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// None of them is suspect.
    Clear,
    /// One is: use a system call.
    Avoid,
    /// One is, and it is time to try it: report what came of it.
    Try,
}

/// A table of suspect regions of one file.
#[derive(Debug)]
pub(super) struct Suspects {
    /// How many there are: 0 nearly always, and then all that a reader looks at.
    count: CachePadded<AtomicU32>,
    slots: Box<[Slot]>,
}

#[derive(Debug)]
struct Slot {
    /// The region's number plus 1, or 0 for a free slot. Taken and freed under the lock of the map's state; read by
    /// anyone. Relaxed suffices: a reader that sees an old value takes the map or a system call, and either is right.
    region: AtomicU64,
    backoff: Backoff,
}

impl Suspects {
    pub(super) fn new() -> Self {
        let slot = |_| Slot { region: AtomicU64::new(0), backoff: Backoff::new(WAIT_READS.0, WAIT_READS.1) };
        Suspects { count: CachePadded::new(AtomicU32::new(0)), slots: (0..REGIONS_MAX).map(slot).collect() }
    }

    /// Whether there is any.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// What a read of this range, which is not empty, should do.
    pub(super) fn judge(&self, offset: u64, len: usize) -> Verdict {
        self.touched(offset, len).fold(Verdict::Clear, |verdict, slot| match (verdict, slot.backoff.is_due()) {
            (Verdict::Avoid, _) | (_, false) => Verdict::Avoid,
            _ => Verdict::Try,
        })
    }

    /// A read of this range through the map worked after [`Verdict::Try`]. Only with the lock of the map's state held.
    pub(super) fn cleared(&self, offset: u64, len: usize) {
        for slot in self.touched(offset, len) {
            if !slot.backoff.worked() {
                slot.region.store(0, Ordering::Relaxed);
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// The byte at `offset` has faulted. Only with the lock of the map's state held. False if there is no room for it.
    pub(super) fn suspect(&self, offset: u64) -> bool {
        let region = offset / REGION_BYTES + 1;
        let of = |wanted| self.slots.iter().find(move |slot| slot.region.load(Ordering::Relaxed) == wanted);
        if let Some(slot) = of(region) {
            slot.backoff.failed();
            return true;
        }
        let Some(slot) = of(0) else { return false };
        slot.backoff.reset();
        slot.backoff.failed();
        slot.region.store(region, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Forgets all of them. Only with the lock of the map's state held.
    pub(super) fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.region.store(0, Ordering::Relaxed));
        self.count.store(0, Ordering::Relaxed);
    }

    fn touched(&self, offset: u64, len: usize) -> impl Iterator<Item = &Slot> {
        let first = offset / REGION_BYTES + 1;
        let last = offset.saturating_add(len as u64 - 1) / REGION_BYTES + 1;
        self.slots.iter().filter(move |slot| (first..=last).contains(&slot.region.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_avoided_for_a_while_then_tried_then_cleared() {
        let suspects = Suspects::new();
        assert!(!suspects.any());
        assert!(suspects.suspect(3 * REGION_BYTES + 17));
        assert!(suspects.any());
        assert_eq!(suspects.judge(2 * REGION_BYTES, REGION_BYTES as usize), Verdict::Clear);
        assert_eq!(suspects.judge(4 * REGION_BYTES, 1), Verdict::Clear);
        for _ in 0..WAIT_READS.0 {
            assert_eq!(suspects.judge(2 * REGION_BYTES, REGION_BYTES as usize + 1), Verdict::Avoid);
        }
        assert_eq!(suspects.judge(3 * REGION_BYTES, 4096), Verdict::Try);
        suspects.cleared(3 * REGION_BYTES, 4096);
        assert!(!suspects.any());
    }

    #[test]
    fn it_says_when_it_is_full_and_when_all_is_forgotten() {
        let suspects = Suspects::new();
        for region in 0..REGIONS_MAX as u64 {
            assert!(suspects.suspect(region * REGION_BYTES));
        }
        assert!(suspects.suspect(0), "known already");
        assert!(!suspects.suspect(REGIONS_MAX as u64 * REGION_BYTES));
        suspects.clear();
        assert!(!suspects.any());
        assert_eq!(suspects.judge(0, 4096), Verdict::Clear);
    }
}
