//! What every suite needs: a place for its files, another hand to change them by, and statistics that add up.
#![allow(dead_code, reason = "every test binary takes what it needs")]

use std::fs::File;
use std::path::Path;

use mapfall::{BlockIo, IoStats};
use tempfile::TempDir;

/// A directory on a real disk: `/tmp` may be in memory, where nothing can be cold.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The descriptor that someone else changes the file by.
pub(crate) fn other_hand(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// The statistics of a file that nobody reads right now.
pub(crate) fn stats(file: &dyn BlockIo) -> IoStats {
    let stats = file.stats();
    assert!(stats.paths_add_up(), "{stats:?}");
    stats
}
