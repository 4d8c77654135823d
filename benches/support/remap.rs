//! The protocol that mapfall does without, as a contender: the map has the length of the file; who resizes raises a
//! flag, waits until no reader is left in the map, unmaps, maps again and lowers the flag; readers count themselves in
//! and out, and use system calls while the flag is up or past the end of the map. It is WiredTiger's.
//!
//! # Safety
//!
//! A copy needs its source mapped for as long as it runs. A reader copies only after it has added itself to `users` and
//! has then seen `resizing` false; a resizer unmaps only after it has set `resizing` and has then seen `users` at 0.
//! All four are `SeqCst`, so of a reader and a resizer that meet one at least sees the other: either the reader backs
//! out or the resizer waits for it. `base` and `len` change only between the two, so a counted reader sees both of one
//! map.
//! The bench never makes the file shorter while it is open, without which a copy would end in `SIGBUS`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::thread;
use std::time::Duration;

use memmap2::{Advice, MmapOptions, MmapRaw};
use parking_lot::Mutex;

/// Maps are this long times a whole number, as ours are, so that they get the same pages.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A file behind the protocol.
#[derive(Debug)]
pub(crate) struct RemapFile {
    // Side by side, as in the original, where they share a cache line.
    base: AtomicPtr<u8>,
    len: AtomicUsize,
    resizing: AtomicBool,
    users: AtomicUsize,
    file: File,
    map: Mutex<Option<MmapRaw>>,
    /// The file is mapped again after every so many writes that make it longer.
    appends_per_remap: u64,
    appends: AtomicU64,
    remaps: AtomicU64,
    syscall_reads: AtomicU64,
}

impl RemapFile {
    pub(crate) fn open(path: &Path, appends_per_remap: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let remap_file = RemapFile {
            base: AtomicPtr::new(ptr::null_mut()),
            len: AtomicUsize::new(0),
            resizing: AtomicBool::new(false),
            users: AtomicUsize::new(0),
            file,
            map: Mutex::new(None),
            appends_per_remap,
            appends: AtomicU64::new(0),
            remaps: AtomicU64::new(0),
            syscall_reads: AtomicU64::new(0),
        };
        remap_file.map_all(&mut remap_file.map.lock())?;
        Ok(remap_file)
    }

    #[inline]
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if !self.resizing.load(SeqCst) {
            self.users.fetch_add(1, SeqCst);
            let copied = !self.resizing.load(SeqCst) && self.copy(offset, buf);
            self.users.fetch_sub(1, SeqCst);
            if copied {
                return Ok(());
            }
        }
        self.syscall_reads.fetch_add(1, Relaxed);
        self.file.read_exact_at(buf, offset)
    }

    /// For a reader that is counted and has seen the flag down.
    #[inline]
    fn copy(&self, offset: u64, buf: &mut [u8]) -> bool {
        let Ok(start) = usize::try_from(offset) else { return false };
        if start.checked_add(buf.len()).is_none_or(|end| end > self.len.load(Relaxed)) {
            return false;
        }
        let source = self.base.load(Relaxed).wrapping_add(start);
        // SAFETY: `source .. source + buf.len()` is inside the map (checked against its length just now), which stays
        // mapped while this reader is counted (see the module). `buf` is an exclusive borrow and no part of a map that
        // nobody has a reference into. The bytes are plain `u8`: any value is valid.
        unsafe { source.copy_to_nonoverlapping(buf.as_mut_ptr(), buf.len()) };
        true
    }

    /// Writes at the end of the file, and maps it again if it is time to.
    pub(crate) fn append(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        if (self.appends.fetch_add(1, Relaxed) + 1).is_multiple_of(self.appends_per_remap) {
            self.remap()?;
        }
        Ok(())
    }

    fn remap(&self) -> io::Result<()> {
        // One resizer at a time. The original has them wait for the flag.
        let mut map = self.map.lock();
        self.resizing.store(true, SeqCst);
        let mut waits = 0;
        while self.users.load(SeqCst) > 0 {
            wait(waits);
            waits += 1;
        }
        *map = None;
        let mapped = self.map_all(&mut map);
        self.remaps.fetch_add(1, Relaxed);
        self.resizing.store(false, SeqCst);
        mapped
    }

    /// Maps the file as long as it is now, with the advice that our map gives. Nobody is reading: the flag is up, or
    /// the file is being opened.
    fn map_all(&self, map: &mut Option<MmapRaw>) -> io::Result<()> {
        self.len.store(0, Relaxed);
        let file_bytes = usize::try_from(self.file.metadata()?.len()).map_err(io::Error::other)?;
        let map_bytes = file_bytes.max(1).next_multiple_of(HUGE_PAGE_BYTES);
        let fresh = MmapOptions::new().len(map_bytes).map_raw_read_only(&self.file)?;
        fresh.advise(Advice::HugePage)?;
        self.base.store(fresh.as_mut_ptr(), Relaxed);
        self.len.store(file_bytes, Relaxed);
        *map = Some(fresh);
        Ok(())
    }

    pub(crate) fn remaps(&self) -> u64 {
        self.remaps.load(Relaxed)
    }

    pub(crate) fn syscall_reads(&self) -> u64 {
        self.syscall_reads.load(Relaxed)
    }
}

/// How the original waits: it spins, then yields, then sleeps, longer each time.
fn wait(waits: u64) {
    match waits {
        0..10 => std::hint::spin_loop(),
        10..1000 => thread::yield_now(),
        _ => thread::sleep(Duration::from_micros((100 + (waits - 999) * 10).min(1000))),
    }
}
