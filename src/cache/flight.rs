//! Loads under way, so that a block that many threads miss is loaded once.

use std::sync::Arc;

use crate::error::Error;
use crate::sys::frames::Key;

/// How a load ended, for those who waited for it.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// Look again. If the block is not there, it had no room, was freed meanwhile, or the loader panicked.
    Look,
    Failed(Arc<Error>),
}

#[derive(Debug)]
struct Flight {
    id: u64,
    key: Key,
    waiters: u32,
    /// The block was freed meanwhile. It must not come into the cache.
    cancelled: bool,
    landing: Option<Landing>,
}

/// The loads of a shard.
#[derive(Debug, Default)]
pub(super) struct Flights {
    list: Vec<Flight>,
    last_id: u64,
}

impl Flights {
    pub(super) fn begin(&mut self, key: Key) -> u64 {
        self.last_id += 1;
        self.list.push(Flight { id: self.last_id, key, waiters: 0, cancelled: false, landing: None });
        self.last_id
    }

    /// Waits for a load of this block, if there is one that will bring it: its number.
    pub(super) fn join(&mut self, key: &Key) -> Option<u64> {
        let joins = |flight: &&mut Flight| flight.key == *key && flight.landing.is_none() && !flight.cancelled;
        let flight = self.list.iter_mut().find(joins)?;
        flight.waiters += 1;
        Some(flight.id)
    }

    /// How it ended, for one who waits. Nothing before it has.
    pub(super) fn landing(&mut self, id: u64) -> Option<Landing> {
        let place = self.list.iter().position(|flight| flight.id == id)?;
        let flight = &mut self.list[place];
        let landing = flight.landing.clone()?;
        flight.waiters -= 1;
        if flight.waiters == 0 {
            self.list.swap_remove(place);
        }
        Some(landing)
    }

    pub(super) fn is_cancelled(&self, id: u64) -> bool {
        self.list.iter().any(|flight| flight.id == id && flight.cancelled)
    }

    /// Says whether there was one.
    pub(super) fn cancel(&mut self, which: impl Fn(&Key) -> bool) -> bool {
        let mut any = false;
        for flight in self.list.iter_mut().filter(|flight| which(&flight.key)) {
            flight.cancelled = true;
            any = true;
        }
        any
    }

    /// Ends a load. Says whether someone waits for it.
    pub(super) fn end(&mut self, id: u64, landing: impl FnOnce() -> Landing) -> bool {
        let Some(place) = self.list.iter().position(|flight| flight.id == id) else { return false };
        if self.list[place].waiters == 0 {
            self.list.swap_remove(place);
            return false;
        }
        self.list[place].landing = Some(landing());
        true
    }
}
