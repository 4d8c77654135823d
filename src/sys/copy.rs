//! The copy whose source may trap.
//!
//! `copy_recoverable` copies bytes out of a map. A page of the map may be gone (the file was cut), unreadable (EIO) or
//! impossible to make (a full file system); touching it raises `SIGBUS` in the middle of the copy. The routine is
//! therefore written in assembly, for three reasons: its instructions lie in a range that a signal handler can know;
//! the registers hold, at every instruction that can trap, what the handler must see; and memory that may trap has no
//! place in Rust's memory model, so no reference and no Rust load may touch it
//! ([unsafe-code-guidelines 606](https://github.com/rust-lang/unsafe-code-guidelines/issues/606)).
//!
//! ```text
//!  routine + 0            prologue: loads one byte, the probe, on its own
//!                         keeps [source, source + count) in two registers
//!                         body: every load from the map is here; one register counts the bytes still to copy, and it
//!                         is not zero while a load can trap
//!                         epilogue: loads the probe once more, after everything else; returns 0
//!  routine + LANDING_PAD  returns that register, and what the probe found
//! ```
//!
//! A fault is the routine's own if the program counter is in `[routine, routine + LANDING_PAD)` *and* the fault address
//! is in the source range that the registers name. A fault on the *destination* (the caller's buffer may be a map of
//! its own) is not ours and is passed on. So the handler needs no list of maps, takes no lock and is O(1).
#![allow(unsafe_code)]

#[cfg(all(target_os = "linux", target_arch = "aarch64", not(mapfall_no_map)))]
#[path = "copy/aarch64.rs"]
mod arch;
#[cfg(all(target_os = "linux", target_arch = "x86_64", not(mapfall_no_map)))]
#[path = "copy/x86_64.rs"]
mod arch;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(mapfall_no_map))))]
#[path = "copy/none.rs"]
mod arch;

pub(super) use arch::CAN_RECOVER;

/// What the routine returns, in two registers.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Copy {
    /// How many bytes were not copied because the source trapped: 0 for a whole copy, [`PROBE_LOST`] for a whole copy
    /// after which the probe trapped.
    pub(super) left_bytes: usize,
    /// The byte at the probe before anything was copied, or [`PROBE_TRAPPED`].
    pub(super) probed: usize,
}

/// No byte has this value.
pub(super) const PROBE_TRAPPED: usize = 256;

/// No copy is as long: all was copied, but then the probe, which was there before, trapped.
pub(super) const PROBE_LOST: usize = usize::MAX;

/// Loads the byte at `probe`, copies `count` bytes from `source` to `destination`, and loads the byte at `probe` again,
/// in this order, and all of that before any load that follows the call.
///
/// # Safety
///
/// - `[source, source + count)` and `probe` lie in one file mapping that stays mapped during the call. Its pages may
///   trap.
/// - `[destination, destination + count)` is valid for writes and is not part of that mapping.
/// - The handler of `super::fault` is installed, or a trap ends the process.
#[inline]
pub(super) unsafe fn copy_recoverable(source: *const u8, destination: *mut u8, count: usize, probe: *const u8) -> Copy {
    // SAFETY: the contract is the same one.
    unsafe { arch::copy(destination, source, count, probe) }
}

/// Asks the processor for the first eight cache lines behind `source`: enough for its own prefetcher to find the way.
/// A hint, which does nothing for an address that is not mapped.
#[inline]
pub(super) fn prefetch(source: *const u8) {
    for line in 0..8 {
        arch::prefetch_line(source.wrapping_add(line * 64));
    }
}

/// If the fault described is one that `copy_recoverable` takes on its source, moves the interrupted thread to the
/// landing pad and returns true. Otherwise changes nothing.
///
/// Called in a signal handler: it takes no lock, allocates nothing and touches no thread-local.
#[inline]
pub(super) fn recover(context: &mut libc::ucontext_t, fault_address: usize) -> bool {
    arch::recover(context, fault_address)
}

