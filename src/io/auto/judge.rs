//! Does what is read fit into memory? Asked at open, and ten times a second by whoever reads.
//!
//! Two numbers are compared: the *capacity*, which is the page cache that there can be (`memory`), and the *working
//! set*, the regions that were read lately. Where the working set is the smaller one, regions are read whole. Where it
//! is not, nothing is read that was not asked for.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::core::Core;
use super::memory::{self, Memory};
use super::regions::{REGION_BYTES, State, bytes_of, regions_of};
use crate::io::BlockIo;

/// Between two judgements.
const PERIOD_NS: u64 = 100_000_000;
/// A region's use is noted to this, in a byte: ages up to half a minute can be told apart.
const TICK_NS: u64 = 125_000_000;
/// Used no longer ago than this is in the working set.
const SET_TICKS: u8 = 8;
/// Not used for longer than this may be given back.
const OLD_TICKS: u8 = 8;
/// Parts of the capacity, in percent: a working set above the first does not fit, one below the second does again.
const FIT_PERCENT: (u64, u64) = (90, 75);
/// One mapped read of a thread in 64 is timed while nothing goes, one in 8 while pages go of what fits. Where it does
/// not fit, each is.
const SAMPLE_MASK: u64 = 63;
const SAMPLE_MASK_WARY: u64 = 7;
/// Of long reads, from this length on, one in 8 at least: if their pages are gone, each takes a fault for every one of
/// them.
const SAMPLE_MASK_LONG: u64 = 7;
const LONG_BYTES: usize = 64 << 10;
/// A read that is as long is asked about first, while pages go of what fits.
const ASKED_BYTES_WARY: usize = 64 << 10;
/// The same where it does not fit.
const ASKED_BYTES: usize = 16 << 10;
/// Regions that one judgement gives back at most.
const RELEASE_MAX: usize = 256;

/// What was found last.
#[derive(Debug)]
pub(super) struct Judge {
    /// When the next judgement is due. Relaxed, as all here: whoever sees an old value judges a little sooner or later.
    due_ns: AtomicU64,
    is_tight: AtomicBool,
    sample_mask: AtomicU64,
    asked_bytes: AtomicUsize,
    /// Evictions that were seen before the last judgement.
    evictions_before: AtomicU64,
    fits_whole: AtomicBool,
    capacity_bytes: AtomicU64,
    working_set_bytes: AtomicU64,
    limits: Limits,
    /// What was said last. Whoever holds it judges.
    memory: Mutex<Memory>,
}

/// What the user allows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) page_cache_bytes_max: Option<u64>,
    pub(super) page_table_bytes_max: Option<u64>,
}

impl Judge {
    pub(super) fn new(limits: Limits) -> Self {
        Judge {
            due_ns: AtomicU64::new(0),
            is_tight: AtomicBool::new(false),
            sample_mask: AtomicU64::new(SAMPLE_MASK),
            asked_bytes: AtomicUsize::new(usize::MAX),
            evictions_before: AtomicU64::new(0),
            fits_whole: AtomicBool::new(false),
            capacity_bytes: AtomicU64::new(limits.page_cache_bytes_max.unwrap_or(u64::MAX)),
            working_set_bytes: AtomicU64::new(0),
            limits,
            memory: Mutex::new(Memory::default()),
        }
    }

    pub(super) fn tick(&self, now_ns: u64) -> u8 {
        (now_ns / TICK_NS) as u8
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes.load(Relaxed)
    }

    pub(super) fn working_set_bytes(&self) -> u64 {
        self.working_set_bytes.load(Relaxed)
    }

    pub(super) fn memory(&self) -> Memory {
        *self.memory.lock()
    }

    /// Whether regions may be read whole because single reads of them cost too much.
    pub(super) fn may_load(&self) -> bool {
        !self.is_tight.load(Relaxed)
    }

    /// Whether regions may be read whole that nobody has read of yet: all of the file would fit.
    pub(super) fn may_load_unused(&self) -> bool {
        self.may_load() && self.fits_whole.load(Relaxed)
    }

    /// Whether a thread's mapped read is timed: by its number. A read that finds its page gone costs thousands of looks
    /// at the clock; one of what is there costs a few.
    #[inline]
    pub(super) fn is_sampled(&self, number: u64, len: usize) -> bool {
        let of_long = if len >= LONG_BYTES { SAMPLE_MASK_LONG } else { u64::MAX };
        number & self.sample_mask.load(Relaxed) & of_long == 0
    }

    /// Whether a mapped read is so long that it is asked about first: while pages go, that takes less than one fault,
    /// and it can have many.
    #[inline]
    pub(super) fn is_asked_about(&self, len: usize) -> bool {
        len >= self.asked_bytes.load(Relaxed)
    }

    /// A page was found gone.
    pub(super) fn beware(&self) {
        self.set_wary(true);
    }

    /// Whether pages go from under the map: what is read does not fit, or was found gone since the last judgement but
    /// one.
    fn set_wary(&self, is_wary: bool) {
        let (sample_mask, asked_bytes) = match (self.may_load(), is_wary) {
            (true, false) => (SAMPLE_MASK, usize::MAX),
            (true, true) => (SAMPLE_MASK_WARY, ASKED_BYTES_WARY),
            (false, _) => (0, ASKED_BYTES),
        };
        self.sample_mask.store(sample_mask, Relaxed);
        self.asked_bytes.store(asked_bytes, Relaxed);
    }

