//! Statistics: what was read, by which path, and why a path was not taken.
//!
//! Two rules hold. A read that succeeds is counted once where the caller came in ([`IoStats::reads`],
//! [`IoStats::read_bytes`]) and once on the path that served it ([`IoStats::pread`], [`IoStats::mmap`] and so on); the
//! sums agree whenever no read is in flight ([`IoStats::paths_add_up`]). And counting writes no cache line that another
//! thread writes: each thread owns a cell, and a snapshot adds the cells up.

mod auto;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use thread_local::ThreadLocal;

pub use auto::{AutoRegions, AutoStats, RegionState};

/// Why a read that could have been served from a map was served by a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(usize)]
pub enum FallbackReason {
    /// There is no recoverable copy for this processor or system in this build.
    Unsupported,
    /// The fault handler was declined by the options, so a map would not be safe.
    HandlerDeclined,
    /// Someone put another `SIGBUS` handler over ours, so a fault might not reach it.
    HandlerReplaced,
    /// This thread blocks `SIGBUS`, so that the kernel would let no handler have a fault.
    SignalBlocked,
    /// The system refused to map the file; [`MapStats::last_refusal`] says why.
    MapRefused,
    /// The file has outgrown its map and a larger one could not be had.
    BeyondRange,
    /// The read passes the end of the file as it is now.
    PastEnd,
    /// The copy faulted (`SIGBUS`: truncation, an I/O error, a full file system) and was recovered.
    Fault,
    /// The copy faulted in this part of the file a short while ago.
    SuspectRegion,
    /// The file was cut short inside the copied block while it was copied, which raises no fault.
    CutShort,
}

impl FallbackReason {
    /// Every reason there is, in the order of [`IoStats::fallbacks`].
    pub const ALL: [FallbackReason; 10] = [
        FallbackReason::Unsupported,
        FallbackReason::HandlerDeclined,
        FallbackReason::HandlerReplaced,
        FallbackReason::SignalBlocked,
        FallbackReason::MapRefused,
        FallbackReason::BeyondRange,
        FallbackReason::PastEnd,
        FallbackReason::Fault,
        FallbackReason::SuspectRegion,
        FallbackReason::CutShort,
    ];

    /// The reason's name in tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FallbackReason::Unsupported => "unsupported",
            FallbackReason::HandlerDeclined => "handler_declined",
            FallbackReason::HandlerReplaced => "handler_replaced",
            FallbackReason::SignalBlocked => "signal_blocked",
            FallbackReason::MapRefused => "map_refused",
            FallbackReason::BeyondRange => "beyond_range",
            FallbackReason::PastEnd => "past_end",
            FallbackReason::Fault => "fault",
            FallbackReason::SuspectRegion => "suspect_region",
            FallbackReason::CutShort => "cut_short",
        }
    }
}

impl fmt::Display for FallbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Reads and bytes that one path served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathStats {
    /// Reads that succeeded. A batch counts each of its reads.
    pub reads: u64,
    /// The bytes of those reads.
    pub bytes: u64,
}

/// How often each [`FallbackReason`] sent a read to a system call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fallbacks {
    counts: [u64; FallbackReason::ALL.len()],
}

impl Fallbacks {
    /// Reads that fell back for this reason, those that then failed included.
    #[must_use]
    pub fn get(&self, reason: FallbackReason) -> u64 {
        self.counts[reason as usize]
    }

