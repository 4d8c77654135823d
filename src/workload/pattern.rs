//! In which order the blocks of a file are read.

use std::fmt;
use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// YCSB's skew.
const DEFAULT_THETA: f64 = 0.99;
/// Greater skews are one block read over and over.
const THETA_MAX: f64 = 10.0;
/// The part of a file that `shift` reads at a time.
const DEFAULT_SHIFT_PERCENT: u8 = 10;
/// With more the two places would overlap.
const SHIFT_PERCENT_MAX: u8 = 50;

/// The order of the reads of a pass.
///
/// In options and JSON it is written as its [`fmt::Display`] shows it:
///
/// ```
/// use mapfall::workload::pattern::Pattern;
///
/// let pattern: Pattern = "zipf".parse()?;
/// assert_eq!(pattern.to_string(), "zipf:0.99");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// `seq`: each block once, first to last.
    Seq,
    /// `rand`: any block, each with the same chance every time. Of as many reads as there are blocks some come twice,
    /// and about 37 % of the blocks never.
    Rand,
    /// `zipf[:THETA]`: the n-th most popular block with a chance in proportion to `1 / n^theta`. Which block is the
    /// n-th is the same for every seed, and popular ones are spread over the whole file.
    Zipf {
        /// Above 0, up to 10.
        theta: f64,
    },
    /// `scan+rand`: every other read goes on in order from the first block, the others are those of `rand`.
    ScanRand,
    /// `shift[:PERCENT%]`: any block of a part of the file, at its beginning in the first half of a thread's reads, in
    /// its middle in the second.
    Shift {
        /// How much of the file the part is: 1 to 50.
        percent: u8,
    },
}

/// How many reads there are, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The blocks of the file. At least 1.
    pub blocks: u64,
    /// The bytes of a block.
    pub block_bytes: u64,
    /// The reads of all threads.
    pub reads: u64,
    /// The threads, each of which has an equal, contiguous part of the reads.
    pub threads: usize,
}

impl Extent {
    /// The reads of each thread but the last, which may have fewer.
    #[must_use]
    pub fn reads_per_thread(&self) -> u64 {
        self.reads.div_ceil(self.threads.max(1) as u64).max(1)
    }
}

impl Pattern {
    /// The offsets of one thread that reads as many blocks as there are: the same for the same arguments. `Seq` needs
    /// no seed.
    #[must_use]
    pub fn offsets(self, blocks: u64, block_bytes: u64, seed: u64) -> Vec<u64> {
        self.offsets_of(&Extent { blocks, block_bytes, reads: blocks, threads: 1 }, seed)
    }

    /// The offsets of a pass, those of one thread after those of another. Patterns that come to the end of the file
    /// begin again.
    #[must_use]
    pub fn offsets_of(self, extent: &Extent, seed: u64) -> Vec<u64> {
        let Extent { blocks, block_bytes, reads, .. } = *extent;
        if blocks == 0 {
            return Vec::new();
        }
        let mut rng = SmallRng::seed_from_u64(seed);
        let numbers: Vec<u64> = match self {
            Pattern::Seq => (0..reads).map(|read| read % blocks).collect(),
            Pattern::Rand => (0..reads).map(|_| rng.random_range(0..blocks)).collect(),
            Pattern::Zipf { theta } => {
                let stride = scatter_stride(blocks);
                // Cannot fail: there is at least one block, and the skew is not negative. It would read one block.
                let zipf = Zipf::new(blocks as f64, theta).ok();
                let rank = |rng: &mut SmallRng| zipf.map_or(0, |zipf| (zipf.sample(rng) as u64).clamp(1, blocks) - 1);
                (0..reads).map(|_| scatter(rank(&mut rng), stride, blocks)).collect()
            }
            Pattern::ScanRand => (0..reads)
                .map(|read| if read % 2 == 0 { read / 2 % blocks } else { rng.random_range(0..blocks) })
                .collect(),
            Pattern::Shift { percent } => {
                let part = (blocks * u64::from(percent) / 100).max(1);
                let of_thread = extent.reads_per_thread();
                (0..reads)
                    .map(|read| {
                        let is_second = read % of_thread >= of_thread / 2;
                        let start = if is_second { blocks / 2 } else { 0 };
                        (start + rng.random_range(0..part)).min(blocks - 1)
                    })
                    .collect()
            }
        };
        numbers.into_iter().map(|block| block * block_bytes).collect()
    }

