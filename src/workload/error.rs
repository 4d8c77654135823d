//! What can go wrong while measuring.

use std::io;
use std::path::PathBuf;

/// The result of a fallible step of a measurement.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a measurement ended without a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A contender of this crate failed to open or read the file.
    #[error(transparent)]
    Read(#[from] crate::Error),

    /// The system refused something that the measurement needs.
    #[error("cannot {doing} {}: {source}", path.display())]
    System {
        /// What was tried, as a verb.
        doing: &'static str,
        /// The file it was tried on.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },

    /// A block that a contender of the benchmark's own was asked for is not all inside what it maps.
    #[error("{len_bytes} bytes at offset {offset} are not all inside the {mapped_bytes} bytes that {io} covers")]
    OutOfRange {
        /// The contender.
        io: &'static str,
        /// Where the read began.
        offset: u64,
        /// How long it was.
        len_bytes: usize,
        /// How much the contender covers.
        mapped_bytes: usize,
    },

    /// Two contenders read the same offsets in the same round and got different bytes: the file was changed meanwhile,
    /// or one of them is wrong. Either way the measurement is void.
    #[error("{first} and {second} read different bytes at the same offsets ({cell}): was the file changed meanwhile?")]
    Disagreement {
        /// The contender that was first in the round.
        first: &'static str,
        /// The one that differs from it.
        second: &'static str,
        /// The cell, as the table names it.
        cell: String,
    },

    /// A trace cannot be read.
    #[error(transparent)]
    Trace(#[from] super::trace::TraceError),

    /// A size of a cache means nothing for the trace.
    #[error(transparent)]
    CacheSize(#[from] super::cache_sim::CacheSizeError),

    /// The caller's flag asked to stop before there was anything to report.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// For `map_err`: the error of doing something to a path.
    pub(crate) fn system(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::System { doing, path, source }
    }
}