    /// All reasons with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (FallbackReason, u64)> + '_ {
        FallbackReason::ALL.into_iter().map(|reason| (reason, self.get(reason)))
    }

    /// The sum over all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The state and history of a file's map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapStats {
    /// The length of the mapped range, file end or not; 0 while nothing is mapped.
    pub range_bytes: u64,
    /// How much of the file reads may take from the map now; 0 while the map stands aside.
    pub readable_bytes: u64,
    /// Maps made, the first included.
    pub maps: u64,
    /// Maps made because the file had outgrown the one before.
    pub remaps: u64,
    /// Time spent making those larger maps. Readers go on meanwhile.
    pub remap_time: Duration,
    /// The longest of them.
    pub remap_time_max: Duration,
    /// Times the system refused to map the file.
    pub refusals: u64,
    /// The reason of the last refusal, in the system's words.
    pub last_refusal: Option<String>,
    /// Faults that the copy took and recovered from.
    pub faults_recovered: u64,
    /// Blocks that end in a zero byte and were proven whole by looking at the file's last page.
    pub tail_probes: u64,
    /// Blocks that end in a zero byte and were proven whole, or cut short, by asking for the file's length.
    pub tail_stats: u64,
    /// Times the whole map stepped down to system calls.
    pub step_downs: u64,
    /// Times it came back.
    pub returns: u64,
    /// Page-table memory of the whole process (`VmPTE` in `/proc/self/status`), read when the snapshot was taken.
    /// Every map of the process is in it, ours and others'.
    pub process_page_table_bytes: Option<u64>,
}

/// How a file's batches were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingStats {
    /// The most reads of a batch that are under way at a time.
    pub depth: u32,
    /// Rings made for batches of this file. A thread has one ring for all its files, so most batches find one.
    pub rings: u64,
    /// Batches of two reads and more that went through a ring.
    pub batches: u64,
    /// System calls that those took.
    pub submits: u64,
    /// Batches of two reads and more for which there was no ring, and which the pool's threads read.
    pub refusals: u64,
    /// Why there was none the last time, in the system's words.
    pub last_refusal: Option<String>,
}

/// What direct I/O (`O_DIRECT`) asks for, and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectStats {
    /// Offsets and lengths that are multiples of this need no buffer between and no neighbours read. 1 where the page
    /// cache serves the file.
    pub offset_align_bytes: u64,
    /// The same of addresses.
    pub memory_align_bytes: u64,
    /// Reads that went through a buffer of ours.
    pub bounced_reads: u64,
    /// Writes of whole blocks that did.
    pub bounced_writes: u64,
    /// Writes that did not begin and end with a block: what else is in their first and last block was read first.
    pub merged_writes: u64,
    /// Why the page cache serves the file all the same, in the system's words.
    pub refusal: Option<String>,
}

/// A snapshot of what a file's I/O has done since it was opened.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct IoStats {
    /// Reads that succeeded, zero-length ones left out.
    pub reads: u64,
    /// Bytes handed to callers.
    pub read_bytes: u64,
    /// Reads that failed. Their bytes are counted nowhere.
    pub failed_reads: u64,
    /// What `pread` served.
    pub pread: PathStats,
    /// What the map served.
    pub mmap: PathStats,
    /// What was read through a ring (`io_uring(7)`), as part of a batch, by way of the page cache.
    pub ring: PathStats,
    /// What the threads of the pool read, as part of a batch for which there was no ring.
    pub pool: PathStats,
    /// What was read past the page cache (`O_DIRECT`), alone or through a ring.
    pub direct: PathStats,
    /// Why reads that could have been served from the map were not.
    pub fallbacks: Fallbacks,
    /// Writes that succeeded.
    pub writes: u64,
    /// The bytes of those writes.
    pub write_bytes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Changes of length that succeeded.
    pub set_lens: u64,
    /// Reservations that succeeded, those included that found the file long enough.
    pub reserves: u64,
    /// Those of them that made the file longer with no space behind it, as the file system cannot allocate any.
    pub reserve_fallbacks: u64,
    /// The map, for a file opened with one.
    pub map: Option<MapStats>,
    /// The choice of paths, for a file opened with [`crate::IoMode::Auto`].
    pub auto: Option<AutoStats>,
    /// The rings, for a file whose batches go through one.
    pub rings: Option<RingStats>,
    /// Direct I/O, for a file opened for it.
    pub direct_io: Option<DirectStats>,
}

