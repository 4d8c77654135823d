//! What direct I/O asks of offsets, lengths and memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, statx};

use super::bounce::Bounce;

/// Where the file system does not say: no disk has larger sectors, no processor smaller pages.
const GUESS_BYTES: u32 = 4096;
const ALIGN_BYTES_MAX: u32 = 1 << 20;

/// Powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Align {
    /// Of offsets and lengths.
    pub(super) offset_bytes: u64,
    /// Of addresses.
    pub(super) memory_bytes: usize,
}

impl Align {
    /// What the page cache asks for: nothing.
    pub(super) const NONE: Align = Align { offset_bytes: 1, memory_bytes: 1 };

    pub(super) fn down(self, offset: u64) -> u64 {
        offset & !(self.offset_bytes - 1)
    }

    /// `offset` is at most `i64::MAX`.
    pub(super) fn up(self, offset: u64) -> u64 {
        self.down(offset + (self.offset_bytes - 1))
    }

    pub(super) fn fits_range(self, offset: u64, len: usize) -> bool {
        (offset | len as u64) & (self.offset_bytes - 1) == 0
    }

    pub(super) fn fits_memory(self, bytes: &[u8]) -> bool {
        bytes.as_ptr().addr() & (self.memory_bytes - 1) == 0
    }
}

/// Makes the opening of the file go past the page cache from now on, and says what that asks for. `Err` says why it
/// cannot be; then nothing has changed.
pub(super) fn go_direct(file: &File) -> Result<Align, String> {
    let align = asked(file)?;
    let flags = fcntl_getfl(file).map_err(|error| error.to_string())?;
    fcntl_setfl(file, flags | OFlags::DIRECT).map_err(|error| format!("O_DIRECT is refused: {error}"))?;
    if let Some(align) = align {
        return Ok(align);
    }
    // The file system does not say what it asks for. Some say here that they cannot at all.
    let mut probe = Bounce::take(GUESS_BYTES as usize, GUESS_BYTES as usize);
    #[allow(clippy::disallowed_methods, reason = "how much is read does not matter")]
    match file.read_at(probe.bytes(), 0) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let _ = fcntl_setfl(file, flags);
            Err(format!("a direct read of {GUESS_BYTES} bytes at offset 0 is refused: {error}"))
        }
        _ => Ok(align_of(GUESS_BYTES, GUESS_BYTES)),
    }
}

/// What `statx(2)` says (Linux 6.1), if it says anything.
fn asked(file: &File) -> Result<Option<Align>, String> {
    let Ok(found) = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else { return Ok(None) };
    if found.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Ok(None);
    }
    let (offset_bytes, memory_bytes) = (found.stx_dio_offset_align, found.stx_dio_mem_align);
    let is_usable = |bytes: u32| bytes.is_power_of_two() && bytes <= ALIGN_BYTES_MAX;
    match (offset_bytes, memory_bytes) {
        (0, _) | (_, 0) => Err("the file system has no direct I/O for this file".to_owned()),
        (offset, memory) if is_usable(offset) && is_usable(memory) => Ok(Some(align_of(offset, memory))),
        (offset, memory) => Err(format!("expected powers of two, found an alignment of {offset} and {memory} bytes")),
    }
}

fn align_of(offset_bytes: u32, memory_bytes: u32) -> Align {
    Align { offset_bytes: u64::from(offset_bytes), memory_bytes: memory_bytes as usize }
}
