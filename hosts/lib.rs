//! The I/O layer as C sees it: `mapfall_host.h` has the declarations.
//!
//! # Safety
//!
//! Callers keep to what the header says: pointers are valid, a file is used between open and close.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::panic::catch_unwind;
use std::ptr;

use mapfall::{BlockIo, Error, FallbackReason, IoMode, IoOptions};

const OK: c_int = 0;
const PAST_END: c_int = 1;
const FAILED: c_int = 2;

pub struct File(Box<dyn BlockIo>);

#[repr(C)]
pub struct Stats {
    reads: u64,
    mmap_reads: u64,
    pread_reads: u64,
    faults_recovered: u64,
    handler_replaced: u64,
    signal_blocked: u64,
    paths_add_up: u64,
}

/// # Safety
///
/// `path` ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mapfall_host_open(path: *const c_char, mode: c_int) -> *mut File {
    // SAFETY: by the contract.
    let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
    let mode = match mode {
        0 => IoMode::Pread,
        1 => IoMode::Mmap,
        _ => IoMode::Auto,
    };
    let opened = catch_unwind(|| IoOptions::new().mode(mode).open(path));
    match opened {
        Ok(Ok(file)) => Box::into_raw(Box::new(File(file))),
        _ => ptr::null_mut(),
    }
}

/// # Safety
///
/// `file` is open, and `buf` is `len` bytes of initialised memory that nobody else uses meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mapfall_host_read_at(file: *const File, offset: u64, buf: *mut u8, len: usize) -> c_int {
    // SAFETY: by the contract.
    let (file, buf) = unsafe { (&*file, std::slice::from_raw_parts_mut(buf, len)) };
    match file.0.read_at(offset, buf) {
        Ok(()) => OK,
        Err(Error::PastEnd { .. }) => PAST_END,
        Err(_) => FAILED,
    }
}

/// # Safety
///
/// `file` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mapfall_host_len(file: *const File) -> i64 {
    // SAFETY: by the contract.
    let file = unsafe { &*file };
    file.0.len().ok().and_then(|len| i64::try_from(len).ok()).unwrap_or(-1)
}

/// # Safety
///
/// `file` is open, and `stats` may be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mapfall_host_stats(file: *const File, stats: *mut Stats) {
    // SAFETY: by the contract.
    let found = unsafe { &*file }.0.stats();
    let count = |reason| found.fallbacks.get(reason);
    let filled = Stats {
        reads: found.reads,
        mmap_reads: found.mmap.reads,
        pread_reads: found.pread.reads,
        faults_recovered: found.map.as_ref().map_or(0, |map| map.faults_recovered),
        handler_replaced: count(FallbackReason::HandlerReplaced),
        signal_blocked: count(FallbackReason::SignalBlocked),
        paths_add_up: found.paths_add_up().into(),
    };
    // SAFETY: by the contract.
    unsafe { stats.write(filled) };
}

/// # Safety
///
/// `file` is open, and nobody uses it now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mapfall_host_close(file: *mut File) {
    // SAFETY: by the contract it came from `Box::into_raw`.
    drop(unsafe { Box::from_raw(file) });
}
