//! Regions that are next to each other and in use together.

use super::core::{Core, GROUP_REGIONS};
use super::regions::{State, regions_of};
use crate::io::BlockIo;

/// A group is read whole when this part of its regions is in use, and their cold reads have cost that part of what it
/// costs to read what is not there of it.
const USED_PART: u64 = 4;
/// One read at a time leaves the device idle for most of its time. Reads at depth do not: this part of their cost
/// counts, so that they must have cost all of it.
pub(super) const COST_PART: u64 = 16;

impl Core {
    /// Has all of the regions around this one read that are not there, if that is worth it by now. One read in each
    /// tells less of a region than many reads around it do, and regions that are read in order cost the device less.
    pub(super) fn consider_group(&self, region: u64) {
        let first = region / GROUP_REGIONS * GROUP_REGIONS;
        let group = first..regions_of(self.map.pread.len().unwrap_or(0)).min(first + GROUP_REGIONS);
        let (mut used, mut missing, mut spent_ns) = (0, 0, 0_u64);
        for region in group.clone() {
            let (state, region_ns) = self.regions.spent(region);
            used += u64::from(state.is_served() || region_ns > 0);
            missing += u64::from(!state.is_served());
            spent_ns = spent_ns.saturating_add(region_ns);
        }
        let is_used = used * USED_PART >= (group.end - group.start) && used > 1;
        if !is_used || spent_ns < missing * self.load_ns() / COST_PART {
            return;
        }
        let mut queued = 0;
        // Those in use first.
        for is_used in [true, false] {
            for region in group.clone() {
                let (state, region_ns) = self.regions.spent(region);
                if state == State::Cold && (region_ns > 0) == is_used && !self.regions.is_put_off(region) {
                    queued += u64::from(self.queue(region, false));
                }
            }
        }
        self.counters.groups.add(u64::from(queued > 0));
    }
}
