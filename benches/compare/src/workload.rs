//! Which blocks are asked for: keys, Zipf's law, traces.

use mapfall::CacheKey;

/// The length of a block where rates are measured.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// The name of a block: in one of four files, never written anew.
#[inline]
pub(crate) fn key(number: u32) -> CacheKey {
    let number = u64::from(number);
    CacheKey { file: number % 4, offset: number / 4 * BLOCK_BYTES as u64, generation: 1 }
}

/// Numbers that are the same in each run (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, end: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u32
    }
}

/// Ranks by Zipf's law: rank k, from 0, is drawn in proportion to 1 / (k + 1)^s.
pub(crate) struct Zipf {
    /// At k: how often a rank up to k is drawn.
    up_to: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(ranks: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let up_to = (0..ranks).map(|rank| {
            sum += f64::from(rank + 1).powf(-exponent);
            sum
        });
        Zipf { up_to: up_to.collect() }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        let at = random.unit() * self.up_to.last().copied().unwrap_or(0.0);
        self.up_to.partition_point(|up_to| *up_to <= at).min(self.up_to.len() - 1) as u32
    }
}

/// Numbers 0..count in some order: which block has which rank.
pub(crate) fn shuffled(count: u32, random: &mut Random) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    for at in (1..count).rev() {
        numbers.swap(at as usize, random.below(at + 1) as usize);
    }
    numbers
}

/// A sequence of block numbers for each thread. All threads have the same favourites.
pub(crate) fn sequences(threads: usize, blocks: u32, exponent: f64, lookups: usize) -> Vec<Vec<u32>> {
    let zipf = Zipf::new(blocks, exponent);
    let of_rank = shuffled(blocks, &mut Random(1));
    let sequence = |thread| {
        let mut random = Random(100 + thread as u64);
        (0..lookups).map(|_| of_rank[zipf.draw(&mut random) as usize]).collect()
    };
    (0..threads).map(sequence).collect()
}

/// Lookups whose hits are counted.
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) numbers: Vec<u32>,
}

/// The traces over so many keys, for a cache of so many blocks.
pub(crate) fn traces(keys: u32, cache_blocks: u32, lookups: usize) -> Vec<Trace> {
    let mut traces = Vec::new();
    for exponent in [0.7, 0.8, 0.9, 0.99, 1.1, 1.2] {
        let numbers = sequences(1, keys, exponent, lookups).remove(0);
        traces.push(Trace { name: format!("zipf {exponent}"), numbers });
    }
    let looped = (0..lookups).map(|at| at as u32 % (2 * cache_blocks));
    traces.push(Trace { name: "loop of 2x".to_owned(), numbers: looped.collect() });
    traces.push(Trace { name: "scan + zipf".to_owned(), numbers: scanned(keys, cache_blocks, lookups) });
    traces.push(Trace { name: "drift".to_owned(), numbers: drifting(keys, lookups) });
    traces
}

/// Zipf 0.9, and in between scans of twice what the cache holds, of blocks that nobody asks for again: a third of all.
fn scanned(keys: u32, cache_blocks: u32, lookups: usize) -> Vec<u32> {
    let popular = sequences(1, keys, 0.9, lookups).remove(0);
    let scan = 2 * cache_blocks as usize;
    let mut next = keys;
    let mut numbers = Vec::with_capacity(lookups);
    for popular in popular.chunks(2 * scan) {
        numbers.extend_from_slice(popular);
        numbers.extend(next..next + scan as u32);
        next += scan as u32;
        if numbers.len() >= lookups {
            break;
        }
    }
    numbers.truncate(lookups);
    numbers
}

/// Zipf 0.9 whose favourites change: over the trace, every rank passes on to twenty other blocks.
fn drifting(keys: u32, lookups: usize) -> Vec<u32> {
    let (zipf, mut random) = (Zipf::new(keys, 0.9), Random(3));
    let mut of_rank = shuffled(keys, &mut Random(2));
    let swaps_per_lookup = f64::from(keys) * 10.0 / lookups as f64;
    let mut swaps = 0.0;
    let draw = |_| {
        swaps += swaps_per_lookup;
        while swaps >= 1.0 {
            swaps -= 1.0;
            let (one, other) = (random.below(keys), random.below(keys));
            of_rank.swap(one as usize, other as usize);
        }
        of_rank[zipf.draw(&mut random) as usize]
    };
    (0..lookups).map(draw).collect()
}
