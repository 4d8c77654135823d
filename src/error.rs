//! What can go wrong, as values.
//!
//! One enum for the I/O layer. Bytes from a file, an option or a caller never panic: they end here, with what was
//! expected, what was found, and where.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a file failed.
///
/// The variants are distinct where a caller would do something different about them: a read past the end is often a
/// caller's mistake or a truncated file, an [`Error::Io`] is the system's word, the rest are refusals made before
/// anything was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes asked for are not all inside the file.
    ///
    /// The file's length is the one seen when the read failed. Another process may have changed it since.
    #[error(
        "read of {wanted_bytes} bytes at offset {offset} passes the end of the file, which has {file_len_bytes} bytes"
    )]
    PastEnd {
        /// Where the read began.
        offset: u64,
        /// How many bytes it asked for.
        wanted_bytes: u64,
        /// How long the file was.
        file_len_bytes: u64,
    },

    /// The system refused or failed an operation.
    #[error("{operation} failed for {} (offset {offset}, {len_bytes} bytes): {source}", path.display())]
    Io {
        /// What was tried.
        operation: Operation,
        /// The file, as it was named when it was opened.
        path: Arc<Path>,
        /// Where in the file, 0 where the operation has no place.
        offset: u64,
        /// How many bytes, 0 where the operation has no length.
        len_bytes: u64,
        /// The system's own error.
        source: io::Error,
    },

    /// A write, a change of length or a sync was asked of a file that was opened for reading only.
    #[error("{operation} refused: {} was opened for reading only", path.display())]
    ReadOnly {
        /// What was tried.
        operation: Operation,
        /// The file, as it was named when it was opened.
        path: Arc<Path>,
    },

    /// The path names something that has no byte offsets to read at: a directory, a FIFO, a device, a socket.
    #[error("{} is {found}; expected a regular file", path.display())]
    NotARegularFile {
        /// The path that was to be opened.
        path: Arc<Path>,
        /// What it names.
        found: FileKind,
    },

    /// The file system has no direct I/O (`O_DIRECT`) for the file.
    #[error("no direct I/O for {}: {problem}", path.display())]
    NoDirectIo {
        /// The file, as it was named when it was to be opened.
        path: Arc<Path>,
        /// What was tried, and what the system said.
        problem: String,
    },

    /// An offset and a length whose sum no file can have (more than `i64::MAX`).
    #[error(
        "{operation} refused: offset {offset} with {len_bytes} bytes is past the largest file offset, {}",
        i64::MAX
    )]
    OffsetOverflow {
        /// What was tried.
        operation: Operation,
        /// Where it was to begin.
        offset: u64,
        /// How many bytes it was to cover.
        len_bytes: u64,
    },

    /// A range of bytes that ends before it begins, or past the largest offset of a file.
    #[error("range {start}..{end}: expected an end from {start} up to {}", i64::MAX)]
    InvalidRange {
        /// Where it begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },

    /// An option has a value that cannot be used.
    #[error("option {option}: expected {expected}, found {found}")]
    InvalidOption {
        /// The option's name, as the builder spells it.
        option: &'static str,
        /// What would have been accepted.
        expected: &'static str,
        /// What was given.
        found: String,
    },

    /// Bytes of a store's file are not what was written there.
    #[error("{} is damaged: {part} at offset {offset}: {problem}", path.display())]
    Corrupt {
        /// The file, as it was named when it was opened.
        path: Arc<Path>,
        /// What stands there.
        part: Part,
        /// Where it begins in the file, in bytes.
        offset: u64,
        /// What was expected and what was found.
        problem: String,
    },

    /// The file is no store of this crate's, or its beginning is lost.
    #[error("{} is not a mapfall store: {problem}", path.display())]
    NotAStore {
        /// The file.
        path: Arc<Path>,
        /// What was expected and what was found.
        problem: String,
    },

    /// The store was written by a version of this crate that knows more than this one.
    #[error("{} needs a newer version of mapfall: {problem}", path.display())]
    Unsupported {
        /// The file.
        path: Arc<Path>,
        /// What this version does not know.
        problem: String,
    },

    /// Another process, or another handle of this one, has the store open for writing.
    #[error("{} is open for writing elsewhere", path.display())]
    Locked {
        /// The file.
        path: Arc<Path>,
    },

    /// An earlier failure left it unknown what is on the device. The store can be read, and opened again.
    #[error("the store takes no more writes: {cause}")]
    Poisoned {
        /// What failed.
        cause: Arc<str>,
    },

    /// There is no memory for something whose size comes from a file, an option or the caller.
    #[error("no memory for {wanted_bytes} bytes")]
    OutOfMemory {
        /// How much was asked for.
        wanted_bytes: u64,
    },

    /// No live page has this number.
    #[error("no page {page}")]
    NoSuchPage {
        /// The number.
        page: u64,
    },

    /// A buffer's length is not that of the page or block.
    #[error("buffer of {found_bytes} bytes for {expected_bytes} bytes")]
    WrongLength {
        /// The length of the page or block.
        expected_bytes: u64,
        /// The length of the buffer.
        found_bytes: u64,
    },

    /// An address that names no block of this store.
    #[error("invalid block address: {problem}")]
    InvalidAddress {
        /// What is wrong with it.
        problem: String,
    },

    /// No kept checkpoint has this name.
    #[error("no checkpoint is named {name:?}")]
    NoSuchCheckpoint {
        /// The name.
        name: String,
    },

    /// A checkpoint of this name is kept already.
    #[error("a checkpoint is named {name:?} already")]
    CheckpointExists {
        /// The name.
        name: String,
    },

    /// A read of a batch failed. Every other read of the batch was still tried.
    #[error("read {index} of a batch failed: {source}")]
    Batch {
        /// Which one, counted from 0: the first in the batch's order that failed.
        index: usize,
        /// Its error.
        #[source]
        source: Box<Error>,
    },
}

