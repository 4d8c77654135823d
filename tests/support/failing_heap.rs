//! A heap of which one allocation fails: the Nth of this process after it was told so.
//!
//! # Safety
//!
//! It is the system's heap, or a null pointer, which the contract allows.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

/// How many more allocations there are up to the one that fails, itself included; 0 where none is to fail.
static LEFT: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Failing;

impl Failing {
    /// The `nth` allocation from now on fails, by whatever thread.
    pub(crate) fn fail(nth: u64) {
        LEFT.store(nth, SeqCst);
    }

    /// No allocation fails any more. Says whether one has.
    pub(crate) fn stop() -> bool {
        LEFT.swap(0, SeqCst) == 0
    }

    /// Whoever takes it from 1 to 0 fails.
    fn is_its_turn() -> bool {
        LEFT.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) == Ok(1)
    }
}

// SAFETY: it is the system's, which keeps the contract, but for a null pointer, which says that there is no memory.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Failing::is_its_turn() {
            return ptr::null_mut();
        }
        // SAFETY: the contract is the same one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Failing::is_its_turn() {
            return ptr::null_mut();
        }
        // SAFETY: the contract is the same one.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if Failing::is_its_turn() {
            return ptr::null_mut();
        }
        // SAFETY: the contract is the same one.
        unsafe { System.realloc(at, layout, new_size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the contract is the same one.
        unsafe { System.dealloc(at, layout) };
    }
}
