//! What the file holds after some of the changes, and whether a read can have found what it found.

use super::change::Change;
use super::content::{HOLE, fill};

/// What is needed to explain a read beside the bytes that were there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needed {
    /// A cut during the read, for zeros behind it.
    pub(super) cut: bool,
    /// A hole punched during the read, for zeros in the pages that it began or ended in.
    pub(super) hole: bool,
}

/// The file as runs of one version each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Where each run ends, and its version. A run begins where the one before it ends; the last ends with the file.
    runs: Vec<(u64, u64)>,
}

impl State {
    /// A file of one version.
    pub(super) fn new(len: u64, version: u64) -> Self {
        let mut state = State { runs: Vec::new() };
        state.paint(0, len, version);
        state
    }

    pub(super) fn len(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.0)
    }

    fn begin(&self, run: usize) -> u64 {
        run.checked_sub(1).map_or(0, |before| self.runs[before].0)
    }

    /// Makes the range one run. The file gets longer where it must, with zeros before the range.
    fn paint(&mut self, start: u64, end: u64, version: u64) {
        if start >= end {
            return;
        }
        if start > self.len() {
            self.runs.push((start, HOLE));
        }
        let first = self.runs.partition_point(|run| run.0 <= start);
        let last = self.runs.partition_point(|run| run.0 <= end);
        let left = (self.begin(first) < start).then(|| (start, self.runs[first].1));
        self.runs.splice(first..last, left.into_iter().chain([(end, version)]));
    }

    fn set_len(&mut self, len: u64) {
        if len > self.len() {
            self.runs.push((len, HOLE));
            return;
        }
        let last = self.runs.partition_point(|run| run.0 < len);
        self.runs.truncate(last + 1);
        match self.runs.last_mut() {
            Some(run) if len > 0 => run.0 = len,
            _ => self.runs.clear(),
        }
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Nothing | Change::Rename => {}
            Change::Cut { len } | Change::Extend { len } => self.set_len(len),
            Change::Write { start, end, version } => self.paint(start, end, version),
            Change::Punch { start, end } => self.paint(start, end.min(self.len()), HOLE),
        }
    }

    /// The bytes from `start` on, as far as the file goes. Says how many there are.
    pub(super) fn read(&self, start: u64, bytes: &mut [u8]) -> usize {
        let first = self.runs.partition_point(|run| run.0 <= start);
        let mut done = 0;
        for (end, version) in &self.runs[first..] {
            let count = ((end - start) as usize).min(bytes.len()) - done;
            fill(*version, start + done as u64, &mut bytes[done..done + count]);
            done += count;
            if done == bytes.len() {
                break;
            }
        }
        done
    }

    /// Whether every byte `found` at `place` can have been there while the file went through these changes: the first
    /// that cannot, or what else explains some of them.
    ///
    /// `pread` looks at the file's length and then copies. If the file is cut in between, the rest of its last page is
    /// zeros already, and that happens. So those are let pass, but only if the cut itself overlapped the read. Where
    /// there is a `hole_page_bytes`, a map may show zeros in whole pages of a hole that is just being punched.
    pub(super) fn explain(
        &self,
        during: &[Change],
        place: u64,
        found: &[u8],
        hole_page_bytes: Option<u64>,
        scratch: &mut Vec<u8>,
    ) -> Result<Needed, usize> {
        scratch.resize(found.len().max(scratch.len()), 0);
        let there = self.read(place, &mut scratch[..found.len()]);
        if there == found.len() && scratch[..there] == *found {
            return Ok(Needed::default());
        }
        let mut explained = vec![false; found.len()];
        let mark = |explained: &mut [bool], from: usize, expected: &[u8]| {
            for (index, byte) in (from..).zip(expected) {
                explained[index] |= found[index] == *byte;
            }
        };
        mark(&mut explained, 0, &scratch[..there]);
        let mut state = self.clone();
        let mut lowest_cut = u64::MAX;
        let block_end = place + found.len() as u64;
        for change in during {
            let len_before = state.len();
            state.apply(*change);
            let (start, end) = match *change {
                Change::Cut { len } => {
                    lowest_cut = lowest_cut.min(len);
                    continue;
                }
                Change::Nothing | Change::Rename => continue,
                Change::Extend { len } => (len_before, len),
                Change::Write { start, end, .. } => (start.min(len_before), end),
                Change::Punch { start, end } => (start, end),
            };
            let (start, end) = (start.max(place), end.min(block_end));
            if start < end {
                let expected = &mut scratch[..(end - start) as usize];
                let there = state.read(start, expected);
                mark(&mut explained, (start - place) as usize, &expected[..there]);
            }
        }
        let in_hole_page = |at: u64| {
            hole_page_bytes.is_some_and(|page| {
                let touches = |start: u64, end: u64| start / page <= at / page && at / page <= (end - 1) / page;
                during.iter().any(|change| matches!(*change, Change::Punch { start, end } if touches(start, end)))
            })
        };
        let mut needed = Needed::default();
        for (index, explained) in explained.into_iter().enumerate() {
            if explained {
                continue;
            }
            let at = place + index as u64;
            match found[index] {
                0 if at >= lowest_cut => needed.cut = true,
                0 if in_hole_page(at) => needed.hole = true,
                _ => return Err(index),
            }
        }
        Ok(needed)
    }

    /// The shortest and the longest that the file is in these changes.
    pub(super) fn lengths(&self, during: &[Change]) -> (u64, u64) {
        let mut len = self.len();
        let (mut shortest, mut longest) = (len, len);
        for change in during {
            len = change.len_after(len);
            (shortest, longest) = (shortest.min(len), longest.max(len));
        }
        (shortest, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::Script;
    use super::*;

    /// The same in plain bytes.
    struct Plain(Vec<u8>);

    impl Plain {
        fn apply(&mut self, change: Change) {
            match change {
                Change::Nothing | Change::Rename => {}
                Change::Cut { len } | Change::Extend { len } => self.0.resize(len as usize, 0),
                Change::Write { start, end, version } => {
                    self.0.resize(self.0.len().max(end as usize), 0);
                    fill(version, start, &mut self.0[start as usize..end as usize]);
                }
                Change::Punch { start, end } => {
                    let end = (end as usize).min(self.0.len());
                    self.0.get_mut(start as usize..end).into_iter().for_each(|bytes| bytes.fill(0));
                }
            }
        }
    }

    #[test]
    fn runs_are_what_plain_bytes_are() {
        let file_bytes = 32 << 10;
        let (mut script, mut round, mut version) = (Script::new(5, file_bytes), Vec::new(), 1);
        let (mut state, mut plain) = (State::new(file_bytes, 1), Plain(vec![0; file_bytes as usize]));
        fill(1, 0, &mut plain.0);
        let mut found = vec![0; 40 << 10];
        for _ in 0..500 {
            script.next_round(state.len(), &mut version, &mut round);
            for change in &round {
                // Far from the end is too far for plain bytes.
                if matches!(change, Change::Extend { len } if *len > file_bytes) {
                    continue;
                }
                state.apply(*change);
                plain.apply(*change);
                assert_eq!(state.len(), plain.0.len() as u64, "{change:?}");
                for start in [0, 1, 4095, 20_000] {
                    let there = state.read(start, &mut found);
                    let expected = plain.0.get(start as usize..).unwrap_or_default();
                    let count = expected.len().min(found.len());
                    assert!(there == count && found[..count] == expected[..count], "{change:?}, from {start}");
                }
            }
        }
    }

    #[test]
    fn what_changes_explain_and_what_they_do_not() {
        let state = State::new(8192, 1);
        let block = |version, start: u64, len: usize| {
            let mut bytes = vec![0; len];
            fill(version, start, &mut bytes);
            bytes
        };
        let mut scratch = Vec::new();
        let mut explain =
            |during: &[Change], place, found: &[u8]| state.explain(during, place, found, None, &mut scratch);
        assert_eq!(explain(&[], 100, &block(1, 100, 500)), Ok(Needed::default()));
        assert_eq!(explain(&[], 100, &block(2, 100, 500)), Err(0));
        assert_eq!(explain(&[], 100, &block(1, 108, 500)), Err(0));
        let write = Change::Write { start: 300, end: 400, version: 2 };
        let mut mixed = block(1, 100, 500);
        mixed[200..300].copy_from_slice(&block(2, 300, 100));
        assert_eq!(explain(&[write], 100, &mixed), Ok(Needed::default()));
        assert_eq!(explain(&[], 100, &mixed), Err(200));
        assert_eq!(
            explain(&[write], 100, &block(1, 100, 500)),
            Ok(Needed::default()),
            "the read may have been before it"
        );
        mixed[300] ^= 2;
        assert_eq!(explain(&[write], 100, &mixed), Err(300));
        // Zeros behind a cut, and only there.
        let mut cut = block(1, 4000, 500);
        cut[300..].fill(0);
        assert_eq!(explain(&[Change::Cut { len: 4300 }], 4000, &cut), Ok(Needed { cut: true, hole: false }));
        assert_eq!(explain(&[Change::Cut { len: 4302 }], 4000, &cut), Err(300));
        assert_eq!(explain(&[], 4000, &cut), Err(300), "a cut that is not there");
        let grown = [Change::Cut { len: 4300 }, Change::Extend { len: 8192 }];
        assert_eq!(explain(&grown, 4000, &cut), Ok(Needed::default()), "zeros that were there");
        assert_eq!(state.lengths(&grown), (4300, 8192));
        // Zeros in a page where a hole begins, where that can be.
        let mut in_page = block(1, 4000, 500);
        in_page[96..].fill(0);
        let punch = [Change::Punch { start: 5000, end: 6000 }];
        assert_eq!(state.explain(&punch, 4000, &in_page, None, &mut scratch), Err(96));
        let needed = Ok(Needed { cut: false, hole: true });
        assert_eq!(state.explain(&punch, 4000, &in_page, Some(4096), &mut scratch), needed);
        // In the page before. (The byte after it may be zero.)
        in_page[94] = 0;
        assert_eq!(state.explain(&punch, 4000, &in_page, Some(4096), &mut scratch), Err(94));
    }
}
