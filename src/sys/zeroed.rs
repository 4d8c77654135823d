//! Memory that is zero until it is stored to, and takes no room until then: in 2 MiB pages where it is long.
//!
//! The heap has neither: it fills what it is asked for with zeros, or gives it out in 4 KiB pages, of which the
//! processor remembers too few to look up entries at random.
//!
//! # Safety
//!
//! A [`Zeroed`] owns its address range from `new` to `drop`: private, anonymous memory, readable and writable, as long
//! and as aligned as the values that it is used as. They are atomics, for which all bytes zero is a value, so that
//! giving their memory back to the system, which makes them zero, is a store like another.
#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::c_void;
use std::fmt;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{self, MapFlags, ProtFlags};

const HUGE_BYTES: usize = 2 << 20;
/// The smallest page.
const PAGE_BYTES: usize = 4096;

/// Tables of the cache up to this length are in the smallest pages.
pub(crate) const PLAIN_BYTES: usize = HUGE_BYTES;

/// The memory that these bytes of such a table may take.
pub(crate) fn touched_bytes(bytes: u64) -> u64 {
    let page = if bytes > PLAIN_BYTES as u64 { HUGE_BYTES } else { PAGE_BYTES };
    bytes.next_multiple_of(page as u64)
}

/// Two words.
pub(crate) type Pair = [super::sync::AtomicU64; 2];

/// What zeroed memory may be used as.
///
/// # Safety
///
/// All bytes zero is a value, every byte of it is in an atomic, and its alignment is at most that of a page.
pub(crate) unsafe trait Atomics: Sync {
    /// Stores zero.
    fn zero(&self);

    /// Zero, where that is no matter of bytes.
    #[cfg(all(test, mapfall_model))]
    fn zeroed() -> Self;
}

macro_rules! atomics {
    ($($atomic:ty),*) => {$(
        // SAFETY: an integer may be zero, and is aligned to its size. A model's is in no zeroed memory, or it is the
        // standard one with another name.
        unsafe impl Atomics for $atomic {
            fn zero(&self) {
                self.store(0, Ordering::Relaxed);
            }

            #[cfg(all(test, mapfall_model))]
            fn zeroed() -> Self {
                Self::new(0)
            }
        }
    )*};
}

atomics!(AtomicU32, AtomicU64);
#[cfg(mapfall_model)]
atomics!(super::sync::AtomicU32, super::sync::AtomicU64);

// SAFETY: an array is its elements side by side.
unsafe impl<A: Atomics, const N: usize> Atomics for [A; N] {
    fn zero(&self) {
        self.iter().for_each(A::zero);
    }

    #[cfg(all(test, mapfall_model))]
    fn zeroed() -> Self {
        std::array::from_fn(|_| A::zeroed())
    }
}

/// An address range that is ours: anonymous memory, aligned to 2 MiB where it is that long.
#[cfg_attr(all(test, mapfall_model), allow(dead_code, reason = "the model has its own memory"))]
pub(super) struct Range2M {
    mapped: *mut c_void,
    mapped_bytes: usize,
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is the process's, the same for every thread.
unsafe impl Send for Range2M {}
// SAFETY: the fields do not change; what is done with the memory is for whoever uses `base` to prove.
unsafe impl Sync for Range2M {}

#[cfg_attr(all(test, mapfall_model), allow(dead_code, reason = "as above"))]
impl Range2M {
    /// Nothing where there is no address space for it.
    pub(super) fn new(bytes: usize) -> Option<Self> {
        // Whole pages, so that the last one can be given back.
        let bytes = bytes.checked_next_multiple_of(PAGE_BYTES)?;
        let slack_bytes = if bytes >= HUGE_BYTES { HUGE_BYTES } else { 0 };
        let mapped_bytes = bytes.checked_add(slack_bytes)?;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: no address is asked for, so the kernel picks one where nothing is mapped.
        let mapped = unsafe { mm::mmap_anonymous(ptr::null_mut(), mapped_bytes, access, flags) }.ok()?;
        // So that whole 2 MiB pages fit, the range begins at a multiple of 2 MiB in a longer one.
        let skip = if slack_bytes > 0 { mapped.addr().next_multiple_of(HUGE_BYTES) - mapped.addr() } else { 0 };
        let base = NonNull::new(mapped.wrapping_byte_add(skip).cast())?;
        Some(Range2M { mapped, mapped_bytes, base, bytes })
    }

    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Asks for 2 MiB pages, or for none, from a place on. Where there are no such pages it changes nothing.
    pub(super) fn advise_huge(&self, from: usize, huge: bool) {
        let from = from.next_multiple_of(if huge { HUGE_BYTES } else { PAGE_BYTES });
        let Some(rest_bytes) = self.bytes.checked_sub(from).filter(|rest| *rest > 0) else { return };
        let advice = if huge { mm::Advice::LinuxHugepage } else { mm::Advice::LinuxNoHugepage };
        // SAFETY: `from .. bytes` lies in the range, which is ours; the advice changes no contents.
        let _ = unsafe { mm::madvise(self.base().wrapping_add(from).cast(), rest_bytes, advice) };
    }