impl IoStats {
    /// Whether what the paths served adds up to what the callers got: true of every snapshot taken while no read is
    /// running.
    #[must_use]
    pub fn paths_add_up(&self) -> bool {
        let (reads, bytes) =
            self.paths().iter().fold((0, 0), |(reads, bytes), (_, path)| (reads + path.reads, bytes + path.bytes));
        reads == self.reads && bytes == self.read_bytes
    }

    /// What each path served, by its name in tables and JSON.
    #[must_use]
    pub fn paths(&self) -> [(&'static str, PathStats); 5] {
        [("pread", self.pread), ("mmap", self.mmap), ("ring", self.ring), ("pool", self.pool), ("direct", self.direct)]
    }
}

/// The counters behind [`IoStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// On its own cache line: it is read at every read, and the counters behind it are written by anyone.
    cells: CachePadded<ThreadLocal<CachePadded<ReadCell>>>,
    fallbacks: [AtomicU64; FallbackReason::ALL.len()],
    writes: AtomicU64,
    write_bytes: AtomicU64,
    syncs: AtomicU64,
    set_lens: AtomicU64,
    reserves: AtomicU64,
    reserve_fallbacks: AtomicU64,
}

/// One thread's read counters for one file.
///
/// Only the owning thread writes them, so an addition is a load and a store, without a locked instruction. A cell
/// outlives its thread and is handed to a later one (`thread_local` orders the two through its own lock).
#[derive(Debug, Default)]
pub(crate) struct ReadCell {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    failed_reads: AtomicU64,
    pread_reads: AtomicU64,
    pread_bytes: AtomicU64,
    mmap_reads: AtomicU64,
    mmap_bytes: AtomicU64,
    ring_reads: AtomicU64,
    ring_bytes: AtomicU64,
    pool_reads: AtomicU64,
    pool_bytes: AtomicU64,
    direct_reads: AtomicU64,
    direct_bytes: AtomicU64,
    tail_probes: AtomicU64,
    tail_stats: AtomicU64,
}

/// The paths that a read of a batch may take. Each has its [`PathStats`] in [`IoStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    Pread,
    Ring,
    Pool,
    Direct,
}

/// Adds to a counter that only this thread writes. Relaxed: a snapshot needs each counter whole, not several in step.
#[inline]
fn add_own(counter: &AtomicU64, amount: u64) -> u64 {
    let sum = counter.load(Relaxed).wrapping_add(amount);
    counter.store(sum, Relaxed);
    sum
}

impl ReadCell {
    /// Counts the outcome of a read where the caller came in.
    #[inline]
    pub(crate) fn count_read(&self, bytes: usize, succeeded: bool) {
        if succeeded {
            add_own(&self.reads, 1);
            add_own(&self.read_bytes, bytes as u64);
        } else {
            add_own(&self.failed_reads, 1);
        }
    }

    /// Reads that this thread has had from the map.
    #[inline]
    pub(crate) fn mmap_reads(&self) -> u64 {
        self.mmap_reads.load(Relaxed)
    }

    /// Counts a read that the map served, and returns how many this thread has now had from it.
    #[inline]
    pub(crate) fn count_mmap(&self, bytes: usize) -> u64 {
        add_own(&self.mmap_bytes, bytes as u64);
        add_own(&self.mmap_reads, 1)
    }

    /// Counts a block that ends in a zero byte and was proven by a touch of the file's last page.
    pub(crate) fn count_tail_probe(&self) {
        add_own(&self.tail_probes, 1);
    }

    /// Counts a block that ends in a zero byte and was proven, or not, by the file's length.
    pub(crate) fn count_tail_stat(&self) {
        add_own(&self.tail_stats, 1);
    }

    /// Counts a read that `pread` served.
    #[inline]
    pub(crate) fn count_pread(&self, bytes: usize) {
        add_own(&self.pread_reads, 1);
        add_own(&self.pread_bytes, bytes as u64);
    }

