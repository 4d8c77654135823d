//! The memory of a cache: blocks that are copied out of it without a lock while others come and go.
//!
//! A block is in a *slot*: a line of words that says what it is and where its bytes are.
//!
//! | word | what |
//! |---|---|
//! | 0 | state: pins (bits 0-15), kind (bits 16-17), stamp (the rest) |
//! | 1-3 | the key |
//! | 4 | place: first unit (high half), length in bytes (low half) |
//! | 5 | hits |
//! | 6 | hash of the key |
//! | 7 | not used |
//!
//! ```text
//! EMPTY --reserve--> FILLING --publish--> LIVE --retire (no pins)--> EMPTY
//!                       \--drop--> EMPTY   \--doom--> DOOMED --last unpin--> EMPTY
//! ```
//!
//! A reader without a pin ([`Frames::read`]) looks at the state, copies, and looks again: the same state, pins aside,
//! means that the slot was this block's throughout, since a stamp is given out once. That is a
//! [seqlock](https://docs.kernel.org/locking/seqlock.html). What it copied meanwhile may have been overwritten at the
//! same time, so the copy is made by instructions of which the compiler knows nothing, or by atomics, and thrown away
//! when the state has changed.
//!
//! # Safety
//!
//! The bytes are in a range that a [`Frames`] owns from `new` to `drop`. Each unit of it has a *claim*, a bit. A slot
//! that is not EMPTY has claimed the units of its place, and nobody else has: `reserve` sets the bits, and fails where
//! one is set. Bytes are written only through a [`Filling`], of which a slot has one at most, and borrowed only through
//! a [`Pinned`], which keeps the slot from becoming EMPTY. So while there is a borrow there is no write, whatever the
//! callers do.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::sync::{AtomicU64, fence};
use super::zeroed::{PLAIN_BYTES, Zeroed, touched_bytes};

#[cfg(not(all(test, mapfall_model)))]
mod bytes;
#[cfg(all(test, mapfall_model))]
#[path = "frames/loom.rs"]
mod bytes;
#[cfg(all(test, mapfall_model))]
mod model;

use self::bytes::Bytes;

/// What memory is given out in, in bytes.
pub(crate) const UNIT_BYTES: usize = 512;

/// What a block is called.
pub(crate) type Key = [u64; 3];

const PINS: u64 = (1 << 16) - 1;
const KIND: u64 = 3 << 16;
const EMPTY: u64 = 0 << 16;
const FILLING: u64 = 1 << 16;
const LIVE: u64 = 2 << 16;
const DOOMED: u64 = 3 << 16;
const STAMP: u64 = 1 << 18;

/// A slot, on a cache line of its own.
type Slot = [AtomicU64; 8];

const STATE: usize = 0;
const KEY: usize = 1;
const PLACE: usize = 4;
const HITS: usize = 5;
const HASH: usize = 6;

/// Slots, and the bytes of their blocks.
pub(crate) struct Frames {
    slots: Zeroed<Slot>,
    /// A bit for each unit that a slot has.
    claims: Zeroed<AtomicU64>,
    bytes: Bytes,
    /// The last stamp given out.
    stamp: AtomicU64,
}

/// What [`Frames::retire`] and [`Frames::doom`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The slot is empty.
    Now,
    /// It is pinned. Doomed, it is empty when the last pin ends.
    Pinned,
}

impl Frames {
    /// Address space for `units`. Nothing where there is none.
    pub(crate) fn new(units: usize) -> Option<Self> {
        let bytes = Bytes::new(units.checked_mul(UNIT_BYTES)?.max(1))?;
        // A block has a unit at least.
        let slots = Zeroed::try_new(units.max(1), PLAIN_BYTES)?;
        let claims = Zeroed::try_new(units / 64 + 1, PLAIN_BYTES)?;
        Some(Frames { slots, claims, bytes, stamp: AtomicU64::new(0) })
    }

    /// How many units there are.
    pub(crate) fn units(&self) -> u64 {
        (self.bytes.len() / UNIT_BYTES) as u64
    }

    /// What slots and claims take for that many of them.
    pub(crate) fn memory_bytes(slots: u64, units: u64) -> u64 {
        touched_bytes(slots * size_of::<Slot>() as u64) + touched_bytes(units.div_ceil(8))
    }

    /// Whether the bytes from a unit on are to be in 2 MiB pages.
    pub(crate) fn advise_huge(&self, from_unit: u64, huge: bool) {
        self.bytes.advise_huge(self.byte(from_unit), huge);
    }

