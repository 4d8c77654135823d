//! What an `auto` file knows and decides, shared with the threads that read regions for it.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Weak;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};

use super::bets::Bets;
use super::counters::AutoCounters;
use super::judge::Judge;
use super::loads::Loads;
use super::regions::{ACCOUNT_NS_MAX, REGION_BYTES, Regions, State, bytes_of, region_of, regions_of};
use super::skew::Skew;
use super::streams::{Streams, Wanted};
use crate::error::Result;
use crate::io::{BlockIo, DepthReads, MmapFile};
use crate::stats::ReadCell;
use crate::sys::residency::cached_pages;

/// A region is worth reading whole when its reads have cost this part of what that costs.
const LOAD_PART: u64 = 4;
/// What reading a region whole is taken to cost before it was done.
const LOAD_NS_FIRST: u64 = 1_000_000;
/// What a cold read is taken to cost before any was seen. The first ones wait for much that later ones do not.
const READ_NS_FIRST: u64 = 50_000;
/// Regions that are asked about together while none of them is known, and read together where many are in use.
pub(super) const GROUP_REGIONS: u64 = 16;
/// What one read from the map costs, and each of its bytes, at the most.
const MAP_READ_NS: u64 = 100;
const MAP_BYTES_PER_NS: u64 = 8;

/// What serves a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Map,
    Pread,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) map: MmapFile,
    /// For reads of what is not in the page cache: the kernel is told not to read more than it is asked for.
    single: Option<File>,
    pub(super) regions: Regions,
    pub(super) streams: Mutex<Streams>,
    pub(super) judge: Judge,
    pub(super) counters: AutoCounters,
    pub(super) loads: Loads,
    pub(super) bets: Bets,
    pub(super) skew: Skew,
    began: Instant,
    /// What to read a region whole has cost lately.
    pub(super) load_ns: AtomicU64,
    /// Regions that are being read whole.
    pub(super) loading: AtomicU32,
    /// What a cold read has cost lately while none was.
    read_ns: AtomicU64,
    page_bytes: u64,
    pub(super) depth: DepthReads,
    pub(super) itself: Weak<Core>,
}

