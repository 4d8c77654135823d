//! One timed pass of one contender.
//!
//! A pass reads blocks at offsets that were made before. With several threads each has an equal, contiguous part of the
//! offsets. The destination of a thread is one page-aligned buffer of one block, or of one batch of blocks, touched
//! before the clock starts; the threads start together behind a barrier, and the time is from the first start to the
//! last end. Of each block the first 8 bytes go into a checksum, so that the contenders can be held against each other.
//!
//! The clock and the flag to stop are looked at once for every few hundred reads, so that looking costs nothing.

mod explain;
mod series;

use std::hint::black_box;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memmap2::MmapMut;
use serde::{Deserialize, Serialize};

use super::bare::BareMap;
use super::contender::{Probe, Reader};
use super::error::{Error, Result};
use super::usage::Usage;
pub use explain::{Explanation, Moment};
use series::Feed;
pub use series::{Series, SeriesPlan};

/// At most this many reads, and this many bytes unless one block has more, go between two looks at the clock.
const READS_PER_LOOK: usize = 256;
const BYTES_PER_LOOK: usize = 4 << 20;
/// The same where a read may take milliseconds. It costs a read in memory some 5 ns.
const READS_PER_CLOSE_LOOK: usize = 8;

/// The smallest pages that there are, so that no page of a block is left out of a skeleton.
const PAGE_BYTES: u64 = 4096;

/// How many bytes of a skeleton are brought into the processor's cache at a time. All lie at the beginning of a page
/// and so compete for a few sets of the cache: 64 of them stay in any second-level cache there is.
const BYTES_WARMED: usize = 64;

/// What is done with each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is copied.
    Copy,
    /// It is copied, and each read is timed for itself. The clock costs some 20 to 50 ns a read.
    Latency,
    /// Everything but the copy: the same calls at the same offsets for one byte of the block, or one byte of each of
    /// its pages ([`Reader::PROBE`]). What a `Copy` pass takes longer is the copy.
    ///
    /// To wait for memory is part of the copy, so these bytes are brought into the processor's cache off the clock
    /// ([`Job::warmer`]), a few dozen reads ahead.
    Skeleton,
}

/// What a pass is to do.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Where to read, in this order.
    pub offsets: &'a [u64],
    /// How much each time.
    pub block_bytes: usize,
    /// By how many threads.
    pub threads: usize,
    /// What is done with each block.
    pub kind: Kind,
    /// Another map of the same bytes, through which a [`Kind::Skeleton`] pass brings its bytes near. Through the reader
    /// itself where there is none, which also brings near what the system has to look up for it.
    pub warmer: Option<&'a BareMap>,
    /// How many of them are read by one call; with 1 each is read for itself. [`Kind::Copy`] only.
    pub batch: usize,
    /// When to end even if there are offsets left. Not with `series`.
    pub limit: Duration,
    /// Whether the clock is looked at after every few reads, since each may take long.
    pub close_look: bool,
    /// To read for a time instead of once, and to keep the throughput of each moment.
    pub series: Option<SeriesPlan>,
    /// Whether what the reader decides is to be looked at while it reads, if it decides anything.
    pub explain: bool,
    /// Set by someone else to end the pass at once.
    pub stop: &'a AtomicBool,
}

impl<'a> Job<'a> {
    /// One thread that copies each block, one by one, however long it takes.
    #[must_use]
    pub fn new(offsets: &'a [u64], block_bytes: usize, stop: &'a AtomicBool) -> Self {
        Job {
            offsets,
            block_bytes,
            threads: 1,
            kind: Kind::Copy,
            warmer: None,
            batch: 1,
            limit: Duration::MAX,
            close_look: false,
            series: None,
            explain: false,
            stop,
        }
    }

    /// How many reads go by between two looks at the clock: whole batches.
    fn reads_per_look(&self) -> usize {
        let reads = (BYTES_PER_LOOK / self.block_bytes.max(1)).clamp(1, READS_PER_LOOK);
        let reads = if self.close_look || self.series.is_some() { reads.min(READS_PER_CLOSE_LOOK) } else { reads };
        let batch = self.batch.max(1);
        (reads / batch).max(1) * batch
    }
}

/// Why a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum End {
    /// Everything was read.
    Complete,
    /// The limit was reached first.
    LimitReached,
    /// The flag was set first.
    Stopped,
}

