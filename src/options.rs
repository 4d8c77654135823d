//! How a file is opened: one builder for every path.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, FileKind, Operation, Result};
use crate::io::{AutoFile, BlockIo, DirectFile, MmapFile, PreadFile, QUEUE_DEPTH_MAX, UringFile};
use crate::map_options::{Advice, AutoOptions, HugePages, MapOptions};

/// Page tables for 64 GiB in pages of 4 KiB.
const PAGE_TABLE_BYTES_DEFAULT: u64 = 128 << 20;

/// Which path serves the reads of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoMode {
    /// `pread(2)` for every read.
    #[default]
    Pread,
    /// The safe memory map, with `pread(2)` where it cannot serve.
    Mmap,
    /// The map or system calls, whichever is cheaper for each read.
    Auto,
    /// `pread(2)` for a single read, and a ring (`io_uring(7)`) for a batch, whose reads are then done all at once.
    Uring,
    /// Reads and writes past the page cache (`O_DIRECT`), batches through a ring.
    Direct,
}

impl IoMode {
    /// Every mode there is.
    pub const ALL: [IoMode; 5] = [IoMode::Pread, IoMode::Mmap, IoMode::Auto, IoMode::Uring, IoMode::Direct];

    /// The mode's name in options, tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            IoMode::Pread => "pread",
            IoMode::Mmap => "mmap",
            IoMode::Auto => "auto",
            IoMode::Uring => "uring",
            IoMode::Direct => "direct",
        }
    }
}

