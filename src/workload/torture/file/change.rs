//! What is done to the file, and the script of it: rounds of cuts and growth, with holes and writes between them.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// One change of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The system refused it.
    Nothing,
    /// `ftruncate` to less.
    Cut { len: u64 },
    /// `ftruncate` to more: zeros.
    Extend { len: u64 },
    /// One `pwrite` of a version.
    Write { start: u64, end: u64, version: u64 },
    /// `fallocate(PUNCH_HOLE)`: zeros.
    Punch { start: u64, end: u64 },
    /// Another file gets the name, and this one gets it back: nothing happens to the file itself.
    Rename,
}

/// The words that stand for a change.
pub(super) const CHANGE_WORDS: usize = 4;

impl Change {
    pub(super) fn to_words(self) -> [u64; CHANGE_WORDS] {
        match self {
            Change::Nothing => [0, 0, 0, 0],
            Change::Cut { len } => [1, len, 0, 0],
            Change::Extend { len } => [2, len, 0, 0],
            Change::Write { start, end, version } => [3, start, end, version],
            Change::Punch { start, end } => [4, start, end, 0],
            Change::Rename => [5, 0, 0, 0],
        }
    }

    /// `None` for words that stand for nothing.
    pub(super) fn from_words(words: [u64; CHANGE_WORDS]) -> Option<Change> {
        Some(match words {
            [0, ..] => Change::Nothing,
            [1, len, ..] => Change::Cut { len },
            [2, len, ..] => Change::Extend { len },
            [3, start, end, version] => Change::Write { start, end, version },
            [4, start, end, _] => Change::Punch { start, end },
            [5, ..] => Change::Rename,
            _ => return None,
        })
    }

    /// How long the file is after it.
    pub(super) fn len_after(self, len: u64) -> u64 {
        match self {
            Change::Cut { len } | Change::Extend { len } => len,
            Change::Write { start, end, .. } if start < end => len.max(end),
            _ => len,
        }
    }
}

/// What rounds are made of for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The file is cut anywhere and the same place is written again: no byte of it is ever zero that was not written as
    /// zero.
    CutAndWrite,
    /// The same at the beginning of a file that is much longer, where a look at its last page tells whether it was cut.
    CutFarFromTheEnd,
    /// Cuts to nothing, to the middle of a page and to its end; growth by writes and by zeros; holes; writes in place.
    Anything,
}

/// Rounds of a kind.
const CHAPTER_ROUNDS: u32 = 500;
/// A new name comes once in so many rounds.
const RENAME_ROUNDS: u32 = 1 << 12;
/// Of a file that is longer, no cut takes more than this, so that growing again is cheap.
const CUT_BYTES_MAX: u64 = 256 << 10;

/// The changes that a seed stands for. How they turn out is not in it.
#[derive(Debug)]
pub(super) struct Script {
    rng: SmallRng,
    /// The part of the file that readers read. It may be longer.
    file_bytes: u64,
    page_bytes: u64,
    kind: Kind,
    rounds_left: u32,
}

impl Script {
    pub(super) fn new(seed: u64, file_bytes: u64) -> Self {
        let (rng, page_bytes) = (SmallRng::seed_from_u64(seed), rustix::param::page_size() as u64);
        Script { rng, file_bytes, page_bytes, kind: Kind::Anything, rounds_left: 0 }
    }

    /// How long the file is while it is cut far from its end: past the largest folio there is.
    pub(super) fn far_bytes(&self) -> u64 {
        self.page_bytes << 12
    }

