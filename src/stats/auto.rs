//! What a file opened with [`crate::IoMode::Auto`] has decided, and on what grounds.

use std::time::Duration;

/// The state and history of the choice of paths. All counts are since the file was opened.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct AutoStats {
    /// The length of a region: paths are chosen for each.
    pub region_bytes: u64,
    /// Whether what was read in the last second fits into the page cache. If not, nothing is read that was not asked
    /// for, but ahead of scans.
    pub fits: bool,
    /// How large the page cache may get, as last asked: what the machine and the process's memory cgroups leave.
    pub capacity_bytes: u64,
    /// The tightest limit of a memory cgroup, where there is one.
    pub limit_bytes: Option<u64>,
    /// The share of the last 10 s in which some task waited for memory, in percent (PSI), where the kernel says.
    pub memory_pressure_percent: Option<f64>,
    /// The regions that were read in the last second.
    pub working_set_bytes: u64,
    /// Reads from the map that were timed.
    pub samples: u64,
    /// Those of them that took too long for a copy.
    pub slow_samples: u64,
    /// Those of them whose region had been evicted from the page cache, so that `pread` serves it again.
    pub evictions_seen: u64,
    /// Reads served by system call since their regions were not known to be in the page cache.
    pub cold_reads: u64,
    /// Questions to the kernel for what is in the page cache.
    pub looks: u64,
    /// Times a scan came to another region.
    pub scan_steps: u64,
    /// Regions read ahead of a scan that the scan reached.
    pub ahead_used: u64,
    /// Regions given back behind a scan of a file that does not fit.
    pub dropped_behind: u64,
    /// Regions read whole, ahead of scans or since their single reads had cost enough.
    pub loads: u64,
    /// Their bytes.
    pub load_bytes: u64,
    /// The time that this took, most of it in threads of its own.
    pub load_time: Duration,
    /// Those that a first read caused, since the last ones had paid.
    pub loads_at_once: u64,
    /// Regions that could not be read whole.
    pub load_failures: u64,
    /// Times what was missing of 32 MiB was read whole, since much of it was in use.
    pub groups: u64,
    /// Times it was asked whether the working set fits.
    pub judgements: u64,
    /// Times the answer changed.
    pub mode_changes: u64,
    /// Regions given back for want of memory, or of page tables.
    pub released: u64,
    /// What serves which part of the file, from its beginning; parts that nobody has read are left out.
    pub regions: Vec<AutoRegions>,
}

/// Regions in a row that are served in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutoRegions {
    /// The number of the first one: its offset is that times [`AutoStats::region_bytes`].
    pub first: u64,
    /// How many they are.
    pub count: u64,
    /// What serves them.
    pub state: RegionState,
}

/// What serves a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegionState {
    /// Nothing yet: the next read asks the kernel.
    Unknown,
    /// The map: all of it was in the page cache.
    Mapped,
    /// System calls.
    Cold,
    /// It is being read whole.
    Loading,
}

impl RegionState {
    /// The state's name in tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RegionState::Unknown => "unknown",
            RegionState::Mapped => "mapped",
            RegionState::Cold => "cold",
            RegionState::Loading => "loading",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RegionState::{Cold, Loading, Mapped, Unknown};

    #[test]
    fn states_have_the_names_that_json_has() {
        assert_eq!(
            [Unknown, Mapped, Cold, Loading].map(super::RegionState::name),
            ["unknown", "mapped", "cold", "loading"]
        );
    }
}
