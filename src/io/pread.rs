//! `pread` and `pwrite`: the reference that every other path is held against.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;
use rustix::fs::{FallocateFlags, fallocate, fstat};
use rustix::io::{Errno, retry_on_intr};

use super::hint::{AccessHint, advise_file, check_range};
use super::{BlockIo, SyncKind, range_end};
use crate::error::{Error, Operation, Result};
use crate::stats::{Counters, IoStats};

/// How often a read begins again because the file was cut and grew back under it.
pub(super) const RESTARTS_MAX: u32 = 8;

/// A file read with `pread(2)` and written with `pwrite(2)`.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use mapfall::{BlockIo, IoOptions};
///
/// let file = IoOptions::new().write(true).create(true).open_pread(dir.path().join("blocks"))?;
/// file.write_at(0, b"0123456789")?;
/// let mut buf = [0; 4];
/// file.read_at(3, &mut buf)?;
/// assert_eq!(&buf, b"3456");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PreadFile {
    file: File,
    path: Arc<Path>,
    writable: bool,
    /// Whether the file system is not known to refuse `fallocate(2)`. Relaxed: it orders nothing.
    can_allocate: AtomicBool,
    /// Held shared by whatever else may change the length, and alone by `reserve`: it may have to set the length that
    /// it was asked for, or that it found, and must not cut off what another thread has appended meanwhile.
    length: RwLock<()>,
    counters: Counters,
}

impl PreadFile {
    /// `file` must be a regular file, open for reading, and for writing where `writable`.
    pub(crate) fn new(file: File, path: Arc<Path>, writable: bool) -> Self {
        PreadFile {
            file,
            path,
            writable,
            can_allocate: AtomicBool::new(true),
            length: RwLock::new(()),
            counters: Counters::default(),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The read itself, uncounted. `buf` is not empty.
    pub(super) fn read_exact(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read_exact_from(&self.file, offset, buf)
    }

    /// As [`PreadFile::read_exact`], through another descriptor of the same file.
    #[allow(clippy::disallowed_methods, reason = "this is the place that makes short reads whole")]
    pub(super) fn read_exact_from(&self, file: &File, offset: u64, buf: &mut [u8]) -> Result<()> {
        let wanted = buf.len();
        // No file reaches such an end, so this is a read past it.
        if range_end(Operation::Read, offset, wanted).is_err() {
            let file_len_bytes = self.len()?;
            return Err(Error::PastEnd { offset, wanted_bytes: wanted as u64, file_len_bytes });
        }
        let mut done = 0;
        let mut restarts = 0;
        while done < wanted {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => {
                    let file_len_bytes = self.len()?;
                    if file_len_bytes < offset + wanted as u64 {
                        return Err(Error::PastEnd { offset, wanted_bytes: wanted as u64, file_len_bytes });
                    }
                    // The file says that it has the bytes: it has grown back since. Begin again, since what was read
                    // before it was cut may not be what stands there now. Files that claim more than they give (in
                    // sysfs, say) end this.
                    restarts += 1;
                    if restarts > RESTARTS_MAX {
                        let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                        return Err(self.io_error(Operation::Read, offset, wanted as u64, source));
                    }
                    done = 0;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.io_error(Operation::Read, offset, wanted as u64, source)),
            }
        }
        Ok(())
    }

    /// Makes the file longer, unless another thread has done it by now.
    fn grow_to(&self, len_bytes: u64) -> Result<()> {
        let _alone = self.length.write();
        let old_len_bytes = self.len()?;
        if len_bytes <= old_len_bytes {
            return Ok(());
        }
        let added_bytes = len_bytes - old_len_bytes;
        let failed = |source| self.io_error(Operation::Reserve, old_len_bytes, added_bytes, source);
        if self.can_allocate.load(Relaxed) {
            match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), old_len_bytes, added_bytes)) {
                Ok(()) => return Ok(()),
                Err(error @ (Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) => {
                    tracing::debug!(path = %self.path.display(), %error, "the file system allocates no space");
                    self.can_allocate.store(false, Relaxed);
                }
                Err(error) => {
                    // What was got before the error stays: ext4 leaves the file longer, XFS keeps blocks behind its
                    // end. Setting the length that it had gives back both.
                    if let Err(error) = self.file.set_len(old_len_bytes) {
                        tracing::warn!(path = %self.path.display(), %error, "a failed reservation is not undone");
                    }
                    return Err(failed(error.into()));
                }
            }
        }
        self.file.set_len(len_bytes).map_err(failed)?;
        self.counters.count_reserve_fallback();
        Ok(())
    }

    pub(super) fn io_error(&self, operation: Operation, offset: u64, len_bytes: u64, source: io::Error) -> Error {
        Error::Io { operation, path: self.path.clone(), offset, len_bytes, source }
    }

    pub(super) fn check_writable(&self, operation: Operation) -> Result<()> {
        if self.writable { Ok(()) } else { Err(Error::ReadOnly { operation, path: self.path.clone() }) }
    }
}

