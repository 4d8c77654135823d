//! Which record an operation is about.
//!
//! The sequences are YCSB's: the same ranks, the same hash over ten billion ranks, the same counter of new records. Of
//! records that are being inserted none is chosen before its insert is done ([`Inserts::last`]).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use rand::{Rng, RngExt};
use rand_distr::{Distribution as _, Exp};

use super::record::fnv_hash;
use super::workload::{Distribution, Operation, ScanLength, Workload};
use super::zipf::Ranks;

/// Over so many items YCSB draws the ranks that it scatters.
const SCRAMBLED_ITEMS: u64 = 10_000_000_000;
/// Ranks that do not go with the records that are inserted meanwhile are drawn so many at a time: powers and hashes
/// take long one by one, but the processor can be at several at once.
const AHEAD: usize = 16;

/// The numbers of new records: given out to whoever inserts, and known to all as far as none is missing.
#[derive(Debug)]
pub struct Inserts {
    next: CachePadded<AtomicU64>,
    /// All below are inserted.
    end: CachePadded<AtomicU64>,
    /// Those that are above one that is not.
    early: Mutex<BTreeSet<u64>>,
}

impl Inserts {
    /// All records below `count` are there.
    #[must_use]
    pub fn new(count: u64) -> Inserts {
        Inserts { next: AtomicU64::new(count).into(), end: AtomicU64::new(count).into(), early: Mutex::default() }
    }

    /// A number for a new record.
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Says that its insert is done, whichever way.
    pub fn done(&self, number: u64) {
        let mut early = self.early.lock();
        early.insert(number);
        let mut end = self.end.load(Ordering::Relaxed);
        while early.remove(&end) {
            end += 1;
        }
        // With the acquire load in `end`: who sees the number finds the record.
        self.end.store(end, Ordering::Release);
    }

    /// How many records there are without a gap.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The last of them.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.end().saturating_sub(1)
    }
}

/// What the choosers of all threads share.
#[derive(Debug)]
pub struct Shared {
    /// The numbers of new records.
    pub inserts: Inserts,
    sequence: CachePadded<AtomicU64>,
}

impl Shared {
    /// For a run over the records below `record_count`.
    #[must_use]
    pub fn new(record_count: u64) -> Shared {
        Shared { inserts: Inserts::new(record_count), sequence: AtomicU64::new(0).into() }
    }
}

/// Chooses records for one thread.
#[derive(Clone, Debug)]
pub struct Chooser {
    kind: Kind,
    /// The first record and how many there are to choose among, as YCSB counts them.
    start: u64,
    count: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    Uniform,
    Scrambled { ranks: Ranks, items: u64, ahead: Ahead },
    Zipfian { ranks: Ranks, ahead: Ahead },
    Latest { ranks: Ranks },
    Hotspot { hot: u64, operations: f64 },
    Exponential { exp: Option<Exp<f64>> },
    Sequential,
    Constant,
}

impl Chooser {
    /// For a workload over the records below `record_count`, of which a run may insert more.
    #[must_use]
    pub fn new(workload: &Workload, record_count: u64) -> Chooser {
        let start = workload.insert_start.min(record_count.saturating_sub(1));
        let count = workload.insert_count.unwrap_or(u64::MAX).min(record_count - start).max(1);
        let kind = match workload.distribution {
            Distribution::Uniform => Kind::Uniform,
            Distribution::ScrambledZipfian { constant } => {
                let operations = workload.operation_count.unwrap_or(0) as f64;
                let expected = operations * workload.proportion(Operation::Insert) * 2.0;
                // Its upper bound counts, so there is one item more.
                let (ranks, items) = (Ranks::new(SCRAMBLED_ITEMS, constant), count + expected as u64 + 1);
                Kind::Scrambled { ranks, items, ahead: Ahead::default() }
            }
            Distribution::Zipfian { constant } => {
                Kind::Zipfian { ranks: Ranks::new(count, constant), ahead: Ahead::default() }
            }
            Distribution::Latest { constant } => Kind::Latest { ranks: Ranks::new(record_count.max(2) - 1, constant) },
            Distribution::Hotspot { data, operations } => {
                Kind::Hotspot { hot: ((count as f64 * data) as u64).clamp(1, count), operations }
            }
            Distribution::Exponential { percentile, fraction } => {
                let rate = -(1.0 - percentile / 100.0).ln() / (record_count as f64 * fraction);
                Kind::Exponential { exp: Exp::new(rate).ok() }
            }
            Distribution::Sequential => Kind::Sequential,
            Distribution::Constant => Kind::Constant,
        };
        Chooser { kind, start, count }
    }

