//! Whether a cache above the I/O layer is worth it, measured.
//!
//! Where the file is mapped and resident, a read through the I/O layer costs about what a hit costs: both are a copy.
//! Then a second copy in memory buys little, and reads go past the cache. One read of [`SAMPLE_EVERY`] is timed; the
//! decision compares the running means of hits and of loads, so that one slow load of a device counts for as much as it
//! costs.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use thread_local::ThreadLocal;

/// Whether reads go past a store's cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheBypass {
    /// While a read through the I/O layer, checksum included, is measured to cost less than 1.6 times a hit; no longer
    /// when it costs more than twice as much.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Always: nothing is cached.
    Always,
}

/// What [`CacheBypass`] came to, and from what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BypassStats {
    /// Whether reads go past the cache now.
    pub is_bypassed: bool,
    /// Reads that went past it.
    pub bypassed_reads: u64,
    /// How often that changed.
    pub switches: u64,
    /// The running mean of a hit, ns. 0 before the first that was timed.
    pub hit_ns: u64,
    /// The running mean of a read through the I/O layer, with its checksum, ns. 0 before the first that was timed.
    pub load_ns: u64,
    /// Hits that were timed.
    pub timed_hits: u64,
    /// Reads through the I/O layer that were timed.
    pub timed_loads: u64,
}

/// One read of so many is timed, in each thread.
const SAMPLE_EVERY: u32 = 64;
/// Nothing is decided before so many of either kind were timed.
const SAMPLES_MIN: u64 = 256;
/// A mean moves by this part of the difference.
const WEIGHT: u64 = 64;
/// A hit that took so many times the mean was interrupted, and counts as that many. A load may take that long.
const INTERRUPTED: u64 = 4;
/// While reads go past the cache, the first of so many of a thread do not, so that it is known what a hit costs by now.
/// They are many in a row, and the first of them are not timed: a single hit among other reads is slow, since nothing
/// of the cache is in the processor's.
const PROBES: u32 = 1024;
const PROBES_UNTIMED: u32 = 256;
const PROBE_EVERY: u32 = 1 << 16;

/// Costs compare as hundredths: below the first, reads go past the cache; above the second, they do not.
const ENTER: u64 = 160;
const LEAVE: u64 = 200;

/// A running mean: of all samples at first, of about the last [`WEIGHT`] later. Threads that update it at once may lose
/// a sample.
#[derive(Debug, Default)]
struct Mean {
    /// Times [`PARTS`].
    parts: AtomicU64,
    samples: AtomicU64,
}

/// So that small differences are not lost.
const PARTS: u64 = 64;

impl Mean {
    fn add(&self, sample_ns: u64) {
        let samples = self.samples.load(Relaxed) + 1;
        let (mean, weight) = (self.parts.load(Relaxed), samples.min(WEIGHT));
        let moved = mean - mean / weight + sample_ns.saturating_mul(PARTS) / weight;
        self.parts.store(moved, Relaxed);
        self.samples.store(samples, Relaxed);
    }

    fn ns(&self) -> u64 {
        self.parts.load(Relaxed) / PARTS
    }
}

#[derive(Debug)]
pub(super) struct Meter {
    mode: CacheBypass,
    is_bypassed: AtomicBool,
    switches: AtomicU64,
    hits: Mean,
    loads: Mean,
    bypassed: ThreadLocal<AtomicU64>,
}

thread_local! {
    /// Reads of this thread, of any store.
    static READS: Cell<u32> = const { Cell::new(0) };
}

/// A read that begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    /// When, if it is timed.
    pub(super) at: Option<Instant>,
    is_probe: bool,
}

impl Meter {
    pub(super) fn new(mode: CacheBypass) -> Self {
        Meter {
            mode,
            is_bypassed: AtomicBool::new(mode == CacheBypass::Always),
            switches: AtomicU64::new(0),
            hits: Mean::default(),
            loads: Mean::default(),
            bypassed: ThreadLocal::new(),
        }
    }

    #[inline]
    pub(super) fn begin(&self) -> Begun {
        let number = READS.get();
        READS.set(number.wrapping_add(1));
        let place = number % PROBE_EVERY;
        let is_probe = place < PROBES && self.mode == CacheBypass::Auto;
        let is_untimed = is_probe && place < PROBES_UNTIMED && self.is_bypassed();
        let is_timed = number.is_multiple_of(SAMPLE_EVERY) && !is_untimed;
        Begun { at: is_timed.then(Instant::now), is_probe }
    }

