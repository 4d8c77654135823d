//! What the fuzz targets share: a model of a file, the numbers that are worth trying, and a file for one run.

pub mod children;
pub mod choices;
pub mod exhaustive;
pub mod file;
pub mod forged;
pub mod hand;
pub mod heap;
pub mod model;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Ordinary operations keep files below this: several of the largest folios (2 MiB), yet quickly read.
pub const FILE_BYTES_MAX: u64 = 24 << 20;

/// A file without a name, so that nothing is left behind when the fuzzer stops.
///
/// It is made in the directory of temporary files: set `TMPDIR` to try another file system.
pub fn nameless_file() -> (File, PathBuf) {
    let file = tempfile::tempfile().expect("a temporary file");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    (file, path)
}
