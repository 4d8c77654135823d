//! Where a block's slot is: a hash table that is read without a lock.
//!
//! A bucket is a cache line: seven words of a tag and a slot, and a count of the entries that went past it because it
//! was full. A search goes on to the next bucket only where that count is not 0. Entries never move, but when the table
//! grows: then there is a new one, and the memory of the old one goes back to the system. Who still searches there
//! finds zeros, hence nothing: a load looks again with the lock held, a mere lookup may miss a block at that moment.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sys::sync::{AtomicBool, AtomicU32, AtomicU64};
use crate::sys::zeroed::{Zeroed, get_or_try_make};

const PLACES: usize = 7;
/// The word of a bucket that counts who went past it.
const PASSED: usize = 7;
/// Entries per bucket above which a table should grow.
const FULL: u64 = 5;

type Bucket = [AtomicU64; 8];

/// A table has this many buckets at least: a page of them.
const BUCKETS_MIN_BITS: u32 = 6;
const SIZES: usize = 32;

/// Slots by the hash of their keys.
#[derive(Debug)]
pub(super) struct Index {
    /// By size. Each is made once.
    tables: [OnceLock<Zeroed<Bucket>>; SIZES],
    /// Which of them is used.
    current: AtomicU32,
    len: AtomicU64,
    /// Whether the table takes memory.
    touched: AtomicBool,
}

fn entry(hash: u64, slot: u32) -> u64 {
    hash << 32 | (u64::from(slot) + 1)
}

impl Index {
    /// Nothing where there is no address space for it.
    pub(super) fn new() -> Option<Self> {
        let index = Index {
            tables: std::array::from_fn(|_| OnceLock::new()),
            current: AtomicU32::new(0),
            len: AtomicU64::new(0),
            touched: AtomicBool::new(false),
        };
        index.table_or_make(0)?;
        Some(index)
    }

    fn table_or_make(&self, size: u32) -> Option<&[Bucket]> {
        let make = || Zeroed::try_new(1 << (BUCKETS_MIN_BITS + size), 0);
        get_or_try_make(&self.tables[size as usize % SIZES], make).map(Zeroed::values)
    }

    #[inline]
    fn table(&self) -> &[Bucket] {
        // Acquire: pairs with the Release in `change`, so that the entries are there.
        let size = self.current.load(Acquire);
        self.tables.get(size as usize).and_then(OnceLock::get).map_or(&[], Zeroed::values)
    }

