//! Which pages of a file are in the page cache, as the kernel says.
//!
//! # Safety
//!
//! Both system calls only write to memory that is passed to them, and it is of the size that they are told.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use super::mapping::Mapping;

/// `cachestat(2)` has this number on every processor but Alpha.
const SYS_CACHESTAT: libc::c_long = 451;
/// How much `mincore(2)` is asked for at a time: its answer has a byte for each page.
const MINCORE_STEP_BYTES: usize = 1 << 30;

/// What `cachestat(2)` takes: a length of 0 means to the end of the file.
#[repr(C)]
struct CachestatRange {
    offset: u64,
    len_bytes: u64,
}

/// What it fills in, in pages.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Pages of a part of the file in the page cache, by `cachestat(2)` (Linux 6.5). A length of 0 is to the file's end.
pub(crate) fn cached_pages(file: &File, offset: u64, len_bytes: u64) -> io::Result<u64> {
    let range = CachestatRange { offset, len_bytes };
    let mut found = Cachestat::default();
    // SAFETY: both structures have the layout of the kernel's, live as long as the call, and nothing else refers to
    // them.
    let status = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut found, 0_u32) };
    if status == 0 { Ok(found.cached) } else { Err(io::Error::last_os_error()) }
}

/// Pages of the first `len_bytes` of the file in the page cache, by `mincore(2)` on a map that is made for the
/// question.
pub(crate) fn mapped_resident_pages(file: &File, len_bytes: u64, page_bytes: usize) -> io::Result<u64> {
    let map = Mapping::new(file, len_bytes)?;
    resident_pages(&map, 0..usize::try_from(len_bytes).map_err(io::Error::other)?, page_bytes)
}

/// Pages of these bytes of a mapping, which begin with a page, that are in the page cache, by `mincore(2)`.
pub(crate) fn resident_pages(map: &Mapping, bytes: Range<usize>, page_bytes: usize) -> io::Result<u64> {
    let bytes = bytes.start.min(map.len_bytes()) / page_bytes * page_bytes..bytes.end.min(map.len_bytes());
    let mut answer = vec![0_u8; MINCORE_STEP_BYTES.min(bytes.len()).div_ceil(page_bytes)];
    let mut resident = 0;
    for start in bytes.clone().step_by(MINCORE_STEP_BYTES) {
        let step_bytes = MINCORE_STEP_BYTES.min(bytes.end - start);
        let pages = step_bytes.div_ceil(page_bytes);
        let address = map.base().wrapping_add(start).cast();
        // SAFETY: the range lies in `map`, which is page-aligned and rounded up to whole pages; `answer` has a byte for
        // each of its pages.
        if unsafe { libc::mincore(address, step_bytes, answer.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        resident += answer[..pages].iter().filter(|page| **page & 1 != 0).count() as u64;
    }
    Ok(resident)
}
