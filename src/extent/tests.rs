//! The rules of the free extents one by one, and all of them against a file of a few units, each free or not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::single_range_in_vec_init, reason = "one free extent is what is meant")]

use std::ops::Range;

use proptest::prelude::*;

use super::*;

const END_MAX: u64 = 1 << 40;

fn extent(units: Range<u64>) -> Extent {
    Extent { start: units.start, len: units.end - units.start }
}

fn space(free: &[Range<u64>]) -> FreeSpace {
    let mut space = FreeSpace::default();
    for units in free {
        space.insert(extent(units.clone())).unwrap();
    }
    space
}

#[track_caller]
fn is_free(space: &FreeSpace, free: &[Range<u64>]) {
    space.validate().unwrap();
    assert_eq!(space.iter().map(|free| free.start..free.end()).collect::<Vec<_>>(), free);
}

#[test]
fn nothing_is_free_at_first() {
    let mut space = FreeSpace::default();
    is_free(&space, &[]);
    assert_eq!((space.last(), space.total_units(), space.extents(), space.longest()), (None, 0, 0, 0));
    for fit in [Fit::Best, Fit::First] {
        assert_eq!((space.take(1, fit), space.take_up_to(1, 1, fit)), (None, None));
    }
    assert_eq!(space.take_below(1, END_MAX), None);
    assert!(!space.take_range(extent(0..1)));
}

#[test]
fn what_is_freed_is_merged_with_both_neighbours() {
    let mut space = space(&[10..20, 40..50]);
    for (freed, free) in [
        (21..22, &[10..20, 21..22, 40..50][..]),
        (20..21, &[10..22, 40..50]),
        (39..40, &[10..22, 39..50]),
        (22..39, &[10..50]),
        (0..9, &[0..9, 10..50]),
        (50..60, &[0..9, 10..60]),
        (9..10, &[0..60]),
        (60..END_MAX, &[0..END_MAX]),
    ] {
        assert_eq!(space.insert(extent(freed)), Ok(()));
        is_free(&space, free);
    }
}

#[test]
fn what_is_free_cannot_be_freed() {
    let free = [10..20, 30..40, 50..60];
    let mut space = space(&free);
    for (freed, overlapped) in [
        (10..20, 10..20),
        (9..11, 10..20),
        (10..11, 10..20),
        (19..20, 10..20),
        (19..21, 10..20),
        (5..45, 10..20),
        (20..31, 30..40),
        (20..45, 30..40),
        (20..100, 30..40),
        (59..END_MAX, 50..60),
    ] {
        assert_eq!(space.insert(extent(freed.clone())), Err(extent(overlapped)), "{freed:?}");
        is_free(&space, &free);
    }
}

#[test]
fn best_fit_takes_the_front_of_the_shortest_and_first_fit_of_the_first() {
    let free = [0..10, 20..23, 30..35, 40..43];
    for (len, best, first) in
        [(1, 20..21, 0..1), (3, 20..23, 0..3), (4, 30..34, 0..4), (6, 0..6, 0..6), (10, 0..10, 0..10)]
    {
        assert_eq!(space(&free).take(len, Fit::Best), Some(extent(best)), "{len}");
        assert_eq!(space(&free).take(len, Fit::First), Some(extent(first)), "{len}");
    }
    let mut space = space(&free);
    for (taken, free) in
        [(20..23, &[0..10, 30..35, 40..43][..]), (40..43, &[0..10, 30..35]), (30..33, &[0..10, 33..35])]
    {
        assert_eq!(space.take(3, Fit::Best), Some(extent(taken)));
        is_free(&space, free);
    }
}

#[test]
fn no_units_and_more_than_the_longest_cannot_be_taken() {
    let mut space = space(&[0..5, 6..10]);
    for fit in [Fit::Best, Fit::First] {
        for len in [0, 6, 9, u64::MAX] {
            assert_eq!(space.take(len, fit), None, "{len}");
            assert_eq!(space.take_below(len, u64::MAX), None, "{len}");
            assert_eq!(space.take_up_to(len, len, fit), None, "{len}");
        }
        assert_eq!(space.take_up_to(0, 0, fit), None);
        assert_eq!(space.take_up_to(2, 3, fit), None, "more at least than at most");
    }
    is_free(&space, &[0..5, 6..10]);
}

