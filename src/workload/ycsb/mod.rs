//! The driver behind `mapfall ycsb`: YCSB's core workloads, done to a store or to the bare I/O layer, and measured.
//!
//! | file | what it has |
//! |---|---|
//! | `properties`, `names`, `workload`, `settings` | what is asked for: YCSB's properties, each obeyed or refused |
//! | `record` | what is in a record, and what its key looks like |
//! | `zipf`, `chooser` | which record an operation is about |
//! | `index`, `table`, `target` | records in the pages of a store, or in a file |
//! | `session`, `schedule`, `phase` | the operations of a thread, when they begin, and all threads together |
//! | `measure`, `resources`, `outcome`, `hlog` | what is measured, and what came of it |
//! | `recording` | operations in a file, to be done again |
//! | `configuration`, `statistics` | what is compared, and what rounds say about it |
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("store");
//! use std::sync::atomic::AtomicBool;
//!
//! use mapfall::Store;
//! use mapfall::workload::ycsb::{PhaseConfig, PhaseKind, Properties, Table, Target, Workload, run_phase};
//!
//! let mut properties = Properties::new();
//! for pair in ["recordcount=1000", "operationcount=5000", "requestdistribution=zipfian"] {
//!     properties.set_pair(pair)?;
//! }
//! let workload = Workload::resolve(&properties)?;
//! let store = Store::options().page_bytes(workload.layout.page_bytes()).create(&path)?;
//! let target = Target::Table(Box::new(Table::create(store, workload.layout.clone())?));
//! let stop = AtomicBool::new(false);
//! let load = PhaseConfig::new(PhaseKind::Load);
//! assert_eq!(run_phase(&target, &workload, &load, &stop, &mut |_| {})?.records_after, 1000);
//! let run = PhaseConfig::new(PhaseKind::Run);
//! let outcome = run_phase(&target, &workload, &run, &stop, &mut |_| {})?;
//! assert_eq!((outcome.operations, outcome.failed), (5000, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chooser;
mod configuration;
mod error;
mod hlog;
mod index;
mod measure;
mod names;
mod outcome;
mod phase;
mod properties;
mod record;
mod recording;
mod resources;
mod schedule;
mod session;
mod settings;
pub mod statistics;
mod table;
mod target;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests;
mod workload;
mod zipf;

pub use chooser::{Chooser, Inserts, Mix, Shared};
pub use configuration::{Configuration, PageCache};
pub use error::{Result, YcsbError};
pub use hlog::LogFiles;
pub use outcome::{
    CacheFigures, CheckpointFigures, IndexFigures, Interval, IntervalSeries, IoFigures, Latency, PhaseOutcome,
    SeriesFigures,
};
pub use phase::{CheckpointEvery, PhaseConfig, PhaseKind, Status, run_phase};
pub use properties::Properties;
pub use record::{Key, Layout, fnv_hash};
pub use recording::Recording;
pub use resources::Resources;
pub use session::Request;
pub use settings::{Exporter, Settings, Shown, THREADS_MAX};
pub use table::{Table, describe};
pub use target::{Bare, Target};
pub use workload::{Distribution, Operation, ScanLength, Workload};
pub use zipf::{Ranks, zeta};
