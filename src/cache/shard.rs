//! A part of the cache: lookups without a lock, everything else with it.

use std::sync::Arc;

use super::flight::{Flights, Landing};
use super::index::Index;
use super::policy::CachePolicy;
use super::room::Room;
use super::stats::CacheStats;
use super::{CacheKey, CacheRead};
use crate::error::{Error, Result};
use crate::sys::frames::{Filling, Frames, Key, Pinned, UNIT_BYTES};
use crate::sys::sync::{Condvar, Mutex, MutexGuard};

/// Shorter blocks are copied into the cache while the lock is held, which is less than to take it once more.
const SHORT_BYTES: usize = if cfg!(mapfall_model) { 1 << 10 } else { 16 << 10 };

#[derive(Debug)]
pub(super) struct Shard {
    index: Index,
    frames: Frames,
    hits_max: u8,
    sees_hits: bool,
    inside: Mutex<Inside>,
    /// A load has ended, or a slot is no longer being filled.
    ended: Condvar,
}

#[derive(Debug)]
struct Inside {
    room: Room,
    flights: Flights,
    /// Slots that are being filled without the lock.
    filling: u64,
    /// Blocks that are copied out with a pin, but without the lock.
    copying: u64,
}

/// Ends a load, however it ends.
struct Flight<'a> {
    shard: &'a Shard,
    id: u64,
    ended: bool,
}

impl Flight<'_> {
    fn end(&mut self, inside: &mut Inside, landing: impl FnOnce() -> Landing) {
        self.ended = true;
        if inside.flights.end(self.id, landing) {
            self.shard.ended.notify_all();
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // The loader panicked.
            let mut inside = self.shard.inside.lock();
            self.end(&mut inside, || Landing::Look);
        }
    }
}

/// A slot that is being filled without the lock. What happens to it is settled with the lock, also after a panic.
struct Unlocked<'a> {
    shard: &'a Shard,
    filling: Option<Filling<'a>>,
}

impl<'a> Unlocked<'a> {
    fn new(shard: &'a Shard, inside: &mut Inside, filling: Filling<'a>) -> Self {
        inside.filling += 1;
        Unlocked { shard, filling: Some(filling) }
    }

    fn take(mut self, inside: &mut Inside) -> Option<Filling<'a>> {
        inside.filling -= 1;
        self.shard.ended.notify_all();
        self.filling.take()
    }
}

impl Drop for Unlocked<'_> {
    fn drop(&mut self) {
        if let Some(filling) = self.filling.take() {
            let mut inside = self.shard.inside.lock();
            inside.filling -= 1;
            self.shard.ended.notify_all();
            inside.room.abandon(&self.shard.frames, &self.shard.index, filling);
        }
    }
}