    /// Gives memory of units that no slot has back to the system, as far as it is whole pages.
    pub(crate) fn release(&self, units: Range<u64>) {
        if self.claim(units.clone()) {
            // SAFETY: nobody has a borrow of these bytes, since they were not claimed, and until `unclaim` nobody gets
            // one. Copies without a pin allow for any bytes.
            let _ = unsafe { self.bytes.release(self.byte(units.start)..self.byte(units.end)) };
            self.unclaim(units);
        }
    }

    /// Gives memory of the slots and claims back, if all slots are empty.
    pub(crate) fn release_tables(&self) {
        if self.claim(0..self.units()) {
            self.slots.release(0);
            // Zeros are what `unclaim` would leave.
            self.claims.release(0);
        }
    }

    fn byte(&self, unit: u64) -> usize {
        usize::try_from(unit).map_or(usize::MAX, |unit| unit.saturating_mul(UNIT_BYTES)).min(self.bytes.len())
    }

    fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.values().get(slot as usize)
    }

    /// The bits of claims, word by word: its index, and which of its bits.
    fn claim_words(units: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
        (units.start / 64..units.end.div_ceil(64)).map(move |word| {
            let (from, to) = (units.start.max(word * 64) - word * 64, units.end.min(word * 64 + 64) - word * 64);
            (word as usize, (u64::MAX >> (64 - (to - from))) << from)
        })
    }

    /// Sets the bits of units, unless one is set already or there is no such unit.
    fn claim(&self, units: Range<u64>) -> bool {
        if units.is_empty() || units.end > self.units() {
            return false;
        }
        let claims = self.claims.values();
        for (word, mask) in Self::claim_words(units.clone()) {
            // Acquire: pairs with the Release in `unclaim`, so that all borrows of the units are over.
            let before = claims[word].fetch_or(mask, Acquire);
            if before & mask != 0 {
                claims[word].fetch_and(before | !mask, Relaxed);
                if word as u64 * 64 > units.start {
                    self.unclaim(units.start..word as u64 * 64);
                }
                return false;
            }
        }
        true
    }

    fn unclaim(&self, units: Range<u64>) {
        for (word, mask) in Self::claim_words(units) {
            // Release: pairs with the Acquire in `claim`.
            self.claims.values()[word].fetch_and(!mask, Release);
        }
    }

    /// Takes an empty slot for a block at these units, which no other slot has. Its hits are 0.
    ///
    /// Nothing where the slot is not empty, some unit is taken, or there is no such slot or unit.
    pub(crate) fn reserve(&self, slot: u32, start: u64, key: &Key, hash: u64, len_bytes: u32) -> Option<Filling<'_>> {
        let words = self.slot(slot)?;
        let units = start..start.checked_add(u64::from(len_bytes).div_ceil(UNIT_BYTES as u64))?;
        if units.end > u64::from(u32::MAX) || !self.claim(units.clone()) {
            return None;
        }
        let stamp = self.stamp.fetch_add(1, Relaxed) + 1;
        let state = stamp.wrapping_mul(STAMP) | FILLING;
        let before = words[STATE].load(Relaxed);
        // Acquire: pairs with the Release that made it empty.
        if before & KIND != EMPTY || words[STATE].compare_exchange(before, state, Acquire, Relaxed).is_err() {
            self.unclaim(units);
            return None;
        }
        // Who sees a word or a byte stored behind this sees at its second look, after the Acquire fence in `read`,
        // that the slot that had it before is no longer live.
        fence(Release);
        for (word, key) in words[KEY..].iter().zip(key) {
            word.store(*key, Relaxed);
        }
        words[PLACE].store(start << 32 | u64::from(len_bytes), Relaxed);
        words[HITS].store(0, Relaxed);
        words[HASH].store(hash, Relaxed);
        Some(Filling { frames: self, slot })
    }

    /// The units of a slot that is not empty.
    pub(crate) fn place(&self, slot: u32) -> Range<u64> {
        let place = self.slot(slot).map_or(0, |words| words[PLACE].load(Relaxed));
        let start = place >> 32;
        start..start + (place & u64::from(u32::MAX)).div_ceil(UNIT_BYTES as u64)
    }

    /// The length of the block of a slot, in bytes.
    pub(crate) fn len_bytes(&self, slot: u32) -> u32 {
        self.slot(slot).map_or(0, |words| words[PLACE].load(Relaxed) as u32)
    }

    /// The key of a slot that is not empty.
    pub(crate) fn key(&self, slot: u32) -> Key {
        self.slot(slot).map_or([0; 3], |words| std::array::from_fn(|i| words[KEY + i].load(Relaxed)))
    }

    /// The hash of its key.
    pub(crate) fn hash(&self, slot: u32) -> u64 {
        self.slot(slot).map_or(0, |words| words[HASH].load(Relaxed))
    }

    /// How often it was hit, as far as it is counted.
    pub(crate) fn hits(&self, slot: u32) -> u8 {
        self.slot(slot).map_or(0, |words| words[HITS].load(Relaxed) as u8)
    }

    /// Counts hits anew.
    pub(crate) fn set_hits(&self, slot: u32, hits: u8) {
        if let Some(words) = self.slot(slot) {
            words[HITS].store(u64::from(hits), Relaxed);
        }
    }

    /// Whether a slot has a live block of this key.
    pub(crate) fn is(&self, slot: u32, key: &Key) -> bool {
        self.slot(slot).is_some_and(|words| words[STATE].load(Acquire) & KIND == LIVE && has(words, key))
    }

    /// Copies a block into a buffer of its length, and counts up to `hits_max` that it was hit. False where the slot
    /// has no such block, or ceased to have it meanwhile; then the buffer has bytes of no meaning.
    #[inline]
    pub(crate) fn read(&self, slot: u32, key: &Key, buf: &mut [u8], hits_max: u8) -> bool {
        let Some(words) = self.slots.values().get(slot as usize) else { return false };
        // Acquire: pairs with the Release in `publish`.
        let state = words[STATE].load(Acquire);
        let place = words[PLACE].load(Relaxed);
        let start = (place >> 32) as usize * UNIT_BYTES;
        let fits = place as u32 as usize == buf.len() && start + buf.len() <= self.bytes.len();
        if state & KIND != LIVE || !has(words, key) || !fits {
            return false;
        }
        // SAFETY: `start .. start + len` is in the range by the test above.
        unsafe { self.bytes.copy_out(start, buf) };
        // Pairs with the Release fence in `reserve`: if a byte or a word above was stored for another block, the state
        // has changed.
        fence(Acquire);
        let whole = (words[STATE].load(Relaxed) ^ state) & !PINS == 0;
        if whole {
            let hits = words[HITS].load(Relaxed);
            if hits < u64::from(hits_max) {
                words[HITS].store(hits + 1, Relaxed);
            }
        }
        whole
    }

    /// Keeps a block where it is. Nothing where the slot has no such block, or has as many pins as can be counted.
    #[inline]
    pub(crate) fn pin(&self, slot: u32, key: &Key) -> Option<Pinned<'_>> {
        let words = self.slot(slot)?;
        let mut state = words[STATE].load(Acquire);
        loop {
            if state & KIND != LIVE || state & PINS == PINS || !has(words, key) {
                return None;
            }
            // Acquire: pairs with the Release in `publish`. If the state is still the one that was seen before the key,
            // the key is the one of the block.
            match words[STATE].compare_exchange_weak(state, state + 1, Acquire, Acquire) {
                Ok(_) => break,
                Err(found) => state = found,
            }
        }
        let place = words[PLACE].load(Relaxed);
        Some(Pinned { frames: self, slot, start: (place >> 32) as usize * UNIT_BYTES, len: place as u32 as usize })
    }

    /// Makes an end of a live block, unless it is pinned.
    pub(crate) fn retire(&self, slot: u32) -> Gone {
        let Some(words) = self.slot(slot) else { return Gone::Pinned };
        let mut state = words[STATE].load(Relaxed);
        loop {
            if state & KIND != LIVE || state & PINS != 0 {
                return Gone::Pinned;
            }
            match self.empty(slot, words, state) {
                Ok(()) => return Gone::Now,
                Err(found) => state = found,
            }
        }
    }

    /// Makes an end of a live block: nobody gets it from now on.
    pub(crate) fn doom(&self, slot: u32) -> Gone {
        let Some(words) = self.slot(slot) else { return Gone::Pinned };
        let mut state = words[STATE].load(Relaxed);
        loop {
            if state & KIND != LIVE {
                return Gone::Pinned;
            }
            let done = match state & PINS {
                0 => self.empty(slot, words, state).map(|()| Gone::Now),
                _ => words[STATE]
                    .compare_exchange_weak(state, state & !KIND | DOOMED, Relaxed, Relaxed)
                    .map(|_| Gone::Pinned),
            };
            match done {
                Ok(gone) => return gone,
                Err(found) => state = found,
            }
        }
    }

    /// Empties a slot that is in this state, which has no pins.
    fn empty(&self, slot: u32, words: &Slot, state: u64) -> Result<(), u64> {
        let units = self.place(slot);
        // Acquire: pairs with the Release in `unpin`, so that `unclaim` comes after the last borrow. Release: pairs
        // with the Acquire in `reserve`.
        words[STATE].compare_exchange(state, state & !(KIND | PINS) | EMPTY, AcqRel, Relaxed)?;
        self.unclaim(units);
        Ok(())
    }

    /// True where the slot is empty by this.
    fn unpin(&self, slot: u32) -> bool {
        let Some(words) = self.slot(slot) else { return false };
        // Release: the borrow is over before anyone may write. Acquire: so are all others', for who is the last.
        let before = words[STATE].fetch_sub(1, AcqRel);
        // Nobody pins what is doomed, so the state stays as it is.
        before & (KIND | PINS) == DOOMED | 1 && self.empty(slot, words, before - 1).is_ok()
    }
}

