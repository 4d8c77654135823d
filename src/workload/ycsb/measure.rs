//! Latencies as they are taken: a thread's own histograms, which the reporter empties at each interval.
//!
//! A thread writes into its own recorder, under a lock that nobody else wants but once an interval. So taking a latency
//! costs no shared write. All are in nanoseconds, with three digits, up to an hour.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::workload::Operation;

/// The longest latency that is told from longer ones.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// What has a latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Measured {
    /// An operation of the workload.
    Operation(Operation),
    /// One that failed.
    Failed(Operation),
    /// One that was a part of another: shown with the operations of its kind, and not counted as one.
    Part(Operation),
    /// Looking at every byte of a record.
    Verify,
    /// A checkpoint while operations run.
    Checkpoint,
    /// What is done after the last operation: the last checkpoint.
    Cleanup,
}

impl Measured {
    /// How many there are.
    pub(super) const COUNT: usize = 18;

    /// All of them, in the order of the output.
    pub(super) fn all() -> impl Iterator<Item = Measured> {
        let operations = Operation::ALL.into_iter();
        let failed = Operation::ALL.into_iter().map(Measured::Failed);
        let rest = [Measured::Verify, Measured::Checkpoint, Measured::Cleanup];
        let parts = Operation::ALL.into_iter().map(Measured::Part);
        operations.map(Measured::Operation).chain(failed).chain(rest).chain(parts)
    }

    pub(super) fn index(self) -> usize {
        match self {
            Measured::Operation(operation) => operation as usize,
            Measured::Failed(operation) => 5 + operation as usize,
            Measured::Verify => 10,
            Measured::Checkpoint => 11,
            Measured::Cleanup => 12,
            Measured::Part(operation) => 13 + operation as usize,
        }
    }

    /// YCSB's name.
    #[must_use]
    pub(super) fn name(self) -> String {
        match self {
            Measured::Operation(operation) | Measured::Part(operation) => operation.name().to_owned(),
            Measured::Failed(operation) => format!("{}-FAILED", operation.name()),
            Measured::Verify => "VERIFY".to_owned(),
            Measured::Checkpoint => "CHECKPOINT".to_owned(),
            Measured::Cleanup => "CLEANUP".to_owned(),
        }
    }
}

/// How an operation ended, as YCSB says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    Ok,
    NotFound,
    /// The bytes of a record are not those that should be there.
    UnexpectedState,
    Error,
}

impl Return {
    const ALL: [Return; 4] = [Return::Ok, Return::NotFound, Return::UnexpectedState, Return::Error];

    fn name(self) -> &'static str {
        match self {
            Return::Ok => "OK",
            Return::NotFound => "NOT_FOUND",
            Return::UnexpectedState => "UNEXPECTED_STATE",
            Return::Error => "ERROR",
        }
    }
}

/// An empty histogram.
pub(super) fn histogram() -> Histogram<u64> {
    // The bounds are fixed and good, so that the other arm is never taken.
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// Latencies of one thing.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) measured: Histogram<u64>,
    /// From when the operation should have begun. As long as nothing has such a time it stays away.
    pub(super) intended: Option<Histogram<u64>>,
    returns: [u64; 4],
    pub(super) errors: BTreeMap<String, u64>,
}

impl Series {
    fn new() -> Series {
        Series { measured: histogram(), intended: None, returns: [0; 4], errors: BTreeMap::new() }
    }

    pub(super) fn returns(&self) -> BTreeMap<String, u64> {
        let each = Return::ALL.into_iter().map(|end| (end.name().to_owned(), self.returns[end as usize]));
        each.filter(|(_, count)| *count > 0).collect()
    }

    fn add(&mut self, other: &Series) {
        // Both have the same bounds.
        let _ = self.measured.add(&other.measured);
        if let Some(intended) = &other.intended {
            let _ = self.intended.get_or_insert_with(histogram).add(intended);
        }
        for (sum, count) in self.returns.iter_mut().zip(other.returns) {
            *sum += count;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
    }
}

/// Latencies of everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder {
    series: [Option<Box<Series>>; Measured::COUNT],
}

impl Recorder {
    fn series(&mut self, what: Measured) -> &mut Series {
        self.series[what.index()].get_or_insert_with(|| Box::new(Series::new()))
    }

    #[inline]
    pub(super) fn record(&mut self, what: Measured, latency_ns: u64, intended_ns: Option<u64>) {
        let series = self.series(what);
        series.measured.saturating_record(latency_ns);
        if let Some(intended_ns) = intended_ns {
            series.intended.get_or_insert_with(histogram).saturating_record(intended_ns);
        }
    }

    #[inline]
    pub(super) fn count(&mut self, what: Measured, end: Return) {
        self.series(what).returns[end as usize] += 1;
    }

    pub(super) fn error(&mut self, what: Measured, kind: String) {
        *self.series(what).errors.entry(kind).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Recorder) {
        for (sum, series) in self.series.iter_mut().zip(&other.series) {
            if let Some(series) = series {
                sum.get_or_insert_with(|| Box::new(Series::new())).add(series);
            }
        }
    }

    /// With parts of operations among the operations of their kind.
    pub(super) fn folded(mut self) -> Recorder {
        for operation in Operation::ALL {
            if let Some(part) = self.series[Measured::Part(operation).index()].take() {
                self.series(Measured::Operation(operation)).add(&part);
            }
        }
        self
    }

    /// All operations that ended well, each once, and from when they should have begun.
    pub(super) fn whole(&self) -> (Histogram<u64>, Option<Histogram<u64>>) {
        let (mut all, mut all_intended) = (histogram(), None);
        for (_, series) in self.iter().filter(|(what, _)| matches!(what, Measured::Operation(_))) {
            let _ = all.add(&series.measured);
            if let Some(intended) = &series.intended {
                let _ = all_intended.get_or_insert_with(histogram).add(intended);
            }
        }
        (all, all_intended)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Measured, &Series)> {
        Measured::all().zip(&self.series).filter_map(|(what, series)| Some((what, series.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_place_of_its_own() {
        let places: Vec<_> = Measured::all().map(Measured::index).collect();
        assert_eq!(places, (0..Measured::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn recorders_add_up() {
        let read = Measured::Operation(Operation::Read);
        let (mut sum, mut one) = (Recorder::default(), Recorder::default());
        one.record(read, 1000, Some(5000));
        one.count(read, Return::Ok);
        one.error(read, "Io".to_owned());
        sum.add(&one);
        sum.add(&one);
        let (what, series) = sum.iter().next().unwrap_or_else(|| panic!("nothing"));
        assert_eq!((what, series.measured.len(), series.errors["Io"]), (read, 2, 2));
        assert_eq!(series.intended.as_ref().map(Histogram::len), Some(2));
        assert_eq!(series.returns(), BTreeMap::from([("OK".to_owned(), 2)]));
    }
}