/// What a pass did and took.
#[derive(Clone, Debug)]
pub struct Pass {
    /// From the first thread's start to the last one's end.
    pub elapsed: Duration,
    /// Blocks read.
    pub reads: u64,
    /// The sum over what was read. Equal for equal offsets, blocks and threads, if the pass is complete.
    pub checksum: u64,
    /// Why it ended.
    pub end: End,
    /// Faults and processor time of all its threads.
    pub usage: Usage,
    /// Nanoseconds per read, in a [`Kind::Latency`] pass.
    pub latency_ns: Option<Histogram<u64>>,
    /// Throughput over time, where it was asked for.
    pub series: Option<Series>,
    /// What the reader decided, where it was asked for.
    pub explanation: Option<Explanation>,
}

/// Does a pass.
///
/// # Errors
///
/// The first error of any thread.
///
/// # Panics
///
/// Where a thread does.
pub fn run<R: Reader>(reader: &R, job: &Job<'_>) -> Result<Pass> {
    let threads = job.threads.max(1);
    let part_reads = job.offsets.len().div_ceil(threads).max(1);
    let mut parts: Vec<&[u64]> = job.offsets.chunks(part_reads).collect();
    parts.resize(threads, &[]);
    let mut buffers =
        (0..threads).map(|_| destination(job.block_bytes * job.batch.max(1))).collect::<Result<Vec<_>>>()?;
    let barrier = Barrier::new(threads);
    let barrier = &barrier;
    let (timed, explanation): (Vec<Result<Timed>>, _) = thread::scope(|scope| {
        let watcher = job.explain.then(|| explain::Watcher::start(scope, reader));
        let mut running = Vec::with_capacity(threads);
        for (part, buffer) in parts.into_iter().zip(&mut buffers) {
            running.push(scope.spawn(move || timed_part(reader, part, buffer, job, barrier)));
        }
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        let timed = running.into_iter().map(join).collect();
        (timed, watcher.and_then(explain::Watcher::end))
    });
    Ok(Pass { explanation, ..sum(timed.into_iter().collect::<Result<Vec<_>>>()?)? })
}

/// A buffer on pages of its own, all of them touched.
fn destination(len_bytes: usize) -> Result<MmapMut> {
    let mut buffer = MmapMut::map_anon(len_bytes).map_err(Error::system("get a buffer from", Path::new("memory")))?;
    buffer.fill(0xa5);
    Ok(buffer)
}

/// What one thread did, and when.
struct Timed {
    start: Instant,
    end: Instant,
    usage: Usage,
    part: Part,
}

struct Part {
    walked: Walked,
    checksum: u64,
    latency_ns: Option<Histogram<u64>>,
}

fn timed_part<R: Reader>(
    reader: &R,
    offsets: &[u64],
    buf: &mut [u8],
    job: &Job<'_>,
    barrier: &Barrier,
) -> Result<Timed> {
    let usage = || Usage::of_this_thread().map_err(Error::system("read", Path::new("/proc/thread-self/stat")));
    let _ = barrier.wait();
    let usage_before = usage()?;
    let start = Instant::now();
    let part = match job.kind {
        Kind::Copy => copy_part(reader, offsets, buf, job, start),
        Kind::Latency => latency_part(reader, offsets, &mut buf[..job.block_bytes], job, start),
        Kind::Skeleton => skeleton_part(reader, offsets, buf, job, start),
    }?;
    let end = Instant::now() - part.walked.off_the_clock;
    Ok(Timed { start, end, usage: usage()? - usage_before, part })
}

fn sum(timed: Vec<Timed>) -> Result<Pass> {
    let start = timed.iter().map(|timed| timed.start).min();
    let end = timed.iter().map(|timed| timed.end).max();
    let elapsed = start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start);
    let mut pass = Pass {
        elapsed,
        reads: 0,
        checksum: 0,
        end: End::Complete,
        usage: Usage::default(),
        latency_ns: None,
        series: None,
        explanation: None,
    };
    for Timed { usage, part, .. } in timed {
        pass.reads += part.walked.reads;
        pass.checksum = pass.checksum.wrapping_add(part.checksum);
        pass.end = pass.end.max(part.walked.end);
        pass.usage += usage;
        if let Some(series) = part.walked.series {
            pass.series.get_or_insert_default().add_all(&series);
        }
        match (&mut pass.latency_ns, part.latency_ns) {
            (Some(all), Some(part)) => *all += part,
            (none, part) => *none = part,
        }
    }
    Ok(pass)
}

