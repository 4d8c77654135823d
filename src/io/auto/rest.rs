//! The rest of a file: what is not in the page cache of one that is read all over.

use std::sync::atomic::Ordering::Relaxed;

use super::core::{Core, LOAD_PART};
use super::loader::{self, Work};

impl Core {
    /// Reads what is not there of a file of so many regions, each thread a part, in order: if cold reads have cost
    /// enough for that, and come from much of the file.
    pub(super) fn consider_rest(&self, missing_regions: u64, regions: u64, is_wide: bool) {
        let rest_ns =
            if missing_regions == 0 { u64::MAX } else { missing_regions.saturating_mul(self.load_ns()) / LOAD_PART };
        let spent_ns = self.spent_ns.load(Relaxed);
        let is_worth_it = spent_ns >= rest_ns;
        // Where they come from a small part, to ask sooner than usual brings nothing before as much again was spent.
        let next_ns = if is_worth_it && !is_wide { spent_ns.saturating_add(rest_ns) } else { rest_ns };
        self.rest_ns.store(next_ns, Relaxed);
        let jobs = loader::THREADS_MAX as u64;
        if !(is_worth_it && is_wide) || self.rest_jobs.compare_exchange(0, jobs as u32, Relaxed, Relaxed).is_err() {
            return;
        }
        self.spent_ns.store(0, Relaxed);
        self.counters.rests.add(1);
        for job in 0..jobs {
            let part = regions * job / jobs..regions * (job + 1) / jobs;
            if !loader::submit(&self.itself, Work::Rest(part)) {
                self.rest_jobs.fetch_sub(1, Relaxed);
            }
        }
    }
}
