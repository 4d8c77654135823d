//! The bytes of blocks, of which some are copied out while others are copied in.
//!
//! # Safety
//!
//! The range is owned from `new` to `drop`, and initialised: zeros, or what was copied there.
#![allow(unsafe_code)]

use std::ops::Range;

use crate::sys::racing::{copy_in, copy_out};
use crate::sys::zeroed::Range2M;

pub(super) struct Bytes(Range2M);

impl Bytes {
    pub(super) fn new(bytes: usize) -> Option<Self> {
        Range2M::new(bytes).map(Bytes)
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.bytes()
    }

    /// As [`Range2M::advise_huge`].
    pub(super) fn advise_huge(&self, from: usize, huge: bool) {
        self.0.advise_huge(from, huge);
    }

    /// As [`Range2M::release`].
    ///
    /// # Safety
    ///
    /// As that one's.
    pub(super) unsafe fn release(&self, range: Range<usize>) -> Option<Range<usize>> {
        // SAFETY: the contract is the same one.
        unsafe { self.0.release(range) }
    }

    /// Copies bytes that may be overwritten meanwhile.
    ///
    /// # Safety
    ///
    /// They are in the range.
    #[inline]
    pub(super) unsafe fn copy_out(&self, start: usize, buf: &mut [u8]) {
        // SAFETY: the source is in the range by the contract, which is mapped as long as `self` is; the other side is
        // an exclusive borrow.
        unsafe { copy_out(self.0.base().wrapping_add(start), buf.as_mut_ptr(), buf.len()) };
    }

    /// Copies bytes to where some may be copied out meanwhile.
    ///
    /// # Safety
    ///
    /// They fit into the range, and nobody has a borrow of what is there, or writes to it.
    pub(super) unsafe fn copy_in(&self, start: usize, bytes: &[u8]) {
        // SAFETY: the destination is in the range by the contract, which is mapped as long as `self` is.
        unsafe { copy_in(bytes.as_ptr(), self.0.base().wrapping_add(start), bytes.len()) };
    }

    /// # Safety
    ///
    /// They are in the range, and nobody writes to them while they are borrowed.
    pub(super) unsafe fn slice(&self, range: Range<usize>) -> &[u8] {
        // SAFETY: valid and initialised by the contract and what the module says.
        unsafe { std::slice::from_raw_parts(self.0.base().wrapping_add(range.start), range.len()) }
    }

    /// # Safety
    ///
    /// They are in the range, and nobody else borrows them or writes to them.
    #[allow(clippy::mut_from_ref, reason = "the caller answers for it")]
    pub(super) unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [u8] {
        // SAFETY: valid and initialised by the contract and what the module says.
        unsafe { std::slice::from_raw_parts_mut(self.0.base().wrapping_add(range.start), range.len()) }
    }
}
