//! No recoverable copy: nothing is mapped, so nothing calls these.

use super::Copy;

pub(in crate::sys) const CAN_RECOVER: bool = false;

/// # Safety
///
/// Safe to call: it copies nothing and says so.
pub(super) unsafe fn copy(_destination: *mut u8, _source: *const u8, count: usize, _probe: *const u8) -> Copy {
    Copy { left_bytes: count, probed: super::PROBE_TRAPPED }
}

pub(super) fn prefetch_line(_address: *const u8) {}

pub(super) fn recover(_context: &mut libc::ucontext_t, _fault_address: usize) -> bool {
    false
}
