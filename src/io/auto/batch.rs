//! Batches, and hints: what concerns many bytes at once.

use std::ops::Range;

use super::core::{Core, Path, map_ns};
use super::group::COST_PART;
use super::regions::{State, bytes_of, region_of};
use crate::error::{Error, Result};
use crate::io::depth::first_of;
use crate::io::{AccessHint, BatchRead, BlockIo};

impl Core {
    /// Does the reads that the map serves one by one, and then all others at depth.
    pub(super) fn read_batch(&self, batch: &mut [BatchRead<'_>]) -> Result<()> {
        let cell = self.map.pread.counters().cell();
        let mut failed = None;
        let mut cold = Vec::new();
        for index in 0..batch.len() {
            if let Some(next) = batch.get(index + 1) {
                self.map.window.prefetch(next.offset);
            }
            let read = &mut batch[index];
            if read.buf.is_empty() {
                continue;
            }
            if !self.regions.all_mapped(read.offset, read.buf.len()) {
                // Once a batch is enough, and a clock.
                if cold.is_empty() {
                    self.judge_if_due(self.now_ns());
                }
                if self.choose(read.offset, read.buf.len(), false) == Path::Pread {
                    cold.push(index);
                    continue;
                }
            }
            if let Err(error) = self.read_mapped(cell, read.offset, read.buf) {
                first_of(&mut failed, index, error);
            }
        }
        if !cold.is_empty() {
            self.read_cold_batch(batch, &cold, &mut failed);
        }
        match failed {
            None => Ok(()),
            Some((index, error)) => Err(Error::Batch { index, source: Box::new(error) }),
        }
    }

    #[cold]
    fn read_cold_batch(&self, batch: &mut [BatchRead<'_>], cold: &[usize], failed: &mut Option<(usize, Error)>) {
        let (began_ns, is_alone) = (self.now_ns(), self.is_alone());
        let mut wanted = cold.iter().copied();
        if let Some((index, error)) = self.depth.read_batch(&self.map.pread, self.single(), batch, &mut wanted) {
            first_of(failed, index, error);
        }
        let now_ns = self.now_ns();
        self.counters.cold_reads.add(cold.len() as u64);
        // They were under way together: each has cost its share.
        let each_ns = self.own_ns((now_ns - began_ns) / cold.len() as u64, is_alone);
        for index in cold {
            let read = &batch[*index];
            // A range that no file can have is in no region.
            if read.offset.checked_add(read.buf.len() as u64).is_some_and(|end| end <= i64::MAX as u64) {
                let cost_ns = each_ns.saturating_sub(map_ns(read.buf.len())) / COST_PART;
                self.account(read.offset, read.buf.len(), cost_ns, now_ns);
            }
        }
    }

    /// Order is found out and need not be told; the map must not be, since it reads nothing by itself.
    pub(super) fn advise(&self, range: Range<u64>, hint: AccessHint) -> Result<()> {
        if hint == AccessHint::DontNeed {
            self.map.window.release(range.clone());
        }
        self.map.pread.advise(range.clone(), hint)?;
        if matches!(hint, AccessHint::DontNeed | AccessHint::WillNeed) && !range.is_empty() {
            let end = range.end.min(self.map.pread.len()?).max(range.start + 1);
            // What is there is asked again; far regions that were never noted have nothing to forget.
            let last = region_of(end - 1);
            for (region, state, _) in self.regions.noted(last + 1, 0) {
                let bytes = bytes_of(region);
                if bytes.end > range.start && !matches!(state, State::Queued | State::Loading) {
                    self.regions.change(region, state, State::Unknown);
                }
            }
        }
        Ok(())
    }
}