/// How far a pass came.
struct Walked {
    reads: u64,
    end: End,
    /// What of the time does not count.
    off_the_clock: Duration,
    series: Option<Series>,
}

/// Goes through the offsets, some at a time, until they end, the limit is reached or the flag is set. What `read` gives
/// back is its time that does not count.
#[inline]
fn walk(
    mut feed: Feed<'_>,
    job: &Job<'_>,
    start: Instant,
    mut read: impl FnMut(&[u64]) -> Result<Duration>,
) -> Result<Walked> {
    let series = job.series.map(|plan| Series::for_pass(plan.duration));
    let mut walked = Walked { reads: 0, end: End::Complete, off_the_clock: Duration::ZERO, series };
    while let Some(chunk) = feed.next(start) {
        walked.off_the_clock += read(chunk)?;
        walked.reads += chunk.len() as u64;
        if let Some(series) = &mut walked.series {
            series.add(start.elapsed(), (chunk.len() * job.block_bytes) as u64);
        }
        if job.stop.load(Relaxed) {
            walked.end = End::Stopped;
            break;
        }
        if feed.can_be_cut() && start.elapsed() - walked.off_the_clock >= job.limit {
            walked.end = End::LimitReached;
            break;
        }
    }
    Ok(walked)
}

#[inline(never)]
fn copy_part<R: Reader>(reader: &R, offsets: &[u64], buf: &mut [u8], job: &Job<'_>, start: Instant) -> Result<Part> {
    let mut checksum = 0;
    let walked = walk(Feed::new(offsets, job.reads_per_look(), job.series), job, start, |chunk| {
        if job.batch > 1 {
            for offsets in chunk.chunks(job.batch) {
                let blocks = &mut buf[..offsets.len() * job.block_bytes];
                reader.read_batch(offsets, blocks, job.block_bytes)?;
                checksum = blocks.chunks_mut(job.block_bytes).fold(checksum, fold);
            }
        } else {
            let buf = &mut buf[..job.block_bytes];
            for &offset in chunk {
                reader.read(offset, buf)?;
                checksum = fold(checksum, buf);
            }
        }
        Ok(Duration::ZERO)
    })?;
    Ok(Part { walked, checksum, latency_ns: None })
}

#[inline(never)]
fn latency_part<R: Reader>(reader: &R, offsets: &[u64], buf: &mut [u8], job: &Job<'_>, start: Instant) -> Result<Part> {
    let mut checksum = 0;
    let mut latency_ns = new_histogram();
    let walked = walk(Feed::new(offsets, job.reads_per_look(), job.series), job, start, |chunk| {
        for &offset in chunk {
            let before = Instant::now();
            reader.read(offset, buf)?;
            let taken = before.elapsed();
            latency_ns.saturating_record(u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX));
            checksum = fold(checksum, buf);
        }
        Ok(Duration::ZERO)
    })?;
    Ok(Part { walked, checksum, latency_ns: Some(latency_ns) })
}

#[inline(never)]
fn skeleton_part<R: Reader>(
    reader: &R,
    offsets: &[u64],
    buf: &mut [u8],
    job: &Job<'_>,
    start: Instant,
) -> Result<Part> {
    let byte = &mut buf[..1];
    let probes_of = |offset: u64| {
        let end = match R::PROBE {
            Probe::OneByte => offset + 1,
            Probe::OneBytePerPage => offset + job.block_bytes as u64,
        };
        std::iter::successors(Some(offset), |probe| Some((probe / PAGE_BYTES + 1) * PAGE_BYTES))
            .take_while(move |probe| *probe < end)
    };
    let blocks_warmed = (BYTES_WARMED / probes_of(0).count()).max(1);
    let walked = walk(Feed::new(offsets, blocks_warmed, None), job, start, |chunk| {
        let begun = Instant::now();
        for probe in chunk.iter().flat_map(|offset| probes_of(*offset)) {
            match job.warmer {
                Some(map) => _ = map.copy_to(probe, byte),
                None => reader.read(probe, byte)?,
            }
            black_box(&mut *byte);
        }
        let off_the_clock = begun.elapsed();
        for probe in chunk.iter().flat_map(|offset| probes_of(*offset)) {
            reader.read(probe, byte)?;
            black_box(&mut *byte);
        }
        Ok(off_the_clock)
    })?;
    Ok(Part { walked, checksum: 0, latency_ns: None })
}

