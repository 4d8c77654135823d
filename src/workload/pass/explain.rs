//! What a reader that chooses has decided, looked at from the side while a pass goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::workload::contender::Reader;
use crate::{AutoStats, RegionState};

/// Parts of the file that are told apart.
const PARTS_MAX: u64 = 64;
/// Moments that are kept. When there are more, every other one is left out, and from then on half as many are taken.
const MOMENTS_MAX: usize = 96;
/// Between two looks, at first.
const PERIOD: Duration = Duration::from_millis(2);

/// How what serves a file changed during a pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The length of a part of the file.
    pub part_bytes: u64,
    /// In the order of time.
    pub moments: Vec<Moment>,
}

/// What was decided at a moment. Counts are since the file was opened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds after the pass began.
    pub at_s: f64,
    /// A letter for each part of the file, what would serve most of it: `M` the map, `p` pread, `L` it is being read
    /// whole, `.` nothing yet.
    pub parts: String,
    /// Whether what is in use was held to fit into memory.
    pub fits: bool,
    /// What was in use, bytes.
    pub working_set_bytes: u64,
    /// What page cache there could be, bytes.
    pub capacity_bytes: u64,
    /// Reads by system call.
    pub cold_reads: u64,
    /// Regions that were read whole.
    pub loads: u64,
    /// Regions that turned out to be gone from the page cache.
    pub evictions_seen: u64,
    /// Regions that were given back, behind scans and for want of memory.
    pub given_back: u64,
}

/// A thread that looks.
pub(super) struct Watcher<'scope> {
    thread: ScopedJoinHandle<'scope, Option<Explanation>>,
    is_over: Arc<AtomicBool>,
}

impl<'scope> Watcher<'scope> {
    pub(super) fn start<'env, R: Reader>(scope: &'scope Scope<'scope, 'env>, reader: &'env R) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = is_over.clone();
        Watcher { thread: scope.spawn(move || watch(reader, &flag)), is_over }
    }

    /// What was seen; nothing where the reader decides nothing.
    pub(super) fn end(self) -> Option<Explanation> {
        self.is_over.store(true, Relaxed);
        self.thread.thread().unpark();
        self.thread.join().ok().flatten()
    }
}

fn watch<R: Reader>(reader: &R, is_over: &AtomicBool) -> Option<Explanation> {
    let began = Instant::now();
    let mut moments: Vec<(f64, AutoStats)> = Vec::new();
    let mut period = PERIOD;
    loop {
        // Before the last look, so that it sees how all ended.
        let was_over = is_over.load(Relaxed);
        moments.push((began.elapsed().as_secs_f64(), reader.auto_stats()?));
        if was_over {
            return Some(explanation(&moments));
        }
        if moments.len() > MOMENTS_MAX {
            let mut index = 0;
            moments.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            period *= 2;
        }
        thread::park_timeout(period);
    }
}

fn explanation(moments: &[(f64, AutoStats)]) -> Explanation {
    let region_bytes = moments.first().map_or(1, |(_, auto)| auto.region_bytes);
    let ends = moments.iter().filter_map(|(_, auto)| auto.regions.last()).map(|last| last.first + last.count);
    let regions = ends.max().unwrap_or(1);
    let part_regions = regions.div_ceil(PARTS_MAX).max(1);
    let parts = regions.div_ceil(part_regions);
    let moment = |(at_s, auto): &(f64, AutoStats)| Moment {
        at_s: *at_s,
        parts: (0..parts).map(|part| letter(auto, part * part_regions..(part + 1) * part_regions)).collect(),
        fits: auto.fits,
        working_set_bytes: auto.working_set_bytes,
        capacity_bytes: auto.capacity_bytes,
        cold_reads: auto.cold_reads,
        loads: auto.loads,
        evictions_seen: auto.evictions_seen,
        given_back: auto.dropped_behind + auto.released,
    };
    Explanation { part_bytes: part_regions * region_bytes, moments: moments.iter().map(moment).collect() }
}

/// What serves most of these regions.
fn letter(auto: &AutoStats, regions: std::ops::Range<u64>) -> char {
    let count_of = |state: RegionState| -> u64 {
        let alike = auto.regions.iter().filter(|known| known.state == state);
        let common = alike
            .map(|known| (known.first + known.count).min(regions.end).saturating_sub(known.first.max(regions.start)));
        common.sum()
    };
    let known = [(RegionState::Mapped, 'M'), (RegionState::Cold, 'p'), (RegionState::Loading, 'L')];
    let most = known.into_iter().map(|(state, letter)| (count_of(state), letter)).max_by_key(|(count, _)| *count);
    most.filter(|(count, _)| *count > 0).map_or('.', |(_, letter)| letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IoOptions;
    use crate::workload::pass::{self, Job};

    #[test]
    fn the_end_of_a_pass_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 5 << 20]).unwrap();
        let file = IoOptions::new().open_auto(&path).unwrap();
        let offsets: Vec<u64> = (0..1280).map(|block| block * 4096).collect();
        let stop = AtomicBool::new(false);
        let job = Job { explain: true, ..Job::new(&offsets, 4096, &stop) };
        let explanation = pass::run(&file, &job).unwrap().explanation.unwrap();
        assert_eq!(explanation.part_bytes, 2 << 20);
        let last = explanation.moments.last().unwrap();
        assert!(last.fits && last.parts.len() == 3 && last.parts.contains('M'), "{last:?}");
        let pread = IoOptions::new().open_pread(&path).unwrap();
        assert_eq!(pass::run(&pread, &job).unwrap().explanation, None);
    }
}
