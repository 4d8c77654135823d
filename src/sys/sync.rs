//! Locks and atomics: the usual ones, but in builds that check models of them.
//!
//! Those have `--cfg mapfall_model`. In the library, every operation is a place where the scheduler of `shuttle` may go
//! on with another thread, so that `tests/cache_model.rs` can run the cache's own code under thousands of schedules
//! that it chooses. All atomics are sequentially consistent then: what weaker orderings allow is not seen.
//!
//! In its unit tests they are those of `loom`, which goes through the executions that the orderings allow one by one,
//! old values included. The models are the modules called `model`; `sync/mutants.rs` shows that they find what they are
//! for.

#[cfg(not(mapfall_model))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence};

#[cfg(not(mapfall_model))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(mapfall_model)]
mod locks;
#[cfg(all(mapfall_model, not(test)))]
#[path = "sync/shuttle.rs"]
mod sequential;
#[cfg(all(test, mapfall_model))]
#[path = "sync/loom.rs"]
mod weak;

#[cfg(mapfall_model)]
pub(crate) use locks::{Condvar, Mutex, MutexGuard};
#[cfg(all(mapfall_model, not(test)))]
pub(crate) use sequential::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence, step};
#[cfg(all(test, mapfall_model))]
pub(crate) use weak::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, fence};

#[cfg(all(test, mapfall_model))]
pub(crate) mod explore;
#[cfg(all(test, mapfall_model))]
mod mutants;
