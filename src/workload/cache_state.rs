//! The state of the page cache before a pass: asked of the kernel, not assumed.
//!
//! *Warm* means that every byte of the file is resident, *cold* that none is. Either is made, then verified; where it
//! cannot be had the caller gets the reason and must not measure. *Limited* begins as cold, in a child whose memory is
//! limited ([`super::memory_limit`]).
//!
//! How a file got warm matters for a map: pages that a fault on an advised map brought in are 2 MiB folios and are
//! mapped with one entry each, those that `read(2)` or `write(2)` brought in are smaller and stay so until they are
//! dropped. So where 2 MiB pages are wanted the file is dropped once and then read through such a map. Every contender
//! of the warm cells then has the same pages.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde::{Serialize, Serializer};

use super::error::{Error, Result};
use super::size::ByteSize;
use crate::{Advice, BlockIo, HugePages, IoOptions, residency};

/// How much is read at a time while a file is warmed.
const WARMING_BLOCK_BYTES: u64 = 1 << 20;

/// Where a file is when a pass begins.
///
/// In options and JSON it is written as its [`fmt::Display`] shows it: `warm`, `cold`, `limited:25%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheState {
    /// In the page cache, all of it.
    Warm,
    /// On the device, all of it. The device may have a cache of its own.
    Cold,
    /// As much of it in the page cache as memory that is limited allows, after some reads of the pass's kind: the
    /// passes are made by a child in [less memory](super::memory_limit).
    Limited {
        /// The limit by the file's length, beside what the child needs for itself: 1 to 1000.
        percent: u16,
    },
}

/// The greatest limit: memory that is never short, and counted all the same.
const LIMIT_PERCENT_MAX: u16 = 1000;

impl CacheState {
    /// Whether the passes are made in limited memory.
    #[must_use]
    pub fn is_limited(self) -> bool {
        matches!(self, CacheState::Limited { .. })
    }
}

/// A share such as `25%`, of 1 to 1000.
///
/// # Errors
///
/// What was expected, where it is none.
pub fn parse_percent(text: &str) -> Result<u16, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse().ok());
    let percent = percent.filter(|percent| (1..=LIMIT_PERCENT_MAX).contains(percent));
    percent.ok_or_else(|| format!("expected 1% to {LIMIT_PERCENT_MAX}%, found {text:?}"))
}

impl fmt::Display for CacheState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheState::Warm => f.write_str("warm"),
            CacheState::Cold => f.write_str("cold"),
            CacheState::Limited { percent } => write!(f, "limited:{percent}%"),
        }
    }
}

impl Serialize for CacheState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for CacheState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "warm" => Ok(CacheState::Warm),
            "cold" => Ok(CacheState::Cold),
            _ => match text.strip_prefix("limited:") {
                Some(percent) => Ok(CacheState::Limited { percent: parse_percent(percent)? }),
                None => Err(format!("expected warm, cold or limited:PERCENT%, found {text:?}")),
            },
        }
    }
}

/// How the page cache was emptied of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropMethod {
    /// `posix_fadvise(POSIX_FADV_DONTNEED)` was enough.
    Fadvise,
    /// It was not; root wrote 1 to `/proc/sys/vm/drop_caches`.
    DropCaches,
}

impl DropMethod {
    /// The method in a few words.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            DropMethod::Fadvise => "fsync and POSIX_FADV_DONTNEED",
            DropMethod::DropCaches => "/proc/sys/vm/drop_caches, since POSIX_FADV_DONTNEED left pages behind",
        }
    }
}

/// Whether a state was reached, or why not.
pub type Reached<T> = std::result::Result<T, String>;

/// The page cache of one file.
#[derive(Debug)]
pub struct FileCache {
    file: File,
    path: PathBuf,
    len_bytes: u64,
    warm_huge: bool,
}

impl FileCache {
    /// For the file at `path`, which is only read. `warm_huge`: whether it is to be warmed in 2 MiB pages.
    ///
    /// # Errors
    ///
    /// Where the system refuses to open it or to give its length.
    pub fn open(path: &Path, warm_huge: bool) -> Result<Self> {
        let file = File::open(path).map_err(Error::system("open", path))?;
        let len_bytes = file.metadata().map_err(Error::system("ask for the length of", path))?.len();
        Ok(FileCache { file, path: path.to_owned(), len_bytes, warm_huge })
    }

