//! The state of a store that is open for writing, and the one lock around it.
//!
//! # The life of a page's bytes
//!
//! A write takes space and a sequence number, writes there, and then *installs* the entry under the lock: in the page
//! table in memory, which readers look at without a lock, and in `changes`, which is what the next checkpoint will
//! write. What the entry said before is
//!
//! - in `changes` too: then no checkpoint has it, and its space is free at once. A reader that is copying from there
//!   looks at the entry again when it is done, sees that it changed, and reads again.
//! - else in the last checkpoint or in the one under way: the checkpoint that writes the change frees its space, once
//!   that is durable.
//!
//! So `changes` is all that a checkpoint needs, and its cut is to take it away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::space::{Map, Purpose, Space};
use super::table::Table;
use super::volume::{READERS_BYTE, Volume};
use crate::error::{Error, Result};
use crate::extent::{Extent, FreeSpace};
use crate::format::{Entry, NAME_BYTES_MAX, Names, PageState, RECORD_BYTES, SEQUENCE_MAX, Slot};

/// What others wait for at most when space becomes free.
const RELEASED_AT_ONCE: usize = 128;

/// A store that is open for writing.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) volume: Arc<Volume>,
    pub(super) table: Table,
    /// The next write's number.
    sequence: AtomicU64,
    pub(super) meta: Mutex<Meta>,
    /// A checkpoint has ended.
    pub(super) checkpoint_ended: Condvar,
    poison: OnceLock<Arc<str>>,
}

/// All that is changed under the lock.
#[derive(Debug)]
pub(super) struct Meta {
    /// The last checkpoint.
    pub(super) committed: Slot,
    /// The last checkpoint when the store was opened.
    pub(super) opened_generation: u64,
    pub(super) names: Names,
    pub(super) space: Space,
    /// Pages changed since the last cut.
    pub(super) changes: BTreeMap<u64, Entry>,
    /// Blocks written or freed since the last cut, by their first unit.
    pub(super) blocks: BTreeMap<u64, BlockChange>,
    /// What the embedder has freed and what is not free yet, since a checkpoint or a reader has it.
    pub(super) leaving: FreeSpace,
    /// Whether what the held list had when the store was opened is among that.
    pub(super) held_is_known: bool,
    /// Names to be dropped by the next checkpoint.
    pub(super) dropped: Vec<String>,
    /// Whether a cut was made and has not ended.
    pub(super) checkpoint_runs: bool,
    /// The sequences of checkpoints since the store was opened, by generation: those that tell how far the checkpoints
    /// go that other processes read.
    pub(super) sequences: BTreeMap<u64, u64>,
    /// Free in the last checkpoint, but read by snapshots or other processes.
    pub(super) deferred: Vec<Freed>,
    /// Open snapshots of this process: generation to sequence and how many.
    pub(super) snapshots: BTreeMap<u64, (u64, usize)>,
    pub(super) ids: FreePages,
    /// Live pages, those not in a checkpoint yet included.
    pub(super) live_pages: u64,
    /// Units that a write has taken and not installed yet.
    pub(super) in_flight_units: u64,
}

/// What became of a block since the last cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockChange {
    pub(super) units: u64,
    pub(super) generation: u64,
    pub(super) live: bool,
}

/// Space that a checkpoint does not have anymore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) extent: Extent,
    /// The number of the write that made it.
    pub(super) birth: u64,
    /// The first generation that does not have it.
    pub(super) death: u64,
}

/// Numbers of pages that may be given out again.
#[derive(Debug, Default)]
pub(super) struct FreePages {
    pub(super) known: Vec<u64>,
    /// Freed in leaves that were not looked at.
    pub(super) later: BTreeSet<u64>,
    /// Leaves of the page table from here on were not looked at.
    pub(super) scanned_leaves: u64,
    /// Pages from here on are not in the table that the store was opened with.
    pub(super) limit_at_open: u64,
}