/// Mixes the beginning of a block into the sum of those before it. The block must be thought used, or the compiler
/// might leave out copies that are overwritten unread.
#[inline]
fn fold(checksum: u64, block: &mut [u8]) -> u64 {
    let block = black_box(block);
    let head = block.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
    checksum.rotate_left(1) ^ head
}

/// From 1 ns to 100 s, exact to three digits, made whole now so that recording allocates nothing.
pub(super) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("1 <= low, 2 low <= high and digits <= 5, as it asks")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads that cost nothing and know what they were asked.
    struct Fake;

    impl Reader for Fake {
        const PROBE: Probe = Probe::OneBytePerPage;

        fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            buf.fill((offset / 4096) as u8);
            Ok(())
        }
    }

    fn job<'a>(offsets: &'a [u64], stop: &'a AtomicBool) -> Job<'a> {
        Job::new(offsets, 4096, stop)
    }

    #[test]
    fn a_pass_reads_every_block_once_whatever_the_threads() {
        let offsets: Vec<u64> = (0..1001).map(|block| block * 4096).collect();
        let stop = AtomicBool::new(false);
        for kind in [Kind::Copy, Kind::Latency, Kind::Skeleton] {
            for threads in [1, 2, 3, 2000] {
                let pass = run(&Fake, &Job { threads, kind, ..job(&offsets, &stop) }).unwrap();
                assert_eq!((pass.reads, pass.end), (1001, End::Complete));
                let timed_reads = pass.latency_ns.map(|histogram| histogram.len());
                assert_eq!(timed_reads, (kind == Kind::Latency).then_some(1001));
            }
        }
    }

    #[test]
    fn the_checksum_knows_content_and_order() {
        let stop = AtomicBool::new(false);
        let sum = |offsets: &[u64]| run(&Fake, &job(offsets, &stop)).unwrap().checksum;
        assert_eq!(sum(&[0, 4096, 8192]), sum(&[0, 4096, 8192]));
        assert_ne!(sum(&[0, 4096, 8192]), sum(&[4096, 0, 8192]));
        assert_ne!(sum(&[0, 4096, 8192]), sum(&[0, 4096, 12288]));
    }

    #[test]
    fn batches_read_the_same_in_the_same_order() {
        let offsets: Vec<u64> = (0..1001).map(|block| block * 4096).collect();
        let stop = AtomicBool::new(false);
        let one_by_one = run(&Fake, &job(&offsets, &stop)).unwrap();
        for (batch, close_look) in [(2, false), (32, true), (1000, false), (5000, true)] {
            let pass = run(&Fake, &Job { batch, close_look, ..job(&offsets, &stop) }).unwrap();
            assert_eq!((pass.reads, pass.checksum), (1001, one_by_one.checksum), "{batch}");
        }
    }

    #[test]
    fn a_series_lasts_its_time_and_counts_what_it_read() {
        let offsets: Vec<u64> = (0..10).map(|block| block * 4096).collect();
        let stop = AtomicBool::new(false);
        let duration = Duration::from_millis(250);
        let series = Some(SeriesPlan { duration, phases: 2 });
        for threads in [1, 2] {
            let pass = run(&Fake, &Job { threads, series, ..job(&offsets, &stop) }).unwrap();
            assert!(pass.elapsed >= duration && pass.reads > 10 && pass.end == End::Complete);
            let slices = pass.series.unwrap().slice_bytes;
            let counted: u64 = slices.iter().sum();
            assert!(slices.len() == 3 && counted > 0 && counted <= pass.reads * 4096, "{slices:?}");
        }
        assert_eq!(run(&Fake, &job(&offsets, &stop)).unwrap().series, None);
    }

    #[test]
    fn a_limit_and_a_flag_end_it_early() {
        let offsets = vec![0; 10_000];
        let stop = AtomicBool::new(false);
        let pass = run(&Fake, &Job { limit: Duration::ZERO, ..job(&offsets, &stop) }).unwrap();
        assert_eq!((pass.reads, pass.end), (READS_PER_LOOK as u64, End::LimitReached));
        let close = Job { limit: Duration::ZERO, close_look: true, ..job(&offsets, &stop) };
        assert_eq!(run(&Fake, &close).unwrap().reads, READS_PER_CLOSE_LOOK as u64);
        stop.store(true, Relaxed);
        let pass = run(&Fake, &job(&offsets, &stop)).unwrap();
        assert_eq!((pass.reads, pass.end), (READS_PER_LOOK as u64, End::Stopped));
    }
}
