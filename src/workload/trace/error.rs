//! What can be wrong with a trace.

use std::io;

/// The result of reading a trace.
pub type Result<T, E = TraceError> = std::result::Result<T, E>;

/// How much of what was found is shown.
const SHOWN_BYTES: usize = 60;

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// It cannot be opened.
    #[error("cannot open {trace}: {source}")]
    Open {
        /// Its name.
        trace: String,
        /// The system's own error.
        source: io::Error,
    },

    /// It cannot be read, or it is compressed and damaged.
    #[error("cannot read {trace} after {done_bytes} bytes of it{}: {source}", unpacked(*compressed))]
    Read {
        /// Its name.
        trace: String,
        /// What was read before, after decompression.
        done_bytes: u64,
        /// Whether it is compressed.
        compressed: bool,
        /// The error of the system or of the decompression.
        source: io::Error,
    },

    /// A line is not what the format has.
    #[error("{trace}, line {line}: expected {expected}, found {found}")]
    Line {
        /// Its name.
        trace: String,
        /// Counted from 1.
        line: u64,
        /// What the format has there.
        expected: String,
        /// What is there, quoted and cut short.
        found: String,
    },

    /// A binary record is not what the format has.
    #[error("{trace}, record {record} at byte {offset}: expected {expected}, found {found}")]
    Record {
        /// Its name.
        trace: String,
        /// Counted from 1.
        record: u64,
        /// Where the record begins, after decompression.
        offset: u64,
        /// What the format has there.
        expected: String,
        /// What is there.
        found: String,
    },

    /// There is nothing to simulate.
    #[error("{trace}: expected requests for more than 0 bytes, found none, and {left_out} for 0 bytes")]
    Empty {
        /// The names.
        trace: String,
        /// Requests that ask for nothing.
        left_out: u64,
    },

    /// It is gone through twice, and was not the same the second time.
    #[error("{trace}: expected the same requests as in the first pass, found others: was it changed meanwhile?")]
    Changed {
        /// The names.
        trace: String,
    },

    /// Objects are numbered by 32 bits.
    #[error("{trace}: expected at most 4294967295 distinct keys, found more")]
    TooManyObjects {
        /// The names.
        trace: String,
    },
}

fn unpacked(compressed: bool) -> &'static str {
    if compressed { " (unpacked)" } else { "" }
}

/// Bytes of a trace as a message shows them.
pub(super) fn shown(bytes: &[u8]) -> String {
    let (cut, more) = if bytes.len() > SHOWN_BYTES { (&bytes[..SHOWN_BYTES], "...") } else { (bytes, "") };
    format!("\"{}{more}\"", cut.escape_ascii())
}