impl BlockIo for PreadFile {
    #[inline]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let result = self.read_exact(offset, buf);
        let cell = self.counters.cell();
        cell.count_read(buf.len(), result.is_ok());
        if result.is_ok() {
            cell.count_pread(buf.len());
        }
        result
    }

    #[allow(clippy::disallowed_methods, reason = "this is the place that makes short writes whole")]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check_writable(Operation::Write)?;
        if bytes.is_empty() {
            return Ok(());
        }
        range_end(Operation::Write, offset, bytes.len())?;
        let _shared = self.length.read();
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write_at(&bytes[done..], offset + done as u64) {
                Ok(0) => {
                    let source = io::Error::from(io::ErrorKind::WriteZero);
                    return Err(self.io_error(Operation::Write, offset, bytes.len() as u64, source));
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.io_error(Operation::Write, offset, bytes.len() as u64, source)),
            }
        }
        self.counters.count_write(bytes.len());
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        match fstat(&self.file) {
            // The kernel's length is never negative.
            Ok(found) => Ok(found.st_size.cast_unsigned()),
            Err(source) => Err(self.io_error(Operation::Stat, 0, 0, source.into())),
        }
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        self.check_writable(Operation::SetLen)?;
        if len_bytes > i64::MAX as u64 {
            return Err(Error::OffsetOverflow { operation: Operation::SetLen, offset: 0, len_bytes });
        }
        let _shared = self.length.read();
        self.file.set_len(len_bytes).map_err(|source| self.io_error(Operation::SetLen, 0, len_bytes, source))?;
        self.counters.count_set_len();
        Ok(())
    }

    fn reserve(&self, len_bytes: u64) -> Result<()> {
        self.check_writable(Operation::Reserve)?;
        if len_bytes > i64::MAX as u64 {
            return Err(Error::OffsetOverflow { operation: Operation::Reserve, offset: 0, len_bytes });
        }
        if self.len()? < len_bytes {
            self.grow_to(len_bytes)?;
        }
        self.counters.count_reserve();
        Ok(())
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.check_writable(Operation::Sync)?;
        match kind {
            SyncKind::Data => self.file.sync_data(),
            SyncKind::All => self.file.sync_all(),
        }
        .map_err(|source| self.io_error(Operation::Sync, 0, 0, source))?;
        self.counters.count_sync();
        Ok(())
    }

    fn advise(&self, range: Range<u64>, hint: AccessHint) -> Result<()> {
        check_range(&range)?;
        let len_bytes = self.len()?;
        let within = range.start.min(len_bytes)..range.end.min(len_bytes);
        advise_file(&self.file, within, hint)
            .map_err(|source| self.io_error(Operation::Advise, range.start, range.end - range.start, source))
    }

    fn stats(&self) -> IoStats {
        self.counters.snapshot()
    }
}