    /// Whether a read goes past the cache.
    #[inline]
    pub(super) fn goes_past(&self, begun: Begun) -> bool {
        self.is_bypassed() && !begun.is_probe
    }

    #[inline]
    pub(super) fn is_bypassed(&self) -> bool {
        self.is_bypassed.load(Relaxed)
    }

    #[inline]
    pub(super) fn count_bypassed(&self) {
        let own = self.bypassed.get_or_default();
        own.store(own.load(Relaxed) + 1, Relaxed);
    }

    /// A timed read was a hit.
    pub(super) fn hit(&self, begun: Instant) {
        let mut sample_ns = super::nanoseconds(begun.elapsed());
        if self.hits.samples.load(Relaxed) >= INTERRUPTED {
            sample_ns = sample_ns.min(self.hits.ns() * INTERRUPTED);
        }
        self.hits.add(sample_ns);
        self.decide();
    }

    /// A timed read went through the I/O layer.
    pub(super) fn loaded(&self, begun: Instant) {
        self.loads.add(super::nanoseconds(begun.elapsed()));
        self.decide();
    }

    fn decide(&self) {
        let enough = |mean: &Mean| mean.samples.load(Relaxed) >= SAMPLES_MIN;
        if self.mode != CacheBypass::Auto || !enough(&self.hits) || !enough(&self.loads) {
            return;
        }
        let (hit_ns, load_ns) = (self.hits.ns(), self.loads.ns());
        let was = self.is_bypassed();
        let is = load_ns * 100 < hit_ns * if was { LEAVE } else { ENTER };
        if was != is {
            self.is_bypassed.store(is, Relaxed);
            self.switches.fetch_add(1, Relaxed);
            tracing::debug!(is_bypassed = is, hit_ns, load_ns, "cache bypass");
        }
    }

    pub(super) fn stats(&self) -> BypassStats {
        BypassStats {
            is_bypassed: self.is_bypassed(),
            bypassed_reads: self.bypassed.iter().map(|own| own.load(Relaxed)).sum(),
            switches: self.switches.load(Relaxed),
            hit_ns: self.hits.ns(),
            load_ns: self.loads.ns(),
            timed_hits: self.hits.samples.load(Relaxed),
            timed_loads: self.loads.samples.load(Relaxed),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn close_costs_go_past_the_cache_and_far_ones_come_back() {
        let ago = |ns| Instant::now().checked_sub(Duration::from_nanos(ns)).unwrap();
        let meter = Meter::new(CacheBypass::Auto);
        for _ in 0..300 {
            meter.hit(ago(1_000_000));
        }
        assert!(!meter.is_bypassed(), "nothing is known of loads");
        for _ in 0..300 {
            meter.loaded(ago(1_200_000));
        }
        assert!(meter.is_bypassed());
        for _ in 0..300 {
            meter.loaded(ago(1_700_000));
        }
        assert!(meter.is_bypassed(), "not far enough to change again");
        for _ in 0..300 {
            meter.loaded(ago(9_000_000));
        }
        let stats = meter.stats();
        assert!(!stats.is_bypassed && stats.switches == 2, "{stats:?}");
        assert!(stats.hit_ns >= 1_000_000 && stats.load_ns > 8_000_000, "{stats:?}");
        assert_eq!((stats.timed_hits, stats.timed_loads), (300, 900));
    }

    #[test]
    fn what_is_forced_stays() {
        for (mode, is) in [(CacheBypass::Always, true), (CacheBypass::Never, false)] {
            let meter = Meter::new(mode);
            for _ in 0..100 {
                meter.hit(Instant::now());
                meter.loaded(Instant::now());
            }
            assert_eq!(meter.is_bypassed(), is);
        }
    }

    #[test]
    fn one_read_of_many_is_timed() {
        let meter = Meter::new(CacheBypass::Auto);
        let timed = (0..SAMPLE_EVERY * 10).filter(|_| meter.begin().at.is_some()).count();
        assert_eq!(timed, 10);
        assert!(!meter.goes_past(meter.begin()));
        meter.is_bypassed.store(true, Relaxed);
        let past = (0..PROBE_EVERY).filter(|_| meter.goes_past(meter.begin())).count();
        assert_eq!(past as u32, PROBE_EVERY - PROBES, "some go through the cache");
    }
}