/// The decision shared by the processors: is the fault the routine's, on its source?
///
/// The source's first address is rounded down to its (smallest possible) page, because a kernel may report the page.
#[cfg(not(mapfall_no_map))]
#[allow(dead_code, reason = "not every processor has a routine")]
fn is_own_fault(
    routine: usize,
    landing_pad: usize,
    program_counter: usize,
    source: std::ops::Range<usize>,
    fault_address: usize,
) -> bool {
    const PAGE_BYTES_MIN: usize = 4096;
    (routine..landing_pad).contains(&program_counter)
        && (source.start & !(PAGE_BYTES_MIN - 1)..source.end).contains(&fault_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_every_length_and_alignment_like_the_standard_copy() {
        if !CAN_RECOVER {
            return;
        }
        let source: Vec<u8> = (0..70_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let lengths = (0..=300).chain([511, 512, 513, 1023, 1024, 2047, 2048, 4095, 4096, 4097, 8192, 65_536, 65_537]);
        for length in lengths {
            for (source_skew, destination_skew) in [(0, 0), (1, 0), (0, 1), (7, 3), (63, 64)] {
                let mut destination = vec![0xEE_u8; length + 128];
                let from = &source[source_skew..source_skew + length];
                let to = &mut destination[destination_skew..destination_skew + length];
                // SAFETY: both are live slices of `length` bytes in different allocations, and the probe is in the
                // first; ordinary memory never traps.
                let copy = unsafe { copy_recoverable(from.as_ptr(), to.as_mut_ptr(), length, source.as_ptr()) };
                assert_eq!(copy.left_bytes, 0);
                assert_eq!(to, from);
                assert_eq!(copy.probed, if length > 0 { source[0].into() } else { PROBE_TRAPPED });
                let untouched = destination[..destination_skew].iter().chain(&destination[destination_skew + length..]);
                assert!(untouched.copied().all(|byte| byte == 0xEE), "wrote outside at length {length}");
            }
        }
    }

    #[test]
    fn a_probe_that_goes_during_the_copy_is_lost() {
        use std::sync::atomic::{AtomicU8, Ordering};
        if !CAN_RECOVER {
            return;
        }
        crate::sys::fault::install().unwrap();
        const LEN: usize = 8 << 20;
        let file = tempfile::tempfile().unwrap();
        let mapping = crate::sys::mapping::Mapping::new(&file, 2 * LEN as u64).unwrap();
        let probe = mapping.base().wrapping_add(LEN + 4096);
        let mut destination = vec![0xEE_u8; LEN];
        let is_lost = (0..1_000).any(|_| {
            file.set_len(2 * LEN as u64).unwrap();
            destination.fill(0xEE);
            // SAFETY: it is as long, and only read and written by atomics and by the routine until the copy is done.
            let begun = unsafe { AtomicU8::from_ptr(destination.as_mut_ptr()) };
            let left_bytes = std::thread::scope(|scope| {
                scope.spawn(|| {
                    while begun.load(Ordering::Relaxed) == 0xEE {
                        std::hint::spin_loop();
                    }
                    file.set_len(LEN as u64).unwrap();
                });
                // SAFETY: source and probe are in the mapping, the destination has `LEN` bytes, and the handler is
                // installed.
                unsafe { copy_recoverable(mapping.base(), begun.as_ptr(), LEN, probe) }.left_bytes
            });
            assert!(matches!(left_bytes, 0 | PROBE_LOST), "{left_bytes} bytes left, though they are all there");
            left_bytes == PROBE_LOST
        });
        assert!(is_lost);
        assert!(destination.iter().all(|byte| *byte == 0));
    }

    #[cfg(not(mapfall_no_map))]
    #[test]
    fn only_faults_of_the_routine_on_its_source_are_its_own() {
        let own = |program_counter, fault_address| {
            is_own_fault(0x1000, 0x1080, program_counter, 0x7000_0123..0x7000_2000, fault_address)
        };
        assert!(own(0x1000, 0x7000_0123));
        assert!(own(0x107f, 0x7000_1fff));
        assert!(own(0x1040, 0x7000_0000), "the page of the first byte");
        assert!(!own(0x0fff, 0x7000_0123), "before the routine");
        assert!(!own(0x1080, 0x7000_0123), "at the landing pad");
        assert!(!own(0x1040, 0x7000_2000), "one past the source");
        assert!(!own(0x1040, 0x6fff_ffff), "before the source");
    }
}