    /// The number of a record that is there.
    #[inline]
    pub fn choose(&mut self, rng: &mut impl Rng, shared: &Shared) -> u64 {
        loop {
            let last = shared.inserts.last();
            let number = match &mut self.kind {
                Kind::Uniform => self.start + rng.random_range(0..self.count),
                Kind::Scrambled { ranks, items, ahead } => {
                    self.start + ahead.next(|| ranks.draw_all(rng).map(|rank| fnv_hash(rank) % *items))
                }
                Kind::Zipfian { ranks, ahead } => self.start + ahead.next(|| ranks.draw_all(rng)),
                Kind::Latest { ranks } => {
                    ranks.resize(last);
                    last - ranks.draw(rng)
                }
                Kind::Hotspot { hot, operations } => {
                    let cold = self.count - *hot;
                    if cold == 0 || rng.random::<f64>() < *operations {
                        self.start + rng.random_range(0..*hot)
                    } else {
                        self.start + *hot + rng.random_range(0..cold)
                    }
                }
                Kind::Exponential { exp } => {
                    let age = exp.map_or(0.0, |exp| exp.sample(rng)) as u64;
                    if age > last {
                        continue;
                    }
                    last - age
                }
                Kind::Sequential => self.start + shared.sequence.fetch_add(1, Ordering::Relaxed) % self.count,
                Kind::Constant => self.start,
            };
            if number <= last {
                return number;
            }
        }
    }
}

/// Numbers that were drawn and not used yet.
#[derive(Clone, Debug, Default)]
struct Ahead {
    numbers: [u64; AHEAD],
    left: usize,
}

impl Ahead {
    #[inline]
    fn next(&mut self, draw: impl FnOnce() -> [u64; AHEAD]) -> u64 {
        if self.left == 0 {
            self.numbers = draw();
            self.left = AHEAD;
        }
        self.left -= 1;
        self.numbers[AHEAD - 1 - self.left]
    }
}

/// Chooses kinds of operations and lengths of scans for one thread.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Up to which random number each kind goes.
    ends: [f64; 5],
    lengths: (u64, u64),
    ranks: Option<Ranks>,
}

impl Mix {
    /// Of a workload.
    #[must_use]
    pub fn new(workload: &Workload) -> Mix {
        let mut sum = 0.0;
        let mut ends = workload.proportions.map(|proportion| {
            sum += proportion;
            sum
        });
        // Whatever is lost by adding up falls to the last kind that there is.
        if let Some(last) = workload.proportions.iter().rposition(|proportion| *proportion > 0.0) {
            ends[last..].fill(2.0);
        }
        let (shortest, longest) = workload.scan_lengths;
        let ranks = match workload.scan_length {
            ScanLength::Uniform => None,
            ScanLength::Zipfian => Some(Ranks::new(longest - shortest + 1, super::workload::ZIPFIAN_CONSTANT_DEFAULT)),
        };
        Mix { ends, lengths: workload.scan_lengths, ranks }
    }

    /// A kind of operation.
    #[inline]
    pub fn operation(&self, rng: &mut impl Rng) -> Operation {
        let u: f64 = rng.random();
        let index = self.ends.iter().position(|end| u < *end).unwrap_or(0);
        Operation::ALL[index]
    }

    /// How many records a scan is to read.
    pub fn scan_length(&self, rng: &mut impl Rng) -> u64 {
        let (shortest, longest) = self.lengths;
        match &self.ranks {
            Some(ranks) => shortest + ranks.draw(rng),
            None => rng.random_range(shortest..=longest),
        }
    }
}
