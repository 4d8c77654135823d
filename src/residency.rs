//! The page cache of a file: how much of it is there, and the wish that it were not.

use std::fs::File;
use std::io;

use rustix::fs::{Advice, fadvise};

use crate::sys::residency::{cached_pages, mapped_resident_pages};

/// How many of the file's bytes are in the page cache, counted in whole pages and never more than its length.
///
/// Asked with `cachestat(2)` where there is one (Linux 6.5), else with `mincore(2)`.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("blocks");
/// std::fs::write(&path, [1; 10_000])?;
/// let file = std::fs::File::open(&path)?;
/// assert!(mapfall::residency::resident_bytes(&file)? <= 10_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Where the kernel does not answer, or answers only those who may write the file and the caller may not.
pub fn resident_bytes(file: &File) -> io::Result<u64> {
    let len_bytes = file.metadata()?.len();
    if len_bytes == 0 {
        return Ok(0);
    }
    let page_bytes = rustix::param::page_size();
    let pages = match cached_pages(file, 0, 0) {
        Ok(pages) => pages,
        // Without the right to write the file mincore(2) does not refuse: it says that everything is resident.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "cachestat is not to be had; asking mincore");
            mapped_resident_pages(file, len_bytes, page_bytes)?
        }
    };
    Ok(pages.saturating_mul(page_bytes as u64).min(len_bytes))
}

/// Asks the kernel to drop the file's clean pages from the page cache (`POSIX_FADV_DONTNEED`).
///
/// It is a wish: pages that are dirty, mapped or being read stay, and the call succeeds all the same. Ask
/// [`resident_bytes`] what came of it.
///
/// # Errors
///
/// Where the kernel refuses the advice for this kind of file.
pub fn drop_page_cache(file: &File) -> io::Result<()> {
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn both_ways_to_ask_agree() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(resident_bytes(&file).unwrap(), 0);
        file.write_all(&[1; 1_000_000]).unwrap();
        let page_bytes = rustix::param::page_size();
        let pages = 1_000_000_u64.div_ceil(page_bytes as u64);
        assert_eq!(mapped_resident_pages(&file, 1_000_000, page_bytes).unwrap(), pages);
        match cached_pages(&file, 0, 0) {
            Ok(cached) => assert_eq!(cached, pages),
            Err(error) => eprintln!("SKIPPED the half with cachestat: {error}"),
        }
        assert_eq!(resident_bytes(&file).unwrap(), 1_000_000);
    }

    #[test]
    fn what_is_dropped_is_gone() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 1_000_000]).unwrap();
        file.sync_all().unwrap();
        drop_page_cache(&file).unwrap();
        let left = resident_bytes(&file).unwrap();
        if left == 1_000_000 {
            eprintln!("SKIPPED: the temporary directory is in memory");
            return;
        }
        assert_eq!(left, 0);
    }
}
