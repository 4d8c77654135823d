//! Runs a model.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Runs this in every execution that the orderings allow, with at most so many places where a thread that could go on
/// is made to wait, and says how many there were.
pub(crate) fn explore(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&executions);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.max_branches = 10_000;
    model.check(move || {
        counter.fetch_add(1, Relaxed);
        run();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    _ = writeln!(
        std::io::stdout(),
        "{name}: {} executions, at most {preemptions} preemptions",
        executions.load(Relaxed)
    );
    assert!(executions.load(Relaxed) > 1, "nothing to choose from");
}
