//! One ring: entries in, completions out, and nothing left behind.
//!
//! # Safety
//!
//! The kernel writes to a read's buffer from the moment that it takes the entry until it posts the completion. A
//! [`Flight`] borrows the reads, buffers included, and counts what the kernel has taken and not completed. It cannot be
//! left before that count is 0: [`Flight::drop`] waits for it, on return and on unwinding, and aborts the process if
//! the kernel will not let it wait. It is never leaked: it does not leave [`Ring::read`], which owns it.
//!
//! What was put in the queue and not taken is nobody's: the kernel reads entries only in `io_uring_enter(2)`, since
//! the ring has no polling thread, and a ring that has such entries left is never entered again.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::Fd;
use io_uring::{Builder, EnterFlags, IoUring, cqueue, opcode};

use super::RingRead;

/// The kernel reads no more than this at once (`MAX_RW_COUNT` is a little more), a multiple of every block size.
const READ_BYTES_MAX: usize = 1 << 30;

pub(super) struct Ring {
    ring: IoUring,
    /// Whether no entry and no completion of an earlier batch is left in it.
    is_clean: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("entries", &self.ring.params().sq_entries()).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for so many reads at a time, with what the kernel has that makes it cheaper: completions are worked off
    /// by the thread that waits for them and not before (Linux 6.1), or at least without interrupting it (5.19).
    pub(super) fn new(depth: u32) -> io::Result<Self> {
        let all: [fn(&mut Builder) -> &mut Builder; 3] = [
            |builder| builder.setup_submit_all().setup_single_issuer().setup_defer_taskrun(),
            |builder| builder.setup_submit_all().setup_coop_taskrun(),
            |builder| builder,
        ];
        let mut refused = io::Error::from_raw_os_error(libc::EINVAL);
        for set_up in all {
            let mut builder = IoUring::builder();
            match set_up(&mut builder).dontfork().build(depth) {
                // From 5.6 on there are plain reads; from 5.5 on no completion is dropped.
                Ok(ring) if !ring.params().is_feature_rw_cur_pos() || !ring.params().is_feature_nodrop() => {
                    return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring is too old"));
                }
                Ok(ring) => return Ok(Ring { ring, is_clean: true }),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Does the reads. `depth` is at most what the ring was made for. After an error the ring must not be used again,
    /// and some reads may not have been tried.
    pub(super) fn read(
        &mut self,
        file: &File,
        depth: usize,
        reads: &mut [RingRead<'_>],
        submits: &mut u64,
    ) -> io::Result<()> {
        if !self.is_clean {
            return Err(io::Error::other("a batch was broken off"));
        }
        self.is_clean = false;
        let depth = depth.min(self.ring.params().sq_entries() as usize);
        let mut flight = Flight { ring: &mut self.ring, file, reads, in_flight: 0, queued: 0, submits };
        let result = flight.run(depth);
        drop(flight);
        self.is_clean = result.is_ok();
        result
    }
}

/// The reads of a batch while the kernel has some of them.
struct Flight<'r, 'b> {
    ring: &'r mut IoUring,
    file: &'r File,
    reads: &'r mut [RingRead<'b>],
    /// Entries that the kernel has taken and not completed.
    in_flight: usize,
    /// Entries that it has not taken.
    queued: usize,
    submits: &'r mut u64,
}

impl Flight<'_, '_> {
    fn run(&mut self, depth: usize) -> io::Result<()> {
        let mut next = 0;
        loop {
            while next < self.reads.len() && self.in_flight + self.queued < depth {
                self.push(next)?;
                next += 1;
            }
            let under_way = self.in_flight + self.queued;
            if under_way == 0 {
                return Ok(());
            }
            // Once everything is under way there is nothing to do before all of it is over. Until then the queue of the
            // device is to stay full, and the thread to wake rarely.
            let wanted = if next == self.reads.len() { under_way } else { (depth / 8).max(1) };
            self.enter(wanted)?;
            self.reap()?;
        }
    }

    /// Queues a read, or the rest of it.
    fn push(&mut self, index: usize) -> io::Result<()> {
        let read = &mut self.reads[index];
        let rest = &mut read.buf[read.done_bytes..];
        let len = rest.len().min(READ_BYTES_MAX) as u32;
        let entry = opcode::Read::new(Fd(self.file.as_raw_fd()), rest.as_mut_ptr(), len)
            .offset(read.offset + read.done_bytes as u64)
            .build()
            .user_data(index as u64);
        // SAFETY: the descriptor is open while `file` is borrowed. `len` bytes from the address on are borrowed by
        // `self.reads`, which nobody else can touch, and `self` touches them again only after the completion of this
        // entry: each index is queued once at a time. Neither borrow ends while the kernel has the entry (the file's
        // Safety section).
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| io::Error::other("the queue of the ring is full"))?;
        self.queued += 1;
        Ok(())
    }

    /// Gives the kernel what is queued, and waits for `wanted` completions or a signal.
    fn enter(&mut self, wanted: usize) -> io::Result<()> {
        *self.submits += 1;
        let result = self.ring.submit_and_wait(wanted);
        // After an error too, some may have been taken: the queue itself tells.
        let left = self.ring.submission().len();
        self.in_flight += self.queued - left;
        self.queued = left;
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            // It wants completions to be reaped first.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) && self.in_flight > 0 => {
                self.wait_for_one();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes all completions there are. A read that got less than it asked for, and more than nothing, goes on.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            let Some(entry) = self.take_one() else { return Ok(()) };
            self.in_flight -= 1;
            let index = entry.user_data() as usize;
            let read = &mut self.reads[index];
            // Nothing, or an error: whoever asked for the batch finds out what is the matter.
            let Ok(count @ 1..) = usize::try_from(entry.result()) else { continue };
            read.done_bytes += count.min(read.buf.len() - read.done_bytes);
            if !read.is_whole() {
                self.push(index)?;
            }
        }
    }

    fn take_one(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// Waits until a completion is there, without giving the kernel more. Aborts the process where that cannot be.
    fn wait_for_one(&mut self) {
        loop {
            let flags = EnterFlags::GETEVENTS.bits();
            // SAFETY: no entries are given, and no argument is passed.
            match unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 1, flags, None) } {
                Ok(_) => return,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => std::thread::yield_now(),
                    _ => {
                        tracing::error!(%error, "the kernel has buffers of ours and does not give them back");
                        std::process::abort();
                    }
                },
            }
        }
    }
}

