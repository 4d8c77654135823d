//! What is known of each 2 MiB of a file, in one word a region.
//!
//! Memory is taken when a region is first noted: the words lie in zeroed memory, in tables that double in length, so a
//! file of a tebibyte costs nothing until it is read.
//!
//! All accesses are Relaxed. A word carries no other memory with it: a reader that sees an old state takes the map
//! where a system call would be cheaper, or the other way round, and either returns the right bytes.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::sys::zeroed::{Zeroed, get_or_try_make};

/// What one entry of a middle page table maps, and what the largest folio holds.
pub(super) const REGION_BYTES: u64 = 2 << 20;
const REGION_SHIFT: u32 = REGION_BYTES.trailing_zeros();

/// Regions of the first table, 64 GiB; each later table doubles what there is.
const FIRST_REGIONS: usize = 1 << 15;
/// Tables to the end of what an offset can say.
const TABLES: usize = 64 - (REGION_SHIFT as usize + 15) + 1;

const STATE_MASK: u32 = 0b111;
const BACKOFF_SHIFT: u32 = 3;
const BACKOFF_MAX: u32 = 15;
/// By how many doublings a failure puts a region off.
const FAILED_DOUBLINGS: u32 = 5;
const STAMP_SHIFT: u32 = 7;
const STAMP_MASK: u32 = 0xFF;
/// Set in a region that was read whole because its reads cost too much.
const LOADED: u32 = 1 << 15;
/// Set in one that was used since then, which has nothing on its account.
const USED: u32 = 1 << COST_SHIFT;
const COST_SHIFT: u32 = 16;
const COST_MAX: u32 = (1 << 16) - 1;
/// What an account counts in.
const COST_UNIT_NS: u64 = 256;
/// A region is looked at when its reads have cost so much more than they would have from the map; each look that brings
/// nothing doubles it.
const LOOK_NS: u64 = 16_000;
/// The most that can be on an account.
pub(super) const ACCOUNT_NS_MAX: u64 = COST_MAX as u64 * COST_UNIT_NS;

/// What a region's reads should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum State {
    /// Nobody has asked yet, or what was known is old.
    Unknown = 0,
    /// All of it was in the page cache: the map serves it.
    Mapped = 1,
    /// Not all of it is: `pread` serves it.
    Cold = 2,
    /// It is to be read whole; whoever needs it first does that.
    Queued = 3,
    /// It is being read whole.
    Loading = 4,
    /// As `Mapped`, read ahead of a scan, and not touched since: the first touch tells that the scan has come so far.
    Ahead = 5,
    /// As `Mapped`, read ahead of a scan that has reached it: it may go when the scan has left it.
    Passing = 6,
}

impl State {
    /// Whether the map serves such a region, or will at the first touch.
    pub(super) fn is_served(self) -> bool {
        matches!(self, State::Mapped | State::Passing | State::Ahead)
    }

    fn of(word: u32) -> Self {
        match word & STATE_MASK {
            1 => State::Mapped,
            2 => State::Cold,
            3 => State::Queued,
            4 => State::Loading,
            5 => State::Ahead,
            6 => State::Passing,
            _ => State::Unknown,
        }
    }
}

/// The words of a file's regions.
#[derive(Debug)]
pub(super) struct Regions {
    tables: [OnceLock<Zeroed<AtomicU32>>; TABLES],
}

/// The number of the region that holds a byte.
#[inline]
pub(super) fn region_of(offset: u64) -> u64 {
    offset >> REGION_SHIFT
}

/// How many regions a file of this length has, an empty one included.
pub(super) fn regions_of(len_bytes: u64) -> u64 {
    region_of(len_bytes.saturating_sub(1)) + 1
}

/// The bytes of a region.
pub(super) fn bytes_of(region: u64) -> Range<u64> {
    region * REGION_BYTES..(region + 1) * REGION_BYTES
}

