//! One bit for each unit of a file: who claims what.

use crate::extent::Extent;

/// A set of units.
#[derive(Debug)]
pub(super) struct Units {
    words: Vec<u64>,
    end: u64,
}

impl Units {
    pub(super) fn new(end: u64) -> Self {
        Units { words: vec![0; usize::try_from(end.div_ceil(64)).unwrap_or(usize::MAX)], end }
    }

    pub(super) fn contains(&self, unit: u64) -> bool {
        unit < self.end && self.words[(unit / 64) as usize] >> (unit % 64) & 1 == 1
    }

    /// Adds an extent that ends within the set's range. The error is its first unit that was there already; all of it
    /// is there afterwards.
    pub(super) fn claim(&mut self, extent: Extent) -> Result<(), u64> {
        let mut twice = None;
        let mut at = extent.start;
        while at < extent.end() {
            let (word, bit) = ((at / 64) as usize, at % 64);
            let count = (64 - bit).min(extent.end() - at);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let old = self.words[word] & mask;
            if old != 0 {
                twice.get_or_insert(at - bit + u64::from(old.trailing_zeros()));
            }
            self.words[word] |= mask;
            at += count;
        }
        twice.map_or(Ok(()), Err)
    }

    pub(super) fn contains_all(&self, extent: Extent) -> bool {
        extent.end() <= self.end && (extent.start..extent.end()).all(|unit| self.contains(unit))
    }

    /// The runs of units, from `from` on, that are here and not in `other`, which is as long.
    pub(super) fn without<'a>(&'a self, other: &'a Units, from: u64) -> impl Iterator<Item = Extent> + 'a {
        let mut at = from;
        std::iter::from_fn(move || {
            let here = |unit: u64| self.contains(unit) && !other.contains(unit);
            while at < self.end && !here(at) {
                // Whole words without any.
                let word = (at / 64) as usize;
                at = if self.words[word] & !other.words[word] == 0 { (word as u64 + 1) * 64 } else { at + 1 };
            }
            let start = at;
            while at < self.end && here(at) {
                at += 1;
            }
            (at > start).then(|| Extent { start, len: at - start })
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    #[test]
    fn units_are_claimed_once() {
        let mut units = Units::new(300);
        units.claim(Extent { start: 60, len: 140 }).unwrap();
        assert_eq!(units.claim(Extent { start: 10, len: 70 }), Err(60));
        assert_eq!(units.claim(Extent { start: 199, len: 101 }), Err(199));
        assert!(units.contains_all(Extent { start: 10, len: 290 }));
        assert!(!units.contains_all(Extent { start: 9, len: 2 }) && !units.contains(300));
        let mut other = Units::new(300);
        other.claim(Extent { start: 100, len: 50 }).unwrap();
        let runs: Vec<_> = units.without(&other, 64).collect();
        assert_eq!(runs, [Extent { start: 64, len: 36 }, Extent { start: 150, len: 150 }]);
        assert_eq!(other.without(&units, 0).count(), 0);
    }
}