impl Error {
    /// The system's error number, where the system is what failed.
    ///
    /// ```
    /// # let file = mapfall::IoOptions::new().open("/no/such/file").unwrap_err();
    /// assert_eq!(file.raw_os_error(), Some(2)); // ENOENT
    /// ```
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Io { source, .. } => source.raw_os_error(),
            Error::Batch { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// The same error once more, for another thread that was waiting for what failed.
    pub(crate) fn again(&self) -> Error {
        let path = |path: &Arc<Path>| path.clone();
        match self {
            Error::PastEnd { offset, wanted_bytes, file_len_bytes } => {
                Error::PastEnd { offset: *offset, wanted_bytes: *wanted_bytes, file_len_bytes: *file_len_bytes }
            }
            Error::Io { operation, path, offset, len_bytes, source } => Error::Io {
                operation: *operation,
                path: path.clone(),
                offset: *offset,
                len_bytes: *len_bytes,
                source: match source.raw_os_error() {
                    Some(number) => io::Error::from_raw_os_error(number),
                    None => io::Error::new(source.kind(), source.to_string()),
                },
            },
            Error::ReadOnly { operation, path } => Error::ReadOnly { operation: *operation, path: path.clone() },
            Error::NotARegularFile { path: file, found } => Error::NotARegularFile { path: path(file), found: *found },
            Error::NoDirectIo { path: file, problem } => {
                Error::NoDirectIo { path: path(file), problem: problem.clone() }
            }
            Error::OffsetOverflow { operation, offset, len_bytes } => {
                Error::OffsetOverflow { operation: *operation, offset: *offset, len_bytes: *len_bytes }
            }
            Error::InvalidRange { start, end } => Error::InvalidRange { start: *start, end: *end },
            Error::InvalidOption { option, expected, found } => {
                Error::InvalidOption { option, expected, found: found.clone() }
            }
            Error::Corrupt { path: file, part, offset, problem } => {
                Error::Corrupt { path: path(file), part: *part, offset: *offset, problem: problem.clone() }
            }
            Error::NotAStore { path: file, problem } => Error::NotAStore { path: path(file), problem: problem.clone() },
            Error::Unsupported { path: file, problem } => {
                Error::Unsupported { path: path(file), problem: problem.clone() }
            }
            Error::Locked { path: file } => Error::Locked { path: path(file) },
            Error::Poisoned { cause } => Error::Poisoned { cause: cause.clone() },
            Error::OutOfMemory { wanted_bytes } => Error::OutOfMemory { wanted_bytes: *wanted_bytes },
            Error::NoSuchPage { page } => Error::NoSuchPage { page: *page },
            Error::WrongLength { expected_bytes, found_bytes } => {
                Error::WrongLength { expected_bytes: *expected_bytes, found_bytes: *found_bytes }
            }
            Error::InvalidAddress { problem } => Error::InvalidAddress { problem: problem.clone() },
            Error::NoSuchCheckpoint { name } => Error::NoSuchCheckpoint { name: name.clone() },
            Error::CheckpointExists { name } => Error::CheckpointExists { name: name.clone() },
            Error::Batch { index, source } => Error::Batch { index: *index, source: Box::new(source.again()) },
        }
    }
}

/// So many zero bytes, for something whose size comes from outside.
pub(crate) fn zeroed(len_bytes: u64) -> Result<Vec<u8>> {
    let no_memory = || Error::OutOfMemory { wanted_bytes: len_bytes };
    let len = usize::try_from(len_bytes).map_err(|_| no_memory())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| no_memory())?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// What was being done when an error occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Opening the file.
    Open,
    /// Asking for its length.
    Stat,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Changing its length.
    SetLen,
    /// Making it longer, with space behind what is new.
    Reserve,
    /// Locking a byte of it, or asking who has.
    Lock,
    /// Making what was written durable.
    Sync,
    /// Telling the kernel what will be read.
    Advise,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Open => "open",
            Operation::Stat => "stat",
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::SetLen => "set_len",
            Operation::Reserve => "reserve",
            Operation::Lock => "lock",
            Operation::Sync => "sync",
            Operation::Advise => "advise",
        })
    }
}

