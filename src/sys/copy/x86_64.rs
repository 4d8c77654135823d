//! The recoverable copy for x86-64.

use std::arch::naked_asm;

pub(in crate::sys) const CAN_RECOVER: bool = true;

/// Where the landing pad is, counted from the routine's first byte. The assembler refuses a body that is longer.
const LANDING_PAD: usize = 256;

/// Registers at every instruction that can trap: `r8..r9` is the whole source, `rcx` the count still to copy.
///
/// # Safety
///
/// As `copy_recoverable`.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn copy(destination: *mut u8, source: *const u8, count: usize) -> usize {
    naked_asm!(
        "2:",
        "mov r8, rsi",
        "lea r9, [rsi + rdx]",
        "mov rcx, rdx",
        "rep movsb",
        "jmp 3f",
        // Nothing runs here. A body that is too long makes the count negative, which does not assemble.
        ".skip {landing_pad} - (. - 2b), 0xcc",
        "3:",
        "mov rax, rcx",
        "ret",
        landing_pad = const LANDING_PAD,
    )
}

pub(super) fn recover(context: &mut libc::ucontext_t, fault_address: usize) -> bool {
    let registers = &mut context.uc_mcontext.gregs;
    let routine = copy as *const () as usize;
    let landing_pad = routine + LANDING_PAD;
    let program_counter = registers[libc::REG_RIP as usize] as usize;
    let source = registers[libc::REG_R8 as usize] as usize..registers[libc::REG_R9 as usize] as usize;
    let own = super::is_own_fault(routine, landing_pad, program_counter, source, fault_address);
    if own {
        registers[libc::REG_RIP as usize] = landing_pad as libc::greg_t;
    }
    own
}
