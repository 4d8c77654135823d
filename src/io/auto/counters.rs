//! What `auto` has done, counted where a system call is made anyway.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter that any thread adds to. Relaxed: it orders nothing.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters behind [`crate::AutoStats`], which says what each is.
#[derive(Debug, Default)]
pub(super) struct AutoCounters {
    pub(super) samples: Counter,
    pub(super) slow_samples: Counter,
    pub(super) evictions_seen: Counter,
    pub(super) cold_reads: Counter,
    pub(super) looks: Counter,
    pub(super) scan_steps: Counter,
    pub(super) ahead_used: Counter,
    pub(super) dropped_behind: Counter,
    pub(super) loads: Counter,
    pub(super) load_bytes: Counter,
    pub(super) load_ns: Counter,
    pub(super) loads_at_once: Counter,
    pub(super) load_failures: Counter,
    pub(super) groups: Counter,
    pub(super) judgements: Counter,
    pub(super) mode_changes: Counter,
    pub(super) released: Counter,
}
