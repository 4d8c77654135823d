//! Which units of a file are claimed. Takes memory for what is claimed, not for how long the file says that it is.

use std::collections::BTreeMap;

use crate::extent::{Extent, FreeSpace};

/// Units whose bits are kept together: 8 KiB of them.
const CHUNK_UNITS: u64 = 1 << 16;

/// A set of units.
#[derive(Debug, Default)]
pub(super) struct Units {
    /// By the chunk's number.
    chunks: BTreeMap<u64, Box<[u64]>>,
    /// Chunks that are here as a whole, by a long claim. They have no bits of their own.
    whole: FreeSpace,
}

/// What a chunk has, and up to which chunk it is the same.
enum Stretch {
    /// Everything or nothing.
    Even(bool, u64),
    /// Bits.
    Bits,
}

impl Units {
    pub(super) fn contains(&self, unit: u64) -> bool {
        let (chunk, bit) = (unit / CHUNK_UNITS, unit % CHUNK_UNITS);
        match self.chunks.get(&chunk) {
            Some(words) => words[(bit / 64) as usize] >> (bit % 64) & 1 == 1,
            None => self.whole.around(chunk).is_some(),
        }
    }

    /// Adds an extent. The error is its first unit that was there already; all of it is there afterwards.
    pub(super) fn claim(&mut self, extent: Extent) -> Result<(), u64> {
        let mut twice = None;
        let mut at = extent.start;
        while at < extent.end() {
            let (chunk, chunks) = (at / CHUNK_UNITS, (extent.end() - at) / CHUNK_UNITS);
            let count = match self.stretch(chunk) {
                Stretch::Even(true, end) => {
                    twice = twice.or(Some(at));
                    (end * CHUNK_UNITS).min(extent.end()) - at
                }
                Stretch::Even(false, end) if at.is_multiple_of(CHUNK_UNITS) && chunks > 0 => {
                    let len = chunks.min(end - chunk);
                    // Nothing of it is there.
                    let _ = self.whole.insert(Extent { start: chunk, len });
                    len * CHUNK_UNITS
                }
                _ => {
                    let count = (CHUNK_UNITS - at % CHUNK_UNITS).min(extent.end() - at);
                    twice = twice.or(self.claim_bits(Extent { start: at, len: count }));
                    count
                }
            };
            at += count;
        }
        twice.map_or(Ok(()), Err)
    }

    /// Adds an extent of one chunk that is not here as a whole.
    fn claim_bits(&mut self, extent: Extent) -> Option<u64> {
        let mut twice = None;
        let words = self.chunks.entry(extent.start / CHUNK_UNITS);
        let words = words.or_insert_with(|| vec![0; (CHUNK_UNITS / 64) as usize].into());
        let mut at = extent.start;
        while at < extent.end() {
            let (word, bit) = ((at % CHUNK_UNITS / 64) as usize, at % 64);
            let count = (64 - bit).min(extent.end() - at);
            let mask = (u64::MAX >> (64 - count)) << bit;
            let old = words[word] & mask;
            if old != 0 {
                twice.get_or_insert(at - bit + u64::from(old.trailing_zeros()));
            }
            words[word] |= mask;
            at += count;
        }
        twice
    }

    pub(super) fn contains_all(&self, extent: Extent) -> bool {
        (extent.start..extent.end()).all(|unit| self.contains(unit))
    }

    fn stretch(&self, chunk: u64) -> Stretch {
        if self.chunks.contains_key(&chunk) {
            return Stretch::Bits;
        }
        let bits_from = self.chunks.range(chunk..).next().map_or(u64::MAX / CHUNK_UNITS, |(number, _)| *number);
        match self.whole.next_from(chunk) {
            Some(whole) if whole.start <= chunk => Stretch::Even(true, whole.end()),
            Some(whole) => Stretch::Even(false, bits_from.min(whole.start)),
            None => Stretch::Even(false, bits_from),
        }
    }

    /// The runs of units, from `from` on and below `end`, that are here and not in `other`.
    pub(super) fn without<'a>(&'a self, other: &'a Units, from: u64, end: u64) -> impl Iterator<Item = Extent> + 'a {
        let mut at = from;
        std::iter::from_fn(move || {
            let start = self.run_end(other, at, end, false);
            at = self.run_end(other, start, end, true);
            (at > start).then(|| Extent { start, len: at - start })
        })
    }

