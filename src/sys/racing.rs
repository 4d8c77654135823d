//! Copies of bytes of which one side may change meanwhile.
//!
//! # Safety
//!
//! Ordinary loads and stores that race are undefined behaviour. These copies are made by instructions of which the
//! compiler knows nothing, or by atomics where there are no such instructions. Which bytes a racing copy brings is
//! undefined in no other sense than that they may be old or new.
#![allow(unsafe_code)]

#[cfg(not(mapfall_model))]
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

#[cfg(not(mapfall_model))]
use super::copy::{CAN_RECOVER, copy_recoverable};

/// Copies bytes that may be overwritten meanwhile, out of a frame.
///
/// # Safety
///
/// `source` and `destination` are valid for `len` bytes and do not overlap; only `source` may be raced with.
#[cfg(not(mapfall_model))]
#[inline]
pub(super) unsafe fn copy_out(source: *const u8, destination: *mut u8, len: usize) {
    if CAN_RECOVER {
        // SAFETY: both are valid, so nothing traps, handler or not. The routine is assembly: to the compiler its loads
        // are not there.
        unsafe { copy_recoverable(source, destination, len, source) };
    } else {
        for i in 0..len {
            // SAFETY: `i` is below `len`, and any byte may be an atomic one.
            let byte = unsafe { AtomicU8::from_ptr(source.wrapping_add(i).cast_mut()) };
            let destination = destination.wrapping_add(i);
            // SAFETY: it is valid for writes, and nobody else's.
            unsafe { destination.write(byte.load(Relaxed)) };
        }
    }
}

/// Copies bytes into a frame that a copy without a pin may be reading.
///
/// # Safety
///
/// As [`copy_out`], but it is `destination` that may be raced with.
#[cfg(not(mapfall_model))]
pub(super) unsafe fn copy_in(source: *const u8, destination: *mut u8, len: usize) {
    if CAN_RECOVER {
        // SAFETY: as above.
        unsafe { copy_recoverable(source, destination, len, source) };
    } else {
        for i in 0..len {
            // SAFETY: `i` is below `len`, and any byte may be an atomic one.
            let byte = unsafe { AtomicU8::from_ptr(destination.wrapping_add(i)) };
            let source = source.wrapping_add(i);
            // SAFETY: it is valid for reads, and nobody writes to it.
            byte.store(unsafe { source.read() }, Relaxed);
        }
    }
}

/// Both, in a model of threads: in a few pieces, so that others run between them.
///
/// # Safety
///
/// `source` and `destination` are valid for `len` bytes and do not overlap. The model's threads are one of the
/// system's, so nothing races.
#[cfg(mapfall_model)]
pub(super) unsafe fn copy_out(source: *const u8, destination: *mut u8, len: usize) {
    const PIECES: usize = 4;
    let piece_len = len.div_ceil(PIECES).max(1);
    for start in (0..len).step_by(piece_len) {
        super::sync::step();
        let (from, to) = (source.wrapping_add(start), destination.wrapping_add(start));
        // SAFETY: the piece lies in both ranges, of which the caller says that they are valid.
        unsafe { from.copy_to_nonoverlapping(to, piece_len.min(len - start)) };
    }
}

#[cfg(mapfall_model)]
pub(super) use self::copy_out as copy_in;
