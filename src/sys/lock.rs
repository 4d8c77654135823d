//! Locks on single bytes of a file, by which processes, and openers within one, keep out of each other's way.
//!
//! They are open file description locks (`F_OFD_SETLK`, fcntl(2)). They belong to one opening of the file and end with
//! the last descriptor of it at the latest, however the process ends. The locks of a process (`F_SETLK`) end when it
//! closes *any* descriptor of the file, so a library cannot build on them.
//!
//! # Safety
//!
//! fcntl(2) reads and writes only the lock structure that it is passed.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// One opening of a file, and the locks that it has. Advisory: they hold up nobody who does not ask for them.
///
/// - Everyone who uses this value has the same locks: they keep out other openings of the file, not other threads.
/// - A descriptor made of this one belongs to the same opening and has the same locks: one of `try_clone`, and those of
///   a forked child until it calls `exec`. The locks end when this value is dropped, or with the process and such
///   children of it.
/// - Bytes lie below `i64::MAX`, inside the file or not.
///
/// Every call fails with the system's error where the file system, or the kernel, has no such locks.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
}

impl LockFile {
    /// `file` is an opening of its own, not a clone of a descriptor that others use.
    pub(crate) fn new(file: File) -> Self {
        LockFile { file }
    }

    /// Locks a byte against everyone else. `false`: someone else has locked it, in whatever way.
    ///
    /// A shared lock of our own is turned into this one; if that cannot be, it stays. The file must be open for
    /// writing.
    pub(crate) fn try_exclusive(&self, byte: u64) -> io::Result<bool> {
        self.try_lock(libc::F_WRLCK, byte)
    }

    /// Locks a byte against exclusive locks of others. `false`: someone else has one.
    ///
    /// An exclusive lock of our own is turned into this one. The file must be open for reading.
    pub(crate) fn try_shared(&self, byte: u64) -> io::Result<bool> {
        self.try_lock(libc::F_RDLCK, byte)
    }

    /// Gives up our lock on a byte, if we have one.
    pub(crate) fn unlock(&self, byte: u64) -> io::Result<()> {
        self.fcntl(libc::F_OFD_SETLK, libc::F_UNLCK, byte..byte.saturating_add(1)).map(drop)
    }

    /// Every byte in `range` that someone else has locked in any way, ascending.
    ///
    /// Each byte is right as of some moment during the call, and not all of them as of the same. Our own locks are left
    /// out. It takes about two system calls for each run of locked bytes.
    pub(crate) fn locked_by_others(&self, range: Range<u64>) -> io::Result<Vec<u64>> {
        let mut bytes = Vec::new();
        let mut unknown = vec![range];
        while let Some(range) = unknown.pop() {
            if range.is_empty() {
                continue;
            }
            // An exclusive lock would conflict with any other. The system names some lock in its way, not the first.
            let found = self.fcntl(libc::F_OFD_GETLK, libc::F_WRLCK, range.clone())?;
            if libc::c_int::from(found.l_type) == libc::F_UNLCK {
                continue;
            }
            let locked = overlap(&found, &range)?;
            unknown.push(range.start..locked.start);
            unknown.push(locked.end..range.end);
            bytes.extend(locked);
        }
        bytes.sort_unstable();
        Ok(bytes)
    }

