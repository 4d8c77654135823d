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
//!    (Release), so a reader that sees the bound (Acquire) sees that base or a later one: by (2) the bound holds for
//!    it.
//!
//! So a stale bound or a stale base costs at worst a fault that is recovered. Nothing depends on the file's length.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_utils::CachePadded;

use super::copy::{Copy, PROBE_LOST, PROBE_TRAPPED, copy_recoverable, prefetch};
use super::mapping::{MapAdvice, Mapping};
use super::sync::{AtomicBool, AtomicPtr, AtomicUsize, Mutex};

/// The page cache holds a file in folios, at multiples of their size, none larger than what one entry of a middle page
/// table maps (`MAX_PAGECACHE_ORDER` in Linux, which was lowered for some processors since).
fn folio_bytes_max(page_bytes: usize) -> usize {
    page_bytes * (page_bytes / size_of::<u64>())
}

/// What a window may be of: a mapping, or a model of one.
///
/// # Safety
///
/// As long as the value lives, `copy` may be called with any source and probe in `base .. base + len_bytes`.
pub(super) unsafe trait Mapped {
    /// The first byte.
    fn base(&self) -> *mut u8;

    /// How many bytes there are.
    fn len_bytes(&self) -> usize;

    /// Gives page tables back, when it is current no more.
    fn retire(&self) -> io::Result<()>;

    /// As [`copy_recoverable`].
    ///
    /// # Safety
    ///
    /// As that one's.
    unsafe fn copy(source: *const u8, destination: *mut u8, count: usize, probe: *const u8) -> Copy;
}

// SAFETY: the range is mapped from `new` to `drop`.
unsafe impl Mapped for Mapping {
    fn base(&self) -> *mut u8 {
        Mapping::base(self)
    }

    fn len_bytes(&self) -> usize {
        Mapping::len_bytes(self)
    }

    fn retire(&self) -> io::Result<()> {
        self.advise(MapAdvice::Release)
    }

    #[inline(always)]
    unsafe fn copy(source: *const u8, destination: *mut u8, count: usize, probe: *const u8) -> Copy {
        // SAFETY: the contract is the same one.
        unsafe { copy_recoverable(source, destination, count, probe) }
    }
}

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// All of it, and it is file data.
    Whole,
    /// The same, and since it ends in a zero byte that was proven by touches of the file's last page.
    Probed,
    /// All of it, but it ends in a zero byte, which a cut file also shows, or ended in one before: the caller must ask
    /// for the file's length, and copy again.
    TailUnproven,
    /// Not tried: the range is not wholly inside what is readable.
    NotReadable,
    /// It faulted.
    Faulted {
        /// Where in the block, or a little before.
        at_byte: usize,
    },
    /// Not tried: the last byte of what is readable faulted, as it does where the file was cut.
    EndFaulted {
        /// The file's length if that byte was its last one.
        len_bytes: u64,
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
    /// Whether the last readable byte can be read: readers then look at it rather than at their block's last byte.
    /// Relaxed: either way is right.
    has_far_probe: AtomicBool,
}

/// A file's mapping as readers see it.
#[derive(Debug)]
pub(crate) struct Window<M = Mapping> {
    hot: CachePadded<Hot>,
    /// Every mapping there has been; the last one is current.
    mappings: Mutex<Vec<Arc<M>>>,
}

impl Window {
    /// Enters bytes that have just been written into the page table, where they are in the current mapping, so that no
    /// reader faults on them: a few microseconds here instead of there.
    pub(crate) fn populate(&self, written: Range<u64>) {
        if let Some(mapping) = self.current()
            && let Err(error) = mapping.populate(written)
        {
            tracing::trace!(%error, "readers will fault on what was written");
        }
    }

    /// Tells the kernel something of the current mapping.
    pub(crate) fn advise(&self, advices: impl Iterator<Item = MapAdvice>) {
        let Some(mapping) = self.current() else { return };
        for advice in advices {
            if let Err(error) = mapping.advise(advice) {
                tracing::debug!(%error, ?advice, "the kernel does not take the advice");
            }
        }
    }

    /// Takes bytes out of the page tables, those of retired mappings too, which late readers may have filled again.
    /// Readers that still come for them fault them in again from the page cache.
    pub(crate) fn release(&self, bytes: Range<u64>) {
        for mapping in self.mappings.lock().iter() {
            if let Err(error) = mapping.release(bytes.clone()) {
                tracing::debug!(%error, "a map keeps its page tables");
            }
        }
    }