    /// The order in words, as a title has it.
    #[must_use]
    pub fn title(self) -> String {
        match self {
            Pattern::Seq => "Sequential".to_owned(),
            Pattern::Rand => "Random".to_owned(),
            Pattern::Zipf { theta } => format!("Zipf {theta}"),
            Pattern::ScanRand => "Scan and random".to_owned(),
            Pattern::Shift { percent } => format!("Moving working set, {percent} %"),
        }
    }

    /// Pieces of a thread's reads that stand for different times of a workload: two where the working set moves.
    #[must_use]
    pub fn phases(self) -> usize {
        if matches!(self, Pattern::Shift { .. }) { 2 } else { 1 }
    }
}

/// About the golden section of all blocks, and without a common divisor with their number: multiples of it, modulo that
/// number, are a permutation whose neighbours are far apart (Knuth, The Art of Computer Programming 3, section 6.4).
fn scatter_stride(blocks: u64) -> u64 {
    let golden = (blocks as f64 * 0.618_033_988_749_894_9) as u64;
    (golden.max(1)..).find(|stride| gcd(*stride, blocks) == 1).unwrap_or(1)
}

fn scatter(rank: u64, stride: u64, blocks: u64) -> u64 {
    (u128::from(rank) * u128::from(stride) % u128::from(blocks)) as u64
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Seq => f.write_str("seq"),
            Pattern::Rand => f.write_str("rand"),
            Pattern::Zipf { theta } => write!(f, "zipf:{theta}"),
            Pattern::ScanRand => f.write_str("scan+rand"),
            Pattern::Shift { percent } => write!(f, "shift:{percent}%"),
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text.split_once(':').map_or((text, None), |(name, number)| (name, Some(number)));
        match (name, number) {
            ("seq", None) => Ok(Pattern::Seq),
            ("rand", None) => Ok(Pattern::Rand),
            ("scan+rand", None) => Ok(Pattern::ScanRand),
            ("zipf", None) => Ok(Pattern::Zipf { theta: DEFAULT_THETA }),
            ("zipf", Some(number)) => {
                let theta = number.parse().ok().filter(|theta| *theta > 0.0 && *theta <= THETA_MAX);
                let expected = || format!("expected a skew above 0, up to {THETA_MAX}, found {number:?}");
                Ok(Pattern::Zipf { theta: theta.ok_or_else(expected)? })
            }
            ("shift", None) => Ok(Pattern::Shift { percent: DEFAULT_SHIFT_PERCENT }),
            ("shift", Some(number)) => {
                let percent = number.strip_suffix('%').and_then(|number| number.parse().ok());
                let percent = percent.filter(|percent| (1..=SHIFT_PERCENT_MAX).contains(percent));
                let expected = || format!("expected 1% to {SHIFT_PERCENT_MAX}%, found {number:?}");
                Ok(Pattern::Shift { percent: percent.ok_or_else(expected)? })
            }
            _ => Err(format!("expected seq, rand, zipf[:THETA], scan+rand or shift[:PERCENT%], found {text:?}")),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    const EVERY: [Pattern; 5] =
        [Pattern::Seq, Pattern::Rand, Pattern::Zipf { theta: 0.99 }, Pattern::ScanRand, Pattern::Shift { percent: 10 }];

    #[test]
    fn seq_reads_each_block_once_in_order() {
        assert_eq!(Pattern::Seq.offsets(4, 4096, 7), [0, 4096, 8192, 12288]);
        assert!(Pattern::Seq.offsets(0, 4096, 7).is_empty());
        let extent = Extent { blocks: 3, block_bytes: 1, reads: 7, threads: 1 };
        assert_eq!(Pattern::Seq.offsets_of(&extent, 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn rand_is_with_replacement() {
        let offsets = Pattern::Rand.offsets(1000, 4096, 7);
        let distinct: HashSet<_> = offsets.iter().collect();
        assert!((550..720).contains(&distinct.len()), "{} of 1000 blocks", distinct.len());
    }

    #[test]
    fn every_pattern_is_seeded_aligned_inside_and_as_long_as_asked() {
        for pattern in EVERY {
            for (blocks, reads, threads) in [(1000, 1000, 1), (1000, 777, 2), (1, 5, 3), (7, 100, 2), (2, 1, 1)] {
                let extent = Extent { blocks, block_bytes: 4096, reads, threads };
                let offsets = pattern.offsets_of(&extent, 7);
                assert_eq!(offsets, pattern.offsets_of(&extent, 7));
                assert_eq!(offsets.len() as u64, reads);
                assert!(offsets.iter().all(|offset| offset % 4096 == 0 && *offset < blocks * 4096), "{pattern}");
            }
            if pattern != Pattern::Seq {
                assert_ne!(pattern.offsets(1000, 4096, 7), pattern.offsets(1000, 4096, 8), "{pattern}");
            }
            assert!(pattern.offsets(0, 4096, 7).is_empty());
        }
    }

    #[test]
    fn zipf_has_the_same_few_popular_blocks_for_every_seed_all_over_the_file() {
        let most_popular = |seed| {
            let mut counts: HashMap<u64, u32> = HashMap::new();
            for block in (Pattern::Zipf { theta: 0.99 }).offsets(10_000, 1, seed) {
                *counts.entry(block).or_default() += 1;
            }
            let mut counts: Vec<_> = counts.into_iter().collect();
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            counts
        };
        let (one, other) = (most_popular(1), most_popular(2));
        assert_eq!((one[0].0, one[1].0), (other[0].0, other[1].0));
        // 1 / (1 + 1/2 + ... + 1/10,000) is about a tenth.
        assert!((800..1300).contains(&one[0].1), "{} of 10,000", one[0].1);
        let tenths: HashSet<u64> = one.iter().take(30).map(|(block, _)| block / 1000).collect();
        assert_eq!(tenths.len(), 10, "30 popular blocks are in {tenths:?}");
    }

    #[test]
    fn scattering_is_a_permutation() {
        for blocks in [1, 2, 3, 10, 1000, 1024, 65_537] {
            let stride = scatter_stride(blocks);
            let places: HashSet<u64> = (0..blocks).map(|rank| scatter(rank, stride, blocks)).collect();
            assert_eq!(places.len() as u64, blocks);
        }
    }

    #[test]
    fn the_scan_is_in_order_between_random_reads() {
        let offsets = Pattern::ScanRand.offsets(1000, 1, 7);
        let scan: Vec<u64> = offsets.iter().copied().step_by(2).collect();
        assert_eq!(scan, (0..500).collect::<Vec<_>>());
        let rest: HashSet<u64> = offsets.iter().copied().skip(1).step_by(2).collect();
        assert!(rest.len() > 300 && rest.iter().any(|block| *block > 900));
    }

    #[test]
    fn the_working_set_moves_half_way_for_each_thread() {
        let extent = Extent { blocks: 1000, block_bytes: 1, reads: 4000, threads: 2 };
        let offsets = Pattern::Shift { percent: 20 }.offsets_of(&extent, 7);
        for part in offsets.chunks(2000) {
            assert!(part[..1000].iter().all(|block| *block < 200));
            assert!(part[1000..].iter().all(|block| (500..700).contains(block)));
        }
        assert_eq!(offsets.iter().collect::<HashSet<_>>().len(), 400);
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for pattern in EVERY {
            assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
        assert_eq!("zipf:1.2".parse(), Ok(Pattern::Zipf { theta: 1.2 }));
        assert_eq!("shift:50%".parse(), Ok(Pattern::Shift { percent: 50 }));
        for text in ["", "zip", "zipf:", "zipf:0", "zipf:-1", "zipf:NaN", "zipf:11", "shift:0%", "shift:51%", "shift:5"]
        {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        assert!("seq:1".parse::<Pattern>().is_err() && "rand:".parse::<Pattern>().is_err());
    }
}
