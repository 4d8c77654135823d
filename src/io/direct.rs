//! Reads and writes past the page cache.
//!
//! The device is read and written in whole blocks, so what a caller asks for is widened to blocks: a read to those that
//! hold its bytes, in a buffer of ours; a write to a read of the blocks at its two ends, a change, and a write.
//!
//! - [`DirectFile::writes`] is held shared by writes of whole blocks, and alone by those that rewrite bytes which are
//!   not theirs, and by changes of the length: so no write is undone by a neighbour's.
//! - A file that does not end at a block's end is, for a moment, longer than it should be whenever its last block is
//!   written. [`DirectFile::edges`] is odd during that. A read that sees it odd, or changed, is done again with
//!   `writes` held.

mod align;
mod bounce;

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use parking_lot::RwLock;

use self::align::Align;
use self::bounce::Bounce;
use super::depth::first_of;
use super::hint::check_range;
use super::pread::RESTARTS_MAX;
use super::{AccessHint, BatchRead, BlockIo, DepthReads, PreadFile, SyncKind, range_end};
use crate::error::{Error, Operation, Result};
use crate::stats::{DirectStats, IoStats, PathKind};
use crate::sys::ring::RingRead;

/// The most that goes through one buffer of ours at a time.
const PIECE_BYTES: usize = 1 << 20;
/// The most that the reads of a batch have of such buffers at a time.
const BATCH_BYTES: usize = 8 << 20;

/// A file read and written past the page cache (`O_DIRECT`), for those who have a cache of their own.
///
/// Offsets, lengths and buffers may be anything, as everywhere. Those that are multiples of what the device asks for
/// ([`DirectStats`]) cost the least: other reads go through a buffer, and other writes read the blocks at their ends
/// first, one such write at a time.
///
/// The batch of a direct file goes to the device all at once, as that of a [`UringFile`](super::UringFile).
///
/// Whoever reads or writes the same file through the page cache meanwhile sees what the kernel promises, which is not
/// much; whoever appends to it by another descriptor, at the moment when a write here ends in the middle of the file's
/// last block, may be cut off. After a crash in that moment the file may be up to a block longer, with zeros.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use mapfall::{BlockIo, IoOptions};
///
/// let options = IoOptions::new().write(true).create(true).direct_fallback(true);
/// let file = options.open_direct(dir.path().join("blocks"))?;
/// file.write_at(10, b"of any length, anywhere")?;
/// let mut buf = [0; 8];
/// file.read_at(25, &mut buf)?;
/// assert_eq!(&buf, b"anywhere");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DirectFile {
    pread: PreadFile,
    align: Align,
    depth: DepthReads,
    writes: RwLock<()>,
    edges: AtomicU64,
    history: History,
}

/// What [`DirectStats`] tells. Relaxed: it orders nothing.
#[derive(Debug, Default)]
struct History {
    bounced_reads: AtomicU64,
    bounced_writes: AtomicU64,
    merged_writes: AtomicU64,
    refusal: Option<String>,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Why a read did not get everything.
enum Short {
    PastEnd { file_len_bytes: u64 },
    Failed(Error),
    Io(io::Error),
}

impl From<io::Error> for Short {
    fn from(error: io::Error) -> Self {
        Short::Io(error)
    }
}

impl DirectFile {
    /// Where there is no direct I/O for the file: why, or the file through the page cache if `or_buffered`.
    pub(crate) fn new(pread: PreadFile, depth: u32, or_buffered: bool) -> Result<Self, String> {
        let (align, refusal) = match align::go_direct(pread.file()) {
            Ok(align) => (align, None),
            Err(why) if or_buffered => {
                tracing::warn!(path = %pread.path().display(), why, "no direct I/O: the page cache serves the file");
                (Align::NONE, Some(why))
            }
            Err(why) => return Err(why),
        };
        Ok(DirectFile {
            pread,
            align,
            depth: DepthReads::new(depth),
            writes: RwLock::new(()),
            edges: AtomicU64::new(0),
            history: History { refusal, ..History::default() },
        })
    }

    fn is_buffered(&self) -> bool {
        self.history.refusal.is_some()
    }

    /// Where a read counts.
    fn path(&self, served: PathKind) -> PathKind {
        match served {
            PathKind::Ring | PathKind::Pread if !self.is_buffered() => PathKind::Direct,
            served => served,
        }
    }