impl Core {
    pub(super) fn new(map: MmapFile, judge: Judge, huge_pages: bool, queue_depth: u32, itself: Weak<Core>) -> Self {
        let single = reopen(map.pread.file());
        if let Some(file) = &single
            && let Err(error) = fadvise(file, 0, None, Advice::Random)
        {
            tracing::debug!(%error, "the kernel will read more than it is asked for");
        }
        Core {
            map,
            single,
            regions: Regions::new(),
            streams: Mutex::new(Streams::default()),
            judge,
            counters: AutoCounters::default(),
            loads: Loads::new(huge_pages),
            bets: Bets::default(),
            skew: Skew::default(),
            began: Instant::now(),
            load_ns: AtomicU64::new(LOAD_NS_FIRST),
            loading: AtomicU32::new(0),
            read_ns: AtomicU64::new(READ_NS_FIRST),
            page_bytes: rustix::param::page_size() as u64,
            depth: DepthReads::new(queue_depth),
            itself,
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn file(&self) -> &File {
        self.map.pread.file()
    }

    /// The descriptor for reads of what is not in the page cache.
    pub(super) fn single(&self) -> &File {
        self.single.as_ref().unwrap_or(self.file())
    }

    // ---- Reads ----

    /// A read of at least one byte in regions that the map serves.
    #[inline]
    pub(super) fn read_mapped(&self, cell: &ReadCell, offset: u64, buf: &mut [u8]) -> Result<()> {
        if self.judge.is_sampled(cell.mmap_reads(), buf.len()) || self.judge.is_asked_about(buf.len()) {
            return self.read_sampled(cell, offset, buf);
        }
        self.map.read_counted(cell, offset, buf)
    }

    /// A read of at least one byte that the map serves, timed: was it as fast as a map should be?
    #[cold]
    #[inline(never)]
    fn read_sampled(&self, cell: &ReadCell, offset: u64, buf: &mut [u8]) -> Result<()> {
        if self.judge.is_asked_about(buf.len()) && self.is_gone(offset, buf.len()) {
            self.evicted(region_of(offset));
            return self.read_cold(cell, offset, buf);
        }
        let began_ns = self.now_ns();
        let result = self.map.read_counted(cell, offset, buf);
        let now_ns = self.now_ns();
        self.counters.samples.add(1);
        let region = region_of(offset);
        self.regions.stamp(region, self.judge.tick(now_ns));
        let took_ns = now_ns - began_ns;
        if took_ns > 20_000 + buf.len() as u64 {
            self.counters.slow_samples.add(1);
            // A minor fault of a large page can take as long; ask what is true.
            let is_there = self.look(region, 1) == Some(true);
            if !is_there {
                self.evicted(region);
            }
        }
        self.judge_if_due(now_ns);
        result
    }

    /// A region was found to be gone from the page cache, or a part of it.
    fn evicted(&self, region: u64) {
        self.regions.set(region, State::Cold);
        self.counters.evictions_seen.add(1);
        self.judge.beware();
        self.judge.hasten();
    }

    /// Whether some of these bytes are not in the page cache, as far as the kernel says.
    fn is_gone(&self, offset: u64, len: usize) -> bool {
        let start = offset / self.page_bytes * self.page_bytes;
        self.cached_in(start..offset + len as u64).is_some_and(|(cached, wanted)| cached < wanted)
    }

    /// A read of at least one byte, some of which is in regions that the map does not serve.
    #[cold]
    #[inline(never)]
    pub(super) fn read_cold(&self, cell: &ReadCell, offset: u64, buf: &mut [u8]) -> Result<()> {
        let began_ns = self.now_ns();
        self.judge_if_due(began_ns);
        let len = buf.len();
        let is_alone = self.is_alone();
        match self.choose(offset, len, true) {
            Path::Map => self.map.read_counted(cell, offset, buf),
            Path::Pread => {
                let result = self.map.pread.read_exact_from(self.single(), offset, buf);
                cell.count_read(len, result.is_ok());
                if result.is_ok() {
                    cell.count_pread(len);
                    self.counters.cold_reads.add(1);
                    let now_ns = self.now_ns();
                    self.skew.note(len, now_ns - began_ns);
                    let cost_ns = self.own_ns((now_ns - began_ns).saturating_sub(map_ns(len)), is_alone);
                    self.account(offset, len, cost_ns, now_ns);
                }
                result
            }
        }
    }

    /// The path for a read, after whatever has to happen to the regions that it touches. In a batch no read waits for
    /// a region that may be worth reading whole.
    pub(super) fn choose(&self, offset: u64, len: usize, is_single: bool) -> Path {
        let (first, last) = (region_of(offset), region_of(offset.saturating_add(len as u64 - 1)));
        // No file reaches so far: `pread` says so.
        if last - first > 1 << 20 || offset > i64::MAX as u64 {
            return Path::Pread;
        }
        let mut is_scan = false;
        let mut path = Path::Map;
        for region in first..=last {
            let state = match self.regions.state(region) {
                State::Unknown => self.find_out(region),
                state => state,
            };
            match state {
                State::Mapped | State::Passing => {}
                State::Ahead => {
                    if self.regions.change(region, State::Ahead, State::Passing) {
                        self.counters.ahead_used.add(1);
                    }
                    is_scan = true;
                }
                State::Queued => {
                    // Whoever needs it first reads it.
                    if !self.load_for_reads(region, State::Queued) {
                        path = Path::Pread;
                    }
                    is_scan = true;
                }
                State::Loading => {
                    // The kernel lets a read of these bytes wait for them.
                    path = Path::Pread;
                    is_scan = true;
                }
                State::Cold | State::Unknown => {
                    if !(is_single && self.load_at_once(region, len)) {
                        path = Path::Pread;
                    }
                    is_scan = true;
                }
            }
        }
        if is_scan && let Some(mut streams) = self.streams.try_lock() {
            let regions_max = (self.judge.capacity_bytes() / REGION_BYTES / 16).max(1);
            let wanted = streams.observe(offset, len, regions_max);
            drop(streams);
            if let Some(wanted) = wanted {
                self.follow(&wanted, offset, len);
            }
        }
        path
    }

    /// A scan has come to a new place.
    fn follow(&self, wanted: &Wanted, offset: u64, len: usize) {
        self.counters.scan_steps.add(1);
        let file_len_bytes = self.map.pread.len().unwrap_or(0);
        if !wanted.ahead.is_empty() {
            for region in wanted.ahead.start..wanted.ahead.end.min(regions_of(file_len_bytes)) {
                self.queue(region, true);
            }
            // The rest of the region that it is in comes in small pages, in one piece.
            let at = offset.saturating_add(len as u64);
            let rest_bytes = bytes_of(region_of(at)).end - at;
            if self.regions.state(region_of(at)) == State::Cold && rest_bytes < REGION_BYTES {
                self.will_need(at, rest_bytes);
            }
        }
        let behind = wanted.behind;
        if file_len_bytes > self.judge.capacity_bytes() && self.regions.change(behind, State::Passing, State::Unknown) {
            self.drop_region(behind);
            self.counters.dropped_behind.add(1);
        }
    }

    fn will_need(&self, offset: u64, len_bytes: u64) {
        if let Some(len) = std::num::NonZeroU64::new(len_bytes)
            && let Err(error) = fadvise(self.file(), offset, Some(len), Advice::WillNeed)
        {
            tracing::debug!(%error, "the kernel does not read ahead");
        }
    }

    /// Whether no region is being read whole.
    pub(super) fn is_alone(&self) -> bool {
        self.loading.load(Relaxed) == 0
    }

    /// What counts of a cold read that has taken so long. That it waited for regions that were read whole is no reason
    /// to read more of them, and one that waited for something else says nothing of the next.
    pub(super) fn own_ns(&self, cost_ns: u64, was_alone: bool) -> u64 {
        let mean_ns = self.read_ns.load(Relaxed);
        if was_alone && self.is_alone() {
            let cost_ns = cost_ns.min(4 * mean_ns);
            self.read_ns.store(running_mean(mean_ns, cost_ns), Relaxed);
            return cost_ns;
        }
        cost_ns.min(mean_ns)
    }

    /// A read of cold regions has cost so much more than one from the map.
    pub(super) fn account(&self, offset: u64, len: usize, cost_ns: u64, now_ns: u64) {
        let tick = self.judge.tick(now_ns);
        let (first, last) = (region_of(offset), region_of(offset + len as u64 - 1));
        for region in first..=last {
            match self.regions.state(region) {
                State::Cold => {}
                State::Loading => {
                    self.regions.stamp(region, tick);
                    continue;
                }
                _ => continue,
            }
            let (sum_ns, look_ns) = self.regions.charge(region, cost_ns / (last - first + 1), tick);
            if sum_ns < look_ns {
                continue;
            }
            let part = if self.skew.is_high(len) { 1 } else { LOAD_PART };
            let is_worth_it = sum_ns >= self.load_ns().min(ACCOUNT_NS_MAX) / part;
            if self.look(region, 1) == Some(true) {
                self.regions.set(region, State::Mapped);
            } else if !(is_worth_it && self.judge.may_load() && self.queue(region, false)) {
                self.regions.put_off(region);
                if self.judge.may_load_unused() && !self.skew.may_be_high(len) {
                    self.consider_group(region);
                }
            }
        }
    }

    // ---- Residency ----

    /// Whether all of these regions that the file has is in the page cache; nothing where the file has none of it, or
    /// the kernel does not say.
    fn look(&self, first: u64, count: u64) -> Option<bool> {
        let (cached, wanted) = self.cached_of(first, count)?;
        Some(cached >= wanted)
    }

    /// Pages of these regions that are in the page cache, and pages that the file has there.
    pub(super) fn cached_of(&self, first: u64, count: u64) -> Option<(u64, u64)> {
        self.cached_in(bytes_of(first).start..bytes_of(first + count - 1).end)
    }

    /// The same of bytes, which begin with a page.
    fn cached_in(&self, bytes: Range<u64>) -> Option<(u64, u64)> {
        self.counters.looks.add(1);
        let end = bytes.end.min(self.map.pread.len().ok()?);
        let len_bytes = end.checked_sub(bytes.start).filter(|len| *len > 0)?;
        let cached = match cached_pages(self.file(), bytes.start, len_bytes) {
            Ok(cached) => cached,
            Err(error) => {
                tracing::debug!(%error, "cachestat is not to be had");
                self.loads.resident_pages(self.file(), bytes.start..end, self.page_bytes)?
            }
        };
        Some((cached, len_bytes.div_ceil(self.page_bytes)))
    }

    /// The state of a region of which nothing is known.
    fn find_out(&self, region: u64) -> State {
        let group = region / GROUP_REGIONS * GROUP_REGIONS;
        let is_unknown = |region| self.regions.state(region) == State::Unknown;
        // A file that is wholly there, or not at all, is asked about in large pieces.
        if (group..group + GROUP_REGIONS).all(is_unknown)
            && let Some((cached, wanted)) = self.cached_of(group, GROUP_REGIONS)
            && (cached == 0 || cached >= wanted)
        {
            let state = if cached == 0 { State::Cold } else { State::Mapped };
            // What the file does not have stays unknown.
            let regions = wanted.saturating_mul(self.page_bytes).div_ceil(REGION_BYTES);
            for region in group..group + regions {
                self.regions.change(region, State::Unknown, state);
            }
            return self.regions.state(region);
        }
        let Some(is_there) = self.look(region, 1) else { return State::Unknown };
        let state = if is_there { State::Mapped } else { State::Cold };
        self.regions.change(region, State::Unknown, state);
        self.regions.state(region)
    }

    /// Takes a region out of the page table and, as far as nobody else uses it, out of the page cache.
    pub(super) fn drop_region(&self, region: u64) {
        let bytes = bytes_of(region);
        self.map.window.release(bytes.clone());
        let len = std::num::NonZeroU64::new(REGION_BYTES);
        if let Err(error) = fadvise(self.file(), bytes.start, len, Advice::DontNeed) {
            tracing::debug!(%error, "the page cache keeps what is not needed");
        }
    }
}

/// The mean of late, with one more. Where two threads change it at once, one of the two is lost, which does not matter.
pub(super) fn running_mean(mean_ns: u64, ns: u64) -> u64 {
    mean_ns - mean_ns / 8 + ns / 8
}

/// What so many bytes cost from the map, at the most.
pub(super) fn map_ns(len: usize) -> u64 {
    MAP_READ_NS + len as u64 / MAP_BYTES_PER_NS
}

/// Another open file description of the same file, which has its own advice.
fn reopen(file: &File) -> Option<File> {
    match File::open(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::debug!(%error, "one descriptor serves scans and single reads");
            None
        }
    }
}