impl Drop for Flight<'_, '_> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.take_one().is_some() {
                self.in_flight -= 1;
            } else {
                self.wait_for_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Write, pipe};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn ring() -> Option<Ring> {
        match Ring::new(4) {
            Ok(ring) => Some(ring),
            Err(error) => {
                eprintln!("SKIPPED: there is no io_uring: {error}");
                None
            }
        }
    }

    fn flight<'r, 'b>(
        ring: &'r mut Ring,
        file: &'r File,
        reads: &'r mut [RingRead<'b>],
        submits: &'r mut u64,
    ) -> Flight<'r, 'b> {
        Flight { ring: &mut ring.ring, file, reads, in_flight: 0, queued: 0, submits }
    }

    #[test]
    fn who_unwinds_waits_for_what_the_kernel_has() {
        let Some(mut ring) = ring() else { return };
        let (reader, mut writer) = pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let mut buf = [0; 100];
        // Nothing is in the pipe: the kernel has the buffer until somebody writes.
        let writing = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            writer.write_all(&[7; 100]).unwrap();
        });
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let mut reads = [RingRead::new(0, &mut buf)];
            let mut submits = 0;
            let mut flight = flight(&mut ring, &file, &mut reads, &mut submits);
            flight.push(0).unwrap();
            flight.enter(0).unwrap();
            assert_eq!(flight.in_flight, 1);
            panic!("in the middle of a batch");
        }));
        assert_eq!(*caught.unwrap_err().downcast_ref::<&str>().unwrap(), "in the middle of a batch");
        assert_eq!(buf, [7; 100], "the buffer was given back before the kernel was done with it");
        writing.join().unwrap();
    }

    #[test]
    fn a_ring_with_entries_left_in_it_is_not_used_again() {
        let Some(mut ring) = ring() else { return };
        let (reader, _writer) = pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let caught = catch_unwind(AssertUnwindSafe(|| {
            ring.is_clean = false;
            let (mut buf, mut submits) = ([0; 10], 0);
            let mut reads = [RingRead::new(0, &mut buf)];
            flight(&mut ring, &file, &mut reads, &mut submits).push(0).unwrap();
            panic!("before it was submitted");
        }));
        caught.unwrap_err();
        let (mut buf, mut submits) = ([0; 10], 0);
        let mut reads = [RingRead::new(0, &mut buf)];
        ring.read(&file, 4, &mut reads, &mut submits).unwrap_err();
        assert_eq!(submits, 0);
    }

    #[test]
    fn what_is_left_of_a_short_read_is_read() {
        let Some(mut ring) = ring() else { return };
        let (reader, mut writer) = pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let writing = thread::spawn(move || {
            for byte in 1..=5 {
                writer.write_all(&[byte; 20]).unwrap();
                thread::sleep(Duration::from_millis(10));
            }
        });
        let (mut buf, mut submits) = ([0; 100], 0);
        let mut reads = [RingRead::new(0, &mut buf)];
        ring.read(&file, 4, &mut reads, &mut submits).unwrap();
        assert!(reads[0].is_whole());
        writing.join().unwrap();
        assert!(buf.chunks(20).zip(1..).all(|(chunk, byte)| chunk == [byte; 20]));
    }
}
