//! Runs that end in a process of their own, since they may die and since signal handlers are a process's.
//!
//! The child's coverage is the parent's: it copies its counters into memory that both have.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

unsafe extern "C" {
    #[link_name = "__start___sancov_cntrs"]
    static mut COUNTERS_START: u8;
    #[link_name = "__stop___sancov_cntrs"]
    static mut COUNTERS_END: u8;
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
}

/// Memory that children share with this process, as long as the counters.
fn shared() -> &'static [AtomicU8] {
    static SHARED: OnceLock<&[AtomicU8]> = OnceLock::new();
    SHARED.get_or_init(|| {
        let len = counters().1;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: no address is asked for, so nothing that is mapped is replaced.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "shared memory");
        // SAFETY: so many bytes are mapped there, for ever, and all of them are zeros, which atomic bytes may be.
        unsafe { std::slice::from_raw_parts(at.cast(), len) }
    })
}

/// Where the coverage counters are, and how many.
fn counters() -> (*mut u8, usize) {
    let (start, end) = (&raw mut COUNTERS_START, &raw mut COUNTERS_END);
    (start, end.addr() - start.addr())
}

/// Tells the parent what was covered so far. Before a step that may be the last.
pub fn tell_coverage() {
    let (counters, len) = counters();
    for (place, shared) in (0..len).zip(shared()) {
        // SAFETY: in the array of counters. Those of other threads may change meanwhile; any count will do.
        shared.store(unsafe { counters.add(place).read_volatile() }, Relaxed);
    }
}

/// Counts what the child covered as this process's.
fn take_coverage() {
    let (counters, len) = counters();
    for (place, shared) in (0..len).zip(shared()) {
        let count = shared.swap(0, Relaxed);
        if count > 0 {
            // SAFETY: as above, and this process has one thread.
            unsafe { counters.add(place).write_volatile(count) };
        }
    }
}

/// Runs this in a child, and says how that ended: by 0 if it returns.
pub fn forked(run: impl FnOnce()) -> End {
    shared();
    // SAFETY: libFuzzer runs one thread, so the child has all that there was.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a child");
    if child == 0 {
        run();
        tell_coverage();
        // SAFETY: leaves without the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    loop {
        // SAFETY: `status` is live, and the child is this process's own.
        let ended = unsafe { libc::waitpid(child, &mut status, 0) };
        if ended == child {
            break;
        }
        // A signal of libFuzzer's, or one that stopped it for a while.
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINTR), "the child's end");
    }
    take_coverage();
    match libc::WIFSIGNALED(status) {
        true => End::Signal(libc::WTERMSIG(status)),
        false => End::Exit(libc::WEXITSTATUS(status)),
    }
}
