//! The only file that prints.
//!
//! Results go to standard output, everything else to standard error. A reader that has gone away
//! (`mapfall grid | head`) is no error: what it did not want is dropped.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints, and does it here")]

use std::io::{self, Write};

use crate::fail::Failure;

/// Bytes for standard output, as they are. Says whether their reader is still there.
pub(crate) fn write(bytes: &[u8]) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::while_running(format!("cannot write to standard output: {error}"))),
    }
}

/// A line on standard error for the user to know.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The one line that a failure gets.
pub(crate) fn error(message: &str) {
    let one_line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(io::stderr(), "mapfall: {one_line}");
}
