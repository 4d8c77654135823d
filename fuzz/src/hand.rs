//! What another hand can do to a file, with no word to whoever has it open.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate};

/// Another descriptor of the file.
#[derive(Debug)]
pub struct Hand(pub File);

impl Hand {
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.0.write_all_at(bytes, offset).expect("a write by another hand");
    }

    /// False if the file system has no such length.
    pub fn set_len(&self, len_bytes: u64) -> bool {
        self.0.set_len(len_bytes).is_ok()
    }

    /// Makes a hole. False where the file system makes none.
    pub fn punch(&self, offset: u64, len: u64) -> bool {
        len == 0 || fallocate(&self.0, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len).is_ok()
    }

    /// Takes the file's pages out of every map of this process, and those that are clean out of the page cache.
    pub fn drop_pages(&self) {
        let inode = self.0.metadata().expect("the file's metadata").ino().to_string();
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        for line in maps.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(range), Some(found)) = (fields.next(), fields.nth(3)) else { continue };
            let Some((start, end)) = range.split_once('-').filter(|_| found == inode && line.contains(" r--s ")) else {
                continue;
            };
            let hex = |text| usize::from_str_radix(text, 16).expect("an address");
            let (start, end) = (hex(start), hex(end));
            // SAFETY: a shared, read-only map of a file: its pages come back from the file when they are touched.
            let dropped =
                unsafe { rustix::mm::madvise(start as *mut _, end - start, rustix::mm::Advice::LinuxDontNeed) };
            dropped.expect("page-table entries to be dropped");
        }
        let _ = fadvise(&self.0, 0, None, Advice::DontNeed);
    }
}
