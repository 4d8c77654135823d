//! The room of a shard: which units of its memory are free, whose the others are, and who has to leave.
//!
//! A shard's memory is a row of units. It is used up to an end that moves up in steps as blocks come, until the shard
//! has its share of the budget, tables included; from then on a block comes in where others leave. Blocks are of mixed
//! lengths. Where one that is evicted leaves too little room, its neighbours follow, since room in one piece is wanted.
//! When the share gets smaller, what is behind the new end leaves, and the memory goes back to the system.

mod audit;

use std::sync::atomic::Ordering::Relaxed;

use super::index::Index;
use super::policy::{CachePolicy, Policy, PolicyCounts, Residents};
use super::stats::CacheStats;
use crate::extent::{Extent, Fit, FreeSpace};
use crate::sys::frames::{Filling, Frames, Gone, Key, UNIT_BYTES};
use crate::sys::sync::AtomicU32;
use crate::sys::zeroed::{PLAIN_BYTES, Zeroed, touched_bytes};

const UNIT: u64 = UNIT_BYTES as u64;

/// How many pinned blocks are passed over when one must leave.
const PINNED_TRIES: u32 = 8;

/// What tables take for each block beside its slot, about: the index while it is half empty, and the policy's lists.
const TABLES_BYTES: u64 = 64;

/// What the tree of free extents takes for each, about.
const FREE_EXTENT_BYTES: u64 = 96;

/// A longer one would be too much of a shard.
const SHARE_OF_BLOCK: u64 = 8;

impl Residents for Frames {
    fn hits(&self, slot: u32) -> u8 {
        Frames::hits(self, slot)
    }

    fn set_hits(&self, slot: u32, hits: u8) {
        Frames::set_hits(self, slot, hits);
    }

    fn hash(&self, slot: u32) -> u64 {
        Frames::hash(self, slot)
    }

    fn cost(&self, slot: u32) -> u32 {
        self.len_bytes(slot).div_ceil(UNIT_BYTES as u32)
    }
}

/// What is in a shard. Its lock is held by whoever has this.
#[derive(Debug)]
pub(super) struct Room {
    policy: Box<dyn Policy>,
    free: FreeSpace,
    /// At the first and the last unit of a block its slot, plus 1.
    owners: Zeroed<AtomicU32>,
    free_slots: Vec<u32>,
    /// Slots from this one on were never used.
    slots_end: u32,
    /// Units from this one on are not used.
    end_units: u64,
    share_bytes: u64,
    pub(super) counts: CacheStats,
}

/// How much memory is taken at a time. Memory in 2 MiB pages is taken in such.
fn step_units(share_bytes: u64) -> u64 {
    let step_bytes: u64 = match share_bytes {
        0..0x10_0000 => 4 << 10,
        0x10_0000..0x200_0000 => 64 << 10,
        _ => 2 << 20,
    };
    step_bytes / UNIT
}

impl Room {
    /// Nothing where there is no address space.
    pub(super) fn new(policy: CachePolicy, frames: &Frames, index: &Index, share_bytes: u64) -> Option<Self> {
        let owners = Zeroed::try_new(usize::try_from(frames.units()).ok()?.max(1), PLAIN_BYTES)?;
        let mut room = Room {
            policy: policy.new_policy(0),
            free: FreeSpace::default(),
            owners,
            free_slots: Vec::new(),
            slots_end: 0,
            end_units: 0,
            share_bytes: 0,
            counts: CacheStats { policy, shards: 1, ..CacheStats::default() },
        };
        room.set_share(frames, index, share_bytes);
        Some(room)
    }

    pub(super) fn policy(&mut self) -> &mut dyn Policy {
        &mut *self.policy
    }

    /// The longest block that is let in, in bytes.
    pub(super) fn longest_bytes(&self) -> u64 {
        self.share_bytes / SHARE_OF_BLOCK
    }

    /// What is used, if this many slots and units were.
    fn bytes_with(&self, index_bytes: u64, slots_end: u32, end_units: u64) -> u64 {
        let owners_bytes = touched_bytes(end_units * 4);
        let own_bytes = self.policy.memory_bytes()
            + (self.free_slots.capacity() * size_of::<u32>()) as u64
            + self.free.extents() as u64 * FREE_EXTENT_BYTES;
        end_units * UNIT + Frames::memory_bytes(slots_end.into(), end_units) + owners_bytes + index_bytes + own_bytes
    }

    /// What the shard uses, in bytes.
    pub(super) fn used_bytes(&self, index: &Index) -> u64 {
        self.bytes_with(index.memory_bytes(), self.slots_end, self.end_units)
    }

    pub(super) fn data_bytes(&self) -> u64 {
        self.end_units * UNIT
    }

