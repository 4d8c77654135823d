//! How a file is opened: one builder for every path.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, FileKind, Operation, Result};
use crate::io::{BlockIo, MmapFile, PreadFile};
use crate::map_options::{Advice, HugePages, MapOptions};

/// Which path serves the reads of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoMode {
    /// `pread(2)` for every read.
    #[default]
    Pread,
    /// The safe memory map, with `pread(2)` where it cannot serve.
    Mmap,
}

impl IoMode {
    /// Every mode there is.
    pub const ALL: [IoMode; 2] = [IoMode::Pread, IoMode::Mmap];

    /// The mode's name in options, tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            IoMode::Pread => "pread",
            IoMode::Mmap => "mmap",
        }
    }
}

impl fmt::Display for IoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By its name.
impl FromStr for IoMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = IoMode::ALL.into_iter().find(|mode| mode.name() == text);
        known.ok_or_else(|| format!("expected one of {}, found {text:?}", IoMode::ALL.map(IoMode::name).join(", ")))
    }
}

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
    map: MapOptions,
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
        IoOptions { mode: IoMode::default(), write: false, create: false, create_new: false, map }
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

    /// Opens a file in the chosen [`IoMode`].
    ///
    /// # Errors
    ///
    /// As [`IoOptions::open_pread`] and [`IoOptions::open_mmap`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Box<dyn BlockIo>> {
        Ok(match self.mode {
            IoMode::Pread => Box::new(self.open_pread(path)?),
            IoMode::Mmap => Box::new(self.open_mmap(path)?),
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
        if let Some(range_bytes) = self.map.range_bytes
            && !(1..=i64::MAX as u64).contains(&range_bytes)
        {
            let expected = "1 to 2^63 - 1 bytes";
            return Err(Error::InvalidOption { option: "map_range_bytes", expected, found: range_bytes.to_string() });
        }
        MmapFile::new(self.open_pread(path)?, self.map)
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
