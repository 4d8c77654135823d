//! Which cold reads are part of a scan, and how far ahead of it to read.
//!
//! A scan is found by a read that begins where another ended, some times in a row. From then on only what happens once
//! a region matters: the first touch of a region that was read ahead says that the scan has come so far, and what lies
//! ahead is made more, twice as much each time, up to a limit.

use std::ops::Range;

use super::regions::{REGION_BYTES, region_of};

/// Scans that are followed at a time.
const SCANS_MAX: usize = 8;
/// Reads whose end is remembered, to see whether another begins there.
const ENDS: usize = 8;
/// So many reads in a row are a scan. Two, however long, are often chance: a long block has few others to be next to.
const SCAN_READS: u32 = 3;
/// Regions read ahead of a scan: at first, and at most.
const AHEAD_REGIONS: (u64, u64) = (2, 16);

/// The scans of a file.
#[derive(Debug, Default)]
pub(super) struct Streams {
    ends: [End; ENDS],
    next_end: usize,
    scans: Vec<Scan>,
    uses: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct End {
    offset: u64,
    reads: u32,
}

#[derive(Debug)]
struct Scan {
    /// Where it is.
    region: u64,
    /// The first region that is not yet asked for.
    ahead_end: u64,
    /// How many to have ahead.
    window: u64,
    last_use: u64,
}

/// What a scan wants done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Regions to read, in this order.
    pub(super) ahead: Range<u64>,
    /// The last region that it may have left behind; the one that it is in, if it has only begun.
    pub(super) behind: u64,
}

impl Streams {
    /// A read of a region that is not served from the map for sure. Says what to read ahead, if it is part of a scan.
    ///
    /// `regions_max` is how much may be ahead, in regions, where memory is short.
    pub(super) fn observe(&mut self, offset: u64, len: usize, regions_max: u64) -> Option<Wanted> {
        self.uses += 1;
        let end = offset.saturating_add(len as u64);
        let last = region_of(end - 1);
        if let Some(wanted) = self.advance(offset, len, regions_max) {
            return Some(wanted);
        }
        let run = self.run_to(offset, end);
        if run.reads < SCAN_READS {
            return None;
        }
        let window = AHEAD_REGIONS.0.min(regions_max);
        if self.scans.iter().any(|scan| scan.region == last) {
            return None;
        }
        let scan = Scan { region: last, ahead_end: last + 1 + window, window, last_use: self.uses };
        let wanted = Wanted { ahead: last + 1..scan.ahead_end, behind: last };
        if self.scans.len() < SCANS_MAX {
            self.scans.push(scan);
        } else if let Some(oldest) = self.scans.iter_mut().min_by_key(|scan| scan.last_use) {
            *oldest = scan;
        }
        Some(wanted)
    }

    /// If this read is a scan's first one of a region: what it wants now.
    fn advance(&mut self, offset: u64, len: usize, regions_max: u64) -> Option<Wanted> {
        let (first, last) = (region_of(offset), region_of(offset.saturating_add(len as u64 - 1)));
        // A scan enters a region at its beginning. A random read seldom does, in one that a scan has before it.
        let enters = |scan: &&mut Scan| {
            let next = scan.region + 1;
            (next..=scan.ahead_end).contains(&last) && (first < next || offset % REGION_BYTES < len as u64)
        };
        let scan = self.scans.iter_mut().find(enters)?;
        scan.last_use = self.uses;
        scan.window = (scan.window * 2).min(AHEAD_REGIONS.1).min(regions_max).max(1);
        let behind = scan.region;
        scan.region = last;
        let from = scan.ahead_end.max(last);
        let to = last + 1 + scan.window;
        // In pieces of half a window, so that the loads are long.
        if to.saturating_sub(from) < scan.window.div_ceil(2) {
            return Some(Wanted { ahead: 0..0, behind });
        }
        scan.ahead_end = to.max(scan.ahead_end);
        Some(Wanted { ahead: from..to, behind })
    }

