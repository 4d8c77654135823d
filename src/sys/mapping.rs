//! One mapping of a file: made, advised, unmapped. Nobody gets a reference into it.
//!
//! # Safety
//!
//! A [`Mapping`] owns its address range from `new` to `drop`. The range is mapped over addresses that were reserved for
//! it, so no memory of anyone else is replaced; it is read-only and shared, so no store to it is possible; and what it
//! hands out is an address, whose use is `window`'s to prove.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::mm::{self, MapFlags, ProtFlags};

/// Ranges begin and end at multiples of this, the size of the pages that the page cache can be mapped with.
pub(crate) const RANGE_ALIGN_BYTES: usize = 2 << 20;

/// The lengths of all mappings that there are. Relaxed: it orders nothing, and whoever asks makes an estimate of it.
static MAPPED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// How much address space the mappings of this process take.
pub(crate) fn mapped_bytes() -> u64 {
    MAPPED_BYTES.load(Relaxed) as u64
}

/// A read-only, shared mapping of a file from its first byte on, past its end.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: a mapping is an address range of the process, the same for every thread; it has no thread's own state.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives only its address, its length and advice to the kernel, which may race freely.
unsafe impl Sync for Mapping {}

/// What the kernel can be told of a mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MapAdvice {
    HugePages,
    NoHugePages,
    Normal,
    Random,
    Sequential,
    /// Drops the page-table entries. Later reads fault them in again from the page cache.
    Release,
}

impl Mapping {
    /// Maps `file` from offset 0 into a range of `len_bytes` (rounded up to 2 MiB) at a multiple of 2 MiB.
    ///
    /// The file may be shorter, or empty: pages past its end trap until it has grown that far.
    pub(crate) fn new(file: &File, len_bytes: u64) -> io::Result<Self> {
        let too_large = || io::Error::from_raw_os_error(libc::ENOMEM);
        let len_bytes = usize::try_from(len_bytes).map_err(|_| too_large())?;
        let len_bytes = len_bytes.max(1).checked_next_multiple_of(RANGE_ALIGN_BYTES).ok_or_else(too_large)?;
        // Reserve enough to have an aligned range inside, map the file there, give back what is left at both ends.
        let reserved_bytes = len_bytes.checked_add(RANGE_ALIGN_BYTES).ok_or_else(too_large)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: no address is asked for, so the kernel picks one where nothing is mapped.
        let reserved = unsafe { mm::mmap_anonymous(ptr::null_mut(), reserved_bytes, ProtFlags::empty(), flags) }?;
        let head_bytes = reserved.addr().next_multiple_of(RANGE_ALIGN_BYTES) - reserved.addr();
        let base = reserved.wrapping_byte_add(head_bytes);
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: `base .. base + len_bytes` lies inside the reservation (head < 2 MiB), which is ours and unused.
        if let Err(error) = unsafe { mm::mmap(base, len_bytes, ProtFlags::READ, flags, file, 0) } {
            // SAFETY: the reservation is ours, and nothing was put into it.
            let _ = unsafe { mm::munmap(reserved, reserved_bytes) };
            return Err(error.into());
        }
        let mapping = Mapping { base: NonNull::new(base.cast()).ok_or_else(too_large)?, len_bytes };
        MAPPED_BYTES.fetch_add(len_bytes, Relaxed);
        let tail_bytes = RANGE_ALIGN_BYTES - head_bytes;
        for (start, bytes) in [(reserved, head_bytes), (base.wrapping_byte_add(len_bytes), tail_bytes)] {
            if bytes > 0 {
                // SAFETY: the part of the reservation before or behind the mapping: ours, unused, page-aligned. Should
                // it fail (the process has no map entries left), address space stays reserved and nothing worse.
                let _ = unsafe { mm::munmap(start, bytes) };
            }
        }
        Ok(mapping)
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Enters the pages of these bytes into the page table, as far as they lie in the mapping (`MADV_POPULATE_READ`,
    /// Linux 5.14). Where that would trap it is an error.
    pub(crate) fn populate(&self, bytes: Range<u64>) -> io::Result<()> {
        let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.len_bytes);
        let page_bytes = rustix::param::page_size();
        let start = within(bytes.start) / page_bytes * page_bytes;
        let bytes = within(bytes.end).saturating_sub(start);
        let address = self.base().wrapping_add(start).cast::<c_void>();
        // SAFETY: `start .. start + bytes` lies in a mapping of ours; on a shared, read-only file mapping this changes
        // what reads cost and never what they return.
        Ok(unsafe { mm::madvise(address, bytes, mm::Advice::LinuxPopulateRead) }?)
    }

    /// Drops the page-table entries of every page that has one of these bytes, as far as they lie in the mapping.
    pub(crate) fn release(&self, bytes: Range<u64>) -> io::Result<()> {
        let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.len_bytes);
        let page_bytes = rustix::param::page_size();
        let start = within(bytes.start) / page_bytes * page_bytes;
        // The mapping ends with a page.
        let bytes = within(bytes.end).next_multiple_of(page_bytes).saturating_sub(start);
        if bytes == 0 {
            return Ok(());
        }
        let address = self.base().wrapping_add(start).cast::<c_void>();
        // SAFETY: `start .. start + bytes` lies in a mapping of ours; on a shared, read-only file mapping this changes
        // what reads cost and never what they return: the next one finds the page in the page cache, or on the device.
        Ok(unsafe { mm::madvise(address, bytes, mm::Advice::LinuxDontNeed) }?)
    }

    pub(crate) fn advise(&self, advice: MapAdvice) -> io::Result<()> {
        use rustix::mm::Advice;
        let advice = match advice {
            MapAdvice::HugePages => Advice::LinuxHugepage,
            MapAdvice::NoHugePages => Advice::LinuxNoHugepage,
            MapAdvice::Normal => Advice::Normal,
            MapAdvice::Random => Advice::Random,
            MapAdvice::Sequential => Advice::Sequential,
            MapAdvice::Release => Advice::LinuxDontNeed,
        };
        // SAFETY: the whole range is a mapping of ours; on a shared, read-only file mapping each of these changes what
        // reads cost and never what they return (DONTNEED drops page-table entries; the page cache keeps the bytes).
        Ok(unsafe { mm::madvise(self.base().cast::<c_void>(), self.len_bytes, advice) }?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours since `new`, and whoever uses its address holds a borrow that has ended by now
        // (`window` keeps every mapping until it is dropped itself).
        let _ = unsafe { mm::munmap(self.base().cast(), self.len_bytes) };
        MAPPED_BYTES.fetch_sub(self.len_bytes, Relaxed);
    }
}
