//! Throughput over time, and the way through the offsets of a pass.

use std::time::{Duration, Instant};

/// A pass that lasts as long as it is told, however few offsets it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesPlan {
    /// How long.
    pub duration: Duration,
    /// Each thread's offsets are so many equal pieces, and each of them is gone through over and over for an equal part
    /// of the duration. At least 1.
    pub phases: usize,
}

/// Bytes read in each slice of a pass's time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// From the start on. Reads count where they ended.
    pub slice_bytes: Vec<u64>,
}

impl Series {
    /// How long a slice is.
    pub const SLICE: Duration = Duration::from_millis(100);

    /// With all slices that a pass has, made now so that counting allocates nothing.
    pub(super) fn for_pass(duration: Duration) -> Series {
        let slices = duration.as_nanos().div_ceil(Series::SLICE.as_nanos());
        Series { slice_bytes: vec![0; usize::try_from(slices).unwrap_or(usize::MAX)] }
    }

    /// What ends after the last slice is not counted: the pass was over.
    #[inline]
    pub(super) fn add(&mut self, elapsed: Duration, bytes: u64) {
        let slice = (elapsed.as_nanos() / Series::SLICE.as_nanos()) as usize;
        if let Some(counted) = self.slice_bytes.get_mut(slice) {
            *counted += bytes;
        }
    }

    pub(super) fn add_all(&mut self, other: &Series) {
        self.slice_bytes.resize(self.slice_bytes.len().max(other.slice_bytes.len()), 0);
        for (sum, bytes) in self.slice_bytes.iter_mut().zip(&other.slice_bytes) {
            *sum += bytes;
        }
    }
}

/// The offsets of a thread, some at a time.
pub(super) enum Feed<'a> {
    Once(std::iter::Peekable<std::slice::Chunks<'a, u64>>),
    Over { pieces: Vec<&'a [u64]>, at: Vec<usize>, chunk_reads: usize, plan: SeriesPlan },
}

impl<'a> Feed<'a> {
    pub(super) fn new(offsets: &'a [u64], chunk_reads: usize, plan: Option<SeriesPlan>) -> Self {
        match plan {
            None => Feed::Once(offsets.chunks(chunk_reads).peekable()),
            Some(plan) => {
                // Where the pattern changes in the middle of an odd number of offsets, the smaller half comes first.
                let bound = |phase: usize| offsets.len() * phase / plan.phases;
                let pieces: Vec<_> = (0..plan.phases).map(|phase| &offsets[bound(phase)..bound(phase + 1)]).collect();
                let at = vec![0; pieces.len()];
                Feed::Over { pieces, at, chunk_reads, plan }
            }
        }
    }

    /// The next offsets; none at the end.
    #[inline]
    pub(super) fn next(&mut self, start: Instant) -> Option<&'a [u64]> {
        match self {
            Feed::Once(chunks) => chunks.next(),
            Feed::Over { pieces, at, chunk_reads, plan } => {
                let elapsed = start.elapsed();
                if elapsed >= plan.duration {
                    return None;
                }
                let phase = (elapsed.as_nanos() * plan.phases as u128 / plan.duration.as_nanos()) as usize;
                let (piece, at) = (*pieces.get(phase)?, at.get_mut(phase)?);
                if piece.is_empty() {
                    return None;
                }
                if *at >= piece.len() {
                    *at = 0;
                }
                let chunk = &piece[*at..piece.len().min(*at + *chunk_reads)];
                *at += chunk.len();
                Some(chunk)
            }
        }
    }

    /// Whether a limit on time would cut something off.
    pub(super) fn can_be_cut(&mut self) -> bool {
        match self {
            Feed::Once(chunks) => chunks.peek().is_some(),
            Feed::Over { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_count_in_the_slice_they_ended_in() {
        let mut series = Series::for_pass(Duration::from_millis(250));
        for (ms, bytes) in [(0, 1), (99, 2), (100, 4), (249, 8), (299, 16), (300, 32), (9000, 64)] {
            series.add(Duration::from_millis(ms), bytes);
        }
        assert_eq!(series.slice_bytes, [3, 4, 24]);
        let mut sum = Series { slice_bytes: vec![1] };
        sum.add_all(&series);
        assert_eq!(sum.slice_bytes, [4, 4, 24]);
    }

    #[test]
    fn each_piece_has_its_time_and_is_gone_through_over_and_over() {
        let plan = SeriesPlan { duration: Duration::from_secs(100), phases: 2 };
        let offsets = [0, 1, 2, 3, 4, 5, 6];
        let mut feed = Feed::new(&offsets, 2, Some(plan));
        let start = Instant::now();
        let later = |s| start.checked_sub(Duration::from_secs(s)).unwrap();
        let first: Vec<_> = (0..3).map(|_| feed.next(start).unwrap()).collect();
        assert_eq!(first, [&[0, 1][..], &[2], &[0, 1]]);
        let second: Vec<_> = (0..3).map(|_| feed.next(later(60)).unwrap()).collect();
        assert_eq!(second, [&[3, 4][..], &[5, 6], &[3, 4]]);
        assert_eq!(feed.next(later(100)), None);
        assert_eq!(Feed::new(&[], 2, Some(plan)).next(start), None);
    }
}
