//! The lines of a text trace that mean something.

use super::bytes::TraceBytes;
use super::error::{Result, TraceError, shown};

/// No line is longer: a binary file must not be taken into memory as one line.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The lines of a trace without blank ones and comments (`#`), trimmed.
pub(super) struct Lines {
    bytes: TraceBytes,
    /// The number of the current line, counted from 1.
    number: u64,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn new(bytes: TraceBytes) -> Self {
        Lines { bytes, number: 0, line: Vec::new() }
    }

    /// Goes to the next line, which [`Lines::line`] then is. `false` at the end.
    pub(super) fn advance(&mut self) -> Result<bool> {
        while self.read_line()? {
            if !matches!(self.line().first(), None | Some(b'#')) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn line(&self) -> &[u8] {
        self.line.trim_ascii()
    }

    /// The current line is not what the format has.
    pub(super) fn unexpected(&self, expected: &str) -> TraceError {
        self.unexpected_field(expected, self.line())
    }

    /// Something in the current line is not what the format has.
    pub(super) fn unexpected_field(&self, expected: &str, found: &[u8]) -> TraceError {
        TraceError::Line {
            trace: self.bytes.trace().to_owned(),
            line: self.number,
            expected: expected.to_owned(),
            found: shown(found),
        }
    }

    fn read_line(&mut self) -> Result<bool> {
        self.line.clear();
        self.number += 1;
        loop {
            let next = self.bytes.peek()?;
            if next.is_empty() {
                return Ok(!self.line.is_empty());
            }
            let end = next.iter().position(|byte| *byte == b'\n');
            let len = end.map_or(next.len(), |end| end + 1);
            let kept = len.min(LINE_BYTES_MAX + 1 - self.line.len());
            self.line.extend_from_slice(&next[..kept]);
            self.bytes.consume(len);
            if self.line.len() > LINE_BYTES_MAX {
                return Err(self.unexpected(&format!("lines of at most {LINE_BYTES_MAX} bytes")));
            }
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

/// A field of digits, and nothing else.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    if field.is_empty() || field.len() > 20 {
        return None;
    }
    field.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