    /// The current mapping, without the lock: what the kernel does for it can take as long as a device.
    fn current(&self) -> Option<Arc<Mapping>> {
        self.mappings.lock().last().cloned()
    }
}

#[allow(private_bounds, reason = "outside there are windows of mappings only")]
impl<M: Mapped> Window<M> {
    /// A window with nothing behind it.
    pub(crate) fn new() -> Self {
        // A model has short ones.
        let folio_bytes = if cfg!(all(test, mapfall_model)) { 8 } else { folio_bytes_max(rustix::param::page_size()) };
        let hot = Hot {
            base: AtomicPtr::new(ptr::null_mut()),
            readable_bytes: AtomicUsize::new(0),
            range_bytes: AtomicUsize::new(0),
            folio_mask: !(folio_bytes - 1),
            has_far_probe: AtomicBool::new(true),
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
        let range_bytes = mappings.last().map_or(0, |mapping| mapping.len_bytes());
        let readable_bytes = usize::try_from(readable_bytes).unwrap_or(usize::MAX).min(range_bytes);
        if readable_bytes as u64 != self.readable_bytes() {
            self.hot.has_far_probe.store(true, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `copy_out`; the base of a mapping that covers this was stored before.
        self.hot.readable_bytes.store(readable_bytes, Ordering::Release);
    }

    /// The last readable byte faults although the file has it: readers do without it until the length is another.
    pub(crate) fn forgo_far_probe(&self) {
        self.hot.has_far_probe.store(false, Ordering::Relaxed);
    }

    /// Puts a larger mapping in place of the current one, which stays mapped but gives its page tables back.
    ///
    /// # Errors
    ///
    /// `InvalidInput` where `mapping` is shorter than the current one.
    pub(crate) fn replace(&self, mapping: M) -> io::Result<()> {
        let mut mappings = self.mappings.lock();
        let retired_bytes = mappings.last().map_or(0, |mapping| mapping.len_bytes());
        if mapping.len_bytes() < retired_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a map cannot be replaced by a shorter one"));
        }
        // Base before range, which carries it. Release: pairs with the Acquire loads of the bounds in `copy_out` and
        // `copy_out_within`; `publish` stores the other bound, after this by the lock.
        self.hot.base.store(mapping.base(), Ordering::Relaxed);
        self.hot.range_bytes.store(mapping.len_bytes(), Ordering::Release);
        mappings.push(Arc::new(mapping));
        #[cfg(mapfall_canary)] // a planted bug: what is not current is not kept
        if mappings.len() > 1 && crate::canary::planted("retired_map_unmapped") {
            mappings.remove(0);
        }
        if let [.., retired, _] = mappings.as_slice()
            && let Err(error) = retired.retire()
        {
            tracing::debug!(%error, "a retired map keeps its page tables");
        }
        Ok(())
    }

    /// Copies the bytes at `offset` into `buf`, which is not empty, if they are readable.
    #[inline]
    pub(crate) fn copy_out(&self, offset: u64, buf: &mut [u8]) -> Copied {
        // Acquire: pairs with the Release in `publish`.
        self.copy_below(self.hot.readable_bytes.load(Ordering::Acquire), offset, buf)
    }

    /// Tells the processor that the bytes at `offset` will be copied soon. It changes nothing else, and never faults.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64) {
        // Relaxed: any address will do, mapped or not.
        let base = self.hot.base.load(Ordering::Relaxed);
        prefetch(base.wrapping_add(usize::try_from(offset).unwrap_or(0)));
    }

    /// As [`Window::copy_out`], for a caller that knows the file's length better than what is published.
    pub(crate) fn copy_out_within(&self, len_bytes: u64, offset: u64, buf: &mut [u8]) -> Copied {
        // Acquire: pairs with the Release in `replace`.
        let range_bytes = self.hot.range_bytes.load(Ordering::Acquire);
        self.copy_below(usize::try_from(len_bytes).unwrap_or(usize::MAX).min(range_bytes), offset, buf)
    }

    /// As [`Window::copy_out`], for a block whose last byte proves nothing: copies it between two questions for the
    /// file's length. [`Copied::TailUnproven`] says that the second answer was too short.
    pub(crate) fn copy_out_between(&self, len_bytes: impl Fn() -> u64, offset: u64, buf: &mut [u8]) -> Copied {
        // A copy before this one proves nothing: the file may have been cut before it, and have grown back since. This
        // one stays before the second question.
        let copied = self.copy_out_within(len_bytes(), offset, buf);
        if copied != Copied::TailUnproven {
            return copied;
        }
        if offset + buf.len() as u64 <= len_bytes() { Copied::Whole } else { Copied::TailUnproven }
    }

    /// Copies what lies below a bound that was loaded with Acquire just before.
    ///
    /// When the kernel cuts a file it lowers the length, then takes the pages behind it out of every map, and only then
    /// zeroes the rest of the folio that holds the new end. So once a byte there is zero, all later folios are gone,
    /// and to touch one faults. And that rest reaches to the end of a page, so a block that was cut ends in a zero byte
    /// when that is done. Hence a block is whole
    ///
    /// - if a byte in a later folio, the last one below the bound, can be touched before the copy and after it;
    /// - if there is no such folio, and its last byte is not zero before the copy, and not in the copy.
    #[inline(always)]
    fn copy_below(&self, bound_bytes: usize, offset: u64, buf: &mut [u8]) -> Copied {
        let Some((start, end)) = range_within(offset, buf.len(), bound_bytes) else { return Copied::NotReadable };
        // Relaxed is enough: the bound was loaded before with Acquire, which orders this load behind the store of a
        // base that covers it (fact 3).
        let base = self.hot.base.load(Ordering::Relaxed);
        let is_far = ((bound_bytes - 1) ^ (end - 1)) & self.hot.folio_mask != 0
            && self.hot.has_far_probe.load(Ordering::Relaxed);
        let probe_at = if is_far { bound_bytes - 1 } else { end - 1 };
        let (source, probe) = (base.wrapping_add(start), base.wrapping_add(probe_at));
        // SAFETY: `source .. source + buf.len()` and `probe` are inside a mapping (the bound and facts 2 and 3) that
        // stays mapped while `self` is borrowed (fact 1). `buf` is an exclusive borrow of initialised memory, and
        // nobody gets a reference into our mappings, so it is no part of them. A mapping is published only after
        // the handler is installed.
        let copy = unsafe { M::copy(source, buf.as_mut_ptr(), buf.len(), probe) };
        #[cfg(mapfall_canary)] // a planted bug: and one that a fault ended
        if crate::canary::planted("copy_race") {
            return Copied::Whole;
        }
        if !matches!(copy.left_bytes, 0 | PROBE_LOST) {
            return match copy.probed {
                PROBE_TRAPPED if is_far => Copied::EndFaulted { len_bytes: bound_bytes as u64 },
                PROBE_TRAPPED => Copied::Faulted { at_byte: buf.len() - 1 },
                _ => Copied::Faulted { at_byte: buf.len() - copy.left_bytes },
            };
        }
        #[cfg(mapfall_canary)] // a planted bug: a block that ends in zeros is believed
        if crate::canary::planted("safe_mmap") || crate::canary::planted("no_end_check") {
            return Copied::Whole;
        }
        let ends_in_zero = buf.last() == Some(&0);
        match is_far {
            _ if copy.left_bytes == PROBE_LOST => Copied::TailUnproven,
            true if ends_in_zero => Copied::Probed,
            false if ends_in_zero || copy.probed == 0 => Copied::TailUnproven,
            _ => Copied::Whole,
        }
    }
}

/// The range as addresses count it, if it ends at or before `bound_bytes`.
#[inline(always)]
fn range_within(offset: u64, len: usize, bound_bytes: usize) -> Option<(usize, usize)> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(len)?;
    (end <= bound_bytes).then_some((start, end))
}

#[cfg(all(test, mapfall_model))]
mod model;

#[cfg(all(test, not(mapfall_model)))]
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
        assert_eq!(window.copy_out_within(20_000, 16_384, &mut buf), Copied::Faulted { at_byte: 99 });
        assert_eq!(window.copy_out_within(u64::MAX, 2 << 20, &mut buf), Copied::NotReadable, "past the range");
        window.publish(u64::MAX);
        assert_eq!(window.readable_bytes(), 2 << 20);
    }

    #[test]
    fn the_largest_folio_follows_from_the_page() {
        assert_eq!(folio_bytes_max(4 << 10), 2 << 20);
        assert_eq!(folio_bytes_max(16 << 10), 32 << 20);
        assert_eq!(folio_bytes_max(64 << 10), 512 << 20);
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
