//! Ctrl-C (and SIGTERM, SIGHUP): a flag that the work looks at, so that it ends in order and temporary files go.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::console;
use crate::fail::Failure;

/// A flag that is set when the user wants the program to end, and a word of it.
pub(crate) fn flag() -> Result<Arc<AtomicBool>, Failure> {
    flag_and(|| console::say("interrupted: ending here"))
}

/// The same, without a word: for a process beside another one that says it.
pub(crate) fn silent_flag() -> Result<Arc<AtomicBool>, Failure> {
    flag_and(|| {})
}

/// `first` is done when the flag is set, and not again.
fn flag_and(first: impl Fn() + Send + 'static) -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    ctrlc::set_handler(move || {
        if !seen.swap(true, Relaxed) {
            first();
        }
    })
    .map_err(|error| Failure::while_running(format!("cannot install a handler for Ctrl-C: {error}")))?;
    Ok(flag)
}

/// Does work that looks at no flag in a thread of its own, and leaves it behind when the user wants the program to end.
/// So it must leave nothing half done: it only reads, or writes what its caller removes.
pub(crate) fn unless_interrupted<T: Send + 'static>(
    stop: &AtomicBool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let (sender, receiver) = mpsc::channel();
    // Nobody listens after an interruption.
    std::thread::Builder::new()
        .spawn(move || drop(sender.send(work())))
        .map_err(|error| Failure::while_running(format!("cannot start a thread: {error}")))?;
    loop {
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok(result) => return Ok(result),
            Err(mpsc::RecvTimeoutError::Timeout) if stop.load(Relaxed) => return Err(Failure::interrupted()),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Failure::while_running("the work's thread died")),
        }
    }
}