impl Inner {
    pub(super) fn new(volume: Arc<Volume>, committed: Slot, names: Names, space: Space) -> Self {
        let ids = FreePages { limit_at_open: committed.page_limit, ..FreePages::default() };
        Inner {
            table: Table::new(committed.page_limit, &volume),
            sequence: AtomicU64::new(committed.sequence),
            poison: OnceLock::new(),
            checkpoint_ended: Condvar::new(),
            meta: Mutex::new(Meta {
                live_pages: committed.pages.root.count,
                opened_generation: committed.generation,
                sequences: BTreeMap::from([(committed.generation, committed.sequence)]),
                committed,
                names,
                space,
                changes: BTreeMap::new(),
                blocks: BTreeMap::new(),
                leaving: FreeSpace::default(),
                held_is_known: false,
                dropped: Vec::new(),
                checkpoint_runs: false,
                deferred: Vec::new(),
                snapshots: BTreeMap::new(),
                ids,
                in_flight_units: 0,
            }),
            volume,
        }
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poison.get().is_some()
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
        }
    }

    /// From now on nothing is written.
    pub(super) fn poison(&self, cause: &Error) {
        let cause = self.poison.get_or_init(|| cause.to_string().into());
        tracing::error!(path = %self.volume.path.display(), %cause, "the store takes no more writes");
    }

    /// The number of the next write.
    pub(super) fn next_sequence(&self) -> Result<u64> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        if sequence < SEQUENCE_MAX - 1 {
            return Ok(sequence);
        }
        self.sequence.store(SEQUENCE_MAX - 1, Ordering::Relaxed);
        Err(Error::Poisoned { cause: "all write numbers are used up".into() })
    }

    /// Every number given out so far is lower.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Relaxed)
    }

    /// Space for data, counted as in flight.
    pub(super) fn take_space(&self, most: u64, least: u64) -> Result<Extent> {
        self.check_writable()?;
        let mut meta = self.meta.lock();
        let purpose = Purpose::Data { reserve_units: self.reserve_units(&meta) };
        let meta = &mut *meta;
        let map = Map { volume: &self.volume, tree: &meta.committed.space };
        let extent = meta.space.take_up_to(map, most, least, purpose)?;
        meta.in_flight_units += extent.len;
        Ok(extent)
    }

    /// Space that a write took and does not need.
    pub(super) fn return_space(&self, meta: &mut Meta, extent: Extent) {
        meta.in_flight_units -= extent.len;
        self.free_now(meta, extent);
    }

    /// Space that no checkpoint has.
    pub(super) fn free_now(&self, meta: &mut Meta, extent: Extent) {
        if let Err(error) = meta.space.give_back(&self.volume, extent) {
            // It stays out of use.
            tracing::error!(%error, "space accounts do not add up");
            debug_assert!(false, "{error}");
        }
    }

    /// Makes an entry what a page is, and frees what it was if no checkpoint has that.
    pub(super) fn install(&self, meta: &mut Meta, page: u64, old: Entry, new: Entry) {
        self.table.store(page, new);
        self.volume.address_of(old).iter().for_each(|address| self.volume.forget(address));
        meta.live_pages += u64::from(new.is_live());
        meta.live_pages -= u64::from(old.is_live());
        #[cfg(mapfall_canary)]
        if crate::canary::planted("free_not_held_back") && !meta.changes.contains_key(&page) {
            self.free_entry(meta, old);
        }
        if let Some(change) = meta.changes.insert(page, new) {
            debug_assert_eq!(change, old, "page {page}");
            self.free_entry(meta, change);
        }
    }

    /// Frees what an entry refers to, which no checkpoint has.
    pub(super) fn free_entry(&self, meta: &mut Meta, entry: Entry) {
        if let PageState::Stored { offset_units, .. } = entry.state() {
            self.free_now(meta, Extent { start: offset_units, len: self.volume.geometry.page_units() });
        }
    }

    /// What the next two checkpoints may need for nodes, at most, so that a full disk does not keep them from being
    /// made: one that has what was written, and one that makes room. Freeing is not refused, and may touch every leaf.
    pub(super) fn reserve_units(&self, meta: &Meta) -> u64 {
        let geometry = self.volume.geometry;
        let inner = |leaves: u64| leaves + leaves.div_ceil(64) + 8;
        // A limit says nothing of how many leaves there are.
        let leaves = (self.table.limit() / geometry.leaf_pages()).min(self.table.leaves_at_most());
        let table = inner(leaves + 1);
        let map = inner(meta.space.end() / geometry.leaf_units() + 2);
        let kept = meta.names.0.len() as u64;
        let changes = (meta.changes.len() + meta.blocks.len()) as u64;
        let live = meta.live_pages + meta.committed.raw_units + meta.committed.held.root.count;
        let held = if kept == 0 { 0 } else { inner((live + changes + table) / geometry.leaf_held() + 2) };
        let names = geometry.units((kept + 1) * (NAME_BYTES_MAX as u64 + 1200));
        2 * ((table + map + held) * geometry.node_units() + geometry.units(RECORD_BYTES as u64) + names)
    }

    /// Makes free what the last checkpoint does not have, and what was deferred, as far as nobody reads it.
    ///
    /// There can be much of it, so those who wait for the lock get their turns in between.
    pub(super) fn release(&self, mut freed: Vec<Freed>) -> Result<()> {
        let mut meta = self.meta.lock();
        freed.append(&mut meta.deferred);
        let locked = match self.foreign_readers(meta.committed.generation) {
            Ok(locked) => locked,
            Err(error) => {
                meta.deferred = freed;
                return Err(error);
            }
        };
        if !locked.iter().any(|generation| *generation < meta.opened_generation) {
            for extent in meta.space.end_quarantine() {
                self.free_now(&mut meta, extent);
            }
        }
        // A lock does not say how far its sequence goes: no further than that of the first checkpoint from it on.
        let known =
            |generation: u64| meta.sequences.range(generation..).next().map_or((0, u64::MAX), |(g, s)| (*g, *s));
        let readers: Vec<_> = locked.into_iter().map(|generation| (generation, known(generation))).collect();
        let last = meta.committed.generation;
        meta.sequences.retain(|known, _| *known == last || readers.iter().any(|(_, (needed, _))| needed == known));
        for (index, freed) in freed.into_iter().enumerate() {
            if index % RELEASED_AT_ONCE == RELEASED_AT_ONCE - 1 {
                MutexGuard::bump(&mut meta);
            }
            let by_snapshot =
                meta.snapshots.iter().any(|(generation, (sequence, _))| freed.is_seen_by(*generation, *sequence));
            let by_others = readers.iter().any(|(generation, (_, sequence))| freed.is_seen_by(*generation, *sequence));
            if by_snapshot || by_others {
                // What a dropped checkpoint held is in no list from now on. It cannot be freed again even so.
                let _ = meta.leaving.insert(freed.extent);
                meta.deferred.push(freed);
            } else {
                meta.leaving.take_range(freed.extent);
                self.free_now(&mut meta, freed.extent);
            }
        }
        Ok(())
    }

    /// The generations, up to the last one, that other processes read.
    pub(super) fn foreign_readers(&self, last: u64) -> Result<Vec<u64>> {
        let Some(lock) = &self.volume.lock else { return Ok(Vec::new()) };
        let bytes = lock.locked_by_others(READERS_BYTE..READERS_BYTE + last + 1).map_err(|source| Error::Io {
            operation: crate::error::Operation::Lock,
            path: self.volume.path.clone(),
            offset: READERS_BYTE,
            len_bytes: last + 1,
            source,
        })?;
        Ok(bytes.into_iter().map(|byte| byte - READERS_BYTE).collect())
    }

    /// The lock, when no checkpoint is under way.
    pub(super) fn lock_between_checkpoints(&self) -> MutexGuard<'_, Meta> {
        let mut meta = self.meta.lock();
        while meta.checkpoint_runs {
            self.checkpoint_ended.wait(&mut meta);
        }
        meta
    }
}

impl Freed {
    /// Whether the checkpoint of this generation, all of whose numbers are below `sequence`, has it.
    pub(super) fn is_seen_by(&self, generation: u64, sequence: u64) -> bool {
        self.birth < sequence && generation < self.death
    }
}