    // ---- Reads ----

    /// The read itself, uncounted. `buf` is not empty.
    fn read_exact(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let wanted_bytes = buf.len() as u64;
        let result = match range_end(Operation::Read, offset, buf.len()) {
            Ok(end) if end <= i64::MAX as u64 - 2 * self.align.offset_bytes => {
                let before = self.begin_read();
                let result = before.map(|_| self.read_now(offset, buf));
                match result {
                    Some(result) if self.is_undisturbed(before) => result,
                    _ => {
                        let _nobody_writes = self.writes.read();
                        self.read_now(offset, buf)
                    }
                }
            }
            // No file reaches such an end.
            _ => self.pread.len().map_or_else(
                |error| Err(Short::Failed(error)),
                |file_len_bytes| Err(Short::PastEnd { file_len_bytes }),
            ),
        };
        result.map_err(|short| match short {
            Short::PastEnd { file_len_bytes } => Error::PastEnd { offset, wanted_bytes, file_len_bytes },
            Short::Failed(error) => error,
            Short::Io(source) => self.pread.io_error(Operation::Read, offset, wanted_bytes, source),
        })
    }

    /// For [`DirectFile::is_undisturbed`]; nothing while the file is longer than it should be.
    fn begin_read(&self) -> Option<u64> {
        // Acquire: pairs with the Release in `write_merged`; what is read comes after it.
        Some(self.edges.load(Ordering::Acquire)).filter(|edges| edges % 2 == 0)
    }

    /// Whether the file was never longer than it should be since.
    fn is_undisturbed(&self, before: Option<u64>) -> bool {
        // The read was a system call, which the load cannot pass; the fence says so to the compiler.
        fence(Ordering::Acquire);
        before == Some(self.edges.load(Ordering::Relaxed))
    }

    fn read_now(&self, offset: u64, buf: &mut [u8]) -> Result<(), Short> {
        if self.align.fits_range(offset, buf.len()) && self.align.fits_memory(buf) {
            let needed = buf.len();
            return self.read_blocks(offset, buf, needed);
        }
        count(&self.history.bounced_reads);
        let end = offset + buf.len() as u64;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let start = self.align.down(at);
            let stop = self.align.up(end).min(start + PIECE_BYTES as u64);
            let skip = (at - start) as usize;
            let wanted = (end.min(stop) - at) as usize;
            let mut bounce = Bounce::take((stop - start) as usize, self.align.memory_bytes);
            self.read_blocks(start, bounce.bytes(), skip + wanted)?;
            buf[done..done + wanted].copy_from_slice(&bounce.bytes()[skip..skip + wanted]);
            done += wanted;
        }
        Ok(())
    }

