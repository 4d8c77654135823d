//! Reads of one file done many at a time, through a ring of the calling thread's own (`io_uring(7)`).
//!
//! A thread has at most one ring, whatever the number of files: it is made at the thread's first batch and ends with
//! the thread. So nobody waits for anybody, and there are never more rings than [`RINGS_MAX`]. Files are not registered
//! with a ring: it would keep a file open, its locks and its space too, until the thread comes back to take it out.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[cfg_attr(
    not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "loongarch64",
        target_arch = "powerpc64"
    )),
    path = "ring/none.rs"
)]
mod uring;

/// The reads that one thread can have under way.
pub(crate) const DEPTH_MAX: u32 = 1024;
/// The rings of a process.
const RINGS_MAX: u32 = 256;
/// Batches of a thread between two tries to get a ring: at first, and at most.
const WAIT_BATCHES: (u32, u32) = (16, 1024);

/// The rings that there are. Relaxed: it orders nothing.
static RINGS: AtomicU32 = AtomicU32::new(0);

/// One read.
#[derive(Debug)]
pub(crate) struct RingRead<'a> {
    /// Where to read. With the buffer's length no more than `i64::MAX`.
    pub(crate) offset: u64,
    pub(crate) buf: &'a mut [u8],
    /// How much of the buffer is wanted: all of it, or less where only whole blocks can be read.
    pub(crate) needed_bytes: usize,
    /// How much of it has been filled.
    pub(crate) done_bytes: usize,
}

impl<'a> RingRead<'a> {
    pub(crate) fn new(offset: u64, buf: &'a mut [u8]) -> Self {
        let needed_bytes = buf.len();
        RingRead { offset, buf, needed_bytes, done_bytes: 0 }
    }

    /// Whether it has got what is wanted. If not, after a batch, ask in another way why.
    pub(crate) fn is_whole(&self) -> bool {
        self.done_bytes >= self.needed_bytes
    }
}

/// What a batch took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RingWork {
    /// Calls of `io_uring_enter(2)`.
    pub(crate) submits: u64,
    /// Whether a ring was made for it.
    pub(crate) made_ring: bool,
}

/// A ring, counted.
#[derive(Debug)]
struct Ring {
    ring: uring::Ring,
    depth: u32,
    /// The process that made it. A child of it has the descriptor, but not the memory.
    process: u32,
}

impl Ring {
    fn new(depth: u32) -> io::Result<Self> {
        if RINGS.fetch_add(1, Relaxed) >= RINGS_MAX {
            RINGS.fetch_sub(1, Relaxed);
            return Err(io::Error::other(format!("the process has {RINGS_MAX} rings already")));
        }
        match uring::Ring::new(depth) {
            Ok(ring) => Ok(Ring { ring, depth, process: process::id() }),
            Err(error) => {
                RINGS.fetch_sub(1, Relaxed);
                Err(error)
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        RINGS.fetch_sub(1, Relaxed);
    }
}

/// What a thread has.
#[derive(Debug, Default)]
struct Own {
    ring: Option<Ring>,
    /// Why there is none.
    refusal: Option<String>,
    /// Batches to let pass before the next try, and how many that were when it began.
    left: u32,
    wait: u32,
}

thread_local! {
    static OWN: RefCell<Own> = RefCell::default();
}

impl Own {
    /// The thread's ring, for so many reads at a time, and whether it is new.
    fn ring(&mut self, depth: u32) -> io::Result<(&mut Ring, bool)> {
        if self.ring.as_ref().is_some_and(|ring| ring.process != process::id()) {
            // It is the parent's. Its memory is not here, and what is at that address now is not ours to unmap.
            std::mem::forget(self.ring.take());
            RINGS.store(0, Relaxed);
        }
        if self.ring.as_ref().is_some_and(|ring| ring.depth < depth) {
            self.ring = None;
        }
        let is_new = self.ring.is_none();
        if is_new {
            if self.left > 0 {
                self.left -= 1;
                return Err(io::Error::other(self.refusal.clone().unwrap_or_default()));
            }
            match Ring::new(depth) {
                Ok(ring) => *self = Own { ring: Some(ring), ..Own::default() },
                Err(error) => {
                    self.wait = self.wait.saturating_mul(2).clamp(WAIT_BATCHES.0, WAIT_BATCHES.1);
                    self.left = self.wait;
                    self.refusal = Some(error.to_string());
                    return Err(error);
                }
            }
        }
        match &mut self.ring {
            Some(ring) => Ok((ring, is_new)),
            None => Err(io::Error::other("no ring")),
        }
    }
}

/// Does the reads, at most `depth` (1 to [`DEPTH_MAX`]) at a time, in any order.
///
/// When it returns or unwinds, the kernel has none of the buffers any more; where that cannot be, the process is
/// aborted. Some reads may not be whole then: at the end of the file, after an error.
///
/// # Errors
///
/// There is no ring to be had. Nothing was read.
pub(crate) fn read(file: &File, depth: u32, reads: &mut [RingRead<'_>]) -> io::Result<RingWork> {
    let refused = |why: &str| io::Error::other(why.to_owned());
    OWN.try_with(|own| {
        let mut own = own.try_borrow_mut().map_err(|_| refused("the thread's ring is in use"))?;
        let (ring, made_ring) = own.ring(depth.clamp(1, DEPTH_MAX))?;
        let mut work = RingWork { submits: 0, made_ring };
        let outcome = ring.ring.read(file, depth.max(1) as usize, reads, &mut work.submits);
        if let Err(error) = outcome {
            tracing::warn!(%error, "a ring failed: the rest of its batch is read without it");
            own.ring = None;
        }
        Ok(work)
    })
    .unwrap_or_else(|_| Err(refused("the thread is ending")))
}
