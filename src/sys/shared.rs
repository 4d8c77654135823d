//! Words that two processes share: a file in memory (`memfd_create(2)`) that both have mapped.
//!
//! # Safety
//!
//! A [`SharedWords`] owns its mapping from `map` to `drop`, and lends nothing of it but `&[AtomicU64]`. The file is
//! sealed, so that nobody can make it shorter and no access traps; whoever else maps it only has words to change, and
//! any bits are a valid word.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::mm::{self, MapFlags, ProtFlags};

const NAME: &CStr = c"mapfall-shared";

/// Words of memory that other processes may have, too.
#[derive(Debug)]
pub(crate) struct SharedWords {
    base: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping is the same for every thread of the process, and holds nothing but atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above; `&SharedWords` gives `&[AtomicU64]`, and nothing else.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// So many words, all 0, and the file that another process gets them by.
    pub(crate) fn create(count: usize) -> io::Result<(Self, File)> {
        let file = File::from(memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        file.set_len((count * size_of::<AtomicU64>()) as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK)?;
        Ok((Self::map(&file)?, file))
    }

    /// The words of a file that [`SharedWords::create`] made, in this process or another.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        let refused = |problem: &str| io::Error::new(io::ErrorKind::InvalidInput, problem.to_owned());
        if !fcntl_get_seals(file)?.contains(SealFlags::SHRINK) {
            return Err(refused("expected a sealed file in memory"));
        }
        let count = usize::try_from(file.metadata()?.len()).unwrap_or(0) / size_of::<AtomicU64>();
        if count == 0 {
            return Err(refused("expected a file in memory that is not empty"));
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        let bytes = count * size_of::<AtomicU64>();
        // SAFETY: no address is asked for, so nothing that is mapped is replaced.
        let base = unsafe { mm::mmap(ptr::null_mut(), bytes, protection, flags, file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| refused("the system maps at address 0"))?;
        Ok(SharedWords { base, count })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping begins at a page, so it is aligned; it is `count` words long, readable and writable, and
        // stays so until `drop`, which the borrow keeps off. The file's seal keeps its pages from going away. Whoever
        // else has them uses atomics, or is another process, which cannot do more than change the bits of a word.
        unsafe { slice::from_raw_parts(self.base.as_ptr(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: `map` mapped exactly this range, and no borrow of it outlives the value. If the system does not unmap
        // it, it stays: that harms nobody.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.count * size_of::<AtomicU64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn two_mappings_have_the_same_words() {
        let (words, file) = SharedWords::create(1000).unwrap();
        let others = SharedWords::map(&file).unwrap();
        assert_eq!((words.words().len(), others.words().len()), (1000, 1000));
        words.words()[999].store(7, Relaxed);
        assert_eq!(others.words()[999].load(Relaxed), 7);
        file.set_len(8).unwrap_err();
        drop((words, file));
        assert_eq!(others.words()[999].load(Relaxed), 7);
    }

    #[test]
    fn a_file_that_could_be_cut_is_refused() {
        SharedWords::map(&tempfile::tempfile().unwrap()).unwrap_err();
        let open = memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let open = File::from(open);
        open.set_len(4096).unwrap();
        SharedWords::map(&open).unwrap_err();
    }
}