    /// The next round's changes of a file that is so long, in `round`: a cut, growth, and what else there may be.
    pub(super) fn next_round(&mut self, len: u64, version: &mut u64, round: &mut Vec<Change>) {
        if self.rounds_left == 0 {
            self.rounds_left = CHAPTER_ROUNDS;
            let kinds = [Kind::CutAndWrite, Kind::Anything, Kind::CutFarFromTheEnd];
            let kinds = if self.file_bytes < self.far_bytes() { &kinds[..] } else { &kinds[..2] };
            self.kind = kinds[self.rng.random_range(0..kinds.len())];
        }
        self.rounds_left -= 1;
        round.clear();
        let mut next_version = || {
            *version += 1;
            *version
        };
        if self.rng.random_range(0..RENAME_ROUNDS) == 0 {
            round.push(Change::Rename);
        }
        let file_bytes = self.file_bytes;
        match self.kind {
            Kind::CutAndWrite | Kind::CutFarFromTheEnd => {
                let far_bytes = self.far_bytes();
                if self.kind == Kind::CutFarFromTheEnd && len < far_bytes {
                    round.push(Change::Extend { len: far_bytes });
                }
                let least = file_bytes.saturating_sub(CUT_BYTES_MAX).max(1);
                let cut = self.rng.random_range(least.min(file_bytes - 1)..file_bytes);
                // A file that is short was left so by a refusal.
                round.push(if cut < len { Change::Cut { len: cut } } else { Change::Extend { len: file_bytes } });
                if cut < len {
                    round.push(Change::Write { start: cut, end: file_bytes, version: next_version() });
                }
            }
            Kind::Anything => {
                let len = len.min(file_bytes);
                let cut = self.any_cut(len);
                round.push(Change::Cut { len: cut });
                if self.rng.random_range(0..3) == 0 && cut > 0 {
                    let start = self.rng.random_range(0..cut);
                    let end = (start + self.rng.random_range(1..=4 * self.page_bytes)).min(file_bytes);
                    round.push(Change::Write { start, end, version: next_version() });
                }
                let len = round.iter().fold(len, |len, change| change.len_after(len));
                let end = self.rng.random_range(len.max(file_bytes / 4)..=file_bytes);
                round.push(match self.rng.random_range(0..4) {
                    0 if end > len => Change::Extend { len: end },
                    // Also past the end, so that there are zeros between.
                    1 if end > len => {
                        let start = self.rng.random_range(len..end);
                        Change::Write { start, end, version: next_version() }
                    }
                    _ => Change::Write { start: len.min(file_bytes - 1), end: file_bytes, version: next_version() },
                });
                if self.rng.random_range(0..3) == 0 {
                    let start = self.rng.random_range(0..end.max(1));
                    let end = (start + self.rng.random_range(1..=2 * self.page_bytes)).min(end.max(start + 1));
                    round.push(Change::Punch { start, end });
                }
            }
        }
    }

    fn any_cut(&mut self, len: u64) -> u64 {
        let least = len.saturating_sub(CUT_BYTES_MAX);
        let cut = self.rng.random_range(least..=len);
        match self.rng.random_range(0..6) {
            0 => least,
            1..3 => (cut / self.page_bytes * self.page_bytes).max(least),
            _ => cut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_go_over_as_words() {
        let changes = [
            Change::Nothing,
            Change::Cut { len: 5 },
            Change::Extend { len: 6 },
            Change::Write { start: 1, end: 9, version: 3 },
            Change::Punch { start: 2, end: 4 },
            Change::Rename,
        ];
        for change in changes {
            assert_eq!(Change::from_words(change.to_words()), Some(change));
        }
        assert_eq!(Change::from_words([6, 0, 0, 0]), None);
    }

    #[test]
    fn each_round_cuts_and_grows() {
        for file_bytes in [8 << 12, 1 << 20, 64 << 20] {
            let (mut script, mut round) = (Script::new(3, file_bytes), Vec::new());
            let (mut len, mut version, mut least, mut most) = (file_bytes, 1, u64::MAX, 0);
            for _ in 0..20_000 {
                script.next_round(len, &mut version, &mut round);
                assert!(!round.is_empty());
                for change in &round {
                    if let Change::Write { start, end, .. } | Change::Punch { start, end } = change {
                        assert!(start < end && *end <= file_bytes, "{change:?} of {file_bytes}");
                    }
                    len = change.len_after(len);
                    (least, most) = (least.min(len), most.max(len));
                }
                assert!(len >= file_bytes / 4);
            }
            assert!(most >= file_bytes && least < file_bytes, "{least} to {most}");
        }
    }
}
