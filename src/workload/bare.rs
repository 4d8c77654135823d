//! The unprotected map: what a program does that maps a file and copies out of it.
//!
//! # Safety
//!
//! The bytes of a file map can change at any time, so no `&[u8]` over them is ever made: they are copied out through
//! raw pointers, from inside the mapped range, which the map keeps mapped for as long as it lives. What the type does
//! *not* protect from is what it is there to show: where the file is cut short by someone while it is read, the process
//! dies of `SIGBUS`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use memmap2::{MmapOptions, MmapRaw};

use crate::{Advice, HugePages};

/// The size of the pages asked for, and what the length of the map is rounded up to.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A file mapped whole, read-only and shared, without protection.
#[derive(Debug)]
pub struct BareMap {
    map: MmapRaw,
    file_bytes: usize,
}

impl BareMap {
    /// Maps all of `file` as it is now, with the same advice to the kernel that the safe map gives.
    ///
    /// # Errors
    ///
    /// Where the system refuses the map or the advice.
    pub fn new(file: &File, huge_pages: HugePages, advice: Advice) -> io::Result<Self> {
        let file_bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let map_bytes = file_bytes.max(1).next_multiple_of(HUGE_PAGE_BYTES);
        let map = MmapOptions::new().len(map_bytes).map_raw_read_only(file)?;
        match (huge_pages, advice) {
            (HugePages::On, _) | (HugePages::Auto, Advice::Normal | Advice::Sequential) => {
                map.advise(memmap2::Advice::HugePage)?;
            }
            (HugePages::Auto, Advice::Random) => {}
            (HugePages::Off, _) => map.advise(memmap2::Advice::NoHugePage)?,
        }
        match advice {
            Advice::Normal => {}
            Advice::Random => map.advise(memmap2::Advice::Random)?,
            Advice::Sequential => map.advise(memmap2::Advice::Sequential)?,
        }
        Ok(BareMap { map, file_bytes })
    }

    /// How much of the file is mapped.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.file_bytes
    }

    /// Whether the map begins at a multiple of 2 MiB, without which no 2 MiB page can be used for it.
    #[must_use]
    pub fn is_huge_aligned(&self) -> bool {
        self.map.as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES)
    }

    /// Copies the bytes at `offset` into `buf`. `None`, with nothing copied, where they are not all mapped.
    #[inline]
    pub fn copy_to(&self, offset: u64, buf: &mut [u8]) -> Option<()> {
        let start = usize::try_from(offset).ok()?;
        if start.checked_add(buf.len())? > self.file_bytes {
            return None;
        }
        let source = self.map.as_ptr().wrapping_add(start);
        // SAFETY: `source .. source + buf.len()` is inside the map (checked against its length just now), which lives
        // as long as `self`, and is readable. `buf` is a live exclusive borrow, so nothing else touches it, and it
        // cannot overlap a map that nobody has a reference into. The bytes are plain `u8`: any value is valid.
        unsafe { source.copy_to_nonoverlapping(buf.as_mut_ptr(), buf.len()) };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn copies_what_the_file_holds_and_refuses_the_rest() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        file.write_all(&bytes).unwrap();
        let map = BareMap::new(&file, HugePages::Auto, Advice::Normal).unwrap();
        assert_eq!(map.len_bytes(), bytes.len());
        let mut buf = [0; 100];
        assert_eq!(map.copy_to(9_900, &mut buf), Some(()));
        assert_eq!(buf, bytes[9_900..]);
        assert_eq!(map.copy_to(9_901, &mut buf), None);
        assert_eq!(map.copy_to(u64::MAX, &mut buf), None);
    }
}