    /// Gives whole pages inside of a range back to the system, and says which. They are zero from then on. None where
    /// the system refuses, as it does for locked memory.
    ///
    /// # Safety
    ///
    /// Whoever uses the memory allows for that.
    pub(super) unsafe fn release(&self, range: Range<usize>) -> Option<Range<usize>> {
        let (start, end) = (range.start.next_multiple_of(PAGE_BYTES), range.end.min(self.bytes) & !(PAGE_BYTES - 1));
        if start >= end {
            return Some(start..start);
        }
        let at = self.base().wrapping_add(start).cast();
        // SAFETY: the pages lie in the range, which is ours, and the caller allows for zeros.
        let released = unsafe { mm::madvise(at, end - start, mm::Advice::LinuxDontNeed) };
        released.is_ok().then_some(start..end)
    }
}

impl Drop for Range2M {
    fn drop(&mut self) {
        // SAFETY: the range is ours since `new`, and all borrows of it have ended.
        let _ = unsafe { mm::munmap(self.mapped, self.mapped_bytes) };
    }
}

/// What is in a cell, made first if nothing is; where two make it at once, one of the two is dropped. Nothing where it
/// cannot be made.
pub(crate) fn get_or_try_make<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Option<T>) -> Option<&T> {
    if cell.get().is_none() {
        let _ = cell.set(make()?);
    }
    cell.get()
}

/// Ends the process as it ends without memory.
pub(crate) fn no_address_space<T>() -> ! {
    handle_alloc_error(Layout::new::<T>())
}

/// Values that are all zero at first.
#[cfg(not(all(test, mapfall_model)))]
pub(crate) struct Zeroed<T> {
    range: Range2M,
    /// The first value, in there.
    base: NonNull<T>,
    len: usize,
}

// SAFETY: the memory is the process's, the same for every thread.
#[cfg(not(all(test, mapfall_model)))]
unsafe impl<T: Atomics> Send for Zeroed<T> {}
// SAFETY: `&Zeroed` gives nothing but `&[T]`, and atomics may be shared.
#[cfg(not(all(test, mapfall_model)))]
unsafe impl<T: Atomics> Sync for Zeroed<T> {}

#[cfg(not(all(test, mapfall_model)))]
impl<T: Atomics> Zeroed<T> {
    /// `len` values, from 1 up, in 2 MiB pages where the system has such, but for the first `plain_bytes`. Nothing
    /// where there is no address space for them.
    pub(crate) fn try_new(len: usize, plain_bytes: usize) -> Option<Self> {
        let layout = Layout::array::<T>(len).ok().filter(|layout| layout.size() > 0)?;
        let range = Range2M::new(layout.size())?;
        if layout.size() >= HUGE_BYTES {
            range.advise_huge(plain_bytes, true);
        }
        let base = NonNull::new(range.base().cast())?;
        Some(Zeroed { range, base, len })
    }

    #[inline]
    pub(crate) fn values(&self) -> &[T] {
        // SAFETY: `try_new` mapped `len` values from `base` on: zeroed, which is valid by `Atomics`; aligned to a page
        // at least; and mapped until `drop`, which no borrow of `self` outlives. Nobody has a `&mut` to them.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// Makes the values from `from` on zero, and gives their memory back as far as they have pages of their own.
    pub(crate) fn release(&self, from: usize) {
        let start = from.saturating_mul(size_of::<T>());
        // SAFETY: the values are atomics, which may become zero at any time.
        let released = unsafe { self.range.release(start..self.range.bytes()) }.unwrap_or(0..0);
        let own_page =
            |index: usize| index * size_of::<T>() >= released.start && (index + 1) * size_of::<T>() <= released.end;
        for index in (from..self.len).take_while(|index| !own_page(*index)) {
            self.values()[index].zero();
        }
        for index in (from..self.len).rev().take_while(|index| !own_page(*index)) {
            self.values()[index].zero();
        }
    }
}

/// The same for `loom`, whose atomics are not their bytes.
#[cfg(all(test, mapfall_model))]
pub(crate) struct Zeroed<T> {
    values: Vec<T>,
    len: usize,
}

#[cfg(all(test, mapfall_model))]
impl<T: Atomics> Zeroed<T> {
    pub(crate) fn try_new(len: usize, _: usize) -> Option<Self> {
        Some(Zeroed { values: (0..len).map(|_| T::zeroed()).collect(), len })
    }

    pub(crate) fn values(&self) -> &[T] {
        &self.values
    }

    pub(crate) fn release(&self, from: usize) {
        self.values[from..].iter().for_each(T::zero);
    }
}

impl<T: Atomics> fmt::Debug for Zeroed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zeroed").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn it_is_zero_and_keeps_what_is_stored() {
        for len in [1, 4096, 131_072, 131_073, 500_000] {
            let zeroed: Zeroed<Pair> = Zeroed::try_new(len, 4096).unwrap();
            assert_eq!(zeroed.values().len(), len);
            assert_eq!(zeroed.values().as_ptr().addr() % if len > 131_071 { HUGE_BYTES } else { 4096 }, 0);
            for (number, pair) in (1..).zip(zeroed.values().iter().step_by(4099)) {
                assert_eq!((pair[0].load(Relaxed), pair[1].load(Relaxed)), (0, 0));
                pair[1].store(number, Relaxed);
            }
            let last = zeroed.values().last().expect("there is one");
            last[0].store(7, Relaxed);
            assert_eq!(last[0].load(Relaxed), 7);
            assert_eq!(zeroed.values()[0][1].load(Relaxed), 1);
        }
    }

    #[test]
    fn what_is_given_back_is_zero() {
        let zeroed: Zeroed<AtomicU64> = Zeroed::try_new(1 << 20, 0).unwrap();
        zeroed.values().iter().for_each(|word| word.store(1, Relaxed));
        zeroed.release(700);
        let ones = zeroed.values().iter().filter(|word| word.load(Relaxed) == 1).count();
        assert_eq!(ones, 700);
    }
}
