//! In which order the blocks of a file are read.

use std::fmt;
use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

/// The order of the reads of a pass. Either has as many reads as the file has whole blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Each block once, first to last.
    Seq,
    /// Any block, each with the same chance every time: some come twice, about 37 % never.
    Rand,
}

impl Pattern {
    /// Both.
    pub const ALL: [Pattern; 2] = [Pattern::Seq, Pattern::Rand];

    /// The name in options, tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Seq => "seq",
            Pattern::Rand => "rand",
        }
    }

    /// The offsets of one pass over `blocks` blocks: the same for the same arguments. `Seq` needs no seed.
    #[must_use]
    pub fn offsets(self, blocks: u64, block_bytes: u64, seed: u64) -> Vec<u64> {
        match self {
            Pattern::Seq => (0..blocks).map(|block| block * block_bytes).collect(),
            Pattern::Rand => {
                let mut rng = SmallRng::seed_from_u64(seed);
                (0..blocks).map(|_| rng.random_range(0..blocks) * block_bytes).collect()
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Pattern::ALL.into_iter().find(|pattern| pattern.name() == text);
        known.ok_or_else(|| format!("expected seq or rand, found {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seq_reads_each_block_once_in_order() {
        assert_eq!(Pattern::Seq.offsets(4, 4096, 7), [0, 4096, 8192, 12288]);
        assert!(Pattern::Seq.offsets(0, 4096, 7).is_empty());
    }

    #[test]
    fn rand_is_seeded_aligned_inside_and_with_replacement() {
        let offsets = Pattern::Rand.offsets(1000, 4096, 7);
        assert_eq!(offsets, Pattern::Rand.offsets(1000, 4096, 7));
        assert_ne!(offsets, Pattern::Rand.offsets(1000, 4096, 8));
        assert_eq!(offsets.len(), 1000);
        assert!(offsets.iter().all(|offset| offset % 4096 == 0 && *offset < 1000 * 4096));
        let distinct: std::collections::HashSet<_> = offsets.iter().collect();
        assert!((550..720).contains(&distinct.len()), "{} of 1000 blocks", distinct.len());
    }
}
