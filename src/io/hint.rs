//! What a caller knows of the reads to come.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;

use rustix::fs::{Advice, fadvise};

use crate::error::{Error, Result};

/// The kernel reads no more than this ahead for one wish, where read-ahead is what it usually is.
const AHEAD_BYTES: u64 = 128 << 10;

/// What is said of reads to come, by [`BlockIo::advise`](super::BlockIo::advise).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccessHint {
    /// Nothing in particular, as at first. It takes back the two below.
    Normal,
    /// In order: read far ahead of the reader.
    Sequential,
    /// In no order: read what is asked for and no more.
    Random,
    /// These bytes soon: begin to bring them into the page cache, without waiting.
    WillNeed,
    /// These bytes not soon: let the page cache drop them. It keeps what has not been written to the device yet, what
    /// another process has mapped, and pages that are not wholly among these bytes (a page may be up to 2 MiB).
    DontNeed,
}

impl AccessHint {
    /// Every hint there is.
    pub const ALL: [AccessHint; 5] =
        [AccessHint::Normal, AccessHint::Sequential, AccessHint::Random, AccessHint::WillNeed, AccessHint::DontNeed];
}

/// Refuses a range that is none.
pub(super) fn check_range(range: &Range<u64>) -> Result<()> {
    let Range { start, end } = *range;
    if start <= end && end <= i64::MAX as u64 { Ok(()) } else { Err(Error::InvalidRange { start, end }) }
}

/// Tells the kernel by the descriptor. `range` ends where the file does at the latest.
pub(super) fn advise_file(file: &File, range: Range<u64>, hint: AccessHint) -> io::Result<()> {
    // These hold for the descriptor: Linux has no place to keep them for a range.
    let whole = |advice| Ok(fadvise(file, 0, None, advice)?);
    match hint {
        AccessHint::Normal => whole(Advice::Normal),
        AccessHint::Sequential => whole(Advice::Sequential),
        AccessHint::Random => whole(Advice::Random),
        AccessHint::WillNeed => {
            let mut start = range.start;
            while let Some(len) = NonZeroU64::new(range.end.saturating_sub(start).min(AHEAD_BYTES)) {
                fadvise(file, start, Some(len), Advice::WillNeed)?;
                start += len.get();
            }
            Ok(())
        }
        // A length of 0 would mean all that follows.
        AccessHint::DontNeed => match NonZeroU64::new(range.end.saturating_sub(range.start)) {
            Some(len) => Ok(fadvise(file, range.start, Some(len), Advice::DontNeed)?),
            None => Ok(()),
        },
    }
}