    /// What may be planned with. The rest is for what grows by itself: lists of the policy and of free extents.
    fn plan_bytes(&self) -> u64 {
        self.share_bytes - self.share_bytes / 64
    }

    /// Takes memory at the end for `units`. False where that would be more than the share.
    fn extend(&mut self, frames: &Frames, index: &Index, units: u64) -> bool {
        let at_end = self.free.last().filter(|last| last.end() == self.end_units).map_or(0, |last| last.len);
        // To a multiple of the step, whatever it was before, so that a page at the end is all counted.
        let end = (self.end_units + units.saturating_sub(at_end)).next_multiple_of(step_units(self.share_bytes));
        let step = end - self.end_units;
        // Tables that its blocks will need must fit too, or memory would be taken here and given back there in turns.
        let mean_units = match self.counts.blocks {
            0 => units,
            blocks => (self.counts.block_bytes / blocks / UNIT).max(1),
        };
        let slots = (step / mean_units.max(1)).saturating_sub(self.free_slots.len() as u64);
        let slots_end = self.slots_end.saturating_add(u32::try_from(slots).unwrap_or(u32::MAX));
        let bytes = self.bytes_with(index.table_bytes(), slots_end, end) + slots * TABLES_BYTES;
        if step == 0 || end > frames.units() || bytes > self.plan_bytes() {
            return false;
        }
        let added = self.free.insert(Extent { start: self.end_units, len: step });
        debug_assert!(added.is_ok(), "units behind the end are not free");
        self.end_units = end;
        true
    }

    /// Sees to it that tables may take so much more, if memory of blocks must be given back for it.
    fn afford(&mut self, frames: &Frames, index: &Index, more_bytes: u64) -> bool {
        while self.used_bytes(index) + more_bytes > self.plan_bytes() {
            if self.end_units == 0 || !self.shrink(frames, index, self.end_less(1)) {
                return false;
            }
        }
        true
    }

    /// Where the end is a whole step below these units less.
    fn end_less(&self, units: u64) -> u64 {
        let step = step_units(self.share_bytes);
        self.end_units.saturating_sub(units) / step * step
    }

    /// A slot that is not used.
    fn take_slot(&mut self, frames: &Frames, index: &Index) -> Option<u32> {
        if let Some(slot) = self.free_slots.pop() {
            return Some(slot);
        }
        let with_another = |end| Frames::memory_bytes(u64::from(self.slots_end) + 1, end);
        let more_bytes = with_another(self.end_units) - Frames::memory_bytes(self.slots_end.into(), self.end_units);
        let fits = more_bytes == 0 || self.used_bytes(index) + more_bytes <= self.plan_bytes();
        // Where much is free blocks have become shorter, and slots are what there is too little of.
        let has_spare = self.free.total_units() >= 2 * step_units(self.share_bytes);
        if !(fits || has_spare && self.afford(frames, index, more_bytes)) {
            let extent = self.evict(frames, index)?;
            self.give_back(extent);
            return self.free_slots.pop();
        }
        // Giving memory back may have emptied some.
        self.free_slots.pop().or_else(|| {
            self.slots_end += 1;
            Some(self.slots_end - 1)
        })
    }

    fn give_back(&mut self, extent: Extent) {
        let added = self.free.insert(extent);
        debug_assert!(added.is_ok(), "{extent:?} was free");
    }

    /// Takes units that lie in a row.
    fn take_units(&mut self, frames: &Frames, index: &Index, units: u64) -> Option<Extent> {
        loop {
            if let Some(extent) = self.free.take_up_to(units, units, Fit::Best) {
                return Some(extent);
            }
            if self.extend(frames, index, units) {
                continue;
            }
            let extent = self.evict(frames, index)?;
            if extent.len == units {
                return Some(extent);
            }
            self.give_back(extent);
            if extent.len < units {
                self.clear_around(frames, index, extent.start, units);
            }
        }
    }

    /// Lets the neighbours of a free unit leave until `units` are free in a row, or no neighbour can.
    fn clear_around(&mut self, frames: &Frames, index: &Index, unit: u64, units: u64) {
        let (mut above, mut below) = (true, true);
        while let Some(extent) = self.free.around(unit).filter(|extent| extent.len < units && (above || below)) {
            if above {
                above = extent.end() < self.end_units && self.let_go(frames, index, extent.end());
            } else {
                below = extent.start > 0 && self.let_go(frames, index, extent.start - 1);
            }
        }
    }

    /// Lets the block at this unit, its first or last, leave. False where it cannot.
    fn let_go(&mut self, frames: &Frames, index: &Index, unit: u64) -> bool {
        let Some(slot) = self.owner(unit) else { return false };
        if frames.retire(slot) != Gone::Now {
            return false;
        }
        self.policy.remove(slot, frames);
        self.counts.evictions += 1;
        let extent = self.forget(frames, index, slot);
        self.give_back(extent);
        true
    }

