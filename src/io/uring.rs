//! Single reads by `pread(2)`, batches all at once through a ring.

use std::ops::Range;

use super::{AccessHint, BatchRead, BlockIo, DepthReads, PreadFile, SyncKind};
use crate::error::{Error, Result};
use crate::stats::IoStats;

/// A file whose batches are read many at a time (`io_uring(7)`), and everything else as by [`PreadFile`].
///
/// A device that is asked for one block at a time is idle for most of it: on data that is not in the page cache a
/// batch is faster than its reads one after the other. On data that is there, the batch costs one system
/// call rather than one for each read.
///
/// Where there is no ring (the kernel has none, or `kernel.io_uring_disabled` or a seccomp filter forbids it, or the
/// process has no descriptors left), a few threads do the reads of a batch: [`IoStats::rings`] says why, and
/// [`IoStats::pool`] how many.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use mapfall::{BatchRead, BlockIo, IoOptions};
///
/// let file = IoOptions::new().write(true).create(true).open_uring(dir.path().join("blocks"))?;
/// file.write_at(0, &[5; 16384])?;
/// let (mut first, mut second) = ([0; 4096], [0; 4096]);
/// file.read_batch(&mut [
///     BatchRead { offset: 8192, buf: &mut first },
///     BatchRead { offset: 0, buf: &mut second },
/// ])?;
/// assert_eq!((first, second), ([5; 4096], [5; 4096]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct UringFile {
    pread: PreadFile,
    depth: DepthReads,
}

impl UringFile {
    pub(crate) fn new(pread: PreadFile, depth: u32) -> Self {
        UringFile { pread, depth: DepthReads::new(depth) }
    }
}

impl BlockIo for UringFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.pread.read_at(offset, buf)
    }

    fn read_batch(&self, batch: &mut [BatchRead<'_>]) -> Result<()> {
        match self.depth.read_batch(&self.pread, self.pread.file(), batch, &mut (0..batch.len())) {
            None => Ok(()),
            Some((index, error)) => Err(Error::Batch { index, source: Box::new(error) }),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.pread.write_at(offset, bytes)
    }

    fn len(&self) -> Result<u64> {
        self.pread.len()
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        self.pread.set_len(len_bytes)
    }

    fn reserve(&self, len_bytes: u64) -> Result<()> {
        self.pread.reserve(len_bytes)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.pread.sync(kind)
    }

    fn advise(&self, range: Range<u64>, hint: AccessHint) -> Result<()> {
        self.pread.advise(range, hint)
    }

    fn stats(&self) -> IoStats {
        IoStats { rings: Some(self.depth.stats()), ..self.pread.stats() }
    }
}