impl fmt::Display for IoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A mode by its [name](IoMode::name).
///
/// ```
/// use mapfall::IoMode;
///
/// assert_eq!("uring".parse::<IoMode>()?, IoMode::Uring);
/// assert!("usb".parse::<IoMode>().is_err());
/// # Ok::<(), mapfall::Error>(())
/// ```
impl FromStr for IoMode {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::InvalidOption`].
    fn from_str(name: &str) -> Result<Self> {
        let expected = "pread, mmap, auto, uring or direct";
        let unknown = || Error::InvalidOption { option: "mode", expected, found: name.escape_debug().to_string() };
        IoMode::ALL.into_iter().find(|mode| mode.name() == name).ok_or_else(unknown)
    }
}

/// Reads of a batch that are under way at a time.
const QUEUE_DEPTH_DEFAULT: u32 = 64;

/// Opens files for block I/O.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("blocks");
/// use mapfall::{BlockIo, IoMode, IoOptions};
///
/// let file = IoOptions::new().mode(IoMode::Mmap).write(true).create(true).open(&path)?;
/// file.write_at(0, &[7; 4096])?;
/// let mut block = [0; 4096];
/// file.read_at(0, &mut block)?;
/// assert_eq!(block, [7; 4096]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct IoOptions {
    mode: IoMode,
    write: bool,
    create: bool,
    create_new: bool,
    queue_depth: u32,
    direct_fallback: bool,
    map: MapOptions,
    auto: AutoOptions,
}

impl Default for IoOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl IoOptions {
    /// Read-only, by [`IoMode::Pread`].
    #[must_use]
    pub fn new() -> Self {
        let map = MapOptions {
            range_bytes: None,
            huge_pages: HugePages::default(),
            advice: Advice::default(),
            fault_handler: true,
        };
        let auto = AutoOptions { page_cache_bytes_max: None, page_table_bytes_max: Some(PAGE_TABLE_BYTES_DEFAULT) };
        IoOptions {
            mode: IoMode::default(),
            write: false,
            create: false,
            create_new: false,
            queue_depth: QUEUE_DEPTH_DEFAULT,
            direct_fallback: false,
            map,
            auto,
        }
    }

    /// Which path serves reads when the file is opened with [`IoOptions::open`].
    #[must_use]
    pub fn mode(mut self, mode: IoMode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether writes, changes of length and syncs are allowed. Default: no.
    #[must_use]
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Whether a file that does not exist is made, with permissions 0600. Needs [`IoOptions::write`]. Default: no.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether the file must not exist and is made. Symbolic links are not followed. Needs [`IoOptions::write`].
    /// Default: no.
    #[must_use]
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// The length of the address range that the file is mapped into, in bytes, rounded up to 2 MiB.
    ///
    /// The range reaches past the end of the file, and growth inside it costs the map nothing; when the file outgrows
    /// it a larger one is made. Default: 16 times the file's length and at least 16 GiB, or less where the address
    /// space is limited (`RLIMIT_AS`) or other maps have taken much of it. Address space is not memory: an untouched
    /// range costs nothing.
    #[must_use]
    pub fn map_range_bytes(mut self, range_bytes: u64) -> Self {
        self.map.range_bytes = Some(range_bytes);
        self
    }

    /// Whether 2 MiB pages are asked for. Default: [`HugePages::Auto`].
    #[must_use]
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.map.huge_pages = huge_pages;
        self
    }

    /// What the kernel is told of the order of reads. Default: [`Advice::Normal`].
    #[must_use]
    pub fn advice(mut self, advice: Advice) -> Self {
        self.map.advice = advice;
        self
    }

    /// Whether the process-wide fault handler may be installed, without which nothing is mapped. Default: yes.
    ///
    /// See [the crate's documentation](crate#the-fault-handler) for what it does.
    #[must_use]
    pub fn fault_handler(mut self, allowed: bool) -> Self {
        self.map.fault_handler = allowed;
        self
    }

    /// How much of the page cache [`IoMode::Auto`] reckons with for this file, in bytes, beside what the machine and
    /// the process's memory cgroups leave. It decides what is read whole; it does not keep others, or the kernel, from
    /// keeping more. Default: no limit of its own.
    #[must_use]
    pub fn page_cache_bytes_max(mut self, bytes: u64) -> Self {
        self.auto.page_cache_bytes_max = Some(bytes);
        self
    }

    /// How much memory the page tables of the map may take with [`IoMode::Auto`], in bytes, reckoned as one page for
    /// each 2 MiB in use. Above that, what was not used for longest is given back. Default: 128 MiB, which map 64 GiB.
    #[must_use]
    pub fn page_table_bytes_max(mut self, bytes: u64) -> Self {
        self.auto.page_table_bytes_max = Some(bytes);
        self
    }

    /// How many reads of a batch are under way at a time, where a ring does them: 1 to 1024. Default: 64.
    #[must_use]
    pub fn queue_depth(mut self, reads: u32) -> Self {
        self.queue_depth = reads;
        self
    }

    /// Whether a file that has no direct I/O is opened by [`IoMode::Direct`] all the same, and served through the page
    /// cache; [`IoStats::direct_io`](crate::IoStats::direct_io) then says why. Default: no, it is an error.
    #[must_use]
    pub fn direct_fallback(mut self, allowed: bool) -> Self {
        self.direct_fallback = allowed;
        self
    }

    /// Opens a file in the chosen [`IoMode`].
    ///
    /// # Errors
    ///
    /// As [`IoOptions::open_pread`], [`IoOptions::open_mmap`], [`IoOptions::open_auto`], [`IoOptions::open_uring`] and
    /// [`IoOptions::open_direct`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Box<dyn BlockIo>> {
        Ok(match self.mode {
            IoMode::Pread => Box::new(self.open_pread(path)?),
            IoMode::Mmap => Box::new(self.open_mmap(path)?),
            IoMode::Auto => Box::new(self.open_auto(path)?),
            IoMode::Uring => Box::new(self.open_uring(path)?),
            IoMode::Direct => Box::new(self.open_direct(path)?),
        })
    }

    /// Opens a file read by `pread(2)`, whatever [`IoOptions::mode`] says.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system refuses, [`Error::NotARegularFile`], [`Error::InvalidOption`] where
    /// [`IoOptions::create`] or [`IoOptions::create_new`] is asked for without [`IoOptions::write`].
    pub fn open_pread(&self, path: impl AsRef<Path>) -> Result<PreadFile> {
        let path: Arc<Path> = path.as_ref().into();
        let file = self.open_file(&path)?;
        Ok(PreadFile::new(file, path, self.write))
    }

    /// Opens a file read through the safe map, whatever [`IoOptions::mode`] says.
    ///
    /// A file that cannot be mapped is opened all the same and served by `pread(2)`; the statistics say why.
    ///
    /// # Errors
    ///
    /// As [`IoOptions::open_pread`], and [`Error::InvalidOption`] for a map range of 0 or above `i64::MAX`.
    pub fn open_mmap(&self, path: impl AsRef<Path>) -> Result<MmapFile> {
        self.check_range()?;
        MmapFile::new(self.open_pread(path)?, self.map)
    }

    /// Opens a file whose reads take the cheaper path, whatever [`IoOptions::mode`] says. [`IoOptions::advice`] has no
    /// effect: the order of reads is found out.
    ///
    /// # Errors
    ///
    /// As [`IoOptions::open_mmap`], and [`Error::InvalidOption`] for a queue depth out of its range.
    pub fn open_auto(&self, path: impl AsRef<Path>) -> Result<AutoFile> {
        self.check_range()?;
        self.check_queue_depth()?;
        AutoFile::new(self.open_pread(path)?, self.map, self.auto, self.queue_depth)
    }

    fn check_range(&self) -> Result<()> {
        match self.map.range_bytes {
            Some(range_bytes) if !(1..=i64::MAX as u64).contains(&range_bytes) => {
                let expected = "1 to 2^63 - 1 bytes";
                Err(Error::InvalidOption { option: "map_range_bytes", expected, found: range_bytes.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Opens a file whose batches are read through a ring, whatever [`IoOptions::mode`] says.
    ///
    /// Where there is no ring it is opened all the same, and a few threads read the batches; the statistics say why.
    ///
    /// # Errors
    ///
    /// As [`IoOptions::open_pread`], and [`Error::InvalidOption`] for a queue depth out of its range.
    pub fn open_uring(&self, path: impl AsRef<Path>) -> Result<UringFile> {
        self.check_queue_depth()?;
        Ok(UringFile::new(self.open_pread(path)?, self.queue_depth))
    }

    /// Opens a file read and written past the page cache, whatever [`IoOptions::mode`] says.
    ///
    /// # Errors
    ///
    /// As [`IoOptions::open_uring`], and [`Error::NoDirectIo`] where the file system has no direct I/O for the file,
    /// unless [`IoOptions::direct_fallback`] allows another way. A file that was made for it is left, empty.
    pub fn open_direct(&self, path: impl AsRef<Path>) -> Result<DirectFile> {
        self.check_queue_depth()?;
        let path: Arc<Path> = path.as_ref().into();
        let pread = self.open_pread(&path)?;
        DirectFile::new(pread, self.queue_depth, self.direct_fallback)
            .map_err(|problem| Error::NoDirectIo { path, problem })
    }

    fn check_queue_depth(&self) -> Result<()> {
        if (1..=QUEUE_DEPTH_MAX).contains(&self.queue_depth) {
            return Ok(());
        }
        let (expected, found) = ("1 to 1024", self.queue_depth.to_string());
        Err(Error::InvalidOption { option: "queue_depth", expected, found })
    }

    fn open_file(&self, path: &Arc<Path>) -> Result<File> {
        if (self.create || self.create_new) && !self.write {
            let option = if self.create_new { "create_new" } else { "create" };
            let expected = "write(true) beside it";
            return Err(Error::InvalidOption { option, expected, found: "write(false)".to_owned() });
        }
        let file = File::options()
            .read(true)
            .write(self.write)
            .create(self.create)
            .create_new(self.create_new)
            .mode(0o600)
            // Opening a FIFO would wait for its other end; for a regular file the flag means nothing.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|source| open_error(path, source))?;
        let file_type = file.metadata().map_err(|source| open_error(path, source))?.file_type();
        if file_type.is_file() {
            return Ok(file);
        }
        Err(Error::NotARegularFile { path: path.clone(), found: kind_of(file_type) })
    }
}

fn open_error(path: &Arc<Path>, source: io::Error) -> Error {
    // Some kinds are refused by open(2) itself, with an error that does not say what the matter is: a directory opened
    // for writing (EISDIR), a socket (ENXIO).
    match std::fs::metadata(path).map(|metadata| metadata.file_type()) {
        Ok(file_type) if !file_type.is_file() => {
            Error::NotARegularFile { path: path.clone(), found: kind_of(file_type) }
        }
        _ => Error::Io { operation: Operation::Open, path: path.clone(), offset: 0, len_bytes: 0, source },
    }
}

fn kind_of(file_type: std::fs::FileType) -> FileKind {
    if file_type.is_dir() {
        FileKind::Directory
    } else if file_type.is_fifo() {
        FileKind::Fifo
    } else if file_type.is_char_device() {
        FileKind::CharacterDevice
    } else if file_type.is_block_device() {
        FileKind::BlockDevice
    } else if file_type.is_socket() {
        FileKind::Socket
    } else {
        FileKind::Other
    }
}