/// The table that has the region, and its place there.
#[inline]
fn place_of(region: u64) -> (usize, usize) {
    let region = usize::try_from(region).unwrap_or(usize::MAX);
    if region < FIRST_REGIONS {
        return (0, region);
    }
    // Table t has the regions from FIRST << (t - 1) on, as many as all before it.
    let table = (region.ilog2() - FIRST_REGIONS.ilog2() + 1) as usize;
    (table, region - (FIRST_REGIONS << (table - 1)))
}

/// What is on the account in a region's word.
fn account_ns(word: u32) -> u64 {
    u64::from(word >> COST_SHIFT) * COST_UNIT_NS
}

impl Regions {
    pub(super) fn new() -> Self {
        Regions { tables: [const { OnceLock::new() }; TABLES] }
    }

    /// The region's word, if one of its table was ever changed.
    #[inline]
    fn get(&self, region: u64) -> Option<&AtomicU32> {
        let (table, index) = place_of(region);
        self.tables.get(table)?.get()?.values().get(index)
    }

    /// Nothing where there is no address space for its table: then the region stays unknown, and is read by calls.
    fn get_or_make(&self, region: u64) -> Option<&AtomicU32> {
        let (table, index) = place_of(region);
        let len = FIRST_REGIONS << table.saturating_sub(1);
        // In small pages, so that a far region costs 4 KiB, not 2 MiB.
        let make = || Zeroed::try_new(len, len * size_of::<AtomicU32>());
        get_or_try_make(self.tables.get(table)?, make)?.values().get(index)
    }

    /// Whether the map serves every region that `len` bytes at `offset` touch. `len` is not 0.
    #[inline]
    pub(super) fn all_mapped(&self, offset: u64, len: usize) -> bool {
        let first = region_of(offset);
        let last = region_of(offset.saturating_add(len as u64 - 1));
        let is_mapped = |region| {
            let is_served = |word: u32| matches!(State::of(word), State::Mapped | State::Passing);
            self.get(region).is_some_and(|word| is_served(word.load(Relaxed)))
        };
        is_mapped(first) && (first == last || (first + 1..=last).all(is_mapped))
    }

    pub(super) fn state(&self, region: u64) -> State {
        self.get(region).map_or(State::Unknown, |word| State::of(word.load(Relaxed)))
    }

    fn update(&self, region: u64, change: impl Fn(u32) -> u32) {
        if let Some(word) = self.get_or_make(region) {
            let _ = word.fetch_update(Relaxed, Relaxed, |old| Some(change(old)));
        }
    }

    /// Puts a region into a state, with nothing on its account.
    pub(super) fn set(&self, region: u64, state: State) {
        self.update(region, |word| (word & (STAMP_MASK << STAMP_SHIFT)) | state as u32);
    }

    /// A region could not be read whole: much more must be on its account before that is tried again.
    pub(super) fn fail(&self, region: u64) {
        self.update(region, |word| {
            let backoff = (((word >> BACKOFF_SHIFT) & BACKOFF_MAX) + FAILED_DOUBLINGS).min(BACKOFF_MAX);
            (word & (STAMP_MASK << STAMP_SHIFT)) | (backoff << BACKOFF_SHIFT) | State::Cold as u32
        });
    }

    /// Whether reading it whole has failed, and less was spent on it since than that puts it off by.
    pub(super) fn is_put_off(&self, region: u64) -> bool {
        self.get(region).is_some_and(|word| {
            let word = word.load(Relaxed);
            let backoff = (word >> BACKOFF_SHIFT) & BACKOFF_MAX;
            backoff >= FAILED_DOUBLINGS && account_ns(word) < (LOOK_NS << backoff) / 2
        })
    }

    /// Puts a region into a state if it is in another one still, with nothing on its account. False if it is not.
    pub(super) fn change(&self, region: u64, from: State, to: State) -> bool {
        self.get_or_make(region).is_some_and(|word| {
            word.fetch_update(Relaxed, Relaxed, |old| {
                let kept = (STAMP_MASK << STAMP_SHIFT) | (BACKOFF_MAX << BACKOFF_SHIFT) | LOADED;
                (State::of(old) == from).then_some((old & kept) | to as u32)
            })
            .is_ok()
        })
    }