#[inline]
fn has(words: &Slot, key: &Key) -> bool {
    words[KEY..].iter().zip(key).all(|(word, key)| word.load(Relaxed) == *key)
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("units", &self.units()).finish_non_exhaustive()
    }
}

/// A slot that is being filled. Dropped, it is empty again.
#[derive(Debug)]
pub(crate) struct Filling<'a> {
    frames: &'a Frames,
    slot: u32,
}

impl<'a> Filling<'a> {
    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    fn range(&self) -> Range<usize> {
        let start = self.frames.place(self.slot).start as usize * UNIT_BYTES;
        start..start + self.frames.len_bytes(self.slot) as usize
    }

    /// The block's bytes, as many as there is room for.
    pub(crate) fn copy_in(&mut self, bytes: &[u8]) {
        let range = self.range();
        let len = bytes.len().min(range.len());
        // SAFETY: the range lies in ours, since its units are claimed, and nobody borrows it. Copies without a pin are
        // not made by code that the compiler knows, and neither is this one.
        unsafe { self.frames.bytes.copy_in(range.start, &bytes[..len]) };
    }

    /// The block's bytes, to be filled in place. At first they are of no meaning.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        // SAFETY: the range lies in ours, is initialised (zeros, or what was copied there), and is claimed by this slot
        // alone, of which this is the only `Filling`. A copy that was begun without a pin when another block was there
        // may still read it, by instructions of which the compiler knows nothing, and its result is thrown away.
        unsafe { self.frames.bytes.slice_mut(range) }
    }

    /// From now on the block can be read and pinned.
    pub(crate) fn publish(self) {
        self.publish_with(0);
    }

    /// As [`Filling::publish`]: and it is pinned, so that it cannot leave before it is.
    pub(crate) fn publish_pinned(self) -> Pinned<'a> {
        let (frames, slot, range) = (self.frames, self.slot, self.range());
        self.publish_with(1);
        Pinned { frames, slot, start: range.start, len: range.len() }
    }

    fn publish_with(self, pins: u64) {
        if let Some(words) = self.frames.slot(self.slot) {
            // Release: pairs with the Acquire in `read` and `pin`. Nobody else changes the state of a slot that is
            // being filled.
            let state = words[STATE].load(Relaxed);
            words[STATE].store(state & !KIND | LIVE | pins, Release);
        }
        std::mem::forget(self);
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        if let Some(words) = self.frames.slot(self.slot) {
            let units = self.frames.place(self.slot);
            let state = words[STATE].load(Relaxed);
            words[STATE].store(state & !KIND | EMPTY, Release);
            self.frames.unclaim(units);
        }
    }
}

/// A block that stays where it is.
#[derive(Debug)]
pub(crate) struct Pinned<'a> {
    frames: &'a Frames,
    slot: u32,
    start: usize,
    len: usize,
}

impl<'a> Pinned<'a> {
    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    /// Ends the pin. True where the block was doomed and the slot is empty now.
    pub(crate) fn unpin(self) -> bool {
        let (frames, slot) = (self.frames, self.slot);
        std::mem::forget(self);
        frames.unpin(slot)
    }
}

impl Deref for Pinned<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the slot was live when it was pinned and is live or doomed until `unpin`, so its units are claimed,
        // and lie in the range; nobody can write to them, since its only `Filling` was consumed by `publish`.
        unsafe { self.frames.bytes.slice(self.start..self.start + self.len) }
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.frames.unpin(self.slot);
    }
}
