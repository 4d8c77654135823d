//! What readers see of a file's map: an address, a length, and a copy that survives.
//!
//! # Safety
//!
//! A copy needs its source mapped for as long as it runs (the source may trap, see [`super::copy`]). That follows from
//! three facts:
//!
//! 1. A mapping that was ever published stays mapped until the window is dropped, and a copy borrows the window.
//! 2. Each published mapping is at least as long as the ones before it ([`Window::replace`] refuses another).
//! 3. A reader takes a bound first and the base after it. Bounds are stored after the base of a mapping that is as long
//!    (Release), so a reader that sees the bound (Acquire) sees that base or a later one: by (2) the bound holds for it.
//!
//! So a stale bound or a stale base costs at worst a fault that is recovered. Nothing depends on the file's length.
#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use super::copy::copy_recoverable;
use super::mapping::{MapAdvice, Mapping};

/// The page cache holds a file in folios of at most `page_size << FOLIO_ORDER_MAX` bytes, at multiples of their size
/// (`MAX_PAGECACHE_ORDER` in Linux: what one entry of an XArray can span).
const FOLIO_ORDER_MAX: u32 = 11;

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// All of it, and it is file data.
    Whole,
    /// The same, and since it ends in a zero byte that was proven by a touch of the file's last page.
    Probed,
    /// All of it, but it ends in a zero byte, which a cut file also shows: the caller must ask for the file's length.
    TailUnproven,
    /// Not tried: the range is not wholly inside what is readable.
    NotReadable,
    /// It faulted after this many bytes.
    Faulted {
        /// Bytes copied before the one that trapped, a lower bound.
        copied_bytes: usize,
    },
}

/// The part that every read looks at: written when the file changes its length, and alone on its cache line.
#[derive(Debug)]
struct Hot {
    /// The first byte of the current mapping; null before there is one.
    base: AtomicPtr<u8>,
    /// How much of the file is known to be there: a hint, at most `range_bytes`. 0 closes the window.
    readable_bytes: AtomicUsize,
    /// The length of the current mapping, or of one before it.
    range_bytes: AtomicUsize,
    /// The bits of an offset that tell one largest possible folio from the next.
    folio_mask: usize,
}

/// A file's mapping as readers see it.
#[derive(Debug)]
pub(crate) struct Window {
    hot: CachePadded<Hot>,
    /// Every mapping there has been; the last one is current.
    mappings: Mutex<Vec<Mapping>>,
}

impl Window {
    /// A window with nothing behind it.
    pub(crate) fn new() -> Self {
        let folio_bytes_max = rustix::param::page_size() << FOLIO_ORDER_MAX;
        let hot = Hot {
            base: AtomicPtr::new(ptr::null_mut()),
            readable_bytes: AtomicUsize::new(0),
            range_bytes: AtomicUsize::new(0),
            folio_mask: !(folio_bytes_max - 1),
        };
        Window { hot: CachePadded::new(hot), mappings: Mutex::new(Vec::new()) }
    }

    /// How much of the file readers take to be there.
    pub(crate) fn readable_bytes(&self) -> u64 {
        self.hot.readable_bytes.load(Ordering::Relaxed) as u64
    }

    /// The length of the current mapping, 0 without one.
    pub(crate) fn range_bytes(&self) -> u64 {
        self.hot.range_bytes.load(Ordering::Relaxed) as u64
    }

    /// Tells readers how much of the file is there. More than the range is cut to the range.
    pub(crate) fn publish(&self, readable_bytes: u64) {
        // The lock keeps `range_bytes` what it is.
        let mappings = self.mappings.lock();
        let range_bytes = mappings.last().map_or(0, Mapping::len_bytes);
        let readable_bytes = usize::try_from(readable_bytes).unwrap_or(usize::MAX).min(range_bytes);
        // Release: pairs with the Acquire in `copy_out`; the base of a mapping that covers this was stored before.
        self.hot.readable_bytes.store(readable_bytes, Ordering::Release);
    }