    fn owner(&self, unit: u64) -> Option<u32> {
        self.owners.values().get(usize::try_from(unit).ok()?)?.load(Relaxed).checked_sub(1)
    }

    fn set_owner(&self, frames: &Frames, slot: u32, owner: u32) {
        let place = frames.place(slot);
        for unit in [place.start, place.end.saturating_sub(1)] {
            if let Some(word) = usize::try_from(unit).ok().and_then(|unit| self.owners.values().get(unit)) {
                word.store(owner, Relaxed);
            }
        }
    }

    /// Lets the block leave that the policy names: the units it had.
    fn evict(&mut self, frames: &Frames, index: &Index) -> Option<Extent> {
        // There is room for what there is, and no more.
        self.policy.set_capacity(self.end_units - self.free.total_units());
        for _ in 0..PINNED_TRIES {
            let slot = self.policy.evict(frames)?;
            if frames.retire(slot) == Gone::Now {
                self.counts.evictions += 1;
                return Some(self.forget(frames, index, slot));
            }
            self.policy.keep(slot, frames);
        }
        None
    }

    /// Takes a block whose slot is empty out of the tables: the units it had.
    fn forget(&mut self, frames: &Frames, index: &Index, slot: u32) -> Extent {
        index.remove(frames.hash(slot), slot);
        self.count_out(frames, slot);
        self.vacate(frames, slot)
    }

    fn count_out(&mut self, frames: &Frames, slot: u32) {
        self.counts.blocks -= 1;
        self.counts.block_bytes -= u64::from(frames.len_bytes(slot));
    }

    /// Takes back an empty slot: the units it had.
    fn vacate(&mut self, frames: &Frames, slot: u32) -> Extent {
        self.set_owner(frames, slot, 0);
        self.free_slots.push(slot);
        let place = frames.place(slot);
        Extent { start: place.start, len: place.end - place.start }
    }

    /// Takes a live block out, so that nobody gets it any more. Who has it pinned keeps it.
    pub(super) fn drop_block(&mut self, frames: &Frames, index: &Index, slot: u32) {
        index.remove(frames.hash(slot), slot);
        self.policy.remove(slot, frames);
        self.count_out(frames, slot);
        self.counts.invalidations += 1;
        self.doom(frames, slot);
    }

    /// Makes an end of a live block that is in no table.
    pub(super) fn doom(&mut self, frames: &Frames, slot: u32) {
        match frames.doom(slot) {
            Gone::Now => {
                let extent = self.vacate(frames, slot);
                self.give_back(extent);
            }
            Gone::Pinned => self.counts.doomed += 1,
        }
    }

    /// The last pin of a doomed block has ended.
    pub(super) fn settle(&mut self, frames: &Frames, index: &Index, slot: u32) {
        self.counts.doomed -= 1;
        let extent = self.vacate(frames, slot);
        self.give_back(extent);
        self.keep_within(frames, index, self.share_bytes);
    }

