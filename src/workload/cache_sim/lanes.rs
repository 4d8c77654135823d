//! The simulations of a run side by side: each batch of requests goes through all of them, by as many threads as there
//! are processors.

use parking_lot::Mutex;

use crate::cache::CachePolicy;
use crate::cache::sim::Simulation;

/// A request as simulations take it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) object: u32,
    /// What it takes of the capacity.
    pub(super) weight: u64,
    pub(super) size_bytes: u64,
}

/// One simulation, and its hits over time.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) policy: CachePolicy,
    /// Which of the sizes.
    pub(super) size: usize,
    pub(super) simulation: Simulation,
    pub(super) interval_hits: Vec<u64>,
}

/// Where the intervals and the warm-up of a run end, as numbers of requests.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) warmup: u64,
    pub(super) ends: Vec<u64>,
}

impl Timeline {
    /// `intervals` of equal length, as nearly as can be, or one for each request.
    pub(super) fn new(requests: u64, warmup: u64, intervals: u64) -> Self {
        let intervals = intervals.min(requests).max(1);
        let end = |index: u64| u128::from(requests) * u128::from(index) / u128::from(intervals);
        Timeline { warmup, ends: (1..=intervals).map(|index| end(index) as u64).collect() }
    }
}

impl Lane {
    pub(super) fn new(policy: CachePolicy, size: usize, simulation: Simulation) -> Self {
        Lane { policy, size, simulation, interval_hits: vec![0] }
    }

    /// Goes through a batch, the first request of which has this number.
    fn feed(&mut self, batch: &[Item], first: u64, timeline: &Timeline) {
        let mut at = first;
        let mut end = timeline.ends.get(self.interval_hits.len() - 1).copied().unwrap_or(u64::MAX);
        let mut hits = 0;
        for item in batch {
            if at == timeline.warmup {
                self.simulation.start_counting();
            }
            hits += u64::from(self.simulation.request(item.object, item.weight, item.size_bytes));
            at += 1;
            if at == end {
                self.close_interval(hits);
                hits = 0;
                self.interval_hits.push(0);
                end = timeline.ends.get(self.interval_hits.len() - 1).copied().unwrap_or(u64::MAX);
            }
        }
        self.close_interval(hits);
    }

    fn close_interval(&mut self, hits: u64) {
        if let Some(last) = self.interval_hits.last_mut() {
            *last += hits;
        }
    }
}

/// Feeds a batch to all lanes and meanwhile has the caller make the next.
pub(super) fn feed_all<T>(
    lanes: &mut [Lane],
    batch: &[Item],
    first: u64,
    timeline: &Timeline,
    make_next: impl FnOnce() -> T,
) -> T {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(lanes.len());
    let queue = Mutex::new(lanes.iter_mut());
    let work = || {
        loop {
            // The lock is not held while a lane is fed.
            let Some(lane) = queue.lock().next() else { break };
            lane.feed(batch, first, timeline);
        }
    };
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
        make_next()
    })
}
