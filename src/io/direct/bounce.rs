//! Aligned memory that direct I/O goes through where a caller's buffer will not do.

use parking_lot::Mutex;

/// Where a buffer begins, unless a file asks for more.
const ALIGN_BYTES: usize = 4096;
const LEN_BYTES_MIN: usize = 64 << 10;
/// What the process keeps of buffers that nobody uses.
const KEPT_BYTES_MAX: usize = 16 << 20;

static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer of the pool's, given back when it is dropped. Its bytes are whatever was in it last.
#[derive(Debug)]
pub(super) struct Bounce {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Bounce {
    /// `align_bytes` is a power of two.
    pub(super) fn take(len: usize, align_bytes: usize) -> Self {
        let align_bytes = align_bytes.max(ALIGN_BYTES);
        let room = len.max(LEN_BYTES_MIN).next_power_of_two() + align_bytes;
        let kept = {
            let mut kept = KEPT.lock();
            let fits = kept.iter().position(|bytes| (room..=2 * room).contains(&bytes.len()));
            fits.map(|place| kept.swap_remove(place))
        };
        let bytes = kept.unwrap_or_else(|| vec![0; room]);
        let start = bytes.as_ptr().addr().next_multiple_of(align_bytes) - bytes.as_ptr().addr();
        Bounce { bytes, start, len }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut kept = KEPT.lock();
        if kept.iter().map(Vec::len).sum::<usize>() + bytes.len() <= KEPT_BYTES_MAX {
            kept.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_used_again() {
        for align_bytes in [1, 512, 4096, 65_536] {
            for len in [1, 4096, 100_000, 1 << 20] {
                let mut bounce = Bounce::take(len, align_bytes);
                assert_eq!(bounce.bytes().len(), len);
                assert!(bounce.bytes().as_ptr().addr().is_multiple_of(align_bytes.max(ALIGN_BYTES)));
            }
        }
        let kept = || KEPT.lock().iter().map(Vec::len).sum::<usize>();
        let many: Vec<_> = (0..40).map(|_| Bounce::take(1 << 20, 1)).collect();
        drop(many);
        assert!(kept() <= KEPT_BYTES_MAX);
        assert!(kept() > 0);
    }
}
