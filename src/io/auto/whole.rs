//! Regions that are read whole: ahead of scans, since their reads cost too much, or since that has paid lately.

use std::sync::atomic::Ordering::Relaxed;

use super::core::{Core, running_mean};
use super::loader::{self, Work};
use super::regions::{State, bytes_of};
use crate::io::BlockIo;

/// What is in the page cache of a region that is to be read whole is dropped first if it is less than this part of it:
/// then all of it can be one folio of 2 MiB.
const DROP_PART: u64 = 4;

impl Core {
    /// Has a region read whole by another thread. False if that cannot be.
    pub(super) fn queue(&self, region: u64, is_ahead: bool) -> bool {
        let state = self.regions.state(region);
        if !matches!(state, State::Cold | State::Unknown) || !self.regions.change(region, state, State::Queued) {
            return matches!(state, State::Queued | State::Loading);
        }
        let work = if is_ahead { Work::Ahead(region) } else { Work::Region(region) };
        if loader::submit(&self.itself, work) {
            return true;
        }
        self.regions.change(region, State::Queued, state);
        false
    }

    /// Reads a region whole, if it is in this state still, and says whether the map serves it now.
    fn load(&self, region: u64, from: State) -> bool {
        if !self.regions.change(region, from, State::Loading) {
            return self.regions.state(region).is_served();
        }
        let is_loaded = self.try_load(region);
        if is_loaded {
            self.regions.set_loaded(region);
        } else {
            self.regions.fail(region);
        }
        is_loaded
    }

    /// As [`Core::load`], of a region that is taken to be read much more, since it was.
    pub(super) fn load_for_reads(&self, region: u64, from: State) -> bool {
        let is_loaded = self.load(region, from);
        if is_loaded {
            self.bets.placed(region);
        }
        is_loaded
    }

    /// Reads a cold region whole at its first read, of so many bytes, if that has paid lately. Says whether the map
    /// serves it now.
    pub(super) fn load_at_once(&self, region: u64, len: usize) -> bool {
        if !self.judge.may_load()
            || self.skew.is_high(len)
            || self.regions.is_put_off(region)
            || !self.bets.are_good(|region| self.regions.is_used(region))
        {
            return false;
        }
        let is_loaded = self.load_for_reads(region, State::Cold);
        self.counters.loads_at_once.add(u64::from(is_loaded));
        is_loaded
    }

    /// Brings a region into the page cache, in 2 MiB pages if that can be.
    fn try_load(&self, region: u64) -> bool {
        let Some((cached, wanted)) = self.cached_of(region, 1) else { return false };
        if cached >= wanted {
            return true;
        }
        if cached > 0 && cached < wanted / DROP_PART {
            self.drop_region(region);
        }
        let bytes = bytes_of(region);
        let end = bytes.end.min(self.map.pread.len().unwrap_or(0));
        if end <= bytes.start {
            // It was cut off just now.
            return false;
        }
        let began_ns = self.now_ns();
        let loading = self.loading.fetch_add(1, Relaxed) + 1;
        let loaded = self.loads.load(self.file(), bytes.start..end);
        self.loading.fetch_sub(1, Relaxed);
        let took_ns = self.now_ns() - began_ns;
        match loaded {
            Ok(()) => {
                // Those that are under way together share the device.
                let own_ns = took_ns / u64::from(loading);
                self.load_ns.store(running_mean(self.load_ns.load(Relaxed), own_ns), Relaxed);
                self.counters.loads.add(1);
                self.counters.load_bytes.add(end - bytes.start);
                self.counters.load_ns.add(took_ns);
                // While much is read whole, what there is to know of its use is soon out of date.
                self.judge.hasten();
                true
            }
            Err(error) => {
                tracing::debug!(region, %error, "a region could not be read whole");
                self.counters.load_failures.add(1);
                false
            }
        }
    }

    /// What a thread does for this file.
    pub(super) fn work(&self, work: Work) {
        match work {
            Work::Region(region) => {
                if self.judge.may_load() {
                    self.load_for_reads(region, State::Queued);
                } else if self.regions.change(region, State::Queued, State::Cold) {
                    self.regions.put_off(region);
                }
            }
            Work::Ahead(region) => {
                if self.load(region, State::Queued) {
                    self.regions.change(region, State::Mapped, State::Ahead);
                }
            }
        }
    }

    /// Nothing happens to the file in the background any more when this returns.
    pub(super) fn close(&self) {
        loader::withdraw(&self.itself);
    }

    /// What to read a region whole costs.
    pub(super) fn load_ns(&self) -> u64 {
        self.load_ns.load(Relaxed)
    }
}
