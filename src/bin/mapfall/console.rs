//! The only file that prints.
//!
//! Results go to standard output, everything else to standard error. A reader that has gone away
//! (`mapfall grid | head`) is no error: what it did not want is dropped.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints, and does it here")]

use std::io::{self, Write};

/// Text for standard output, as it is.
pub(crate) fn text(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
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