    /// Something has happened that should not have: judge at the next read, but not more often than a hundred times a
    /// second.
    pub(super) fn hasten(&self) {
        let _ = self.due_ns.fetch_update(Relaxed, Relaxed, |due_ns| Some(due_ns.saturating_sub(PERIOD_NS / 10 * 9)));
    }
}

impl Core {
    pub(super) fn judge_if_due(&self, now_ns: u64) {
        let due_ns = self.judge.due_ns.load(Relaxed);
        if now_ns >= due_ns && self.judge.due_ns.compare_exchange(due_ns, now_ns + PERIOD_NS, Relaxed, Relaxed).is_ok()
        {
            self.judge_now(now_ns);
        }
    }

    #[cold]
    fn judge_now(&self, now_ns: u64) {
        let judge = &self.judge;
        let Some(mut last) = judge.memory.try_lock() else { return };
        let Some(memory) = memory::lately() else { return };
        *last = memory;
        drop(last);
        let capacity_bytes = memory.capacity_bytes.min(judge.limits.page_cache_bytes_max.unwrap_or(u64::MAX));
        judge.capacity_bytes.store(capacity_bytes, Relaxed);

        let file_len_bytes = self.map.pread.len().unwrap_or(0);
        let regions = regions_of(file_len_bytes);
        let tick = judge.tick(now_ns);
        let (mut used, mut mapped) = (0_u64, 0_u64);
        for (_, state, age) in self.regions.noted(regions, tick) {
            used += u64::from(age <= SET_TICKS && state != State::Unknown);
            mapped += u64::from(state.is_served());
        }
        let working_set_bytes = used * REGION_BYTES;
        judge.working_set_bytes.store(working_set_bytes, Relaxed);
        self.counters.judgements.add(1);

        let was_tight = judge.is_tight.load(Relaxed);
        let percent = if was_tight { FIT_PERCENT.1 } else { FIT_PERCENT.0 };
        let is_tight = working_set_bytes > capacity_bytes / 100 * percent;
        if is_tight != was_tight {
            judge.is_tight.store(is_tight, Relaxed);
            self.counters.mode_changes.add(1);
            let path = self.map.pread.path().display();
            tracing::info!(%path, is_tight, working_set_bytes, capacity_bytes, "whether it fits has changed");
            if is_tight {
                self.leave_pages_to_the_kernel(regions, tick);
            }
        }
        let evictions = self.counters.evictions_seen.get();
        let is_seen = judge.evictions_before.swap(evictions, Relaxed) != evictions;
        judge.set_wary(is_tight || is_seen);
        let fits_whole = file_len_bytes <= capacity_bytes / 100 * FIT_PERCENT.0;
        judge.fits_whole.store(fits_whole, Relaxed);
        self.give_back(mapped, regions, tick, capacity_bytes, is_tight);
    }

    /// The working set does not fit: what was read whole goes, so that the kernel can keep the pages that are used
    /// most, and what else is mapped is asked about again.
    fn leave_pages_to_the_kernel(&self, regions: u64, tick: u8) {
        for (region, state, _) in self.regions.noted(regions, tick) {
            let is_loaded = self.regions.is_loaded(region);
            if state.is_served() && self.regions.change(region, state, State::Unknown) && is_loaded {
                self.regions.set(region, State::Cold);
                self.drop_region(region);
                self.counters.released.add(1);
            }
        }
    }

    /// Gives back parts of the map that were not used for long, where there is not room for all: in the page table, or
    /// in memory.
    fn give_back(&self, mapped: u64, regions: u64, tick: u8, capacity_bytes: u64, is_tight: bool) {
        let tables_max = self.judge.limits.page_table_bytes_max.unwrap_or(u64::MAX) / rustix::param::page_size() as u64;
        let too_many = mapped.saturating_sub(tables_max);
        let too_much = mapped.saturating_sub(capacity_bytes / 100 * FIT_PERCENT.0 / REGION_BYTES);
        if too_many == 0 && too_much == 0 {
            return;
        }
        let of_file = self.regions.noted(regions, tick).filter(|(_, state, _)| state.is_served());
        let mut old: Vec<(u8, u64, State)> = of_file.map(|(region, state, age)| (age, region, state)).collect();
        old.sort_unstable_by_key(|(age, region, _)| std::cmp::Reverse((*age, *region)));
        let count = usize::try_from(too_many.max(too_much)).unwrap_or(usize::MAX).min(RELEASE_MAX);
        for (age, region, state) in old.into_iter().take(count) {
            let may_leave_memory = too_much > 0 && (is_tight || age > OLD_TICKS);
            if !may_leave_memory && too_many == 0 || !self.regions.change(region, state, State::Unknown) {
                continue;
            }
            if may_leave_memory {
                self.drop_region(region);
            } else {
                self.map.window.release(bytes_of(region));
            }
            self.counters.released.add(1);
        }
    }
}
