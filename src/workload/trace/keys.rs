//! Plain keys: one a line, and its size in bytes behind a comma where the trace has sizes.

use twox_hash::XxHash3_64;

use super::error::Result;
use super::lines::{Lines, number};
use super::{Request, UNSIZED_BYTES};

/// Keys are bytes: a number and a name are read alike. Whether there are sizes is told by the first line.
pub(super) struct Keys {
    lines: Lines,
    has_sizes: Option<bool>,
}

impl Keys {
    pub(super) fn new(lines: Lines) -> Self {
        Keys { lines, has_sizes: None }
    }

    /// Whether the lines have sizes: known after the first.
    pub(super) fn has_sizes(&self) -> bool {
        self.has_sizes == Some(true)
    }

    pub(super) fn next(&mut self) -> Result<Option<Request>> {
        if !self.lines.advance()? {
            return Ok(None);
        }
        let line = self.lines.line();
        // A key may have commas itself, where sizes follow.
        let comma = line.iter().rposition(|byte| *byte == b',');
        let has_sizes = *self.has_sizes.get_or_insert(comma.is_some());
        let (key, size_bytes) = match (has_sizes, comma) {
            (false, None) => (line, UNSIZED_BYTES),
            (true, Some(comma)) => {
                let size = line[comma + 1..].trim_ascii();
                let expected = "a size in bytes behind the last comma";
                let size_bytes = number(size).ok_or_else(|| self.lines.unexpected_field(expected, size))?;
                (line[..comma].trim_ascii_end(), size_bytes)
            }
            (true, None) => return Err(self.lines.unexpected("a key and its size (KEY,SIZE) as in the first line")),
            (false, Some(_)) => return Err(self.lines.unexpected("a key without a size as in the first line")),
        };
        if key.is_empty() {
            return Err(self.lines.unexpected("a key before the comma"));
        }
        Ok(Some(Request { key: XxHash3_64::oneshot(key), size_bytes }))
    }
}