/// What a lookup with the lock came to.
enum Found<'a> {
    Here(Pinned<'a>),
    /// It is ours to load.
    Missing(Flight<'a>),
}

impl Shard {
    /// Nothing where there is no address space.
    pub(super) fn new(policy: CachePolicy, share_bytes: u64, share_max_bytes: u64) -> Option<Self> {
        let units = usize::try_from(share_max_bytes).ok()?.next_multiple_of(2 << 20) / UNIT_BYTES;
        let (frames, index) = (Frames::new(units)?, Index::new()?);
        let mut room = Room::new(policy, &frames, &index, share_bytes)?;
        let (hits_max, sees_hits) = (room.policy().hits_max(), room.policy().sees_hits());
        let inside = Mutex::new(Inside { room, flights: Flights::default(), filling: 0, copying: 0 });
        Some(Shard { index, frames, hits_max, sees_hits, inside, ended: Condvar::new() })
    }

    /// Copies a block out, if it is there.
    #[inline]
    pub(super) fn read(&self, key: &Key, hash: u64, buf: &mut [u8]) -> bool {
        let found = self.index.find(hash, |slot| self.frames.read(slot, key, buf, self.hits_max));
        match found {
            Some(slot) if self.sees_hits => {
                self.hit(slot, key);
                true
            }
            found => found.is_some(),
        }
    }

    /// Keeps a block where it is, if it is there.
    pub(super) fn pin(&self, key: &Key, hash: u64) -> Option<Pinned<'_>> {
        let mut pinned = None;
        let slot = self.index.find(hash, |slot| {
            pinned = self.frames.pin(slot, key);
            pinned.is_some()
        })?;
        if self.sees_hits {
            self.hit(slot, key);
        } else {
            let hits = self.frames.hits(slot);
            if hits < self.hits_max {
                self.frames.set_hits(slot, hits + 1);
            }
        }
        pinned
    }

    /// The slot of a live block. With the lock held this misses none.
    fn slot_of(&self, key: &Key, hash: u64) -> Option<u32> {
        self.index.find(hash, |slot| self.frames.is(slot, key))
    }

    pub(super) fn contains(&self, key: &Key, hash: u64) -> bool {
        let _inside = self.inside.lock();
        self.slot_of(key, hash).is_some()
    }

    pub(super) fn count_miss(&self) {
        self.inside.lock().room.counts.misses += 1;
    }

    pub(super) fn unpin(&self, pinned: Pinned<'_>) {
        let slot = pinned.slot();
        if pinned.unpin() {
            self.inside.lock().room.settle(&self.frames, &self.index, slot);
        }
    }

    #[cold]
    fn hit(&self, slot: u32, key: &Key) {
        let mut inside = self.inside.lock();
        // Blocks come to life and end with the lock held, so this one is in the policy's lists.
        if self.frames.is(slot, key) {
            inside.room.policy().hit(slot);
        }
    }

    /// A block that a lookup without the lock did not find. Waits for a load of it that is under way. Returns with the
    /// lock held.
    fn find(&self, key: &Key, hash: u64, len: usize) -> Result<(MutexGuard<'_, Inside>, Found<'_>, bool)> {
        let mut inside = self.inside.lock();
        let mut joined = false;
        loop {
            if let Some(slot) = self.slot_of(key, hash) {
                match self.frames.pin(slot, key) {
                    Some(pinned) if pinned.len() == len => {
                        if !joined {
                            inside.room.counts.hits += 1;
                        }
                        return Ok((inside, Found::Here(pinned), joined));
                    }
                    Some(pinned) => {
                        // Another length under the same name: whoever asks now is to be believed.
                        inside.room.drop_block(&self.frames, &self.index, slot);
                        let slot = pinned.slot();
                        if pinned.unpin() {
                            inside.room.settle(&self.frames, &self.index, slot);
                        }
                    }
                    // More pins than can be counted: it is loaded once more, and dropped again.
                    None => inside.room.drop_block(&self.frames, &self.index, slot),
                }
            }
            if !joined {
                inside.room.counts.misses += 1;
            }
            let Some(id) = inside.flights.join(key) else {
                let id = inside.flights.begin(*key);
                return Ok((inside, Found::Missing(Flight { shard: self, id, ended: false }), joined));
            };
            if !joined {
                inside.room.counts.joins += 1;
                joined = true;
            }
            loop {
                match inside.flights.landing(id) {
                    None => self.ended.wait(&mut inside),
                    Some(Landing::Look) => break,
                    Some(Landing::Failed(error)) => return Err(error.again()),
                }
            }
        }
    }

    fn failed(&self, mut flight: Flight<'_>, error: Error) -> Error {
        let mut inside = self.inside.lock();
        inside.room.counts.failed_loads += 1;
        flight.end(&mut inside, || Landing::Failed(Arc::new(error.again())));
        error
    }

    /// Fills `buf` with a block that a lookup without the lock did not find.
    #[cold]
    pub(super) fn load(
        &self,
        key: &Key,
        hash: u64,
        buf: &mut [u8],
        load: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<CacheRead> {
        let (mut inside, found, joined) = self.find(key, hash, buf.len())?;
        let mut flight = match found {
            Found::Here(pinned) => {
                inside.copying += 1;
                drop(inside);
                buf.copy_from_slice(&pinned);
                self.unpin(pinned);
                self.inside.lock().copying -= 1;
                self.ended.notify_all();
                return Ok(if joined { CacheRead::Joined } else { CacheRead::Hit });
            }
            Found::Missing(flight) => flight,
        };
        drop(inside);
        if let Err(error) = load(buf) {
            return Err(self.failed(flight, error));
        }
        let mut inside = self.inside.lock();
        inside = self.put(inside, key, hash, buf, |flights| flights.is_cancelled(flight.id));
        flight.end(&mut inside, || Landing::Look);
        Ok(CacheRead::Loaded)
    }

    /// Lets a block in, if there is room and nothing speaks against it.
    fn put<'a>(
        &'a self,
        mut inside: MutexGuard<'a, Inside>,
        key: &Key,
        hash: u64,
        bytes: &[u8],
        is_cancelled: impl Fn(&Flights) -> bool,
    ) -> MutexGuard<'a, Inside> {
        let is_there = || self.slot_of(key, hash).is_some();
        let mut filling = None;
        #[cfg(mapfall_canary)] // a planted bug: a block that was freed while it was loaded comes in
        let is_cancelled = |flights: &Flights| is_cancelled(flights) && !crate::canary::planted("cache_ops");
        if !is_cancelled(&inside.flights) && !is_there() {
            filling = inside.room.reserve(&self.frames, &self.index, key, hash, bytes.len() as u64);
        }
        let Some(mut filling) = filling else {
            inside.room.counts.bypasses += 1;
            return inside;
        };
        if bytes.len() <= SHORT_BYTES {
            filling.copy_in(bytes);
        } else {
            let mut unlocked = Unlocked::new(self, &mut inside, filling);
            drop(inside);
            if let Some(filling) = &mut unlocked.filling {
                filling.copy_in(bytes);
            }
            inside = self.inside.lock();
            let Some(filled) = unlocked.take(&mut inside) else { return inside };
            if is_cancelled(&inside.flights) || is_there() {
                inside.room.counts.bypasses += 1;
                inside.room.abandon(&self.frames, &self.index, filled);
                return inside;
            }
            filling = filled;
        }
        let slot = filling.slot();
        filling.publish();
        inside.room.admit(&self.frames, &self.index, slot);
        inside
    }

    /// Puts a block in. Says whether it is there.
    pub(super) fn insert(&self, key: &Key, hash: u64, bytes: &[u8]) -> bool {
        let mut inside = self.inside.lock();
        // As a load, so that it does not come in if it is freed while it is copied.
        let id = inside.flights.begin(*key);
        let mut flight = Flight { shard: self, id, ended: false };
        inside = self.put(inside, key, hash, bytes, |flights| flights.is_cancelled(id));
        flight.end(&mut inside, || Landing::Look);
        self.slot_of(key, hash).is_some()
    }

    /// A block where it is in the cache, or an owned one where there is no room.
    pub(super) fn load_pinned(
        &self,
        key: &Key,
        hash: u64,
        len: usize,
        load: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Result<Pinned<'_>, Vec<u8>>> {
        let (mut inside, found, _) = self.find(key, hash, len)?;
        let mut flight = match found {
            Found::Here(pinned) => return Ok(Ok(pinned)),
            Found::Missing(flight) => flight,
        };
        let Some(filling) = inside.room.reserve(&self.frames, &self.index, key, hash, len as u64) else {
            inside.room.counts.bypasses += 1;
            drop(inside);
            let mut owned = vec![0; len];
            if let Err(error) = load(&mut owned) {
                return Err(self.failed(flight, error));
            }
            flight.end(&mut self.inside.lock(), || Landing::Look);
            return Ok(Err(owned));
        };
        let mut unlocked = Unlocked::new(self, &mut inside, filling);
        drop(inside);
        let result = unlocked.filling.as_mut().map_or(Ok(()), |filling| load(filling.bytes_mut()));
        if let Err(error) = result {
            drop(unlocked);
            return Err(self.failed(flight, error));
        }
        let mut inside = self.inside.lock();
        let is_there = self.slot_of(key, hash).is_some();
        let comes_in = !is_there && !inside.flights.is_cancelled(flight.id);
        // Pinned before it comes in, since it may have to leave at once.
        let pinned = unlocked.take(&mut inside).map(Filling::publish_pinned);
        match &pinned {
            Some(pinned) if comes_in => inside.room.admit(&self.frames, &self.index, pinned.slot()),
            Some(pinned) => {
                inside.room.counts.bypasses += 1;
                inside.room.doom(&self.frames, pinned.slot());
            }
            None => {}
        }
        flight.end(&mut inside, || Landing::Look);
        drop(inside);
        Ok(pinned.ok_or_else(Vec::new))
    }

    /// Makes an end of a block, and sees to it that one that is being loaded does not come in.
    pub(super) fn invalidate(&self, key: &Key, hash: u64) -> bool {
        let mut inside = self.inside.lock();
        let cancelled = inside.flights.cancel(|loaded| loaded == key);
        match self.slot_of(key, hash) {
            Some(slot) => {
                inside.room.drop_block(&self.frames, &self.index, slot);
                true
            }
            None => cancelled,
        }
    }

    pub(super) fn invalidate_where(&self, which: impl Fn(&CacheKey) -> bool) -> u64 {
        let mut inside = self.inside.lock();
        let which = |key: &Key| which(&CacheKey::from_words(*key));
        inside.flights.cancel(which);
        inside.room.drop_where(&self.frames, &self.index, which)
    }

    /// Gives the shard another share. Waits for what is being filled or copied out; false where what callers have
    /// pinned is in the way.
    pub(super) fn set_share(&self, share_bytes: u64) -> bool {
        let mut inside = self.inside.lock();
        loop {
            if inside.room.set_share(&self.frames, &self.index, share_bytes) {
                return true;
            }
            if inside.filling + inside.copying == 0 {
                return false;
            }
            self.ended.wait(&mut inside);
        }
    }

    pub(super) fn longest_bytes(&self) -> u64 {
        self.inside.lock().room.longest_bytes()
    }

    pub(super) fn keys(&self) -> Vec<(CacheKey, u32)> {
        let _inside = self.inside.lock();
        let of = |slot| (CacheKey::from_words(self.frames.key(slot)), self.frames.len_bytes(slot));
        self.index.iter().map(|(_, slot)| of(slot)).collect()
    }

    pub(super) fn stats(&self) -> CacheStats {
        self.inside.lock().room.stats(&self.index)
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let inside = self.inside.lock();
        inside.room.validate(&self.frames, &self.index, inside.filling)
    }
}