    /// The first unit from `at` on for which it is not true, or for which it is, that it is here and not in `other`.
    fn run_end(&self, other: &Units, mut at: u64, end: u64, here: bool) -> u64 {
        while at < end {
            let chunk = at / CHUNK_UNITS;
            match (self.stretch(chunk), other.stretch(chunk)) {
                (Stretch::Even(own, own_end), Stretch::Even(others, others_end)) => {
                    if (own && !others) != here {
                        return at;
                    }
                    at = own_end.min(others_end).saturating_mul(CHUNK_UNITS);
                }
                _ => {
                    let word = |units: &Units| match units.chunks.get(&chunk) {
                        Some(words) => words[(at % CHUNK_UNITS / 64) as usize],
                        None if units.whole.around(chunk).is_some() => u64::MAX,
                        None => 0,
                    };
                    let only = word(self) & !word(other);
                    let run = u64::from((if here { !only } else { only } >> (at % 64)).trailing_zeros());
                    let rest = 64 - at % 64;
                    at += run.min(rest);
                    if run < rest {
                        break;
                    }
                }
            }
        }
        at.min(end)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    fn extent(start: u64, len: u64) -> Extent {
        Extent { start, len }
    }

    #[test]
    fn units_are_claimed_once() {
        let mut units = Units::default();
        units.claim(extent(60, 140)).unwrap();
        assert_eq!(units.claim(extent(10, 70)), Err(60));
        assert_eq!(units.claim(extent(199, 101)), Err(199));
        assert!(units.contains_all(extent(10, 290)));
        assert!(!units.contains_all(extent(9, 2)) && !units.contains(300));
        let mut other = Units::default();
        other.claim(extent(100, 50)).unwrap();
        let runs: Vec<_> = units.without(&other, 64, 300).collect();
        assert_eq!(runs, [extent(64, 36), extent(150, 150)]);
        assert_eq!(other.without(&units, 0, 300).count(), 0);
    }

    /// Whatever the claims, it is as a bit for each unit is; also where they are longer than a chunk.
    #[test]
    fn it_is_a_set() {
        const END: u64 = 5 * CHUNK_UNITS;
        let mut rng = 1_u64;
        let mut random = |below: u64| {
            rng = rng.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (rng >> 33) % below
        };
        for _ in 0..60 {
            let mut sets =
                [(Units::default(), vec![false; END as usize]), (Units::default(), vec![false; END as usize])];
            for (units, bits) in &mut sets {
                for _ in 0..random(6) {
                    let start = random(5) * CHUNK_UNITS + [0, 0, 1, 63, 64, random(CHUNK_UNITS)][random(6) as usize];
                    let longest = [1, 64, 1000, CHUNK_UNITS, END][random(5) as usize];
                    let len = (1 + random(longest)).min(END - start);
                    let twice = (start..start + len).find(|unit| bits[*unit as usize]);
                    assert_eq!(units.claim(extent(start, len)), twice.map_or(Ok(()), Err), "{start} {len}");
                    bits[start as usize..(start + len) as usize].fill(true);
                }
            }
            let [(units, bits), (other, others)] = &sets;
            let (from, end) = (random(2) * random(END), END - random(2) * random(100));
            let mut expected: Vec<Extent> = Vec::new();
            for unit in (from..end).filter(|unit| bits[*unit as usize] && !others[*unit as usize]) {
                match expected.last_mut().filter(|last| last.end() == unit) {
                    Some(last) => last.len += 1,
                    None => expected.push(extent(unit, 1)),
                }
            }
            assert!(units.without(other, from, end).eq(expected), "from {from} to {end}");
            assert!((0..END).step_by(97).all(|unit| units.contains(unit) == bits[unit as usize]));
        }
    }

    #[test]
    fn what_is_claimed_far_away_takes_no_memory() {
        let mut units = Units::default();
        units.claim(extent(1000, (1 << 40) - 1000)).unwrap();
        assert!(units.chunks.len() == 1 && units.contains((1 << 40) - 1) && !units.contains(1 << 40));
        assert_eq!(units.claim(extent((1 << 39) + 5, 1)), Err((1 << 39) + 5));
        let runs: Vec<_> = units.without(&Units::default(), 0, 1 << 40).collect();
        assert_eq!(runs, [extent(1000, (1 << 40) - 1000)]);
    }
}