    /// Puts a larger mapping in place of the current one, which stays mapped but gives its page tables back.
    ///
    /// # Errors
    ///
    /// `InvalidInput` where `mapping` is shorter than the current one.
    pub(crate) fn replace(&self, mapping: Mapping) -> io::Result<()> {
        let mut mappings = self.mappings.lock();
        let retired_bytes = mappings.last().map_or(0, Mapping::len_bytes);
        if mapping.len_bytes() < retired_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a map cannot be replaced by a shorter one"));
        }
        // Release, base before range: pairs with the Acquire loads of the bounds in `copy_out` and `copy_out_within`.
        self.hot.base.store(mapping.base(), Ordering::Release);
        self.hot.range_bytes.store(mapping.len_bytes(), Ordering::Release);
        mappings.push(mapping);
        if let [.., retired, _] = mappings.as_slice()
            && let Err(error) = retired.advise(MapAdvice::Release)
        {
            tracing::debug!(%error, "a retired map keeps its page tables");
        }
        Ok(())
    }

    /// Copies the bytes at `offset` into `buf`, which is not empty, if they are readable.
    #[inline]
    pub(crate) fn copy_out(&self, offset: u64, buf: &mut [u8]) -> Copied {
        // Acquire: pairs with the Release in `publish`.
        let readable_bytes = self.hot.readable_bytes.load(Ordering::Acquire);
        let Some((start, end)) = range_within(offset, buf.len(), readable_bytes) else { return Copied::NotReadable };
        match self.copy(start, buf) {
            Copied::TailUnproven if self.file_reaches(readable_bytes, end) => Copied::Probed,
            copied => copied,
        }
    }

    /// As [`Window::copy_out`], for a caller that knows the file's length better than what is published.
    pub(crate) fn copy_out_within(&self, len_bytes: u64, offset: u64, buf: &mut [u8]) -> Copied {
        // Acquire: pairs with the Release in `replace`.
        let range_bytes = self.hot.range_bytes.load(Ordering::Acquire);
        let bound_bytes = usize::try_from(len_bytes).unwrap_or(usize::MAX).min(range_bytes);
        match range_within(offset, buf.len(), bound_bytes) {
            Some((start, _)) => self.copy(start, buf),
            None => Copied::NotReadable,
        }
    }

    /// Copies from `start` on. The range has been held against a bound that was loaded with Acquire just before.
    #[inline(always)]
    fn copy(&self, start: usize, buf: &mut [u8]) -> Copied {
        // Relaxed is enough: the bound was loaded before with Acquire, which orders this load behind the store of a base
        // that covers it (fact 3).
        let source = self.hot.base.load(Ordering::Relaxed).wrapping_add(start);
        // SAFETY: `source .. source + buf.len()` is inside a mapping (the bound and facts 2 and 3) that stays mapped while
        // `self` is borrowed (fact 1). `buf` is an exclusive borrow of initialised memory, and nobody gets a reference
        // into our mappings, so it is no part of them. A mapping is published only after the handler is installed.
        let left_bytes = unsafe { copy_recoverable(source, buf.as_mut_ptr(), buf.len()) };
        if left_bytes > 0 {
            return Copied::Faulted { copied_bytes: buf.len() - left_bytes };
        }
        match buf.last() {
            Some(0) => Copied::TailUnproven,
            _ => Copied::Whole,
        }
    }

    /// Whether a byte far behind `end` can still be read after the copy before this call, so that the file was not cut
    /// at or before `end` while it ran.
    ///
    /// When the kernel cuts a file it lowers the length, then takes the pages behind it out of every map, and only then
    /// zeroes the rest of the folio that holds the new end. So who has seen such a zero finds every later folio gone: a
    /// touch of the last readable byte faults. Inside one folio nothing is proven, and false is returned.
    #[cold]
    fn file_reaches(&self, readable_bytes: usize, end: usize) -> bool {
        let last = readable_bytes - 1;
        if (last ^ (end - 1)) & self.hot.folio_mask == 0 {
            return false;
        }
        // The touch must come after the copy. Both are loads in assembly; the compiler keeps their order, and this fence
        // makes the processor keep it.
        fence(Ordering::Acquire);
        let mut byte = [0];
        let source = self.hot.base.load(Ordering::Relaxed).wrapping_add(last);
        // SAFETY: as in `copy`: `last` is below the same bound.
        unsafe { copy_recoverable(source, byte.as_mut_ptr(), 1) == 0 }
    }
}

/// The range as addresses count it, if it ends at or before `bound_bytes`.
#[inline(always)]
fn range_within(offset: u64, len: usize, bound_bytes: usize) -> Option<(usize, usize)> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(len)?;
    (end <= bound_bytes).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn bounds_hold_to_the_byte() {
        if !crate::sys::CAN_RECOVER {
            return;
        }
        crate::sys::fault::install().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[9; 10_000]).unwrap();
        let window = Window::new();
        let mut buf = [0; 100];
        assert_eq!(window.copy_out(0, &mut buf), Copied::NotReadable, "nothing mapped");
        window.replace(Mapping::new(&file, 1).unwrap()).unwrap();
        assert_eq!(window.copy_out(0, &mut buf), Copied::NotReadable, "nothing published");
        window.publish(10_000);
        assert_eq!(window.copy_out(9_900, &mut buf), Copied::Whole);
        assert_eq!(buf, [9; 100]);
        assert_eq!(window.copy_out(9_901, &mut buf), Copied::NotReadable);
        assert_eq!(window.copy_out(u64::MAX - 10, &mut buf), Copied::NotReadable);
        // Past the file but inside the range: the page faults, as its bytes do not exist.
        assert_eq!(window.copy_out_within(20_000, 9_901, &mut buf), Copied::TailUnproven);
        assert_eq!(window.copy_out_within(20_000, 16_384, &mut buf), Copied::Faulted { copied_bytes: 0 });
        assert_eq!(window.copy_out_within(u64::MAX, 2 << 20, &mut buf), Copied::NotReadable, "past the range");
        window.publish(u64::MAX);
        assert_eq!(window.readable_bytes(), 2 << 20);
    }

    #[test]
    fn a_shorter_map_is_refused() {
        if !crate::sys::CAN_RECOVER {
            return;
        }
        let file = tempfile::tempfile().unwrap();
        let window = Window::new();
        window.replace(Mapping::new(&file, 8 << 20).unwrap()).unwrap();
        assert!(window.replace(Mapping::new(&file, 4 << 20).unwrap()).is_err());
        window.replace(Mapping::new(&file, 16 << 20).unwrap()).unwrap();
        assert_eq!(window.range_bytes(), 16 << 20);
    }
}
