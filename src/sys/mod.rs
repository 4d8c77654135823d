//! All of the library's unsafe code.
//!
//! | file | what is unsafe in it | what makes it sound |
//! |---|---|---|
//! | `copy/` | a copy whose source may trap, in assembly on addresses | `window` keeps source and destination valid |
//! | `fault` | a signal handler that moves the program counter | it acts only inside the copy routine |
//! | `frames` | a cache's blocks, borrowed, or copied while they change | a claim on each unit, a second look |
//! | `lock` | `fcntl` with a lock structure | the kernel reads and writes only the one it is passed |
//! | `mapping` | `mmap`, `munmap`, `madvise` on ranges that we own | nobody outside gets a pointer into a range |
//! | `pool` | borrowed work, done by threads that outlive the borrow | the borrow waits for them |
//! | `process` | what a child does between `fork` and `exec` | one `write(2)` on an open descriptor, nothing else |
//! | `racing` | copies of bytes that may change meanwhile | assembly on addresses, or atomics |
//! | `residency` | `cachestat`, `mincore` | the kernel writes only into buffers of the right size |
//! | `ring` | buffers that the kernel writes to after a call | the call does not end before the kernel has |
//! | `shared` | words in a mapping that other processes have | it is sealed, and lends nothing but `&[AtomicU64]` |
//! | `zeroed` | anonymous memory, used as pairs of atomics | it owns the range, and lends nothing but `&` |

pub(crate) mod copy;
pub(crate) mod fault;
pub(crate) mod frames;
pub(crate) mod lock;
pub(crate) mod mapping;
pub(crate) mod pool;
pub(crate) mod process;
#[cfg(not(all(test, mapfall_model)))]
mod racing;
pub(crate) mod residency;
pub(crate) mod ring;
#[cfg(feature = "workload")]
pub(crate) mod shared;
pub(crate) mod sync;
pub(crate) mod window;
pub(crate) mod zeroed;

/// Whether this build can recover from a fault in a copy.
pub(crate) const CAN_RECOVER: bool = copy::CAN_RECOVER;