    /// A region is served by the map from now on, since it was read whole.
    pub(super) fn set_loaded(&self, region: u64) {
        self.update(region, |word| (word & (STAMP_MASK << STAMP_SHIFT)) | LOADED | State::Mapped as u32);
    }

    /// A region that was noted was used at this tick.
    pub(super) fn stamp(&self, region: u64, tick: u8) {
        let used = |word: u32| {
            let is_loaded = word & LOADED != 0 && State::of(word).is_served();
            word & !(STAMP_MASK << STAMP_SHIFT) | u32::from(tick) << STAMP_SHIFT | if is_loaded { USED } else { 0 }
        };
        if let Some(word) = self.get(region) {
            let old = word.load(Relaxed);
            if used(old) != old {
                self.update(region, used);
            }
        }
    }

    /// Whether a region that was read whole was used since, as far as reads are timed.
    pub(super) fn is_used(&self, region: u64) -> bool {
        self.get(region).is_some_and(|word| word.load(Relaxed) & (LOADED | USED) == LOADED | USED)
    }

    /// Adds to what reads of a cold region have cost above what they would from the map, and uses it at this tick.
    /// Returns the sum, and what it must be for the region to be looked at.
    pub(super) fn charge(&self, region: u64, cost_ns: u64, tick: u8) -> (u64, u64) {
        let units = u32::try_from(cost_ns / COST_UNIT_NS).unwrap_or(COST_MAX);
        let Some(word) = self.get_or_make(region) else { return (0, ACCOUNT_NS_MAX) };
        let add = |old: u32| {
            let cost = (old >> COST_SHIFT).saturating_add(units).min(COST_MAX);
            (old & (STATE_MASK | (BACKOFF_MAX << BACKOFF_SHIFT)))
                | (u32::from(tick) << STAMP_SHIFT)
                | (cost << COST_SHIFT)
        };
        let old = word.fetch_update(Relaxed, Relaxed, |old| Some(add(old))).unwrap_or(0);
        let new = add(old);
        let look_ns = LOOK_NS << ((new >> BACKOFF_SHIFT) & BACKOFF_MAX);
        (account_ns(new), look_ns.min(ACCOUNT_NS_MAX))
    }

    /// The state of a region, and what is on its account.
    pub(super) fn spent(&self, region: u64) -> (State, u64) {
        let word = self.get(region).map_or(0, |word| word.load(Relaxed));
        (State::of(word), account_ns(word))
    }

    /// Looking at a cold region brought nothing: twice as much must be on its account next time, at the least.
    pub(super) fn put_off(&self, region: u64) {
        self.update(region, |word| {
            let cost = (word >> COST_SHIFT).min(COST_MAX / 2);
            let mut backoff = (((word >> BACKOFF_SHIFT) & BACKOFF_MAX) + 1).min(BACKOFF_MAX);
            while backoff < BACKOFF_MAX && LOOK_NS << backoff <= account_ns(word) {
                backoff += 1;
            }
            (word & (STATE_MASK | (STAMP_MASK << STAMP_SHIFT))) | (backoff << BACKOFF_SHIFT) | (cost << COST_SHIFT)
        });
    }

    /// Whether it was read whole, as [`Regions::set_loaded`] says, and its state is still the map's.
    pub(super) fn is_loaded(&self, region: u64) -> bool {
        self.get(region).is_some_and(|word| word.load(Relaxed) & LOADED != 0)
    }