    /// Counts a read that a path served.
    pub(crate) fn count_path(&self, path: PathKind, bytes: usize) {
        let (path_reads, path_bytes) = match path {
            PathKind::Pread => (&self.pread_reads, &self.pread_bytes),
            PathKind::Ring => (&self.ring_reads, &self.ring_bytes),
            PathKind::Pool => (&self.pool_reads, &self.pool_bytes),
            PathKind::Direct => (&self.direct_reads, &self.direct_bytes),
        };
        add_own(path_reads, 1);
        add_own(path_bytes, bytes as u64);
    }
}

impl Counters {
    /// The calling thread's cell.
    #[inline]
    pub(crate) fn cell(&self) -> &ReadCell {
        match self.cells.get() {
            Some(cell) => cell,
            None => self.new_cell(),
        }
    }

    /// Apart from [`Counters::cell`], which every read goes through, because it is long.
    #[cold]
    #[inline(never)]
    fn new_cell(&self) -> &ReadCell {
        self.cells.get_or_default()
    }

    #[cold]
    pub(crate) fn count_fallback(&self, reason: FallbackReason) {
        self.fallbacks[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_write(&self, bytes: usize) {
        self.writes.fetch_add(1, Relaxed);
        self.write_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn count_sync(&self) {
        self.syncs.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_set_len(&self) {
        self.set_lens.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_reserve(&self) {
        self.reserves.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_reserve_fallback(&self) {
        self.reserve_fallbacks.fetch_add(1, Relaxed);
    }

    /// Blocks proven whole by a touch, and blocks held against the file's length.
    pub(crate) fn tail_checks(&self) -> (u64, u64) {
        self.cells.iter().fold((0, 0), |(probes, stats), cell| {
            (probes + cell.tail_probes.load(Relaxed), stats + cell.tail_stats.load(Relaxed))
        })
    }

    /// Adds everything up. What is not counted here stays empty, for whoever owns it to fill in.
    pub(crate) fn snapshot(&self) -> IoStats {
        let mut stats = IoStats::default();
        for cell in self.cells.iter() {
            stats.reads += cell.reads.load(Relaxed);
            stats.read_bytes += cell.read_bytes.load(Relaxed);
            stats.failed_reads += cell.failed_reads.load(Relaxed);
            stats.pread.reads += cell.pread_reads.load(Relaxed);
            stats.pread.bytes += cell.pread_bytes.load(Relaxed);
            stats.mmap.reads += cell.mmap_reads.load(Relaxed);
            stats.mmap.bytes += cell.mmap_bytes.load(Relaxed);
            stats.ring.reads += cell.ring_reads.load(Relaxed);
            stats.ring.bytes += cell.ring_bytes.load(Relaxed);
            stats.pool.reads += cell.pool_reads.load(Relaxed);
            stats.pool.bytes += cell.pool_bytes.load(Relaxed);
            stats.direct.reads += cell.direct_reads.load(Relaxed);
            stats.direct.bytes += cell.direct_bytes.load(Relaxed);
        }
        for (count, counter) in stats.fallbacks.counts.iter_mut().zip(&self.fallbacks) {
            *count = counter.load(Relaxed);
        }
        stats.writes = self.writes.load(Relaxed);
        stats.write_bytes = self.write_bytes.load(Relaxed);
        stats.syncs = self.syncs.load(Relaxed);
        stats.set_lens = self.set_lens.load(Relaxed);
        stats.reserves = self.reserves.load(Relaxed);
        stats.reserve_fallbacks = self.reserve_fallbacks.load(Relaxed);
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_name() {
        for (place, reason) in FallbackReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        let names: std::collections::HashSet<_> = FallbackReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), FallbackReason::ALL.len());
    }

    #[test]
    fn cells_of_threads_that_ended_still_count() {
        let counters = Counters::default();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let cell = counters.cell();
                        cell.count_read(10, true);
                        cell.count_pread(10);
                    });
                }
            });
        }
        let stats = counters.snapshot();
        assert_eq!((stats.reads, stats.read_bytes), (12, 120));
        assert!(stats.paths_add_up());
    }
}
