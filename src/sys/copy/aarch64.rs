//! The recoverable copy for aarch64.

use std::arch::{asm, naked_asm};

use super::{Copy, PROBE_LOST, PROBE_TRAPPED};

pub(in crate::sys) const CAN_RECOVER: bool = true;

/// Where the landing pad is, counted from the routine's first byte. The assembler refuses a body that is longer.
const LANDING_PAD: usize = 192;

/// Registers at every instruction that can trap: `x3..x4` is the whole source (at first and at last: the probe), `x2`
/// the count still to copy, or at last what says that the probe is lost. The probe is in `x7`, what it found in `x6`.
///
/// # Safety
///
/// As `copy_recoverable`.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn copy(destination: *mut u8, source: *const u8, count: usize, probe: *const u8) -> Copy {
    naked_asm!(
        "2:",
        "mov x7, x3",
        "add x4, x3, #1",
        "mov x6, {probe_trapped}",
        "cbz x2, 3f",
        // With acquire: no load of the copy comes before it.
        "ldarb w6, [x3]",
        "mov x3, x1",
        "add x4, x1, x2",
        "4:",
        "cmp x2, #64",
        "b.lo 5f",
        "ldp q0, q1, [x1]",
        "ldp q2, q3, [x1, #32]",
        "stp q0, q1, [x0]",
        "stp q2, q3, [x0, #32]",
        "add x1, x1, #64",
        "add x0, x0, #64",
        "sub x2, x2, #64",
        "b 4b",
        "5:",
        "cbz x2, 7f",
        "6:",
        "ldrb w5, [x1], #1",
        "strb w5, [x0], #1",
        "subs x2, x2, #1",
        "b.ne 6b",
        // The probe again. The barrier: no load of the copy comes after it.
        "7:",
        "dmb ishld",
        "mov x3, x7",
        "add x4, x7, #1",
        "mov x2, {probe_lost}",
        "ldrb w5, [x7]",
        "mov x2, xzr",
        "b 3f",
        // Nothing runs here. A body that is too long makes the count negative, which does not assemble.
        ".skip {landing_pad} - (. - 2b), 0",
        "3:",
        "mov x0, x2",
        "mov x1, x6",
        "ret",
        landing_pad = const LANDING_PAD,
        probe_trapped = const PROBE_TRAPPED,
        probe_lost = const PROBE_LOST as isize,
    )
}

#[inline]
pub(super) fn prefetch_line(address: *const u8) {
    // SAFETY: a prefetch of any address, valid or not, has no effect that a program can see.
    unsafe { asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags)) };
}

pub(super) fn recover(context: &mut libc::ucontext_t, fault_address: usize) -> bool {
    let registers = &mut context.uc_mcontext;
    let routine = copy as *const () as usize;
    let landing_pad = routine + LANDING_PAD;
    let source = registers.regs[3] as usize..registers.regs[4] as usize;
    let own = super::is_own_fault(routine, landing_pad, registers.pc as usize, source, fault_address);
    if own {
        registers.pc = landing_pad as u64;
    }
    own
}
