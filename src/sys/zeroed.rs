//! Memory that is zero until it is stored to, and takes no room until then: in 2 MiB pages where it is long.
//!
//! The heap has neither: it fills what it is asked for with zeros, or gives it out in 4 KiB pages, of which the
//! processor remembers too few to look up entries at random.
//!
//! # Safety
//!
//! A [`Zeroed`] owns its address range from `new` to `drop`: private, anonymous memory, readable and writable, as long
//! and as aligned as the entries that it is used as.
#![allow(unsafe_code)]

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::c_void;
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::mm::{self, MapFlags, ProtFlags};

const HUGE_BYTES: usize = 2 << 20;

/// What it is used as.
pub(crate) type Pair = [AtomicU64; 2];

/// Pairs of words, all of them 0 at first.
pub(crate) struct Zeroed {
    /// The range that is ours.
    mapped: *mut c_void,
    mapped_bytes: usize,
    /// The first pair, in there.
    base: NonNull<Pair>,
    len: usize,
}

// SAFETY: the memory is the process's, the same for every thread.
unsafe impl Send for Zeroed {}
// SAFETY: `&Zeroed` gives nothing but `&[Pair]`, and atomics may be shared.
unsafe impl Sync for Zeroed {}

impl Zeroed {
    /// `len` pairs, from 1 up, in 2 MiB pages where the system has such, but for the first `plain_bytes`.
    ///
    /// Where there is no address space for them the process ends as it does without memory.
    pub(crate) fn new(len: usize, plain_bytes: usize) -> Self {
        let Ok(layout) = Layout::array::<Pair>(len) else { handle_alloc_error(Layout::new::<Pair>()) };
        // So that whole 2 MiB pages fit, the range begins at a multiple of 2 MiB in a longer one.
        let slack_bytes = if layout.size() >= HUGE_BYTES { HUGE_BYTES } else { 0 };
        let mapped_bytes = layout.size() + slack_bytes;
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: no address is asked for, so the kernel picks one where nothing is mapped.
        let mapped = unsafe { mm::mmap_anonymous(ptr::null_mut(), mapped_bytes, access, flags) };
        let Ok(mapped) = mapped else { handle_alloc_error(layout) };
        let mut base = mapped;
        if slack_bytes > 0 {
            base = mapped.wrapping_byte_add(mapped.addr().next_multiple_of(HUGE_BYTES) - mapped.addr());
            let plain_bytes = plain_bytes.next_multiple_of(HUGE_BYTES).min(layout.size());
            let (rest, rest_bytes) = (base.wrapping_byte_add(plain_bytes), layout.size() - plain_bytes);
            // SAFETY: `rest .. rest + rest_bytes` lies in the range, which is ours. Where there are no such pages it
            // changes nothing.
            let _ = unsafe { mm::madvise(rest, rest_bytes, mm::Advice::LinuxHugepage) };
        }
        let Some(base) = NonNull::new(base.cast()) else { handle_alloc_error(layout) };
        Zeroed { mapped, mapped_bytes, base, len }
    }

    #[inline]
    pub(crate) fn pairs(&self) -> &[Pair] {
        // SAFETY: `new` mapped `len` pairs from `base` on: zeroed, which is a valid pair; aligned to a page at least;
        // and mapped until `drop`, which no borrow of `self` outlives. Nobody has a `&mut` to them.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Zeroed {
    fn drop(&mut self) {
        // SAFETY: the range is ours since `new`, and all borrows of it have ended.
        let _ = unsafe { mm::munmap(self.mapped, self.mapped_bytes) };
    }
}

impl fmt::Debug for Zeroed {
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
            let zeroed = Zeroed::new(len, 4096);
            assert_eq!(zeroed.pairs().len(), len);
            assert_eq!(zeroed.pairs().as_ptr().addr() % if len > 131_071 { HUGE_BYTES } else { 4096 }, 0);
            for (number, pair) in (1..).zip(zeroed.pairs().iter().step_by(4099)) {
                assert_eq!((pair[0].load(Relaxed), pair[1].load(Relaxed)), (0, 0));
                pair[1].store(number, Relaxed);
            }
            let last = zeroed.pairs().last().expect("there is one");
            last[0].store(7, Relaxed);
            assert_eq!(last[0].load(Relaxed), 7);
            assert_eq!(zeroed.pairs()[0][1].load(Relaxed), 1);
        }
    }
}
