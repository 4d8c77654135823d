//! The free extents of a block store's file, in memory, in allocation units. It knows no I/O and no format.
//!
//! Each free extent stands in two orders: by offset, in a [tree](tree::Tree) that knows the longest extent of each
//! subtree, and by length. Adjacent extents are always merged, so no two of them touch.
//!
//! Every answer is exact, for both fits and with a limit: an allocation fails only if no free extent is long enough.
//! With `n` free extents, every operation takes O(log n) time in the worst case, except [`FreeSpace::iter`] and
//! [`FreeSpace::validate`], which visit all of them; totals take O(1).

mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use tree::Tree;

/// A range of units. It is not empty, and its end is at most 2^40.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    /// The first unit.
    pub(crate) start: u64,
    /// How many units: more than 0.
    pub(crate) len: u64,
}

impl Extent {
    /// The unit behind the last one.
    pub(crate) fn end(self) -> u64 {
        self.start + self.len
    }
}

/// Which free extent an allocation takes, of those that are long enough. It takes the extent's front.
///
/// Both are exact and take time logarithmic in the number of free extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fit {
    /// The shortest, and the one at the lowest offset among equals: long extents stay whole for long allocations.
    Best,
    /// The one at the lowest offset: data gathers at the file's front, and its end gets free to be cut off.
    First,
}

/// The set of free extents.
#[derive(Debug, Default)]
pub(crate) struct FreeSpace {
    by_offset: Tree,
    /// Length, then end.
    by_length: BTreeSet<(u64, u64)>,
    total_units: u64,
}

impl FreeSpace {
    /// Adds an extent and merges it with the free extents that it touches.
    ///
    /// If one of its units is free already (a double free), nothing changes, and the error is the first free extent
    /// that it overlaps.
    pub(crate) fn insert(&mut self, extent: Extent) -> Result<(), Extent> {
        let mut len = extent.len;
        let mut next = self.by_offset.first_ending_from(extent.start);
        let left = next.filter(|next| next.end() == extent.start);
        #[cfg(mapfall_canary)] // a planted bug
        let left = left.filter(|_| !crate::canary::planted("extent_list"));
        if left.is_some() {
            next = self.by_offset.first_ending_from(extent.start + 1);
        }
        if let Some(overlapped) = next.filter(|next| next.start < extent.end()) {
            return Err(overlapped);
        }
        if let Some(left) = left {
            self.resize(left.end(), left.len, 0);
            len += left.len;
        }
        match next.filter(|next| next.start == extent.end()) {
            Some(right) => self.resize(right.end(), right.len, len + right.len),
            None => self.resize(extent.end(), 0, len),
        }
        Ok(())
    }

    /// Takes exactly `len` units. Nothing if no free extent is long enough, or `len` is 0.
    #[cfg(test)]
    pub(crate) fn take(&mut self, len: u64, fit: Fit) -> Option<Extent> {
        self.take_up_to(len, len, fit)
    }

    /// Takes as many units as one free extent has, up to `max_len` and no fewer than `min_len`: from an extent of at
    /// least `max_len` by `fit`, else from the longest there is (the one at the lowest offset among equals).
    pub(crate) fn take_up_to(&mut self, max_len: u64, min_len: u64, fit: Fit) -> Option<Extent> {
        let from = self.find(max_len, fit).or_else(|| self.by_offset.first_of_len(self.longest()))?;
        let len = from.len.min(max_len);
        if len < min_len {
            return None;
        }
        self.take_front(from, len)
    }

    /// Takes exactly `len` units, first fit, all of them below `limit`.
    pub(crate) fn take_below(&mut self, len: u64, limit: u64) -> Option<Extent> {
        // Of all that are long enough this one begins, and so ends, lowest.
        let from = self.by_offset.first_of_len(len).filter(|from| from.start + len <= limit)?;
        self.take_front(from, len)
    }

    /// Takes exactly this range, wherever it lies inside one free extent. False, and nothing changes, if it is not all
    /// free, or empty.
    pub(crate) fn take_range(&mut self, extent: Extent) -> bool {
        let around = self.by_offset.first_ending_from(extent.end());
        let Some(around) = around.filter(|around| around.start <= extent.start && extent.len > 0) else { return false };
        // What is left behind the range keeps its end; what is left before it ends where the range begins.
        self.resize(around.end(), around.len, around.end() - extent.end());
        self.resize(extent.start, 0, extent.start - around.start);
        true
    }

    /// Whether some unit of this range is free.
    pub(crate) fn overlaps(&self, extent: Extent) -> bool {
        self.by_offset.first_ending_from(extent.start + 1).is_some_and(|next| next.start < extent.end())
    }

    /// The free extent that a unit is in.
    pub(crate) fn around(&self, unit: u64) -> Option<Extent> {
        self.by_offset.first_ending_from(unit + 1).filter(|extent| extent.start <= unit)
    }

    /// The free extent that a unit is in, or the first behind it.
    pub(crate) fn next_from(&self, unit: u64) -> Option<Extent> {
        self.by_offset.first_ending_from(unit + 1)
    }

    /// The free extent at the highest offset.
    pub(crate) fn last(&self) -> Option<Extent> {
        self.by_offset.last()
    }

    /// The sum of all lengths.
    pub(crate) fn total_units(&self) -> u64 {
        self.total_units
    }

    /// How many free extents there are.
    pub(crate) fn extents(&self) -> usize {
        self.by_length.len()
    }

    /// The length of the longest, in units; 0 if there is none.
    pub(crate) fn longest(&self) -> u64 {
        self.by_offset.longest()
    }

    /// All of them by offset.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Extent> {
        self.by_offset.iter()
    }

    /// Recomputes everything and says what does not add up.
    pub(crate) fn validate(&self) -> Result<(), String> {
        self.by_offset.validate()?;
        let (mut extents, mut total_units) = (0, 0);
        let mut before: Option<Extent> = None;
        for extent in self.iter() {
            if before.is_some_and(|before| before.end() >= extent.start) {
                return Err(format!("{before:?} touches or overlaps {extent:?}"));
            }
            if !self.by_length.contains(&(extent.len, extent.end())) {
                return Err(format!("{extent:?} is not known by its length"));
            }
            extents += 1;
            total_units += extent.len;
            before = Some(extent);
        }
        if extents != self.by_length.len() {
            return Err(format!("{extents} extents by offset, {} by length", self.by_length.len()));
        }
        if total_units != self.total_units {
            return Err(format!("{total_units} units are free, {} were counted", self.total_units));
        }
        Ok(())
    }

    /// The extent to take `len` units from.
    fn find(&self, len: u64, fit: Fit) -> Option<Extent> {
        match fit {
            Fit::Best => self.by_length.range((len, 0)..).next().map(|&(len, end)| Extent { start: end - len, len }),
            Fit::First => self.by_offset.first_of_len(len),
        }
    }

    /// Takes `len` units, no more than it has, from the front of a free extent.
    fn take_front(&mut self, from: Extent, len: u64) -> Option<Extent> {
        if len == 0 {
            return None;
        }
        self.resize(from.end(), from.len, from.len - len);
        Some(Extent { start: from.start, len })
    }

    /// Gives the extent that ends at `end` another length. A length of 0 is no extent, before and after.
    fn resize(&mut self, end: u64, old_len: u64, new_len: u64) {
        if old_len == new_len {
            return;
        }
        if old_len > 0 {
            self.by_length.remove(&(old_len, end));
        }
        if new_len > 0 {
            self.by_length.insert((new_len, end));
        }
        self.by_offset.set(end, new_len);
        self.total_units = self.total_units - old_len + new_len;
    }
}
