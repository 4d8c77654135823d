//! Byte-offset I/O on one file, behind one contract.
//!
//! [`BlockIo`] is the contract, [`PreadFile`] the reference, [`MmapFile`] the safe memory map, [`AutoFile`] the cheaper
//! of both for each read, [`UringFile`] reads of a batch all at once, [`DirectFile`] reads and writes past the page
//! cache. For any input they return the same bytes and the same kind of error; they differ in what it costs.

mod auto;
mod depth;
mod direct;
mod hint;
mod mmap;
mod pread;
mod uring;

use std::fmt;
use std::ops::Range;

pub use auto::AutoFile;
pub(crate) use depth::{DepthReads, QUEUE_DEPTH_MAX};
pub use direct::DirectFile;
pub use hint::AccessHint;
pub use mmap::MmapFile;
pub use pread::PreadFile;
pub use uring::UringFile;

use crate::error::{Error, Result};
use crate::stats::IoStats;

/// Exact reads and writes at byte offsets of one file.
///
/// Any number of threads may call any method at the same time. Offsets and lengths need no alignment.
///
/// # Reads that race with writes
///
/// A read that overlaps a write, a truncation or a growth that runs at the same time returns, for each byte, a value
/// that the file had there before, during or after it, as `read(2)` does; it is not atomic. A read that runs while
/// nothing else touches its bytes returns exactly what the file holds.
pub trait BlockIo: Send + Sync + fmt::Debug {
    /// Fills `buf` with the bytes at `offset`.
    ///
    /// An empty `buf` succeeds at any offset and reads nothing. After an error the buffer is initialised memory of
    /// unspecified content: some of it may have been overwritten, and it must not be taken for file data.
    ///
    /// # Errors
    ///
    /// [`Error::PastEnd`] where the range is not wholly inside the file. [`Error::Io`] where the system fails the read;
    /// with `UnexpectedEof` where it gives fewer bytes, time after time, than it says that the file has.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Does every read of a batch. The reads may be done in any order.
    ///
    /// # Errors
    ///
    /// [`Error::Batch`] with the first of them, in the batch's order, that failed. The others were tried all the same,
    /// so the rest of the buffers may or may not hold what was asked: only success says that all of them do.
    fn read_batch(&self, batch: &mut [BatchRead<'_>]) -> Result<()> {
        read_each(self, batch, |_| ())
    }

    /// Writes all of `bytes` at `offset`, making the file longer where they pass its end.
    ///
    /// A gap between the old end and `offset` reads as zeros. Empty `bytes` succeed and change nothing. After an error
    /// any prefix of `bytes` may have been written. Nothing is durable before [`BlockIo::sync`].
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`], [`Error::OffsetOverflow`], or [`Error::Io`] (a full disk, a file size limit, the device).
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// The file's length in bytes, asked of the system.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    fn len(&self) -> Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes the file exactly `len_bytes` long. New bytes read as zeros and may be a hole.
    ///
    /// Safe while readers run: a read whose range is cut off gets [`Error::PastEnd`].
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`], [`Error::OffsetOverflow`], or [`Error::Io`].
    fn set_len(&self, len_bytes: u64) -> Result<()>;

    /// Makes the file at least `len_bytes` long, never shorter. New bytes read as zeros.
    ///
    /// [`PreadFile`] and [`MmapFile`] put disk space behind the new bytes (`fallocate(2)`), so that a write to them
    /// does not fail for want of it. Where the file system cannot allocate, they are a hole, and
    /// [`IoStats::reserve_fallbacks`] counts it. The default is [`BlockIo::len`], then [`BlockIo::set_len`].
    ///
    /// A file that is long enough stays as it is, holes included. After an error the file has the length it had.
    ///
    /// Nothing that is appended through the same [`PreadFile`] or [`MmapFile`] meanwhile is cut off. What comes by
    /// another descriptor at that very moment may be, where the file system cannot allocate or the call fails: the
    /// length is set then. The same is true of the default for anyone who appends.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`], [`Error::OffsetOverflow`], or [`Error::Io`] (a full disk, a quota, a file size limit, the
    /// device).
    fn reserve(&self, len_bytes: u64) -> Result<()> {
        if self.len()? < len_bytes { self.set_len(len_bytes) } else { Ok(()) }
    }

    /// Returns when everything written before the call is on the device.
    ///
    /// After an error nothing may be assumed of the writes since the last success: the kernel may have dropped them and
    /// a later success does not bring them back ([fsync(2),
    /// "fsyncgate"](https://wiki.postgresql.org/wiki/Fsync_Errors)).
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`] or [`Error::Io`].
    fn sync(&self, kind: SyncKind) -> Result<()>;

    /// Says what is known of the reads to come. It changes what they cost, and never what they return.
    ///
    /// Bytes past the end of the file are passed over, and an empty range changes nothing. [`AccessHint::Normal`],
    /// [`AccessHint::Sequential`] and [`AccessHint::Random`] hold for the whole file from now on, whatever the range:
    /// Linux keeps them by opening. A file that has no page cache ([`DirectFile`]) has nothing to be told, nor has one
    /// whose implementation takes no hints: the default only looks at the range.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRange`], and [`Error::Io`] where the system refuses.
    fn advise(&self, range: Range<u64>, hint: AccessHint) -> Result<()> {
        let _ = hint;
        hint::check_range(&range)
    }

    /// What has been done so far.
    fn stats(&self) -> IoStats;
}

/// One read of a batch: the bytes at `offset`, as many as `buf` holds.
#[derive(Debug)]
pub struct BatchRead<'a> {
    /// Where to read.
    pub offset: u64,
    /// Where the bytes go.
    pub buf: &'a mut [u8],
}

/// How much [`BlockIo::sync`] makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// The data and what is needed to read it back, the length included (`fdatasync`).
    Data,
    /// All of the inode too, timestamps included (`fsync`).
    All,
}

/// Does the reads of a batch one by one. Before each, `look_ahead` is shown the one after it.
fn read_each<F: BlockIo + ?Sized>(
    file: &F,
    batch: &mut [BatchRead<'_>],
    look_ahead: impl Fn(&BatchRead<'_>),
) -> Result<()> {
    let mut first = None;
    for index in 0..batch.len() {
        if let Some(next) = batch.get(index + 1) {
            look_ahead(next);
        }
        let read = &mut batch[index];
        if let Err(error) = file.read_at(read.offset, read.buf) {
            first.get_or_insert((index, error));
        }
    }
    match first {
        None => Ok(()),
        Some((index, error)) => Err(Error::Batch { index, source: Box::new(error) }),
    }
}

/// The end of a range, or the error that a range past `i64::MAX` gets everywhere.
fn range_end(operation: crate::error::Operation, offset: u64, len: usize) -> Result<u64> {
    offset.checked_add(len as u64).filter(|end| *end <= i64::MAX as u64).ok_or(Error::OffsetOverflow {
        operation,
        offset,
        len_bytes: len as u64,
    })
}