/// What a path names that is not a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A FIFO (named pipe).
    Fifo,
    /// A character device, `/dev/zero` for one.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A socket.
    Socket,
    /// Something else.
    Other,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Directory => "a directory",
            FileKind::Fifo => "a FIFO",
            FileKind::CharacterDevice => "a character device",
            FileKind::BlockDevice => "a block device",
            FileKind::Socket => "a socket",
            FileKind::Other => "neither a file nor a directory",
        })
    }
}

/// A part of a store's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The superblock, or its copy.
    Superblock,
    /// One of the two checkpoint slots, or its copy.
    Slot,
    /// The list of kept checkpoints.
    Names,
    /// A node of the page table.
    PageTable,
    /// A node of the space bitmap.
    SpaceMap,
    /// A node of the list of extents that kept checkpoints hold.
    HeldList,
    /// The copy of a checkpoint's record among the blocks.
    Record,
    /// A page.
    Page(u64),
    /// A block.
    Block,
    /// The file of a warm set, which names cached blocks.
    WarmSet,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Page(page) => write!(f, "page {page}"),
            Part::Superblock => f.write_str("superblock"),
            Part::Slot => f.write_str("checkpoint slot"),
            Part::Names => f.write_str("list of kept checkpoints"),
            Part::PageTable => f.write_str("page table node"),
            Part::SpaceMap => f.write_str("space map node"),
            Part::HeldList => f.write_str("held list node"),
            Part::Record => f.write_str("checkpoint record"),
            Part::Block => f.write_str("block"),
            Part::WarmSet => f.write_str("warm set"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    /// One of each kind.
    fn all() -> Vec<Error> {
        let path: Arc<Path> = Path::new("file").into();
        let problem = || "a problem".to_owned();
        let io = |source| Error::Io {
            operation: Operation::Advise,
            path: Path::new("file").into(),
            offset: 3,
            len_bytes: 5,
            source,
        };
        let all = vec![
            Error::PastEnd { offset: 1, wanted_bytes: 2, file_len_bytes: 2 },
            io(io::Error::from_raw_os_error(5)),
            io(io::Error::new(io::ErrorKind::WriteZero, "words")),
            Error::ReadOnly { operation: Operation::Write, path: path.clone() },
            Error::NotARegularFile { path: path.clone(), found: FileKind::Socket },
            Error::NoDirectIo { path: path.clone(), problem: problem() },
            Error::OffsetOverflow { operation: Operation::Read, offset: 4, len_bytes: 6 },
            Error::InvalidRange { start: 9, end: 8 },
            Error::InvalidOption { option: "option", expected: "this", found: problem() },
            Error::Corrupt { path: path.clone(), part: Part::Names, offset: 7, problem: problem() },
            Error::NotAStore { path: path.clone(), problem: problem() },
            Error::Unsupported { path: path.clone(), problem: problem() },
            Error::Locked { path },
            Error::Poisoned { cause: "a cause".into() },
            Error::OutOfMemory { wanted_bytes: 10 },
            Error::NoSuchPage { page: 11 },
            Error::WrongLength { expected_bytes: 12, found_bytes: 13 },
            Error::InvalidAddress { problem: problem() },
            Error::NoSuchCheckpoint { name: "name".into() },
            Error::CheckpointExists { name: "name".into() },
            Error::Batch { index: 14, source: Box::new(io(io::Error::from_raw_os_error(28))) },
        ];
        // A kind that is new is a kind here, too.
        for error in &all {
            match error {
                Error::PastEnd { .. } | Error::Io { .. } | Error::ReadOnly { .. } | Error::NotARegularFile { .. } => {}
                Error::NoDirectIo { .. } | Error::OffsetOverflow { .. } | Error::InvalidRange { .. } => {}
                Error::InvalidOption { .. } | Error::Corrupt { .. } | Error::NotAStore { .. } => {}
                Error::Unsupported { .. } | Error::Locked { .. } | Error::Poisoned { .. } => {}
                Error::OutOfMemory { .. } | Error::NoSuchPage { .. } | Error::WrongLength { .. } => {}
                Error::InvalidAddress { .. } | Error::NoSuchCheckpoint { .. } => {}
                Error::CheckpointExists { .. } | Error::Batch { .. } => {}
            }
        }
        all
    }

    /// Threads that wait for one load hear of its failure in the same words, with the same number.
    #[test]
    fn an_error_that_is_told_again_says_the_same() {
        let mut texts = std::collections::BTreeSet::new();
        for error in all() {
            let again = error.again();
            assert_eq!((again.to_string(), again.raw_os_error()), (error.to_string(), error.raw_os_error()));
            assert_eq!(std::mem::discriminant(&again), std::mem::discriminant(&error));
            assert!(texts.insert(error.to_string()), "{error} is said of two");
        }
        let numbers: Vec<_> = all().iter().filter_map(Error::raw_os_error).collect();
        assert_eq!(numbers, [5, 28], "a batch has the number of what failed in it");
    }

    #[test]
    fn what_an_error_names_has_a_name_of_its_own() {
        let distinct = |names: &[String]| {
            let set: std::collections::BTreeSet<_> = names.iter().collect();
            assert!(set.len() == names.len() && names.iter().all(|name| !name.is_empty()), "{names:?}");
        };
        use Operation::{Advise, Lock, Open, Read, Reserve, SetLen, Stat, Sync, Write};
        let operations = [Open, Stat, Read, Write, SetLen, Reserve, Lock, Sync, Advise];
        distinct(&operations.map(|operation| operation.to_string()));
        use FileKind::{BlockDevice, CharacterDevice, Directory, Fifo, Other, Socket};
        distinct(&[Directory, Fifo, CharacterDevice, BlockDevice, Socket, Other].map(|kind| kind.to_string()));
        let parts = [Part::Superblock, Part::Slot, Part::Names, Part::PageTable, Part::SpaceMap, Part::HeldList];
        let others = [Part::Record, Part::Page(8), Part::Block, Part::WarmSet];
        distinct(&parts.iter().chain(&others).map(Part::to_string).collect::<Vec<_>>());
    }
}
