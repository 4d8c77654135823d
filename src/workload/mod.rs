//! The measuring code behind `mapfall grid` and the benches: passes over a file by several paths, under equal terms;
//! the simulation behind `mapfall cache-sim` ([`cache_sim`] over a [`trace`]); the driver behind `mapfall ycsb`
//! ([`ycsb`]); and the attacks behind `mapfall torture` ([`torture`]).
//!
//! The parts, each usable alone: a file of incompressible [`content`], [`pattern`]s of offsets made before the clock
//! starts, [`contender`]s (the paths that are compared), one timed [`pass`], the state of the page cache before it
//! ([`cache_state`]), less memory than the machine has ([`memory_limit`]), and the [`grid`] that interleaves passes
//! round by round and sums them up in an [`outcome`].
//! Nothing here prints.

mod bare;
pub mod cache_sim;
pub mod cache_state;
pub mod contender;
pub mod content;
pub mod duration;
mod error;
pub mod grid;
pub mod machine;
pub mod memory_limit;
pub mod outcome;
pub mod pass;
pub mod pattern;
mod private_file;
pub mod size;
pub mod summary;
pub mod torture;
pub mod trace;
pub mod usage;
pub mod ycsb;

pub use bare::BareMap;
pub use error::{Error, Result};
