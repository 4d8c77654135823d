//! A heap that is counted, in memory of its own that is all touched beforehand.
//!
//! So what the process has of anonymous memory grows only by what is mapped, and the heap by what is asked of it: two
//! counts, of which neither contains the other.
//!
//! # Safety
//!
//! Memory is handed out from a static array, in pieces of a power of two, each of which is either someone's or in a
//! list of free ones; a piece is aligned to its size, up to a page. A spin lock guards the lists. Where the array is
//! full, which it is only if a test fails and prints where, the system's heap goes on.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};

const BYTES: usize = 64 << 20;
const PAGE_BYTES: usize = 4096;
const SIZES: usize = 27;

#[repr(align(4096))]
struct Memory(UnsafeCell<[u8; BYTES]>);

// SAFETY: it is given out piece by piece, see the header.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; BYTES]));

pub(crate) struct CountedHeap {
    locked: AtomicBool,
    /// Behind this nothing was ever handed out.
    end: AtomicUsize,
    /// Of each size, the first free piece, whose first word is the next one's address.
    free: [AtomicUsize; SIZES],
    bytes: AtomicUsize,
    allocations: AtomicUsize,
}

impl CountedHeap {
    pub(crate) const fn new() -> Self {
        CountedHeap {
            locked: AtomicBool::new(false),
            end: AtomicUsize::new(0),
            free: [const { AtomicUsize::new(0) }; SIZES],
            bytes: AtomicUsize::new(0),
            allocations: AtomicUsize::new(0),
        }
    }

    /// What was asked for and not given back, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed) as u64
    }

    /// How often something was asked for, be it from the system's heap.
    #[allow(dead_code, reason = "not every test asks")]
    pub(crate) fn allocations(&self) -> u64 {
        self.allocations.load(Relaxed) as u64
    }

    /// Makes all of its memory resident.
    pub(crate) fn touch(&self) {
        self.with_lock(|| {
            for at in (self.end.load(Relaxed).next_multiple_of(PAGE_BYTES)..BYTES).step_by(PAGE_BYTES) {
                // SAFETY: it lies in the array, and was not handed out.
                unsafe { MEMORY.0.get().cast::<u8>().wrapping_add(at).write_volatile(1) };
            }
        });
    }

    fn with_lock<T>(&self, run: impl FnOnce() -> T) -> T {
        while self.locked.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
            std::thread::yield_now();
        }
        let result = run();
        self.locked.store(false, Release);
        result
    }
}

fn piece(layout: Layout) -> usize {
    layout.size().max(layout.align()).max(16).next_power_of_two()
}

// SAFETY: pieces are as long and as aligned as asked for, and handed out once: see the header.
unsafe impl GlobalAlloc for CountedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.allocations.fetch_add(1, Relaxed);
        let bytes = piece(layout);
        let Some(first) = self.free.get(bytes.ilog2() as usize) else {
            // SAFETY: the contract is the same one.
            return unsafe { System.alloc(layout) };
        };
        let at = self.with_lock(|| {
            let at = ptr::with_exposed_provenance_mut::<u8>(first.load(Relaxed));
            if !at.is_null() {
                // SAFETY: the piece is free, so its first word is ours, and aligned as the piece is.
                first.store(unsafe { at.cast::<usize>().read() }, Relaxed);
                return at;
            }
            let start = self.end.load(Relaxed).next_multiple_of(bytes.min(PAGE_BYTES));
            if start + bytes > BYTES {
                return ptr::null_mut();
            }
            self.end.store(start + bytes, Relaxed);
            MEMORY.0.get().cast::<u8>().wrapping_add(start)
        });
        if at.is_null() {
            // SAFETY: as above.
            return unsafe { System.alloc(layout) };
        }
        self.bytes.fetch_add(layout.size(), Relaxed);
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if !(MEMORY.0.get().addr()..MEMORY.0.get().addr() + BYTES).contains(&at.addr()) {
            // SAFETY: what is not ours is the system's.
            return unsafe { System.dealloc(at, layout) };
        }
        let first = &self.free[piece(layout).ilog2() as usize];
        self.bytes.fetch_sub(layout.size(), Relaxed);
        self.with_lock(|| {
            // SAFETY: who gives the piece back no longer uses it.
            unsafe { at.cast::<usize>().write(first.load(Relaxed)) };
            first.store(at.expose_provenance(), Relaxed);
        });
    }
}
