//! The cheaper path for each read.
//!
//! A file is seen as regions of 2 MiB. A region whose pages are all in the page cache is read from the map; all others
//! by system call. The usual read of the first kind looks at one word and is the map's read from there on: no clock, no
//! lock, no store to memory that another thread uses. One in 64 is timed, so that a region that was
//! evicted is found out.
//!
//! What is not in the page cache has an account (`core`): what its reads cost more than a copy from the map would. When
//! that is a part of what it costs to read the region whole, it is read whole, by another thread (`loader`), if what is
//! in use fits into memory (`judge`, `memory`). Scans are read ahead of (`streams`).

mod batch;
mod bets;
mod core;
mod counters;
mod group;
mod judge;
mod loader;
mod loads;
mod memory;
mod regions;
mod skew;
mod streams;
mod whole;

use std::ops::Range;
use std::sync::Arc;

use self::core::Core;
use self::judge::{Judge, Limits};
use self::regions::{REGION_BYTES, State, regions_of};
use super::{AccessHint, BatchRead, BlockIo, MmapFile, PreadFile, SyncKind};
use crate::error::Result;
use crate::map_options::{Advice, AutoOptions, HugePages, MapOptions};
use crate::stats::{AutoRegions, AutoStats, IoStats, RegionState};

/// A file whose reads take the cheaper path, each for itself: the safe memory map where the bytes are in the page
/// cache, system calls where they are not.
///
/// - What is resident is read from the map, without a system call for each read, or one to ask.
/// - What is not is read by `pread(2)`, and only what was asked for. Where single reads of a part of the file have cost
///   enough, and it fits into memory, that part is read whole in the background; from then on the map serves it.
/// - Scans are read ahead of, in 2 MiB pages.
/// - Where the working set does not fit, nothing is read but what was asked for, and no page is mapped that is not
///   resident: a map that faults is slower than `pread` by orders of magnitude.
///
/// Memory limits of control groups, and their changes, are seen within a tenth of a second while the file is read.
/// [`IoStats::auto`] says what was decided.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use mapfall::{BlockIo, IoOptions};
///
/// let file = IoOptions::new().write(true).create(true).open_auto(dir.path().join("blocks"))?;
/// file.write_at(0, &[1; 8192])?;
/// let mut block = [0; 4096];
/// file.read_at(4096, &mut block)?;
/// assert_eq!(file.stats().mmap.reads, 1, "what was written is in the page cache");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AutoFile {
    core: Arc<Core>,
}

impl AutoFile {
    pub(crate) fn new(pread: PreadFile, map: MapOptions, auto: AutoOptions, queue_depth: u32) -> Result<Self> {
        // A fault on a page that is gone costs one page, whatever was advised; what is read whole has a map of its own.
        let huge_pages = map.huge_pages != HugePages::Off;
        let huge = if huge_pages { HugePages::Auto } else { HugePages::Off };
        let map = MmapFile::new(pread, MapOptions { advice: Advice::Random, huge_pages: huge, ..map })?;
        let limits =
            Limits { page_cache_bytes_max: auto.page_cache_bytes_max, page_table_bytes_max: auto.page_table_bytes_max };
        let core =
            Arc::new_cyclic(|itself| Core::new(map, Judge::new(limits), huge_pages, queue_depth, itself.clone()));
        // So that no first read waits for it.
        core.judge_if_due(core.now_ns());
        Ok(AutoFile { core })
    }

    fn auto_stats(&self) -> AutoStats {
        let core = &*self.core;
        let (counters, judge) = (&core.counters, &core.judge);
        let memory = judge.memory();
        let end = core.map.pread.len().map_or(0, regions_of);
        let mut regions: Vec<AutoRegions> = Vec::new();
        for (region, state, _) in core.regions.noted(end, 0) {
            let state = match state {
                State::Unknown => RegionState::Unknown,
                State::Mapped | State::Passing | State::Ahead => RegionState::Mapped,
                State::Cold => RegionState::Cold,
                State::Queued | State::Loading => RegionState::Loading,
            };
            match regions.last_mut() {
                Some(last) if last.state == state && last.first + last.count == region => last.count += 1,
                _ => regions.push(AutoRegions { first: region, count: 1, state }),
            }
        }
        AutoStats {
            region_bytes: REGION_BYTES,
            fits: judge.may_load(),
            capacity_bytes: judge.capacity_bytes(),
            limit_bytes: memory.limit_bytes,
            memory_pressure_percent: memory.pressure_percent,
            working_set_bytes: judge.working_set_bytes(),
            samples: counters.samples.get(),
            slow_samples: counters.slow_samples.get(),
            evictions_seen: counters.evictions_seen.get(),
            cold_reads: counters.cold_reads.get(),
            looks: counters.looks.get(),
            scan_steps: counters.scan_steps.get(),
            ahead_used: counters.ahead_used.get(),
            dropped_behind: counters.dropped_behind.get(),
            loads: counters.loads.get(),
            load_bytes: counters.load_bytes.get(),
            load_time: std::time::Duration::from_nanos(counters.load_ns.get()),
            loads_at_once: counters.loads_at_once.get(),
            load_failures: counters.load_failures.get(),
            groups: counters.groups.get(),
            judgements: counters.judgements.get(),
            mode_changes: counters.mode_changes.get(),
            released: counters.released.get(),
            regions,
        }
    }
}

impl Drop for AutoFile {
    /// Waits for what is being read in the background: at most a region, by each of two threads.
    fn drop(&mut self) {
        self.core.close();
    }
}

impl BlockIo for AutoFile {
    #[inline]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let core = &*self.core;
        let cell = core.map.pread.counters().cell();
        if !core.regions.all_mapped(offset, buf.len()) {
            return core.read_cold(cell, offset, buf);
        }
        core.read_mapped(cell, offset, buf)
    }

    /// What the map serves is copied, and while one block is copied the processor fetches the beginning of the next.
    /// The rest is read at depth, through a ring.
    fn read_batch(&self, batch: &mut [BatchRead<'_>]) -> Result<()> {
        self.core.read_batch(batch)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.core.map.write_at(offset, bytes)
    }

    fn len(&self) -> Result<u64> {
        self.core.map.len()
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        self.core.map.set_len(len_bytes)
    }

    fn reserve(&self, len_bytes: u64) -> Result<()> {
        self.core.map.reserve(len_bytes)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.core.map.sync(kind)
    }

    fn advise(&self, range: Range<u64>, hint: AccessHint) -> Result<()> {
        self.core.advise(range, hint)
    }

    fn stats(&self) -> IoStats {
        let rings = Some(self.core.depth.stats());
        IoStats { auto: Some(self.auto_stats()), rings, ..self.core.map.stats() }
    }
}