    /// What the table takes, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        if self.touched.load(Relaxed) { self.table_bytes() } else { 0 }
    }

    /// What it takes as soon as there is an entry.
    pub(super) fn table_bytes(&self) -> u64 {
        size_of_val(self.table()) as u64
    }

    /// What it takes when it has grown, with the old one beside it while it does.
    pub(super) fn growth_bytes(&self) -> u64 {
        self.table_bytes() * 2
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Relaxed)
    }

    /// Whether a search would be shorter in a larger table.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.table().len() as u64 * FULL
    }

    /// Whether there is room for another entry.
    pub(super) fn has_room(&self) -> bool {
        self.len() < (self.table().len() * PLACES) as u64
    }

    /// The slot that `matches`, of those with this hash. Without a lock it may miss one that is there.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut matches: impl FnMut(u32) -> bool) -> Option<u32> {
        let table = self.table();
        let mask = table.len().wrapping_sub(1);
        let mut at = (hash >> 32) as usize & mask;
        for _ in 0..table.len() {
            let bucket = &table[at];
            for word in &bucket[..PLACES] {
                // Relaxed: what the slot has is checked there.
                let word = word.load(Relaxed);
                let slot = (word as u32).wrapping_sub(1);
                if word >> 32 == hash & u64::from(u32::MAX) && word != 0 && matches(slot) {
                    return Some(slot);
                }
            }
            if bucket[PASSED].load(Relaxed) == 0 {
                break;
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// Adds an entry. Callers take turns, and see to it that there is room.
    pub(super) fn insert(&self, hash: u64, slot: u32) {
        insert(self.table(), hash, slot);
        self.touched.store(true, Relaxed);
        self.len.store(self.len() + 1, Relaxed);
    }

    /// Takes out an entry that is there. Callers take turns.
    pub(super) fn remove(&self, hash: u64, slot: u32) {
        let table = self.table();
        let mask = table.len().wrapping_sub(1);
        let mut at = (hash >> 32) as usize & mask;
        for _ in 0..table.len() {
            let bucket = &table[at];
            if let Some(word) = bucket[..PLACES].iter().find(|word| word.load(Relaxed) == entry(hash, slot)) {
                word.store(0, Relaxed);
                self.len.store(self.len() - 1, Relaxed);
                return;
            }
            let passed = bucket[PASSED].load(Relaxed);
            bucket[PASSED].store(passed.saturating_sub(1), Relaxed);
            at = (at + 1) & mask;
        }
    }

    /// Puts these entries, which are all, into a table of twice the size, if there is memory. Callers take turns.
    pub(super) fn grow(&self, entries: impl Iterator<Item = (u64, u32)>) {
        let size = self.current.load(Relaxed);
        if size as usize + 1 < SIZES {
            self.change(size + 1, entries);
        }
    }

    /// Takes out all entries. Callers take turns.
    pub(super) fn clear(&self) {
        self.change(0, std::iter::empty());
        self.touched.store(false, Relaxed);
    }

    fn change(&self, size: u32, entries: impl Iterator<Item = (u64, u32)>) {
        let old = self.current.load(Relaxed);
        if old == size {
            self.tables[old as usize].get().into_iter().for_each(|table| table.release(0));
        }
        let mut len = 0;
        let Some(table) = self.table_or_make(size) else { return };
        for (hash, slot) in entries {
            insert(table, hash, slot);
            len += 1;
        }
        self.len.store(len, Relaxed);
        // Release: pairs with the Acquire in `table`.
        self.current.store(size, Release);
        if old != size {
            self.tables[old as usize].get().into_iter().for_each(|table| table.release(0));
        }
    }

    /// All entries: the low half of a hash, and the slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        let words = self.table().iter().flat_map(|bucket| &bucket[..PLACES]);
        words
            .map(|word| word.load(Relaxed))
            .filter(|word| *word != 0)
            .map(|word| ((word >> 32) as u32, word as u32 - 1))
    }
}

fn insert(table: &[Bucket], hash: u64, slot: u32) {
    let mask = table.len().wrapping_sub(1);
    let mut at = (hash >> 32) as usize & mask;
    for _ in 0..table.len() {
        let bucket = &table[at];
        if let Some(word) = bucket[..PLACES].iter().find(|word| word.load(Relaxed) == 0) {
            word.store(entry(hash, slot), Relaxed);
            return;
        }
        bucket[PASSED].store(bucket[PASSED].load(Relaxed) + 1, Relaxed);
        at = (at + 1) & mask;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn what_is_in_is_found_also_past_full_buckets_and_after_growth() {
        let index = Index::new().unwrap();
        let mut model: HashMap<u32, u64> = HashMap::new();
        let mut random = 1_u64;
        for step in 0..20_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let slot = (random >> 40) as u32 % 1000;
            match model.remove(&slot) {
                Some(hash) => index.remove(hash, slot),
                None => {
                    // Few buckets, so that they overflow.
                    let hash = (random >> 33 & 31) << 32 | u64::from(slot % 3);
                    if !index.has_room() {
                        index.grow(model.iter().map(|(slot, hash)| (*hash, *slot)));
                    }
                    index.insert(hash, slot);
                    model.insert(slot, hash);
                }
            }
            assert_eq!(index.len(), model.len() as u64);
            if step % 500 == 0 {
                for slot in 0..1000 {
                    let hash = model.get(&slot).copied().unwrap_or(random);
                    let found = index.find(hash, |found| found == slot);
                    assert_eq!(found.is_some(), model.contains_key(&slot), "slot {slot} at step {step}");
                }
                assert_eq!(index.iter().count(), model.len());
            }
        }
        for (slot, hash) in model {
            index.remove(hash, slot);
        }
        let table = index.table();
        assert!(table.iter().flatten().all(|word| word.load(Relaxed) == 0), "nothing is left, no count either");
        index.clear();
        assert_eq!(index.len(), 0);
    }
}
