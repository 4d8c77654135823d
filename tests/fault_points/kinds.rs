//! Which system calls are made to fail, and how; and which are not, and why.

use std::ops::Range;

use libc::c_long;

use crate::tracer::{Action, Call};

/// What must come of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// An error that has the system's number, or nothing that a caller notices.
    Error,
    /// Nothing that a caller notices.
    Survives,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Errno(i32),
    /// The call does half of what it is told to.
    Short,
}

/// How a call fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    what: What,
    pub(crate) then: Then,
}

const fn errno(errno: i32) -> Fault {
    Fault { what: What::Errno(errno), then: Then::Error }
}

const fn survives(errno: i32) -> Fault {
    Fault { what: What::Errno(errno), then: Then::Survives }
}

const SECTOR_BYTES: u64 = 512;
const SHORT: Fault = Fault { what: What::Short, then: Then::Survives };

impl Fault {
    pub(crate) fn errno(&self) -> i32 {
        match self.what {
            What::Errno(errno) => errno,
            What::Short => 0,
        }
    }

    pub(crate) fn action(&self, call: &Call) -> Action {
        match self.what {
            What::Errno(errno) => Action::Fail(errno),
            // The third argument is a length, or a number of lengths. Direct I/O is cut short between sectors.
            What::Short => match call.arguments[2] {
                bytes if bytes.is_multiple_of(SECTOR_BYTES) => {
                    Action::Argument(2, (bytes / 2).next_multiple_of(SECTOR_BYTES))
                }
                bytes => Action::Argument(2, bytes.div_ceil(2)),
            },
        }
    }
}

/// Calls that fail alike.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) calls: &'static [c_long],
    pub(crate) faults: &'static [Fault],
    /// What the call was to give back stays: nothing can be done about it.
    pub(crate) may_leave: bool,
}

const fn kind(name: &'static str, calls: &'static [c_long], faults: &'static [Fault]) -> Kind {
    Kind { name, calls, faults, may_leave: false }
}

/// So many of the kinds are on files; the others come after them.
pub(crate) const ON_FILES: usize = 7;

pub(crate) const KINDS: &[Kind] = &[
    kind(
        "open",
        &[libc::SYS_openat, libc::SYS_open],
        &[errno(libc::EMFILE), errno(libc::EACCES), survives(libc::EINTR)],
    ),
    kind(
        "read",
        &[libc::SYS_pread64, libc::SYS_read, libc::SYS_preadv, libc::SYS_preadv2],
        &[errno(libc::EIO), survives(libc::EINTR), SHORT],
    ),
    kind(
        "write",
        &[libc::SYS_pwrite64, libc::SYS_write, libc::SYS_pwritev, libc::SYS_pwritev2],
        &[errno(libc::EIO), errno(libc::ENOSPC), survives(libc::EINTR), SHORT],
    ),
    kind("ftruncate", &[libc::SYS_ftruncate], &[errno(libc::EIO), errno(libc::ENOSPC), survives(libc::EINTR)]),
    kind(
        "fallocate",
        &[libc::SYS_fallocate],
        &[errno(libc::ENOSPC), survives(libc::EOPNOTSUPP), survives(libc::EINTR)],
    ),
    kind("sync", &[libc::SYS_fsync, libc::SYS_fdatasync], &[errno(libc::EIO)]),
    kind(
        "stat",
        &[libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_lseek, libc::SYS_fstatfs],
        &[errno(libc::EIO)],
    ),
    kind("mmap", &[libc::SYS_mmap], &[errno(libc::ENOMEM)]),
    Kind { may_leave: true, ..kind("munmap", &[libc::SYS_munmap], &[errno(libc::ENOMEM)]) },
    kind("madvise", &[libc::SYS_madvise], &[errno(libc::EINVAL), errno(libc::ENOMEM)]),
    kind("fcntl", &[libc::SYS_fcntl], &[errno(libc::ENOLCK), errno(libc::EAGAIN)]),
    kind("fadvise", &[libc::SYS_fadvise64], &[errno(libc::EIO)]),
    kind("io_uring_setup", &[libc::SYS_io_uring_setup], &[survives(libc::ENOMEM), survives(libc::EPERM)]),
    kind(
        "io_uring_enter",
        &[libc::SYS_io_uring_enter],
        &[errno(libc::ENOMEM), survives(libc::EINTR), survives(libc::EAGAIN)],
    ),
    kind("residency", &[SYS_CACHESTAT, libc::SYS_mincore], &[survives(libc::ENOSYS)]),
    kind("clone", &[libc::SYS_clone3, libc::SYS_clone], &[survives(libc::EAGAIN)]),
    kind("rt_sigaction", &[libc::SYS_rt_sigaction], &[survives(libc::EINVAL)]),
    kind("unlink", &[libc::SYS_unlink, libc::SYS_unlinkat, libc::SYS_rename, libc::SYS_renameat2], &[errno(libc::EIO)]),
    kind("processors", &[libc::SYS_sched_getaffinity], &[survives(libc::EINVAL)]),
];

const SYS_CACHESTAT: c_long = 451;

/// Kinds of calls that only a slow device brings about: threads that read regions whole for `auto`.
pub(crate) const BY_CHANCE: [&str; 2] = ["clone", "processors"];

/// Calls that are not made to fail, with the reason.
pub(crate) const EXEMPT: [(c_long, &str); 14] = [
    (libc::SYS_getpid, "it cannot fail"),
    (libc::SYS_gettid, "it cannot fail"),
    (libc::SYS_prlimit64, "it does not fail for a limit of the process itself"),
    (libc::SYS_sigaltstack, "the standard library's, at the start of a thread"),
    (libc::SYS_set_robust_list, "the C library's, at the start of a thread"),
    (libc::SYS_rseq, "the C library's, at the start of a thread"),
    (libc::SYS_futex, "locks: it fails only as a spurious wake-up does"),
    (libc::SYS_clock_gettime, "it does not fail for the clocks that there are"),
    (libc::SYS_exit, "it does not return"),
    (libc::SYS_exit_group, "it does not return"),
    (libc::SYS_rt_sigreturn, "it does not return"),
    (libc::SYS_brk, "the heap: see tests/allocations.rs"),
    (libc::SYS_close, "the descriptor is gone whatever it returns"),
    (libc::SYS_rt_sigprocmask, "the C library's, around the start of a thread; it does not fail for valid arguments"),
];

/// The C library's own: its heap, and the stacks of threads.
pub(crate) fn is_of_the_heap(call: &Call, libc: &[Range<u64>]) -> bool {
    let calls = [libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_madvise];
    calls.contains(&call.number) && libc.iter().any(|code| code.contains(&call.at))
}

impl Kind {
    pub(crate) fn has(&self, call: &Call, libc: &[Range<u64>]) -> bool {
        self.calls.contains(&call.number) && !is_of_the_heap(call, libc)
    }

    /// Whether it was one of the errors of this kind that do not have the system's number.
    pub(crate) fn other_errors(&self, told: &str) -> bool {
        let words: &[&str] = match self.name {
            // POSIX has EAGAIN for a lock that another process has. And O_DIRECT is set by fcntl(2).
            "fcntl" => &["is open for writing elsewhere", "no direct I/O for"],
            "mmap" => &["no memory for", "expected address space that the system gives"],
            // What could not be read is told by a report, and the rest goes on.
            "read" => &["report is not", "salvaged is not"],
            _ => &[],
        };
        words.iter().any(|words| told.contains(words))
    }
}