    fn try_lock(&self, kind: libc::c_int, byte: u64) -> io::Result<bool> {
        match self.fcntl(libc::F_OFD_SETLK, kind, byte..byte.saturating_add(1)) {
            Ok(_) => Ok(true),
            // POSIX leaves it open which of the two says that the lock is taken.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Does a lock operation on `bytes`, which are not none: the system takes a length of 0 for all that follow.
    fn fcntl(&self, operation: libc::c_int, kind: libc::c_int, bytes: Range<u64>) -> io::Result<libc::flock> {
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let mut lock = libc::flock {
            l_type: kind.try_into().map_err(invalid)?,
            l_whence: libc::SEEK_SET.try_into().map_err(invalid)?,
            l_start: bytes.start.try_into().map_err(invalid)?,
            l_len: (bytes.end - bytes.start).try_into().map_err(invalid)?,
            l_pid: 0,
        };
        loop {
            // SAFETY: both operations take a `struct flock`; `lock` lives as long as the call, and nothing else refers
            // to it.
            if unsafe { libc::fcntl(self.file.as_raw_fd(), operation, &raw mut lock) } == 0 {
                return Ok(lock);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Drop for LockFile {
    /// The locks end here, also while a child that another thread has just forked has a descriptor of the opening.
    fn drop(&mut self) {
        // No bytes: all that there are. If this fails, they end with the last descriptor.
        let _ = self.fcntl(libc::F_OFD_SETLK, libc::F_UNLCK, 0..0);
    }
}

/// The part of `range` that a lock covers. The system is to name only locks that cover some of it; a file system that
/// does not (one in user space, say) is found out, as the search would not end.
fn overlap(lock: &libc::flock, range: &Range<u64>) -> io::Result<Range<u64>> {
    let start = u64::try_from(lock.l_start).ok();
    let len = u64::try_from(lock.l_len).ok();
    let found = start.zip(len).map(|(start, len)| {
        // A length of 0 is for all that follow.
        let end = if len == 0 { u64::MAX } else { start.saturating_add(len) };
        start.max(range.start)..end.min(range.end)
    });
    found.filter(|found| !found.is_empty()).ok_or_else(|| {
        let (start, len) = (lock.l_start, lock.l_len);
        let what = format!("expected a lock on some of the bytes {range:?}, found one of {len} bytes at {start}");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;
    use tempfile::NamedTempFile;

    fn opened(file: &NamedTempFile) -> LockFile {
        LockFile::new(file.reopen().unwrap())
    }

    fn two() -> (NamedTempFile, LockFile, LockFile) {
        let file = NamedTempFile::new().unwrap();
        let (ours, theirs) = (opened(&file), opened(&file));
        (file, ours, theirs)
    }

    const LAST: u64 = i64::MAX as u64 - 1;

    #[test]
    fn an_exclusive_lock_keeps_out_every_other() {
        let (_file, ours, theirs) = two();
        for byte in [0, 1, 4096, 1 << 40, LAST] {
            assert!(ours.try_exclusive(byte).unwrap());
            assert!(!theirs.try_exclusive(byte).unwrap());
            assert!(!theirs.try_shared(byte).unwrap());
            assert!(ours.try_exclusive(byte).unwrap(), "it is ours already");
        }
        assert!(theirs.try_exclusive(2).unwrap(), "a lock is on one byte only");
        ours.unlock(1).unwrap();
        assert!(theirs.try_exclusive(1).unwrap());
        assert!(!theirs.try_exclusive(0).unwrap());
    }

    #[test]
    fn shared_locks_keep_out_exclusive_ones_only() {
        let (file, ours, theirs) = two();
        let third = opened(&file);
        assert!(ours.try_shared(7).unwrap());
        assert!(theirs.try_shared(7).unwrap());
        assert!(!third.try_exclusive(7).unwrap());
        assert!(!ours.try_exclusive(7).unwrap(), "the other one is in the way");
        theirs.unlock(7).unwrap();
        assert!(!third.try_exclusive(7).unwrap(), "ours stayed");
        assert!(ours.try_exclusive(7).unwrap());
        assert!(!third.try_shared(7).unwrap());
        assert!(ours.try_shared(7).unwrap(), "an exclusive lock turns into a shared one");
        assert!(third.try_shared(7).unwrap());
    }

    #[test]
    fn unlocking_what_is_not_ours_changes_nothing() {
        let (_file, ours, theirs) = two();
        ours.unlock(3).unwrap();
        assert!(ours.try_exclusive(3).unwrap());
        theirs.unlock(3).unwrap();
        assert!(!theirs.try_shared(3).unwrap());
    }

    #[test]
    fn locks_end_with_the_value_and_with_no_other_descriptor() {
        let (file, ours, theirs) = two();
        assert!(ours.try_exclusive(0).unwrap());
        // This would end the locks of a process.
        drop(opened(&file));
        assert!(!theirs.try_shared(0).unwrap());
        let clone = ours.file.try_clone().unwrap();
        drop(ours);
        assert!(theirs.try_exclusive(0).unwrap(), "although the opening is still there");
        drop(clone);
    }

    #[test]
    fn a_lock_asks_for_the_right_to_do_what_it_is_for() {
        let file = NamedTempFile::new().unwrap();
        let reader = LockFile::new(File::open(file.path()).unwrap());
        let writer = LockFile::new(File::options().write(true).open(file.path()).unwrap());
        assert_eq!(reader.try_exclusive(0).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(writer.try_shared(0).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert!(reader.try_shared(0).unwrap());
        assert!(writer.try_exclusive(1).unwrap());
        assert_eq!(reader.locked_by_others(0..10).unwrap(), [1], "anyone may look");
        assert_eq!(writer.locked_by_others(0..10).unwrap(), [0]);
    }

    #[test]
    fn bytes_that_no_file_has_are_refused() {
        let (_file, ours, _) = two();
        for byte in [i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX] {
            assert!(ours.try_exclusive(byte).is_err());
            assert!(ours.try_shared(byte).is_err());
            assert!(ours.unlock(byte).is_err());
            assert!(ours.locked_by_others(0..byte).is_err());
        }
    }

    #[test]
    fn no_lock_and_one_lock_of_others() {
        let (_file, ours, theirs) = two();
        assert_eq!(ours.locked_by_others(0..1_000).unwrap(), [0_u64; 0]);
        assert!(ours.try_exclusive(5).unwrap());
        assert_eq!(ours.locked_by_others(0..1_000).unwrap(), [0_u64; 0], "our own do not count");
        for byte in [0, 17, 999] {
            assert!(theirs.try_shared(byte).unwrap());
            assert_eq!(ours.locked_by_others(0..1_000).unwrap(), [byte]);
            assert_eq!(ours.locked_by_others(byte..byte + 1).unwrap(), [byte]);
            assert_eq!(ours.locked_by_others(byte + 1..1_000).unwrap(), [0_u64; 0]);
            assert_eq!(ours.locked_by_others(0..byte).unwrap(), [0_u64; 0]);
            assert_eq!(ours.locked_by_others(byte..byte).unwrap(), [0_u64; 0]);
            theirs.unlock(byte).unwrap();
        }
        assert_eq!(theirs.locked_by_others(0..1_000).unwrap(), [5]);
        assert!(theirs.try_exclusive(LAST).unwrap());
        assert_eq!(ours.locked_by_others(LAST - 3..LAST + 1).unwrap(), [LAST]);
        assert_eq!(ours.locked_by_others(6..LAST + 1).unwrap(), [LAST]);
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges, reason = "a caller's mistake, and no lock is in it")]
    fn a_range_that_ends_before_it_begins_is_empty() {
        let (_file, ours, theirs) = two();
        assert!(theirs.try_exclusive(15).unwrap());
        assert_eq!(ours.locked_by_others(20..10).unwrap(), [0_u64; 0]);
    }

    #[test]
    fn many_locks_of_many_openings_are_found_in_order_and_once() {
        let (file, ours, first) = two();
        let others = [first, opened(&file), opened(&file)];
        // Neighbours too, which one opening has as a single lock, and bytes that several share.
        let scattered: Vec<u64> = (0..50).map(|number| number * 37 % 211).collect();
        for (number, byte) in scattered.iter().enumerate() {
            let other = &others[number % 3];
            match number % 2 {
                0 => assert!(others.iter().all(|other| other.try_shared(*byte).unwrap())),
                _ => assert!(other.try_exclusive(*byte).unwrap()),
            }
            assert!(number % 5 != 0 || ours.try_exclusive(1_000 + byte).unwrap());
        }
        let mut expected = scattered;
        expected.sort_unstable();
        assert_eq!(expected.len(), 50);
        assert_eq!(ours.locked_by_others(0..2_000).unwrap(), expected);
        let within: Vec<u64> = expected.iter().copied().filter(|byte| (40..170).contains(byte)).collect();
        assert_eq!(ours.locked_by_others(40..170).unwrap(), within);
    }

    #[test]
    fn locks_wider_than_a_byte_are_cut_to_the_range() {
        let (_file, ours, theirs) = two();
        for byte in 10..20 {
            assert!(theirs.try_exclusive(byte).unwrap());
        }
        assert_eq!(ours.locked_by_others(15..100).unwrap(), [15, 16, 17, 18, 19]);
        assert_eq!(ours.locked_by_others(0..12).unwrap(), [10, 11]);
        // From 50 to the end of all files.
        theirs.fcntl(libc::F_OFD_SETLK, libc::F_WRLCK, 50..50).unwrap();
        assert_eq!(ours.locked_by_others(18..53).unwrap(), [18, 19, 50, 51, 52]);
    }

    #[test]
    fn a_lock_outside_of_the_range_asked_for_is_an_error() {
        let lock = |start, len| libc::flock { l_type: 1, l_whence: 0, l_start: start, l_len: len, l_pid: -1 };
        assert_eq!(overlap(&lock(0, 0), &(5..10)).unwrap(), 5..10);
        assert_eq!(overlap(&lock(9, 1), &(5..10)).unwrap(), 9..10);
        for (start, len) in [(10, 1), (10, 0), (4, 1), (0, 5), (-1, 20), (6, -1), (i64::MIN, i64::MIN)] {
            assert_eq!(overlap(&lock(start, len), &(5..10)).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