    /// How the file is warmed, in a few words.
    #[must_use]
    pub fn warm_method(&self) -> &'static str {
        if self.warm_huge {
            "dropped once, then read whole through a map advised with MADV_HUGEPAGE"
        } else {
            "read whole by pread"
        }
    }

    /// Brings the whole file in, dropping what is there first where 2 MiB pages are wanted.
    ///
    /// The inner `Err` says that pages stayed behind at the drop, or that not all of the file stays resident.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or [`Error::Interrupted`].
    pub fn warm_afresh(&self, stop: &AtomicBool) -> Result<Reached<()>> {
        let dropped = if self.warm_huge { self.make_cold()?.map(|_| ()) } else { Ok(()) };
        let warmed = self.make_warm(stop)?;
        Ok(warmed.and(dropped.map_err(|reason| format!("warmed in whatever pages it had, since {reason}"))))
    }

    /// Sees to it that the whole file is resident: at once where it is, else by reading it.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or [`Error::Interrupted`].
    pub fn make_warm(&self, stop: &AtomicBool) -> Result<Reached<()>> {
        if self.resident_bytes()? >= self.len_bytes {
            return Ok(Ok(()));
        }
        self.read_whole(stop)?;
        let resident_bytes = self.resident_bytes()?;
        if resident_bytes >= self.len_bytes {
            return Ok(Ok(()));
        }
        let share = 100.0 * resident_bytes as f64 / self.len_bytes as f64;
        Ok(Err(format!(
            "only {share:.1} % of the file ({}) is in the page cache after reading all of it: memory is too small",
            ByteSize::new(self.len_bytes).rounded()
        )))
    }

    /// Empties the page cache of the file and verifies that it did.
    ///
    /// # Errors
    ///
    /// Where residency cannot be asked.
    pub fn make_cold(&self) -> Result<Reached<DropMethod>> {
        // Dirty pages cannot be dropped. A file that is only read may still have been written by someone else.
        let synced = self.file.sync_all();
        let dropped = residency::drop_page_cache(&self.file);
        if self.resident_bytes()? == 0 {
            return Ok(Ok(DropMethod::Fadvise));
        }
        tracing::debug!(?synced, ?dropped, "pages stayed behind after POSIX_FADV_DONTNEED");
        if rustix::process::geteuid().is_root() {
            rustix::fs::sync();
            if let Err(error) = fs::write("/proc/sys/vm/drop_caches", "1") {
                return Ok(Err(format!("/proc/sys/vm/drop_caches cannot be written: {error}")));
            }
            if self.resident_bytes()? == 0 {
                return Ok(Ok(DropMethod::DropCaches));
            }
        }
        let left = ByteSize::new(self.resident_bytes()?).rounded();
        let why = "is it on tmpfs, or mapped by another process?";
        Ok(Err(format!("{left} of the file stay in the page cache whatever was tried ({why})")))
    }

    /// How much of the file is in the page cache now, in whole pages.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn resident_bytes(&self) -> Result<u64> {
        residency::resident_bytes(&self.file).map_err(Error::system("ask for the resident pages of", &self.path))
    }

    fn read_whole(&self, stop: &AtomicBool) -> Result<()> {
        let options = IoOptions::new().huge_pages(HugePages::On).advice(Advice::Normal);
        if self.warm_huge {
            self.read_by(&options.open_mmap(&self.path)?, stop)
        } else {
            self.read_by(&options.open_pread(&self.path)?, stop)
        }
    }

    fn read_by(&self, reader: &impl BlockIo, stop: &AtomicBool) -> Result<()> {
        let mut buf = vec![0; WARMING_BLOCK_BYTES as usize];
        let mut offset = 0;
        while offset < self.len_bytes {
            if stop.load(Relaxed) {
                return Err(Error::Interrupted);
            }
            let len = WARMING_BLOCK_BYTES.min(self.len_bytes - offset) as usize;
            reader.read_at(offset, &mut buf[..len])?;
            offset += len as u64;
        }
        Ok(())
    }
}
