//! The file that is read when the user names none: temporary, of incompressible content, as large as the machine can
//! bear.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{env, fs};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::NamedTempFile;

use super::error::{Error, Result};
use super::machine;
use super::size::ByteSize;

/// How much is made and written at a time.
const CHUNK_BYTES: usize = 8 << 20;

/// A size that fits, and why it is not the one asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FittingSize {
    /// The size to use.
    pub bytes: u64,
    /// What cut it, where something did.
    pub cut_by: Option<String>,
}

/// The least of what was asked, a third of the memory that is available (the page cache must hold the file beside a
/// copy of it) and half of the disk space that is free.
///
/// # Errors
///
/// Where the system does not say what is free.
pub fn fitting_size(asked_bytes: u64, dir: &Path) -> Result<FittingSize> {
    let disk =
        rustix::fs::statvfs(dir).map_err(|error| Error::system("ask for the free space in", dir)(error.into()))?;
    let disk_free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let memory_bytes = machine::memory_available_bytes().unwrap_or(u64::MAX);
    Ok(fit(asked_bytes, memory_bytes, disk_free_bytes))
}

fn fit(asked_bytes: u64, memory_bytes: u64, disk_free_bytes: u64) -> FittingSize {
    let whole_mib = |bytes: u64| bytes & !((1 << 20) - 1);
    let by_memory = whole_mib(memory_bytes / 3);
    let by_disk = whole_mib(disk_free_bytes / 2);
    let bytes = asked_bytes.min(by_memory).min(by_disk);
    let cut_by = if bytes == asked_bytes {
        None
    } else if by_memory <= by_disk {
        Some(format!("a third of the {} of memory that are available", ByteSize::new(memory_bytes).rounded()))
    } else {
        Some(format!("half of the {} of disk that are free", ByteSize::new(disk_free_bytes).rounded()))
    };
    FittingSize { bytes, cut_by }
}

/// Where to make the file: in `TMPDIR`, unless that is in memory, else in the current directory.
#[must_use]
pub fn default_dir() -> PathBuf {
    let named = env::var_os("TMPDIR").map(PathBuf::from).filter(|dir| dir.is_dir() && !is_in_memory(dir));
    named.unwrap_or_else(|| PathBuf::from("."))
}

/// Whether a directory is on a file system that has no device below it: no cold read can be had there.
#[must_use]
pub fn is_in_memory(dir: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    #[allow(clippy::useless_conversion, reason = "the field's type depends on the architecture")]
    let is_in_memory = |stat: rustix::fs::StatFs| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&i64::from(stat.f_type));
    rustix::fs::statfs(dir).is_ok_and(is_in_memory)
}

/// A temporary file, removed when the value is dropped.
#[derive(Debug)]
pub struct TemporaryFile {
    file: NamedTempFile,
}

impl TemporaryFile {
    /// Makes a file of `len_bytes` random bytes in `dir` and syncs it. `written` hears how far it is.
    ///
    /// # Errors
    ///
    /// Where it cannot be made or written, or [`Error::Interrupted`]; then nothing is left behind.
    pub fn create(
        dir: &Path,
        len_bytes: u64,
        seed: u64,
        stop: &AtomicBool,
        mut written: impl FnMut(u64),
    ) -> Result<Self> {
        let dir = fs::canonicalize(dir).map_err(Error::system("find", dir))?;
        let named = tempfile::Builder::new().prefix("mapfall-grid-").suffix(".tmp").tempfile_in(&dir);
        let mut file = named.map_err(Error::system("make a temporary file in", &dir))?;
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut done_bytes = 0;
        while done_bytes < len_bytes {
            if stop.load(Relaxed) {
                return Err(Error::Interrupted);
            }
            let len = (len_bytes - done_bytes).min(CHUNK_BYTES as u64) as usize;
            rng.fill_bytes(&mut chunk[..len]);
            file.write_all(&chunk[..len]).map_err(Error::system("write", file.path()))?;
            done_bytes += len as u64;
            written(done_bytes);
        }
        file.as_file().sync_all().map_err(Error::system("sync", file.path()))?;
        Ok(TemporaryFile { file })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_cut_by_what_is_scarcer() {
        const GIB: u64 = 1 << 30;
        assert_eq!(fit(GIB, 4 * GIB, 4 * GIB), FittingSize { bytes: GIB, cut_by: None });
        let by_memory = fit(4 * GIB, 3 * GIB, 100 * GIB);
        assert_eq!(by_memory.bytes, GIB);
        assert!(by_memory.cut_by.unwrap().contains("memory"));
        let by_disk = fit(4 * GIB, 100 * GIB, GIB);
        assert_eq!(by_disk.bytes, GIB / 2);
        assert!(by_disk.cut_by.unwrap().contains("disk"));
    }

    #[test]
    fn the_file_has_its_length_and_goes_with_the_value() {
        let dir = tempfile::tempdir().unwrap();
        let stop = AtomicBool::new(false);
        let mut heard = 0;
        let len_bytes = CHUNK_BYTES as u64 + 17;
        let file = TemporaryFile::create(dir.path(), len_bytes, 1, &stop, |done| heard = done).unwrap();
        assert_eq!((fs::metadata(file.path()).unwrap().len(), heard), (len_bytes, len_bytes));
        drop(file);
        stop.store(true, Relaxed);
        let stopped = TemporaryFile::create(dir.path(), len_bytes, 1, &stop, |_| {});
        assert!(matches!(stopped, Err(Error::Interrupted)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
