//! Where threads wait for each other: all of them come, then all go on at once, or none does.

use parking_lot::{Condvar, Mutex};

/// A gate for one use.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    arrived: usize,
    is_open: bool,
    is_cancelled: bool,
}

impl Gate {
    /// Arrives, and waits. Says whether to go on.
    pub(super) fn pass(&self) -> bool {
        let mut state = self.state.lock();
        state.arrived += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| !state.is_open && !state.is_cancelled);
        state.is_open
    }

    /// Waits until so many have arrived.
    pub(super) fn wait_for(&self, count: usize) {
        self.changed.wait_while(&mut self.state.lock(), |state| state.arrived < count);
    }

    /// Lets all go on.
    pub(super) fn open(&self) {
        self.state.lock().is_open = true;
        self.changed.notify_all();
    }

    /// Sends all away, those too that come later.
    pub(super) fn cancel(&self) {
        self.state.lock().is_cancelled = true;
        self.changed.notify_all();
    }
}
