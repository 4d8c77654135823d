//! Who runs next: real threads, of which only the one that has the baton runs.
//!
//! A client hands the baton on inside of calls of the file at which the store holds no lock (writes, syncs, and the
//! reads of what only reads), so whoever gets it never waits for a lock of one that does not have it. The next one is
//! drawn by a seed. So the same seed gives the same interleaving, call by call.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

thread_local! {
    /// The client that this thread is, if it is one.
    static CLIENT: Cell<Option<usize>> = const { Cell::new(None) };
    /// Whether what it does only reads, and so reads without a lock.
    static ONLY_READS: Cell<bool> = const { Cell::new(false) };
}

/// The client that calls.
pub(super) fn client() -> Option<usize> {
    CLIENT.get()
}

/// Whether the caller may hand the baton on in reads.
pub(super) fn only_reads() -> bool {
    ONLY_READS.get()
}

/// Does something that only reads.
pub(super) fn reading<T>(work: impl FnOnce() -> T) -> T {
    ONLY_READS.set(true);
    let result = work();
    ONLY_READS.set(false);
    result
}

#[derive(Debug)]
struct Turn {
    rng: SmallRng,
    holder: usize,
    alive: Vec<bool>,
}

#[derive(Debug)]
pub(super) struct Baton {
    turn: Mutex<Turn>,
    wake: Vec<Condvar>,
}

impl Baton {
    pub(super) fn new(clients: usize, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let holder = rng.random_range(0..clients);
        Baton {
            turn: Mutex::new(Turn { rng, holder, alive: vec![true; clients] }),
            wake: (0..clients).map(|_| Condvar::new()).collect(),
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        // Nothing is half done under this lock.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for<'a>(&'a self, mut turn: MutexGuard<'a, Turn>, me: usize) {
        while turn.holder != me {
            turn = self.wake[me].wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The life of a client: waits for its first turn, and leaves the baton to others in the end, in a panic too.
    pub(super) fn run<T>(&self, me: usize, work: impl FnOnce() -> T) -> T {
        CLIENT.set(Some(me));
        self.wait_for(self.turn(), me);
        let _leave = Leave { baton: self, me };
        work()
    }

    /// Hands it on, perhaps, and comes back with it.
    pub(super) fn pass(&self, me: usize) {
        if self.wake.len() == 1 {
            return;
        }
        let mut turn = self.turn();
        if turn.rng.random_range(0..2) == 0 {
            self.hand_on(&mut turn);
            self.wait_for(turn, me);
        }
    }

    fn hand_on(&self, turn: &mut Turn) {
        let alive: Vec<_> = (0..turn.alive.len()).filter(|client| turn.alive[*client]).collect();
        if !alive.is_empty() {
            turn.holder = alive[turn.rng.random_range(0..alive.len())];
            self.wake[turn.holder].notify_one();
        }
    }
}

struct Leave<'a> {
    baton: &'a Baton,
    me: usize,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        ONLY_READS.set(false);
        CLIENT.set(None);
        let mut turn = self.baton.turn();
        turn.alive[self.me] = false;
        self.baton.hand_on(&mut turn);
    }
}
