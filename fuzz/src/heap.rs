//! The heap of a target, counted: decoders may take memory for what a file has, not for what it claims to have.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

#[global_allocator]
static HEAP: Counted = Counted;

/// What is asked for and not given back, in bytes.
static USED_BYTES: AtomicUsize = AtomicUsize::new(0);
static LIMIT_BYTES: AtomicUsize = AtomicUsize::new(usize::MAX);

struct Counted;

/// Runs this with so many bytes more than the heap has now. To ask for more ends the process, as a crash does.
pub fn within<T>(more_bytes: usize, run: impl FnOnce() -> T) -> T {
    LIMIT_BYTES.store(USED_BYTES.load(Relaxed) + more_bytes, Relaxed);
    let result = run();
    LIMIT_BYTES.store(usize::MAX, Relaxed);
    result
}

fn take(bytes: usize) {
    let used = USED_BYTES.fetch_add(bytes, Relaxed) + bytes;
    let limit = LIMIT_BYTES.load(Relaxed);
    if used > limit {
        // No limit for what tells of it.
        LIMIT_BYTES.store(usize::MAX, Relaxed);
        eprintln!("{bytes} bytes of heap more are {} too many", used - limit);
        std::process::abort();
    }
}

// SAFETY: the system's heap does it all, and nothing here changes what it gives.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the contract is the same one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        USED_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        take(new_size);
        USED_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, new_size) }
    }
}