    /// How long the run is that a read of these bytes continues.
    fn run_to(&mut self, offset: u64, end: u64) -> End {
        if let Some(known) = self.ends.iter_mut().find(|known| known.reads > 0 && known.offset == offset) {
            *known = End { offset: end, reads: known.reads + 1 };
            return *known;
        }
        // Runs that have begun are kept longer than single reads.
        let at = (0..ENDS).map(|step| (self.next_end + step) % ENDS);
        let at = at.min_by_key(|at| self.ends[*at].reads.min(2)).unwrap_or(0);
        self.next_end = (at + 1) % ENDS;
        for known in &mut self.ends {
            // A run that nothing continues ages, or it would be kept for ever.
            if self.uses.is_multiple_of(64) && known.reads > 0 {
                known.reads -= 1;
            }
        }
        self.ends[at] = End { offset: end, reads: 1 };
        self.ends[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a file in order in blocks, and returns what was wanted, in regions.
    fn scan(streams: &mut Streams, blocks: Range<u64>, block_bytes: u64, regions_max: u64) -> Vec<u64> {
        let read = |block| streams.observe(block * block_bytes, block_bytes as usize, regions_max);
        blocks.filter_map(read).flat_map(|wanted| wanted.ahead).collect()
    }

    #[test]
    fn a_scan_is_read_ahead_of_once_and_whole() {
        for block_bytes in [4096, 65_536, 262_144, 1 << 21, 1 << 22] {
            let mut streams = Streams::default();
            let wanted = scan(&mut streams, 0..(100 << 20) / block_bytes, block_bytes, u64::MAX);
            let first = wanted[0];
            assert!(first <= 1 + 3 * block_bytes / REGION_BYTES, "{block_bytes}: begins late, at {first}");
            let in_order: Vec<u64> = (first..first + wanted.len() as u64).collect();
            assert_eq!(wanted, in_order, "{block_bytes}: each once");
            let last = wanted[wanted.len() - 1];
            assert!((50..=50 + 2 + AHEAD_REGIONS.1).contains(&last), "{block_bytes}: not as far as {last}");
        }
    }

    #[test]
    fn little_memory_is_a_short_way_ahead() {
        let mut streams = Streams::default();
        let wanted = scan(&mut streams, 0..(40 << 20) / 65_536, 65_536, 3);
        assert!(wanted[wanted.len() - 1] <= 19 + 1 + 3);
    }

    #[test]
    fn random_reads_are_no_scan() {
        let mut streams = Streams::default();
        let mut at = 1_u64;
        for _ in 0..100_000 {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            assert_eq!(streams.observe((at >> 20) % 500_000 * 4096, 4096, 16), None);
        }
    }

    #[test]
    fn two_long_reads_that_happen_to_be_neighbours_are_no_scan() {
        let mut streams = Streams::default();
        let mut at = 1_u64;
        for block in (0..100).map(|pair| pair * 7 + 3) {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            for block in [block, block + 1, 1000 + (at >> 20) % 1000] {
                assert_eq!(streams.observe(block << 18, 1 << 18, 16), None);
            }
        }
    }

    #[test]
    fn scans_among_random_reads_are_found() {
        let mut streams = Streams::default();
        let mut at = 1_u64;
        let mut wanted = Vec::new();
        for block in 0..20_000_u64 {
            wanted.extend(streams.observe(block * 4096, 4096, 16).into_iter().flat_map(|wanted| wanted.ahead));
            for _ in 0..3 {
                at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                streams.observe((1 << 40) + (at >> 20) % 50_000_000 * 4096, 4096, 16);
            }
        }
        assert!(wanted.len() >= 38 && wanted[0] == 1, "{wanted:?}");
    }

    #[test]
    fn random_reads_before_a_scan_do_not_move_it() {
        let mut streams = Streams::default();
        assert!(!scan(&mut streams, 0..100, 4096, 16).is_empty());
        for block in (700..2500).step_by(7).filter(|block| block % 512 != 0) {
            assert_eq!(streams.observe(block * 4096, 4096, 16), None);
        }
        let wanted = streams.observe(512 * 4096, 4096, 16).expect("the scan goes on");
        assert_eq!((wanted.ahead.start, wanted.behind), (3, 0));
    }

    #[test]
    fn a_scan_tells_what_it_leaves_behind() {
        let mut streams = Streams::default();
        let blocks = (0..(20 << 20) / 65_536_u64).filter_map(|block| streams.observe(block * 65_536, 65_536, 16));
        let behind: Vec<u64> = blocks.map(|wanted| wanted.behind).collect();
        assert_eq!(behind, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
