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
    /// Making what was written durable.
    Sync,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Open => "open",
            Operation::Stat => "stat",
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::SetLen => "set_len",
            Operation::Sync => "sync",
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