    /// The regions below `end` that were ever noted, with their states and the ticks that have passed since their last
    /// use.
    pub(super) fn noted(&self, end: u64, tick: u8) -> impl Iterator<Item = (u64, State, u8)> + '_ {
        let tables = self.tables.iter().enumerate().filter_map(|(table, words)| {
            let first = if table == 0 { 0 } else { FIRST_REGIONS << (table - 1) };
            Some((first as u64, words.get()?))
        });
        tables.flat_map(move |(first, words)| {
            let len = usize::try_from(end.saturating_sub(first)).unwrap_or(usize::MAX).min(words.values().len());
            words.values()[..len].iter().enumerate().filter_map(move |(index, word)| {
                let word = word.load(Relaxed);
                let age = tick.wrapping_sub(((word >> STAMP_SHIFT) & STAMP_MASK) as u8);
                (word != 0).then(|| (first + index as u64, State::of(word), age))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_has_a_place_of_its_own() {
        let mut last = None;
        for region in (0..FIRST_REGIONS as u64 * 8).chain([u64::MAX >> REGION_SHIFT]) {
            let (table, index) = place_of(region);
            assert!(table < TABLES && index < FIRST_REGIONS << table.saturating_sub(1));
            assert_ne!(last.replace((table, index)), Some((table, index)));
            if index > 0 && region < FIRST_REGIONS as u64 * 8 {
                assert_eq!(place_of(region - 1), (table, index - 1));
            }
        }
    }

    #[test]
    fn a_far_region_needs_no_table_before_it() {
        let regions = Regions::new();
        let far = region_of(1 << 50);
        regions.set(far, State::Mapped);
        assert_eq!(regions.state(far), State::Mapped);
        assert_eq!(regions.state(far - 1), State::Unknown);
        assert!(regions.tables[0].get().is_none());
        assert_eq!(regions.noted(u64::MAX, 0).collect::<Vec<_>>(), [(far, State::Mapped, 0)]);
        assert!(regions.all_mapped((1 << 50) + 5, 4096));
        assert!(!regions.all_mapped((1 << 50) + REGION_BYTES - 1, 2), "the next region is not");
        assert!(!regions.all_mapped(u64::MAX, 4096));
    }

    #[test]
    fn an_account_sums_up_and_begins_again() {
        let regions = Regions::new();
        regions.set(3, State::Cold);
        let look_ns = |doublings: u32| LOOK_NS << doublings;
        assert_eq!(regions.charge(3, 100 * COST_UNIT_NS, 9), (100 * COST_UNIT_NS, look_ns(0)));
        assert_eq!(regions.charge(3, 50 * COST_UNIT_NS, 10), (150 * COST_UNIT_NS, look_ns(0)));
        assert_eq!(regions.noted(10, 12).collect::<Vec<_>>(), [(3, State::Cold, 2)]);
        // More than twice as much was spent before it was looked at.
        regions.put_off(3);
        assert_eq!(regions.charge(3, 0, 10), (150 * COST_UNIT_NS, look_ns(2)));
        assert_eq!(regions.spent(3), (State::Cold, 150 * COST_UNIT_NS));
        assert_eq!(regions.charge(3, u64::MAX, 10), (ACCOUNT_NS_MAX, look_ns(2)));
        regions.put_off(3);
        let (sum_ns, look_ns_max) = regions.charge(3, 0, 10);
        assert!(sum_ns < look_ns_max && look_ns_max == ACCOUNT_NS_MAX, "not at every read");
        assert!(!regions.change(3, State::Unknown, State::Loading));
        assert!(regions.change(3, State::Cold, State::Loading));
        assert_eq!(regions.state(3), State::Loading);
        assert_eq!(regions.charge(3, 0, 10).0, 0, "a new account");
        regions.set(3, State::Loading);
        assert!(!regions.is_put_off(3));
        regions.fail(3);
        assert_eq!((regions.state(3), regions.is_put_off(3)), (State::Cold, true));
        assert_eq!(regions.charge(3, 0, 10), (0, look_ns(5)));
        assert_eq!(regions.charge(3, look_ns(5), 10), (look_ns(5), look_ns(5)));
        assert!(!regions.is_put_off(3), "it may be tried again");
        regions.set(3, State::Loading);
        regions.stamp(3, 200);
        assert_eq!(regions.noted(10, 201).collect::<Vec<_>>(), [(3, State::Loading, 1)]);
    }
}
