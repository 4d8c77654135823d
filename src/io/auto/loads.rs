//! Reads parts of a file into the page cache, in pages as large as can be.
//!
//! The map that readers use tells the kernel not to read more than it is asked for, so that a fault on what has been
//! evicted costs one page. A second one, which no reader uses, asks for 2 MiB pages; a part is read by having the
//! kernel enter it into that map's page table (`MADV_POPULATE_READ`, Linux 5.14), and leaves it again at once.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::sys::mapping::{MapAdvice, Mapping};
use crate::sys::residency::resident_pages;

/// The map is made this much longer than it must be, so that a file that grows needs few.
const RANGE_BYTES_MIN: u64 = 1 << 30;

#[derive(Debug)]
pub(super) struct Loads {
    huge_pages: bool,
    map: Mutex<Option<Arc<Mapping>>>,
}

impl Loads {
    pub(super) fn new(huge_pages: bool) -> Self {
        Loads { huge_pages, map: Mutex::new(None) }
    }

    /// Returns when these bytes of the file are in the page cache.
    pub(super) fn load(&self, file: &File, bytes: Range<u64>) -> io::Result<()> {
        let map = self.map(file, bytes.end)?;
        let loaded = map.populate(bytes.clone());
        map.release(bytes)?;
        loaded
    }

    /// Pages of these bytes that are in the page cache, by `mincore(2)`; nothing where that cannot be said.
    pub(super) fn resident_pages(&self, file: &File, bytes: Range<u64>, page_bytes: u64) -> Option<u64> {
        let map = self.map(file, bytes.end).ok()?;
        let bytes = usize::try_from(bytes.start).ok()?..usize::try_from(bytes.end).ok()?;
        resident_pages(&map, bytes, usize::try_from(page_bytes).ok()?).ok()
    }

    /// A map that reaches at least so far.
    fn map(&self, file: &File, end: u64) -> io::Result<Arc<Mapping>> {
        let mut current = self.map.lock();
        if let Some(map) = current.as_ref().filter(|map| map.len_bytes() as u64 >= end) {
            return Ok(map.clone());
        }
        let wanted = end.max(RANGE_BYTES_MIN).checked_next_power_of_two().unwrap_or(end);
        let map = Mapping::new(file, wanted).or_else(|_| Mapping::new(file, end))?;
        let pages = if self.huge_pages { MapAdvice::HugePages } else { MapAdvice::NoHugePages };
        // Without `Random` the kernel would read the next 2 MiB too.
        for advice in [pages, MapAdvice::Random] {
            if let Err(error) = map.advise(advice) {
                tracing::debug!(?advice, %error, "the kernel does not take the advice");
            }
        }
        let map = Arc::new(map);
        *current = Some(map.clone());
        Ok(map)
    }
}
