//! The recoverable copy for x86-64.

use std::arch::naked_asm;
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::{Copy, PROBE_LOST, PROBE_TRAPPED};

pub(in crate::sys) const CAN_RECOVER: bool = true;

/// Where the landing pad is, counted from the routine's first byte. The assembler refuses a body that is longer.
const LANDING_PAD: usize = 1024;

/// The longest copies that are made in vectors of 32 and of 64 bytes.
const AVX_MAX: usize = 2048;
const AVX512_MAX: usize = 32 << 10;

/// What vectors the processor has.
const NONE: u32 = 0;
const AVX: u32 = 1;
const AVX512: u32 = 2;

/// Registers at every instruction that can trap: `r8..r9` is the whole source (at first and at last: the probe), `rcx`
/// the count still to copy, or at last what says that the probe is lost. The probe is in `rax`, what it found in `r11`.
/// This processor makes loads in their order, so the second one of the probe needs no barrier.
///
/// Up to 256 bytes are loaded whole, from both ends towards the middle, and then stored: no count to keep, no loop to
/// predict, and none of the start-up cost of `rep movsb`, which is the measured choice for the longest. In between a
/// loop lets the processor look past the end of a copy, which it does not do past `rep movsb`, and begin what comes
/// next; with vectors of 64 bytes it sees far enough to be worth it for whole blocks.
///
/// # Safety
///
/// As `copy_recoverable`.
#[unsafe(naked)]
unsafe extern "sysv64" fn routine(
    destination: *mut u8,
    source: *const u8,
    count: usize,
    probe: *const u8,
    vectors: u32,
) -> Copy {
    naked_asm!(
        "2:",
        "mov r10d, r8d",
        "mov rax, rcx",
        "mov r8, rcx",
        "lea r9, [rcx + 1]",
        "mov r11d, {probe_trapped}",
        "mov rcx, rdx",
        "test rdx, rdx",
        "jz 3f",
        "movzx r11d, byte ptr [r8]",
        "mov r8, rsi",
        "lea r9, [rsi + rdx]",
        "cmp rdx, 256",
        "jbe 4f",
        "cmp r10d, {avx}",
        "jb 9f",
        "ja 6f",
        "cmp rdx, {avx_max}",
        "jbe 7f",
        "9:",
        "rep movsb",
        // the probe again, and out
        "20:",
        "mov r8, rax",
        "lea r9, [rax + 1]",
        "mov rcx, {probe_lost}",
        "movzx edx, byte ptr [rax]",
        "xor eax, eax",
        "mov rdx, r11",
        "ret",
        // 256 bytes a turn, as below; the upper registers need no `vzeroupper`
        "6:",
        "cmp rdx, {avx512_max}",
        "ja 9b",
        "8:",
        "vmovups zmm16, [rsi]",
        "vmovups zmm17, [rsi + 64]",
        "vmovups zmm18, [rsi + 128]",
        "vmovups zmm19, [rsi + 192]",
        "vmovups [rdi], zmm16",
        "vmovups [rdi + 64], zmm17",
        "vmovups [rdi + 128], zmm18",
        "vmovups [rdi + 192], zmm19",
        "add rsi, 256",
        "add rdi, 256",
        "sub rcx, 256",
        "cmp rcx, 256",
        "ja 8b",
        "vmovups zmm16, [r9 - 256]",
        "vmovups zmm17, [r9 - 192]",
        "vmovups zmm18, [r9 - 128]",
        "vmovups zmm19, [r9 - 64]",
        "vmovups [rdi + rcx - 256], zmm16",
        "vmovups [rdi + rcx - 192], zmm17",
        "vmovups [rdi + rcx - 128], zmm18",
        "vmovups [rdi + rcx - 64], zmm19",
        "jmp 20b",
        // 128 bytes a turn; the last turn ends at the end, wherever the one before it got to
        "7:",
        "vmovups ymm0, [rsi]",
        "vmovups ymm1, [rsi + 32]",
        "vmovups ymm2, [rsi + 64]",
        "vmovups ymm3, [rsi + 96]",
        "vmovups [rdi], ymm0",
        "vmovups [rdi + 32], ymm1",
        "vmovups [rdi + 64], ymm2",
        "vmovups [rdi + 96], ymm3",
        "sub rsi, -128",
        "sub rdi, -128",
        "add rcx, -128",
        "cmp rcx, 128",
        "ja 7b",
        "vmovups ymm0, [r9 - 128]",
        "vmovups ymm1, [r9 - 96]",
        "vmovups ymm2, [r9 - 64]",
        "vmovups ymm3, [r9 - 32]",
        "vmovups [rdi + rcx - 128], ymm0",
        "vmovups [rdi + rcx - 96], ymm1",
        "vmovups [rdi + rcx - 64], ymm2",
        "vmovups [rdi + rcx - 32], ymm3",
        "vzeroupper",
        "jmp 20b",
        // 129 to 256, 65 to 128, 33 to 64, 16 to 32
        "4:",
        "lea r10, [rdi + rdx]",
        "cmp rdx, 16",
        "jb 5f",
        "movups xmm0, [rsi]",
        "movups xmm1, [r9 - 16]",
        "cmp rdx, 32",
        "jbe 6f",
        "movups xmm2, [rsi + 16]",
        "movups xmm3, [r9 - 32]",
        "cmp rdx, 64",
        "jbe 7f",
        "movups xmm4, [rsi + 32]",
        "movups xmm5, [rsi + 48]",
        "movups xmm6, [r9 - 48]",
        "movups xmm7, [r9 - 64]",
        "cmp rdx, 128",
        "jbe 8f",
        "movups xmm8, [rsi + 64]",
        "movups xmm9, [rsi + 80]",
        "movups xmm10, [rsi + 96]",
        "movups xmm11, [rsi + 112]",
        "movups xmm12, [r9 - 80]",
        "movups xmm13, [r9 - 96]",
        "movups xmm14, [r9 - 112]",
        "movups xmm15, [r9 - 128]",
        "movups [rdi + 64], xmm8",
        "movups [rdi + 80], xmm9",
        "movups [rdi + 96], xmm10",
        "movups [rdi + 112], xmm11",
        "movups [r10 - 80], xmm12",
        "movups [r10 - 96], xmm13",
        "movups [r10 - 112], xmm14",
        "movups [r10 - 128], xmm15",
        "8:",
        "movups [rdi + 32], xmm4",
        "movups [rdi + 48], xmm5",
        "movups [r10 - 48], xmm6",
        "movups [r10 - 64], xmm7",
        "7:",
        "movups [rdi + 16], xmm2",
        "movups [r10 - 32], xmm3",
        "6:",
        "movups [rdi], xmm0",
        "movups [r10 - 16], xmm1",
        "jmp 20b",
        // 8 to 15, 4 to 7, fewer
        "5:",
        "cmp edx, 8",
        "jb 6f",
        "mov rdx, [r9 - 8]",
        "mov rsi, [rsi]",
        "mov [rdi], rsi",
        "mov [r10 - 8], rdx",
        "jmp 20b",
        "6:",
        "cmp edx, 4",
        "jb 6f",
        "mov edx, [r9 - 4]",
        "mov esi, [rsi]",
        "mov [rdi], esi",
        "mov [r10 - 4], edx",
        "jmp 20b",
        "6:",
        "rep movsb",
        "jmp 20b",
        // Nothing runs here. A body that is too long makes the count negative, which does not assemble.
        ".skip {landing_pad} - (. - 2b), 0xcc",
        "3:",
        "mov rax, rcx",
        "mov rdx, r11",
        "ret",
        landing_pad = const LANDING_PAD,
        avx = const AVX,
        avx_max = const AVX_MAX,
        avx512_max = const AVX512_MAX,
        probe_trapped = const PROBE_TRAPPED,
        probe_lost = const PROBE_LOST as isize,
    )
}

