//! Batches of reads at depth: through a ring, or by a pool of threads where there is none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;

use super::{BatchRead, BlockIo, PreadFile, range_end};
use crate::error::{Error, Operation};
use crate::stats::{PathKind, RingStats};
use crate::sys::pool;
use crate::sys::ring::{self, RingRead};

/// The largest queue depth there is.
pub(crate) const QUEUE_DEPTH_MAX: u32 = ring::DEPTH_MAX;

/// Does reads of one file many at a time, out of order.
///
/// Every read gives the bytes and the kind of error that [`PreadFile`] gives: what a ring does not fill whole, for
/// whatever reason, is read once more by `pread(2)`, which tells the truth. When a call returns or unwinds, neither the
/// kernel nor another thread has any of the buffers.
///
/// Any number of threads may call it at the same time, and none waits for another: a ring belongs to the thread that
/// uses it, for all its files. Where a thread gets no ring (the kernel has none or forbids it, a limit is reached), the
/// reads are spread over the pool's threads, and [`RingStats`] says why.
#[derive(Debug)]
pub(crate) struct DepthReads {
    depth: u32,
    /// Once a batch, not once a read.
    history: Mutex<RingStats>,
}

impl DepthReads {
    /// At most `depth` reads of a batch under way at a time, 1 to [`QUEUE_DEPTH_MAX`].
    pub(crate) fn new(depth: u32) -> Self {
        DepthReads { depth, history: Mutex::new(RingStats { depth, ..RingStats::default() }) }
    }

    /// Does the reads of the batch with the `wanted` indices, in whatever order these come, each once, by `file`, which
    /// is another descriptor of the file that `pread` has, or the same. Counts each in
    /// the counters of `pread`, as a read and on the path that served it. Returns the first that failed, in the batch's
    /// order; the others were tried all the same.
    ///
    /// # Panics
    ///
    /// Where an index is not below the length of the batch.
    pub(crate) fn read_batch(
        &self,
        pread: &PreadFile,
        file: &File,
        batch: &mut [BatchRead<'_>],
        wanted: &mut dyn Iterator<Item = usize>,
    ) -> Option<(usize, Error)> {
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_unstable();
        wanted.dedup();
        assert!(wanted.last().is_none_or(|last| *last < batch.len()), "a read that is not in the batch");
        let mut indices = Vec::with_capacity(wanted.len());
        let mut reads = Vec::with_capacity(wanted.len());
        let mut failed = None;
        let mut wanted = wanted.into_iter().peekable();
        for (index, read) in batch.iter_mut().enumerate() {
            if wanted.next_if_eq(&index).is_none() || read.buf.is_empty() {
                continue;
            }
            if range_end(Operation::Read, read.offset, read.buf.len()).is_ok() {
                indices.push(index);
                reads.push(RingRead::new(read.offset, read.buf));
            } else if let Err(error) = pread.read_at(read.offset, read.buf) {
                first_of(&mut failed, index, error);
            }
        }
        let path = self.fill(file, &mut reads);
        let cell = pread.counters().cell();
        for (index, read) in indices.into_iter().zip(reads) {
            if read.is_whole() {
                cell.count_read(read.buf.len(), true);
                cell.count_path(path, read.buf.len());
            } else if let Err(error) = pread.read_at(read.offset, read.buf) {
                first_of(&mut failed, index, error);
            }
        }
        failed
    }

    /// Reads as much as can be read, at most [`DepthReads::depth`] at a time, and says on which path: the ring or the
    /// pool. It counts nothing, and the reads that are not whole say nothing of why.
    pub(super) fn fill(&self, file: &File, reads: &mut [RingRead<'_>]) -> PathKind {
        if reads.len() < 2 {
            // There is nothing to overlap.
            return PathKind::Ring;
        }
        match ring::read(file, self.depth, reads) {
            Ok(work) => {
                let mut history = self.history.lock();
                history.batches += 1;
                history.submits += work.submits;
                history.rings += u64::from(work.made_ring);
                PathKind::Ring
            }
            Err(refusal) => {
                tracing::debug!(%refusal, "a batch is read by the pool");
                let mut history = self.history.lock();
                history.refusals += 1;
                history.last_refusal = Some(refusal.to_string());
                drop(history);
                let slots: Vec<_> = reads.iter_mut().map(Mutex::new).collect();
                pool::run(slots.len(), self.depth as usize - 1, &|index| fill_by_pread(file, &mut slots[index].lock()));
                PathKind::Pool
            }
        }
    }

    /// What has been done so far.
    pub(crate) fn stats(&self) -> RingStats {
        self.history.lock().clone()
    }
}

/// Keeps the failure that comes first in the batch.
pub(super) fn first_of(failed: &mut Option<(usize, Error)>, index: usize, error: Error) {
    if failed.as_ref().is_none_or(|(first, _)| index < *first) {
        *failed = Some((index, error));
    }
}

#[allow(clippy::disallowed_methods, reason = "what it leaves undone is read again")]
fn fill_by_pread(file: &File, read: &mut RingRead<'_>) {
    while !read.is_whole() {
        match file.read_at(&mut read.buf[read.done_bytes..], read.offset + read.done_bytes as u64) {
            Ok(count @ 1..) => read.done_bytes += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
        }
    }
}
