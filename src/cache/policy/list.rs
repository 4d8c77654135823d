//! Doubly linked lists over slot numbers, in two vectors.

use super::Residents;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// A list's ends and sums. The links between are in [`Links`], which several lists share: a slot is in one list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    /// The slot that came in last.
    pub(super) newest: u32,
    /// The slot that came in first.
    pub(super) oldest: u32,
    pub(super) len: u32,
    pub(super) units: u64,
}

impl List {
    pub(super) fn new() -> Self {
        List { newest: NONE, oldest: NONE, len: 0, units: 0 }
    }
}

/// The neighbours of each slot.
#[derive(Debug, Default)]
pub(super) struct Links {
    newer: Vec<u32>,
    older: Vec<u32>,
}

/// A slot's place in a vector.
pub(super) fn at(slot: u32) -> usize {
    slot as usize
}

impl Links {
    /// Makes place for `slot`.
    pub(super) fn cover(&mut self, slot: u32) {
        if at(slot) >= self.newer.len() {
            self.newer.resize(at(slot) + 1, NONE);
            self.older.resize(at(slot) + 1, NONE);
        }
    }

    pub(super) fn newer(&self, slot: u32) -> u32 {
        self.newer[at(slot)]
    }

    /// Puts a slot in as the newest.
    pub(super) fn push(&mut self, list: &mut List, slot: u32, cost: u32) {
        self.newer[at(slot)] = NONE;
        self.older[at(slot)] = list.newest;
        match list.newest {
            NONE => list.oldest = slot,
            newest => self.newer[at(newest)] = slot,
        }
        list.newest = slot;
        list.len += 1;
        list.units += u64::from(cost);
    }

    /// Takes a slot of this list out of it.
    pub(super) fn unlink(&mut self, list: &mut List, slot: u32, cost: u32) {
        let (newer, older) = (self.newer[at(slot)], self.older[at(slot)]);
        match newer {
            NONE => list.newest = older,
            _ => self.older[at(newer)] = older,
        }
        match older {
            NONE => list.oldest = newer,
            _ => self.newer[at(older)] = newer,
        }
        list.len -= 1;
        list.units -= u64::from(cost);
    }

    /// Makes the oldest slot the newest.
    pub(super) fn rotate(&mut self, list: &mut List) {
        let slot = list.oldest;
        self.unlink(list, slot, 0);
        self.push(list, slot, 0);
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (self.newer.capacity() + self.older.capacity()) as u64 * 4
    }

    /// The slots of a list, oldest first.
    ///
    /// # Errors
    ///
    /// A link or a sum that is wrong.
    pub(super) fn validate(&self, list: &List, residents: &dyn Residents) -> Result<Vec<u32>, String> {
        let (mut slots, mut units) = (Vec::new(), 0);
        let (mut older, mut slot) = (NONE, list.oldest);
        while slot != NONE {
            if self.older[at(slot)] != older {
                return Err(format!("slot {slot}: expected {older} before it, found {}", self.older[at(slot)]));
            }
            if slots.len() > self.newer.len() {
                return Err(format!("the list of {} slots has a loop", list.len));
            }
            slots.push(slot);
            units += u64::from(residents.cost(slot));
            (older, slot) = (slot, self.newer[at(slot)]);
        }
        if older != list.newest || slots.len() != at(list.len) || units != list.units {
            return Err(format!(
                "expected {} slots of {} units up to {}, found {} slots of {units} units up to {older}",
                list.len,
                list.units,
                list.newest,
                slots.len(),
            ));
        }
        Ok(slots)
    }
}
