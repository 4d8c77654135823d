//! A heap whose memory is full of a marker when it is handed out.
//!
//! # Safety
//!
//! It is the system's heap; what it hands out is written before anyone has it.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

/// What fresh memory is full of.
pub(crate) const POISON: u8 = 0xA5;

pub(crate) struct Poisoned;

// SAFETY: it is the system's, which keeps the contract. `alloc_zeroed` is the system's own, and zeroes; the default
// `realloc` goes through `alloc`.
unsafe impl GlobalAlloc for Poisoned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same one.
        let at = unsafe { System.alloc(layout) };
        if !at.is_null() {
            // SAFETY: the memory is that long, and nobody else's.
            unsafe { at.write_bytes(POISON, layout.size()) };
        }
        at
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract is the same one.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the contract is the same one.
        unsafe { System.dealloc(at, layout) };
    }
}

/// Memory as it is handed out.
pub(crate) fn fresh() -> [u8; 64] {
    let layout = Layout::new::<[u8; 64]>();
    // SAFETY: the layout has a length.
    let at = unsafe { Poisoned.alloc(layout) };
    assert!(!at.is_null());
    // SAFETY: the memory is as long as the array, any bytes are one, and `alloc` above wrote each of them.
    let memory = unsafe { at.cast::<[u8; 64]>().read_unaligned() };
    // SAFETY: it was allocated above with this layout.
    unsafe { Poisoned.dealloc(at, layout) };
    memory
}