    /// Room for a block: a slot to be filled. Nothing where there can be none.
    pub(super) fn reserve<'a>(
        &mut self,
        frames: &'a Frames,
        index: &Index,
        key: &Key,
        hash: u64,
        len_bytes: u64,
    ) -> Option<Filling<'a>> {
        let len = u32::try_from(len_bytes).ok().filter(|len| *len > 0 && len_bytes <= self.longest_bytes())?;
        if index.is_full() && self.afford(frames, index, index.growth_bytes()) {
            index.grow(index.iter().map(|(_, slot)| (frames.hash(slot), slot)));
        }
        if !index.has_room() {
            let extent = self.evict(frames, index)?;
            self.give_back(extent);
        }
        let slot = self.take_slot(frames, index)?;
        let Some(extent) = self.take_units(frames, index, len_bytes.div_ceil(UNIT)) else {
            self.free_slots.push(slot);
            return None;
        };
        let filling = frames.reserve(slot, extent.start, key, hash, len);
        match &filling {
            Some(_) => self.set_owner(frames, slot, slot + 1),
            None => {
                debug_assert!(false, "slot {slot} or {extent:?} is taken");
                self.free_slots.push(slot);
                self.give_back(extent);
            }
        }
        filling
    }

    /// Keeps the most that was used.
    fn note_use(&mut self, index: &Index) {
        self.counts.used_bytes_max = self.counts.used_bytes_max.max(self.used_bytes(index));
    }

    /// Lets a live block in. If the share got smaller meanwhile, it may leave at once.
    pub(super) fn admit(&mut self, frames: &Frames, index: &Index, slot: u32) {
        index.insert(frames.hash(slot), slot);
        self.policy.insert(slot, frames);
        self.counts.admissions += 1;
        self.counts.blocks += 1;
        self.counts.block_bytes += u64::from(frames.len_bytes(slot));
        self.keep_within(frames, index, self.share_bytes);
        self.note_use(index);
    }

    /// Gives up a slot that was to be filled.
    pub(super) fn abandon(&mut self, frames: &Frames, index: &Index, filling: Filling<'_>) {
        let slot = filling.slot();
        drop(filling);
        let extent = self.vacate(frames, slot);
        self.give_back(extent);
        self.keep_within(frames, index, self.share_bytes);
    }

    /// Lets what lies behind `target_units` leave. False where something is pinned there, or being filled.
    fn shrink(&mut self, frames: &Frames, index: &Index, target_units: u64) -> bool {
        let kept = loop {
            let free = self.free.last().filter(|last| last.end() == self.end_units);
            let used_end = free.map_or(self.end_units, |last| last.start);
            if used_end <= target_units {
                break target_units;
            }
            match self.owner(used_end - 1).filter(|slot| frames.is(*slot, &frames.key(*slot))) {
                Some(slot) => self.drop_block(frames, index, slot),
                None => break used_end, // pinned and doomed, or being filled
            }
        };
        // A whole step, since what is filled below the end may bring in a large page around it.
        let end = kept.next_multiple_of(step_units(self.share_bytes));
        if end < self.end_units {
            self.free.take_range(Extent { start: end, len: self.end_units - end });
            frames.release(end..self.end_units.next_multiple_of(step_units(u64::MAX)));
            self.owners.release(usize::try_from(end).unwrap_or(usize::MAX));
            self.end_units = end;
        }
        self.end_units <= target_units
    }

    /// If it is more than this, gives back what is more than planned, as far as it is not pinned.
    fn keep_within(&mut self, frames: &Frames, index: &Index, limit_bytes: u64) {
        let over_bytes = |room: &Room| room.used_bytes(index).saturating_sub(room.plan_bytes());
        while self.used_bytes(index) > limit_bytes && over_bytes(self) > 0 && self.end_units > 0 {
            if !self.shrink(frames, index, self.end_less(over_bytes(self).div_ceil(UNIT))) {
                break;
            }
        }
        if self.end_units == 0 && self.used_bytes(index) > self.share_bytes {
            self.forget_tables(frames, index);
        }
    }

    /// Gives back the tables, when nothing is in them.
    fn forget_tables(&mut self, frames: &Frames, index: &Index) {
        index.clear();
        frames.release_tables();
        self.free_slots = Vec::new();
        self.slots_end = 0;
        let PolicyCounts { ghost_hits, refusals } = self.policy.counts();
        self.counts.ghost_hits += ghost_hits;
        self.counts.refusals += refusals;
        self.policy = self.counts.policy.new_policy(0);
    }

    /// Gives the shard another share. False where what is pinned or being filled keeps it from being kept.
    pub(super) fn set_share(&mut self, frames: &Frames, index: &Index, share_bytes: u64) -> bool {
        let shrinks = share_bytes < self.share_bytes;
        self.share_bytes = share_bytes;
        let huge = step_units(share_bytes) * UNIT == 2 << 20;
        if !huge {
            // Before anything is given back: it must not come back as a large page.
            frames.advise_huge(0, false);
        }
        self.keep_within(frames, index, self.plan_bytes());
        // Tables do not get smaller by themselves. Where they would take much of a share, all begins anew.
        if shrinks && self.used_bytes(index) - self.data_bytes() > share_bytes / SHARE_OF_BLOCK {
            self.shrink(frames, index, 0);
        }
        if self.end_units == 0 {
            self.forget_tables(frames, index);
        }
        if huge {
            frames.advise_huge(self.end_units, true);
        }
        self.used_bytes(index) <= share_bytes
    }

    /// Drops all blocks of which `which` says so.
    pub(super) fn drop_where(&mut self, frames: &Frames, index: &Index, which: impl Fn(&Key) -> bool) -> u64 {
        let slots: Vec<u32> = index.iter().map(|(_, slot)| slot).filter(|slot| which(&frames.key(*slot))).collect();
        for slot in &slots {
            self.drop_block(frames, index, *slot);
        }
        slots.len() as u64
    }

    /// What was counted, and what is used.
    pub(super) fn stats(&self, index: &Index) -> CacheStats {
        let PolicyCounts { ghost_hits, refusals } = self.policy.counts();
        let used_bytes = self.used_bytes(index);
        CacheStats {
            ghost_hits: self.counts.ghost_hits + ghost_hits,
            refusals: self.counts.refusals + refusals,
            budget_bytes: self.share_bytes,
            used_bytes,
            overhead_bytes: used_bytes - self.data_bytes(),
            ..self.counts
        }
    }
}