#[test]
fn up_to_a_length_is_by_fit_where_there_is_that_length_and_else_the_longest() {
    let free = [0..10, 20..25, 30..35, 40..44];
    for (max_len, min_len, best, first) in [
        (4, 1, Some(40..44), Some(0..4)),
        (5, 5, Some(20..25), Some(0..5)),
        (6, 1, Some(0..6), Some(0..6)),
        (11, 10, Some(0..10), Some(0..10)),
        (u64::MAX, 0, Some(0..10), Some(0..10)),
        (11, 11, None, None),
    ] {
        for (fit, taken) in [(Fit::Best, best), (Fit::First, first)] {
            assert_eq!(
                space(&free).take_up_to(max_len, min_len, fit),
                taken.map(extent),
                "{max_len} {min_len} {fit:?}"
            );
        }
    }
    let mut space = space(&free);
    for taken in [0..10, 20..25, 30..35, 40..44] {
        assert_eq!(space.take_up_to(100, 1, Fit::Best), Some(extent(taken)), "the lowest of the longest");
    }
    is_free(&space, &[]);
}

#[test]
fn below_a_limit_counts_what_is_taken_not_where_the_extent_ends() {
    let free = [10..12, 20..30];
    for (len, limit, taken) in [
        (1, 10, None),
        (1, 11, Some(10..11)),
        (2, 11, None),
        (2, 12, Some(10..12)),
        (3, 22, None),
        (3, 23, Some(20..23)),
        (10, 30, Some(20..30)),
        (1, 0, None),
    ] {
        assert_eq!(space(&free).take_below(len, limit), taken.map(extent), "{len} below {limit}");
    }
}

#[test]
fn a_range_is_taken_from_the_middle_of_an_extent_and_from_its_ends() {
    let mut space = space(&[10..20, 30..40]);
    for (taken, free) in [
        (14..16, &[10..14, 16..20, 30..40][..]),
        (10..11, &[11..14, 16..20, 30..40]),
        (19..20, &[11..14, 16..19, 30..40]),
        (11..14, &[16..19, 30..40]),
    ] {
        assert!(space.take_range(extent(taken)));
        is_free(&space, free);
    }
    for used in [15..16, 15..17, 18..20, 19..20, 19..30, 29..31, 16..31, 0..100, 17..17, 39..41, 40..41, 50..END_MAX] {
        assert!(!space.take_range(extent(used.clone())), "{used:?}");
        is_free(&space, &[16..19, 30..40]);
    }
}

#[test]
fn the_largest_file_there_can_be_is_free_and_used_to_its_end() {
    let mut space = space(&[0..END_MAX]);
    assert_eq!(space.take(END_MAX - 1, Fit::First), Some(extent(0..END_MAX - 1)));
    assert_eq!(space.last(), Some(extent(END_MAX - 1..END_MAX)));
    assert_eq!(space.take_below(1, END_MAX - 1), None);
    assert_eq!(space.take_below(1, END_MAX), Some(extent(END_MAX - 1..END_MAX)));
    assert_eq!(space.total_units(), 0);
}

#[test]
fn validation_finds_what_does_not_add_up() {
    let broken = |break_it: fn(&mut FreeSpace)| {
        let mut space = space(&[10..20, 30..40]);
        break_it(&mut space);
        space.validate().unwrap_err()
    };
    assert!(broken(|space| space.total_units += 1).contains("20 units are free, 21 were counted"));
    assert!(broken(|space| _ = space.by_length.insert((1, 1))).contains("2 extents by offset, 3 by length"));
    assert!(broken(|space| _ = space.by_length.remove(&(10, 20))).contains("not known by its length"));
    assert!(broken(|space| space.by_offset.set(30, 10)).contains("touches or overlaps"));
    assert!(broken(|space| space.by_offset.set(40, 21)).contains("behind unit 20"));
}

/// A file of a few units, and for each whether it is free.
struct Model(Vec<bool>);

impl Model {
    fn runs(&self) -> Vec<Extent> {
        let mut runs: Vec<Extent> = Vec::new();
        for (unit, _) in (0..).zip(&self.0).filter(|(_, free)| **free) {
            match runs.last_mut().filter(|run| run.end() == unit) {
                Some(run) => run.len += 1,
                None => runs.push(extent(unit..unit + 1)),
            }
        }
        runs
    }

    fn units(&mut self, of: Extent) -> &mut [bool] {
        &mut self.0[of.start as usize..of.end() as usize]
    }

