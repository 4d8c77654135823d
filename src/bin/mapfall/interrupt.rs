//! Ctrl-C (and SIGTERM, SIGHUP): a flag that the work looks at, so that it ends in order and temporary files go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::console;
use crate::fail::Failure;

/// A flag that is set when the user wants the program to end.
pub(crate) fn flag() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    ctrlc::set_handler(move || {
        if !seen.swap(true, Relaxed) {
            console::say("interrupted: ending here");
        }
    })
    .map_err(|error| Failure::while_running(format!("cannot install a handler for Ctrl-C: {error}")))?;
    Ok(flag)
}