    /// Reads whole blocks, of which the file must have the first `needed` bytes.
    #[allow(clippy::disallowed_methods, reason = "this makes short reads whole")]
    fn read_blocks(&self, offset: u64, blocks: &mut [u8], needed: usize) -> Result<(), Short> {
        let (mut done, mut restarts) = (0, 0);
        while done < needed {
            let count = match self.pread.file().read_at(&mut blocks[done..], offset + done as u64) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            done += count;
            if done >= needed || (count > 0 && self.align.fits_range(0, count)) {
                continue;
            }
            // It ended inside of a block, so the file did.
            let file_len_bytes = self.pread.len().map_err(Short::Failed)?;
            if file_len_bytes < offset + needed as u64 {
                return Err(Short::PastEnd { file_len_bytes });
            }
            // It has grown since. As in `PreadFile`, begin again.
            restarts += 1;
            if restarts > RESTARTS_MAX {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            done = 0;
        }
        Ok(())
    }

    /// The bytes that a read of a batch takes of a buffer of ours: 0 if it needs none, nothing if it is not for a ring.
    fn bounce_len(&self, read: &BatchRead<'_>) -> Option<usize> {
        let end = range_end(Operation::Read, read.offset, read.buf.len()).ok()?;
        if read.buf.is_empty() || end > i64::MAX as u64 - self.align.offset_bytes {
            return None;
        }
        if self.align.fits_range(read.offset, read.buf.len()) && self.align.fits_memory(read.buf) {
            return Some(0);
        }
        let len = self.align.up(end) - self.align.down(read.offset);
        usize::try_from(len).ok().filter(|len| *len <= BATCH_BYTES)
    }

    /// Reads some of a batch. `base` is where they stand in it.
    fn read_group(&self, base: usize, group: &mut [BatchRead<'_>], failed: &mut Option<(usize, Error)>) {
        let lens: Vec<_> = group.iter().map(|read| self.bounce_len(read)).collect();
        let total = lens.iter().flatten().sum();
        let mut bounce = (total > 0).then(|| Bounce::take(total, self.align.memory_bytes));
        let mut rest = bounce.as_mut().map_or(&mut [][..], Bounce::bytes);
        let mut reads = Vec::with_capacity(group.len());
        for (read, len) in group.iter_mut().zip(&lens) {
            match *len {
                None => {}
                Some(0) => reads.push(RingRead::new(read.offset, read.buf)),
                Some(len) => {
                    let (blocks, others) = std::mem::take(&mut rest).split_at_mut(len);
                    rest = others;
                    let start = self.align.down(read.offset);
                    let needed_bytes = (read.offset - start) as usize + read.buf.len();
                    reads.push(RingRead { needed_bytes, ..RingRead::new(start, blocks) });
                }
            }
        }
        let before = self.begin_read();
        let served = self.depth.fill(self.pread.file(), &mut reads);
        let is_right = self.is_undisturbed(before);
        let mut whole: Vec<_> = reads.iter().map(|read| is_right && read.is_whole()).collect();
        whole.reverse();
        let mut blocks = bounce.as_mut().map_or(&[][..], |bounce| &*bounce.bytes());
        let cell = self.pread.counters().cell();
        for (index, (read, len)) in group.iter_mut().zip(lens).enumerate() {
            let mine = blocks.split_off(..len.unwrap_or(0)).unwrap_or_default();
            if len.is_some() && whole.pop() == Some(true) {
                if !mine.is_empty() {
                    count(&self.history.bounced_reads);
                    let skip = (read.offset - self.align.down(read.offset)) as usize;
                    read.buf.copy_from_slice(&mine[skip..skip + read.buf.len()]);
                }
                cell.count_read(read.buf.len(), true);
                cell.count_path(self.path(served), read.buf.len());
            } else if let Err(error) = self.read_at(read.offset, read.buf) {
                first_of(failed, base + index, error);
            }
        }
    }

    // ---- Writes ----

    /// Writes whole blocks.
    fn write_blocks(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        if self.align.fits_memory(blocks) {
            return self.write_aligned(offset, blocks);
        }
        count(&self.history.bounced_writes);
        for (piece, at) in blocks.chunks(PIECE_BYTES).zip((offset..).step_by(PIECE_BYTES)) {
            let mut bounce = Bounce::take(piece.len(), self.align.memory_bytes);
            bounce.bytes().copy_from_slice(piece);
            self.write_aligned(at, bounce.bytes())?;
        }
        Ok(())
    }

    #[allow(clippy::disallowed_methods, reason = "this makes short writes whole")]
    fn write_aligned(&self, offset: u64, blocks: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < blocks.len() {
            match self.pread.file().write_at(&blocks[done..], offset + done as u64) {
                // Part of a block is written again with the rest of it.
                Ok(count) => match self.align.down(count as u64) as usize {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => done += count,
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what does not begin and end with a block, with `writes` held alone.
    fn write_merged(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        count(&self.history.merged_writes);
        let failed = |source| self.pread.io_error(Operation::Write, offset, bytes.len() as u64, source);
        let end = offset + bytes.len() as u64;
        let len_bytes = self.pread.len()?.max(end);
        let stop = self.align.up(end);
        if stop <= len_bytes {
            return self.merge(offset, bytes).map_err(failed);
        }
        // Release: pairs with the Acquire in `begin_read`, as does the one below.
        self.edges.fetch_add(1, Ordering::AcqRel);
        let merged = self.merge(offset, bytes).map_err(failed);
        let cut = self.pread.len().and_then(|found| {
            // What reaches further is somebody else's.
            let is_ours = found > len_bytes && found <= stop;
            if is_ours { self.pread.file().set_len(len_bytes).map_err(failed) } else { Ok(()) }
        });
        self.edges.fetch_add(1, Ordering::Release);
        merged.and(cut)
    }

    /// Writes all blocks that the bytes touch. What the file does not have of them is zeros.
    fn merge(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (end, block_bytes) = (offset + bytes.len() as u64, self.align.offset_bytes as usize);
        let mut start = self.align.down(offset);
        while start < end {
            let stop = self.align.up(end).min(start + PIECE_BYTES as u64);
            let mut bounce = Bounce::take((stop - start) as usize, self.align.memory_bytes);
            let blocks = bounce.bytes();
            if start < offset || (stop > end && stop - start == self.align.offset_bytes) {
                self.read_block(start, &mut blocks[..block_bytes])?;
            }
            if stop > end && stop - start > self.align.offset_bytes {
                let last = blocks.len() - block_bytes;
                self.read_block(stop - self.align.offset_bytes, &mut blocks[last..])?;
            }
            let (from, to) = (start.max(offset), stop.min(end));
            blocks[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&bytes[(from - offset) as usize..(to - offset) as usize]);
            self.write_aligned(start, blocks)?;
            start = stop;
        }
        Ok(())
    }

    /// Reads one block, or what the file has of it.
    #[allow(clippy::disallowed_methods, reason = "nothing changes the length meanwhile")]
    fn read_block(&self, offset: u64, block: &mut [u8]) -> io::Result<()> {
        loop {
            match self.pread.file().read_at(block, offset) {
                Ok(count) => {
                    block[count..].fill(0);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl BlockIo for DirectFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let result = self.read_exact(offset, buf);
        let cell = self.pread.counters().cell();
        cell.count_read(buf.len(), result.is_ok());
        if result.is_ok() {
            cell.count_path(self.path(PathKind::Pread), buf.len());
        }
        result
    }

    fn read_batch(&self, batch: &mut [BatchRead<'_>]) -> Result<()> {
        let (mut failed, mut base) = (None, 0);
        while base < batch.len() {
            let mut room = Some(BATCH_BYTES);
            let len = batch[base..].iter().take_while(|read| {
                room = room.and_then(|room| room.checked_sub(self.bounce_len(read).unwrap_or(0)));
                room.is_some()
            });
            let len = len.count().max(1);
            self.read_group(base, &mut batch[base..base + len], &mut failed);
            base += len;
        }
        failed.map_or(Ok(()), |(index, error)| Err(Error::Batch { index, source: Box::new(error) }))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.pread.check_writable(Operation::Write)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let end = range_end(Operation::Write, offset, bytes.len())?;
        if self.align.fits_range(offset, bytes.len()) {
            let _shared = self.writes.read();
            self.write_blocks(offset, bytes)
                .map_err(|source| self.pread.io_error(Operation::Write, offset, bytes.len() as u64, source))?;
        } else if end > i64::MAX as u64 - self.align.offset_bytes {
            // Its last block would end past the largest offset. No file system has such files.
            let source = io::Error::from_raw_os_error(libc::EFBIG);
            return Err(self.pread.io_error(Operation::Write, offset, bytes.len() as u64, source));
        } else {
            let _alone = self.writes.write();
            self.write_merged(offset, bytes)?;
        }
        self.pread.counters().count_write(bytes.len());
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        let before = self.begin_read();
        let found = self.pread.len()?;
        if self.is_undisturbed(before) {
            return Ok(found);
        }
        let _nobody_writes = self.writes.read();
        self.pread.len()
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        let _alone = self.writes.write();
        self.pread.set_len(len_bytes)
    }

    fn reserve(&self, len_bytes: u64) -> Result<()> {
        let _alone = self.writes.write();
        self.pread.reserve(len_bytes)
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.pread.sync(kind)
    }

    fn advise(&self, range: Range<u64>, hint: AccessHint) -> Result<()> {
        // What is not in the page cache must not be brought there.
        if self.is_buffered() { self.pread.advise(range, hint) } else { check_range(&range) }
    }

    fn stats(&self) -> IoStats {
        let told = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let direct_io = DirectStats {
            offset_align_bytes: self.align.offset_bytes,
            memory_align_bytes: self.align.memory_bytes as u64,
            bounced_reads: told(&self.history.bounced_reads),
            bounced_writes: told(&self.history.bounced_writes),
            merged_writes: told(&self.history.merged_writes),
            refusal: self.history.refusal.clone(),
        };
        IoStats { direct_io: Some(direct_io), rings: Some(self.depth.stats()), ..self.pread.stats() }
    }
}