    /// Where `len` units should be taken.
    fn find(&self, len: u64, fit: Fit) -> Option<Extent> {
        let long_enough = self.runs().into_iter().filter(|run| run.len >= len);
        match fit {
            Fit::Best => long_enough.min_by_key(|run| (run.len, run.start)),
            Fit::First => long_enough.min_by_key(|run| run.start),
        }
        .map(|run| Extent { len, ..run })
    }

    fn find_up_to(&self, max_len: u64, min_len: u64, fit: Fit) -> Option<Extent> {
        let longest = || self.runs().into_iter().rev().max_by_key(|run| run.len);
        self.find(max_len, fit).or_else(longest).filter(|found| found.len >= min_len)
    }
}

/// What one can do to a free space. The lengths are more than 0.
#[derive(Clone, Debug)]
enum Operation {
    Insert(Extent),
    Take(u64, Fit),
    TakeUpTo(u64, u64, Fit),
    TakeBelow(u64, u64),
    TakeRange(Extent),
}

impl Operation {
    fn any(units: u64, len_max: u64) -> impl Strategy<Value = Operation> {
        let fit = || prop_oneof![Just(Fit::Best), Just(Fit::First)];
        let len = || 1..=len_max;
        let range = || (0..units, len()).prop_map(move |(start, len)| extent(start..(start + len).min(units)));
        prop_oneof![
            6 => range().prop_map(Operation::Insert),
            2 => (len(), fit()).prop_map(|(len, fit)| Operation::Take(len, fit)),
            1 => (len(), len(), fit()).prop_map(|(max_len, min_len, fit)| Operation::TakeUpTo(max_len, min_len, fit)),
            1 => (len(), 0..=units).prop_map(|(len, limit)| Operation::TakeBelow(len, limit)),
            2 => range().prop_map(Operation::TakeRange),
        ]
    }

    /// Does it to both, which must agree on what comes of it.
    fn run(&self, space: &mut FreeSpace, model: &mut Model) {
        let expected = match *self {
            Operation::Insert(freed) => {
                let overlapped =
                    model.runs().into_iter().find(|run| run.start < freed.end() && freed.start < run.end());
                assert_eq!(space.insert(freed), overlapped.map_or(Ok(()), Err));
                if overlapped.is_none() {
                    model.units(freed).fill(true);
                }
                return;
            }
            Operation::TakeRange(taken) => {
                let is_free = model.units(taken).iter().all(|free| *free);
                assert_eq!(space.take_range(taken), is_free);
                is_free.then_some(taken)
            }
            Operation::Take(len, fit) => {
                let expected = model.find(len, fit);
                assert_eq!(space.take(len, fit), expected);
                expected
            }
            Operation::TakeUpTo(max_len, min_len, fit) => {
                let expected = model.find_up_to(max_len, min_len, fit);
                assert_eq!(space.take_up_to(max_len, min_len, fit), expected);
                expected
            }
            Operation::TakeBelow(len, limit) => {
                let expected = model.find(len, Fit::First).filter(|found| found.end() <= limit);
                assert_eq!(space.take_below(len, limit), expected);
                expected
            }
        };
        if let Some(taken) = expected {
            model.units(taken).fill(false);
        }
    }
}

/// Does all of them, beginning with a file of which some units are free.
fn run_all(free: Vec<bool>, operations: &[Operation]) {
    let (mut space, mut model) = (FreeSpace::default(), Model(free));
    for run in model.runs() {
        space.insert(run).unwrap();
    }
    for operation in operations {
        operation.run(&mut space, &mut model);
        space.validate().unwrap();
        let runs = model.runs();
        assert!(space.iter().eq(runs.iter().copied()));
        assert_eq!(space.last(), runs.last().copied());
        assert_eq!(space.total_units(), runs.iter().map(|run| run.len).sum::<u64>());
        assert_eq!(space.extents(), runs.len());
        assert_eq!(space.longest(), runs.iter().map(|run| run.len).max().unwrap_or(0));
    }
}

proptest! {
    #[test]
    fn a_small_file_behaves_as_its_model(
        free in prop::collection::vec(any::<bool>(), 48),
        operations in prop::collection::vec(Operation::any(48, 8), 1..200),
    ) {
        run_all(free, &operations);
    }
}

proptest! {
    // Fewer cases: the model looks at every unit again and again.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Enough extents for a tree of three levels.
    #[test]
    fn a_fragmented_file_behaves_as_its_model(
        free in prop::collection::vec(prop::bool::weighted(0.4), 6000),
        operations in prop::collection::vec(Operation::any(6000, 6), 1..40),
    ) {
        run_all(free, &operations);
    }
}
