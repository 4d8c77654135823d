//! The free extents against one bit for each unit, and the lists of extents in a file, the space map and the held
//! list, with right checksums and any values.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapfall::fuzzing::Extents;
use mapfall_fuzz::forged::{Forgery, Lists};

const STEPS_MAX: usize = 200;
/// Few units, so that extents meet.
const UNITS: u64 = 2048;

#[derive(Arbitrary, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
enum Plan {
    InMemory(Vec<Step>),
    InAFile(Lists),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Insert {
        start: u16,
        len: u8,
    },
    /// Many small ones, so that there are levels.
    Comb {
        start: u16,
        teeth: u8,
        gap: u8,
    },
    TakeUpTo {
        max: u8,
        least: u8,
        best: bool,
    },
    TakeBelow {
        len: u8,
        limit: u16,
    },
    TakeRange {
        start: u16,
        len: u8,
    },
}

#[derive(Default)]
struct Run {
    extents: Extents,
    model: Vec<bool>,
}

fuzz_target!(|plan: Plan| {
    match plan {
        Plan::InAFile(lists) => Forgery::of_lists(&lists).check(),
        Plan::InMemory(steps) => {
            let mut run = Run { model: vec![false; UNITS as usize], ..Run::default() };
            steps.iter().take(STEPS_MAX).for_each(|step| run.step(*step));
        }
    }
});

impl Run {
    /// The free runs of the model: first unit and length.
    fn free(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for unit in (0..UNITS).filter(|unit| self.model[*unit as usize]) {
            match runs.last_mut().filter(|(start, len)| start + len == unit) {
                Some((_, len)) => *len += 1,
                None => runs.push((unit, 1)),
            }
        }
        runs
    }

    fn range(start: u64, len: u64) -> std::ops::Range<usize> {
        start as usize..(start + len) as usize
    }

    fn insert(&mut self, start: u64, len: u64) {
        let range = Self::range(start, len);
        let free = self.model[range.clone()].iter().any(|free| *free);
        assert_eq!(self.extents.overlaps(start, len), free);
        assert_eq!(self.extents.insert(start, len), !free, "insert {range:?}");
        self.model[range].fill(true);
        if free {
            // Nothing was changed, so what was not free is not.
            self.model = vec![false; UNITS as usize];
            for (start, len) in self.extents.all() {
                self.model[Self::range(start, len)].fill(true);
            }
        }
    }

    fn step(&mut self, step: Step) {
        let before = self.free();
        let inside = |start: u16, len: u64| (u64::from(start) % UNITS).min(UNITS - len);
        match step {
            Step::Insert { start, len } => {
                let len = u64::from(len).max(1);
                let start = inside(start, len);
                let overlaps = before.iter().any(|(at, run)| *at < start + len && start < at + run);
                self.insert(start, len);
                if overlaps {
                    assert_eq!(self.free(), before, "a refused extent changed something");
                }
            }
            Step::Comb { start, teeth, gap } => {
                for tooth in 0..u64::from(teeth) {
                    let at = inside(start, 1) + tooth * (1 + u64::from(gap % 8));
                    if at < UNITS {
                        self.insert(at, 1);
                    }
                }
            }
            Step::TakeUpTo { max, least, best } => {
                let (max, least) = (u64::from(max), u64::from(least));
                let long = before.iter().filter(|(_, len)| *len >= max);
                let fitting = if best { long.min_by_key(|(start, len)| (*len, *start)) } else { long.min() };
                let longest = || before.iter().max_by_key(|(start, len)| (*len, UNITS - start));
                let from = fitting.or_else(longest);
                let expected = from.map(|(start, len)| (*start, (*len).min(max)));
                let expected = expected.filter(|(_, len)| *len > 0 && *len >= least);
                let found = self.extents.take_up_to(max, least, best);
                assert_eq!(found, expected, "{step:?} of {before:?}");
                self.taken(found);
            }
            Step::TakeBelow { len, limit } => {
                let (len, limit) = (u64::from(len), u64::from(limit));
                let fits = |(start, run): &&(u64, u64)| len > 0 && *run >= len && start + len <= limit;
                let expected = before.iter().find(fits).map(|(start, _)| (*start, len));
                let found = self.extents.take_below(len, limit);
                assert_eq!(found, expected, "{step:?} of {before:?}");
                self.taken(found);
            }
            Step::TakeRange { start, len } => {
                let len = u64::from(len);
                let start = inside(start, len);
                let all = len > 0 && self.model[Self::range(start, len)].iter().all(|free| *free);
                assert_eq!(self.extents.take_range(start, len), all, "{step:?} of {before:?}");
                self.taken(all.then_some((start, len)));
            }
        }
        let free = self.free();
        assert_eq!(self.extents.all(), free, "{step:?}");
        let longest = free.iter().map(|(_, len)| *len).max().unwrap_or(0);
        let total = free.iter().map(|(_, len)| len).sum();
        assert_eq!(self.extents.sums(), (total, free.len() as u64, longest));
        let probe = free.first().map_or(0, |(start, _)| *start);
        assert_eq!(self.extents.around(probe), free.first().copied());
    }

    fn taken(&mut self, taken: Option<(u64, u64)>) {
        if let Some((start, len)) = taken {
            self.model[Self::range(start, len)].fill(false);
        }
    }
}
