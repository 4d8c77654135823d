#![doc = include_str!("../README.md")]
//!
//! # The fault handler
//!
//! The first map that is opened installs a handler for `SIGBUS` and `SIGSEGV`, once for the process, and never takes it
//! away. It acts on a fault only if the program counter is in this crate's copy routine, the fault address is in the
//! mapped bytes that the routine was told to copy, and the signal is a synchronous one from the kernel. Then the
//! routine returns early, the read is done again by `pread(2)`, and that tells what is true: data, end of file, or an
//! error. Every other signal goes to the handler that was there before, with its own flags and mask; where there was
//! none, the process dies of the signal as it would have.
//!
//! - To keep it out of a process, decline it: [`IoOptions::fault_handler`]. Files are then served by `pread(2)`.
//! - A handler that someone installs over ours later is noticed (every few thousand reads of a thread, and whenever a
//!   fault is recovered): the maps then step down to `pread(2)` until ours is back on top. Up to that moment a fault
//!   goes to their handler first; if it does not pass it on, the process dies as it would with any map.
//! - In a thread that blocks `SIGBUS` the kernel lets no handler have a fault, and ends the process. Reads of such a
//!   thread go by `pread(2)`, and none of them faults. A thread's mask is looked at before its first read through a map
//!   and every few thousand reads: block the signal before you read, not between two reads, or the process may die.
//! - To have a handler of your own beside ours, install it *before* the first map is opened. It is chained to.
//!
//! # Out of memory
//!
//! Where the system refuses address space for a map, the file is served by `pread(2)`; for the page table of a store,
//! the call fails with [`Error::OutOfMemory`]; for a cache, it is not made or does not grow. What a file claims of its
//! sizes is not asked for. Any other allocation that fails ends the process (`SIGABRT`), as Rust's do: nothing that was
//! acknowledged is lost by that.
//!
//! # Platforms
//!
//! Linux on x86-64 and aarch64 has the map. On other processors Linux builds serve every file by `pread(2)`.

mod cache;
#[cfg(mapfall_canary)]
mod canary;
mod checksum;
mod error;
mod extent;
mod format;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub mod io;
mod map_options;
mod options;
pub mod residency;
mod stats;
mod store;
mod sys;
mod tree;
#[cfg(feature = "workload")]
pub mod workload;

pub use cache::{BlockCache, CacheKey, CacheOptions, CachePolicy, CacheRead, CacheStats, CachedBlock};
pub use checksum::ChecksumKind;
pub use error::{Error, FileKind, Operation, Part, Result};
pub use extent::Fit;
pub use format::{BlockAddr, PACKED_BYTES_MAX};
pub use io::{AccessHint, AutoFile, BatchRead, BlockIo, DirectFile, MmapFile, PreadFile, SyncKind, UringFile};
pub use map_options::{Advice, HugePages};
pub use options::{IoMode, IoOptions};
pub use stats::{
    AutoRegions, AutoStats, DirectStats, FallbackReason, Fallbacks, IoStats, MapStats, PathStats, RegionState,
    RingStats,
};
pub use store::{
    Blocks, BypassStats, CacheBypass, CacheWrites, CheckpointInfo, CheckpointOptions, CheckpointReport,
    CompactProgress, Compaction, HeaderCopy, Layout, PageId, PageRead, Pages, PendingCheckpoint, Problem, ProblemKind,
    SalvageReport, Snapshot, Store, StoreCache, StoreCacheStats, StoreInfo, StoreOptions, StoreStats, TreeInfo,
    Verification, VerifyOptions, VerifyReport,
};
