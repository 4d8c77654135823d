//! How often keys were asked for lately, about: a count-min sketch.

/// Words of a block of the sketch: one cache line.
const BLOCK_WORDS: usize = 8;
/// The most that a counter of 4 bits holds.
const COUNTER_MAX: u64 = 15;
/// What halves 16 counters at once leaves of each.
const HALVED: u64 = 0x7777_7777_7777_7777;
/// Counts are halved when as many were added for each resident block. Fewer follow a change sooner, more tell blocks
/// apart that are rarely asked for.
const SAMPLE_PER_BLOCK: u64 = 30;
/// A small cache has a sketch for as many blocks as this, or it would forget at once.
const BLOCKS_MIN: u64 = 100;

/// Counters of 4 bits, four for each key, all in one cache line; the least of them is the estimate. All are halved once
/// in a while, so that what was popular long ago is forgotten.
///
/// Einziger, Friedman and Manes, "TinyLFU", ACM Transactions on Storage 2017; the layout is Caffeine's.
#[derive(Debug)]
pub(super) struct Sketch {
    words: Vec<u64>,
    /// What was added since the last halving, and half of what was added before.
    added: u64,
    /// Added to this, counts are halved.
    sample: u64,
}

impl Sketch {
    pub(super) fn new() -> Self {
        Sketch { words: Vec::new(), added: 0, sample: BLOCKS_MIN * SAMPLE_PER_BLOCK }
    }

    /// Makes room for `blocks` resident blocks. What was counted stays.
    pub(super) fn cover(&mut self, blocks: usize) {
        if self.words.is_empty() {
            self.words = vec![0; 16 * BLOCK_WORDS];
        }
        self.sample = self.sample.max(blocks as u64 * SAMPLE_PER_BLOCK);
        while self.words.len() < blocks {
            // One more bit of the hash chooses the half, so both begin with the same counts.
            self.words.extend_from_within(..);
        }
    }

    /// The word and the shift of a key's counter in each of the four rows.
    fn counters(&self, mixed: u64) -> [(usize, u32); 4] {
        let block = (mixed as usize & (self.words.len() / BLOCK_WORDS - 1)) * BLOCK_WORDS;
        [0, 1, 2, 3].map(|row| {
            let bits = mixed >> (32 + row * 8);
            (block + row * 2 + (bits & 1) as usize, (bits >> 1 & 15) as u32 * 4)
        })
    }

    fn least(&self, counters: [(usize, u32); 4]) -> u64 {
        counters.iter().fold(COUNTER_MAX, |least, &(word, shift)| least.min(self.words[word] >> shift & COUNTER_MAX))
    }

    /// About how often a key, by its mixed hash, was counted; at most 15.
    pub(super) fn estimate(&self, mixed: u64) -> u64 {
        self.least(self.counters(mixed))
    }

    /// Counts a key `times` more, and says how often it was counted by now. Only its least counters grow, so that other
    /// keys' counts do not add up in them.
    pub(super) fn add(&mut self, mixed: u64, times: u64) -> u64 {
        let counters = self.counters(mixed);
        let least = self.least(counters);
        let sum = (least + times).min(COUNTER_MAX);
        for (word, shift) in counters {
            if self.words[word] >> shift & COUNTER_MAX < sum {
                self.words[word] = self.words[word] & !(COUNTER_MAX << shift) | sum << shift;
            }
        }
        self.added += sum - least;
        if self.added >= self.sample {
            self.added /= 2;
            for word in &mut self.words {
                *word = *word >> 1 & HALVED;
            }
        }
        sum
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.words.capacity() as u64 * 8
    }
}

#[cfg(test)]
mod tests {
    use super::super::ghost::mix;
    use super::*;

    #[test]
    fn counts_up_to_15_and_keeps_counts_when_it_grows() {
        let mut sketch = Sketch::new();
        sketch.cover(1);
        for times in 1..=20 {
            assert_eq!(sketch.add(mix(7), 1), times.min(15));
        }
        sketch.add(mix(8), 3);
        sketch.cover(5000);
        assert!(sketch.words.len() >= 5000);
        assert_eq!((sketch.estimate(mix(7)), sketch.estimate(mix(8)), sketch.estimate(mix(9))), (15, 3, 0));
    }

    #[test]
    fn halves_after_a_sample() {
        let mut sketch = Sketch::new();
        sketch.cover(1);
        sketch.add(mix(7), 12);
        let mut key = 1000;
        while sketch.added >= 12 {
            sketch.add(mix(key), 1);
            key += 1;
            assert!(key < 1000 + 20 * BLOCKS_MIN * SAMPLE_PER_BLOCK);
            if sketch.estimate(mix(7)) == 6 {
                return;
            }
        }
        panic!("never halved");
    }
}