/// # Safety
///
/// As `copy_recoverable`.
#[inline]
pub(super) unsafe fn copy(destination: *mut u8, source: *const u8, count: usize, probe: *const u8) -> Copy {
    // SAFETY: the contract is the same one, and the vectors are there if they are said to be.
    unsafe { routine(destination, source, count, probe, vectors()) }
}

/// The widest vectors that are worth using. VBMI2 came with the first processors (Ice Lake, Zen 4) that do not lower
/// their clock for registers of 64 bytes.
#[inline]
fn vectors() -> u32 {
    if is_x86_feature_detected!("avx512vbmi2") && is_x86_feature_detected!("avx512f") {
        AVX512
    } else if is_x86_feature_detected!("avx") {
        AVX
    } else {
        NONE
    }
}

#[inline]
pub(super) fn prefetch_line(address: *const u8) {
    // SAFETY: a prefetch of any address, valid or not, has no effect that a program can see.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

pub(super) fn recover(context: &mut libc::ucontext_t, fault_address: usize) -> bool {
    let registers = &mut context.uc_mcontext.gregs;
    let begin = routine as *const () as usize;
    let landing_pad = begin + LANDING_PAD;
    let program_counter = registers[libc::REG_RIP as usize] as usize;
    let source = registers[libc::REG_R8 as usize] as usize..registers[libc::REG_R9 as usize] as usize;
    let own = super::is_own_fault(begin, landing_pad, program_counter, source, fault_address);
    if own {
        registers[libc::REG_RIP as usize] = landing_pad as libc::greg_t;
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fault, mapping::Mapping};
    use std::io::Write;

    /// The widths that this processor has: the usual tests run the widest only.
    fn all_vectors() -> impl Iterator<Item = u32> {
        NONE..=vectors()
    }

    #[test]
    fn every_width_copies_every_length() {
        let source: Vec<u8> = (0..40_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for vectors in all_vectors() {
            for length in (1..=1100).chain([2047, 2048, 2049, 4095, 4096, 4097, 32_767, 32_768, 32_769]) {
                let mut destination = vec![0xEE_u8; length + 1];
                // SAFETY: both are live and hold `length` bytes, and the probe is in the source; none of it traps.
                let copy = unsafe {
                    routine(destination.as_mut_ptr(), source[1..].as_ptr(), length, &raw const source[9], vectors)
                };
                assert_eq!((copy.left_bytes, copy.probed), (0, source[9].into()));
                assert_eq!(destination[..length], source[1..=length], "{length} bytes, vectors {vectors}");
                assert_eq!(destination[length], 0xEE, "wrote past {length} bytes, vectors {vectors}");
            }
        }
    }

    #[test]
    fn every_width_stops_at_a_fault_and_says_how_far_it_came() {
        fault::install().unwrap();
        let page_bytes = rustix::param::page_size();
        let bytes: Vec<u8> = (0..16 * page_bytes).map(|i| (i % 251) as u8 + 1).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let mapping = Mapping::new(&file, bytes.len() as u64).unwrap();
        for vectors in all_vectors() {
            for length in [1, 15, 16, 256, 257, 511, 512, 513, 2048, 2049, 4096, 9000, 32_768, 32_769] {
                for there in [0, 1, 255, 256, 257, 2048, 4095, 9000, 30_000].into_iter().filter(|there| *there < length)
                {
                    let start = bytes.len() - there;
                    let mut destination = vec![0xEE_u8; length];
                    let source = mapping.base().wrapping_add(start);
                    // SAFETY: the source and the probe are in the mapping's range, where touching what lies behind
                    // the file traps; the handler is installed; the destination is live and has `length` bytes.
                    let copy = unsafe { routine(destination.as_mut_ptr(), source, length, mapping.base(), vectors) };
                    let copied = length - copy.left_bytes;
                    let case = format!("{there} of {length} bytes, vectors {vectors}: {copied} copied");
                    assert!(copied <= there, "{case}");
                    assert_eq!(destination[..copied], bytes[start..start + copied], "{case}");
                }
            }
        }
    }
}
