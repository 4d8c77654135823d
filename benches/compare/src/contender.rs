//! What is compared: which caches there are, how they are made, and the loops that use them.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use mapfall::{BlockCache, CacheKey, CacheOptions, CachePolicy, CacheRead};

use crate::Result;
use crate::peers::{Foyer, Moka, MutexLru, QuickCache};
use crate::workload::{BLOCK_BYTES, key};

/// A cache of blocks.
pub(crate) trait Blocks: Sync {
    /// Copies a block out, if it is there.
    fn get(&self, key: &CacheKey, buf: &mut [u8]) -> bool;

    /// Copies a block out, or loads it and keeps it. True for a hit. At most one thread loads a block, where the cache
    /// can see to that.
    fn get_or_load(&self, key: &CacheKey, buf: &mut [u8], load: impl FnOnce(&mut [u8])) -> bool;

    /// How many blocks are there.
    fn blocks(&self) -> u64;

    /// Does what the cache has put off.
    fn settle(&self) {}
}

impl Blocks for BlockCache {
    #[inline]
    fn get(&self, key: &CacheKey, buf: &mut [u8]) -> bool {
        BlockCache::get(self, key, buf)
    }

    #[inline]
    fn get_or_load(&self, key: &CacheKey, buf: &mut [u8], load: impl FnOnce(&mut [u8])) -> bool {
        let load = |buf: &mut [u8]| {
            load(buf);
            Ok(())
        };
        matches!(BlockCache::get_or_load(self, key, buf, load), Ok(CacheRead::Hit))
    }

    fn blocks(&self) -> u64 {
        self.stats().blocks
    }
}

/// Which cache, with which policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mapfall(CachePolicy),
    QuickCache,
    FoyerLru,
    FoyerLfu,
    FoyerS3Fifo,
    FoyerSieve,
    Moka,
    MutexLru,
}

/// How large a cache is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Of data. mapfall has a budget of its own for data and tables: `mapfall_bytes`.
    pub(crate) bytes: u64,
    pub(crate) mapfall_bytes: u64,
    /// The length of the blocks.
    pub(crate) block_bytes: usize,
    pub(crate) shards: usize,
}

impl Kind {
    /// All, those of mapfall first.
    pub(crate) fn all() -> Vec<Kind> {
        let peers = [
            Kind::QuickCache,
            Kind::FoyerLru,
            Kind::FoyerLfu,
            Kind::FoyerS3Fifo,
            Kind::FoyerSieve,
            Kind::Moka,
            Kind::MutexLru,
        ];
        CachePolicy::ALL.into_iter().map(Kind::Mapfall).chain(peers).collect()
    }

    pub(crate) fn is_mapfall(self) -> bool {
        matches!(self, Kind::Mapfall(_))
    }

    pub(crate) fn name(self) -> String {
        match self {
            Kind::Mapfall(policy) => format!("mapfall-{policy}"),
            Kind::QuickCache => "quick_cache".to_owned(),
            Kind::FoyerLru => "foyer-lru".to_owned(),
            Kind::FoyerLfu => "foyer-lfu".to_owned(),
            Kind::FoyerS3Fifo => "foyer-s3fifo".to_owned(),
            Kind::FoyerSieve => "foyer-sieve".to_owned(),
            Kind::Moka => "moka".to_owned(),
            Kind::MutexLru => "mutex-lru".to_owned(),
        }
    }

    pub(crate) fn build(self, size: &Size) -> Result<Box<dyn Contender>> {
        Ok(match self {
            Kind::Mapfall(policy) => {
                Box::new(CacheOptions::new(size.mapfall_bytes).policy(policy).shards(size.shards).build()?)
            }
            Kind::QuickCache => Box::new(QuickCache::new(size)?),
            Kind::FoyerLru => Box::new(Foyer::new(size, foyer_memory::LruConfig::default())),
            Kind::FoyerLfu => Box::new(Foyer::new(size, foyer_memory::LfuConfig::default())),
            Kind::FoyerS3Fifo => Box::new(Foyer::new(size, foyer_memory::S3FifoConfig::default())),
            Kind::FoyerSieve => Box::new(Foyer::new(size, foyer_memory::SieveConfig)),
            Kind::Moka => Box::new(Moka::new(size)),
            Kind::MutexLru => Box::new(MutexLru::new(size)),
        })
    }
}

/// What a pass of several threads did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) lookups: u64,
    pub(crate) hits: u64,
    pub(crate) elapsed: Duration,
}

impl Pass {
    /// Millions of lookups a second.
    pub(crate) fn rate(&self) -> f64 {
        self.lookups as f64 / self.elapsed.as_secs_f64() / 1e6
    }
}

/// A cache with its loops, compiled for it.
pub(crate) trait Contender: Sync {
    /// Looks up, in each thread, one sequence of block numbers from its beginning, over and over, for so long.
    fn hits(&self, sequences: &[Vec<u32>], duration: Duration) -> Pass;

    /// As [`Contender::hits`], and loads what is not there from `source`.
    fn mixed(&self, sequences: &[Vec<u32>], duration: Duration, source: &[u8]) -> Pass;

    /// Looks up and loads one block after the other: how many of those from `counted_from` on were hits.
    fn replay(&self, trace: &[u32], counted_from: usize, block_bytes: usize) -> u64;

    fn blocks(&self) -> u64;
}

impl<B: Blocks> Contender for B {
    fn hits(&self, sequences: &[Vec<u32>], duration: Duration) -> Pass {
        pass(sequences, duration, |number, buf| self.get(&key(number), buf))
    }

    fn mixed(&self, sequences: &[Vec<u32>], duration: Duration, source: &[u8]) -> Pass {
        pass(sequences, duration, |number, buf| {
            let at = number as usize * BLOCK_BYTES % source.len();
            self.get_or_load(&key(number), buf, |buf| buf.copy_from_slice(&source[at..at + BLOCK_BYTES]))
        })
    }

    fn replay(&self, trace: &[u32], counted_from: usize, block_bytes: usize) -> u64 {
        let mut buf = vec![0; block_bytes];
        let mut hits = 0;
        for (at, number) in trace.iter().enumerate() {
            let hit = self.get_or_load(&key(*number), &mut buf, |buf| buf[..4].copy_from_slice(&number.to_le_bytes()));
            assert_eq!(buf[..4], number.to_le_bytes(), "another block's bytes");
            if !hit {
                self.settle();
            }
            hits += u64::from(hit && at >= counted_from);
        }
        hits
    }

    fn blocks(&self) -> u64 {
        self.settle();
        Blocks::blocks(self)
    }
}

/// A thread for each sequence, and a buffer for each thread.
fn pass(sequences: &[Vec<u32>], duration: Duration, lookup: impl Fn(u32, &mut [u8]) -> bool + Sync) -> Pass {
    const LOOKUPS_PER_LOOK: usize = 64;
    let (start, stop) = (Barrier::new(sequences.len() + 1), AtomicBool::new(false));
    let work = |sequence: &[u32]| {
        let mut buf = vec![0_u8; BLOCK_BYTES];
        let (mut lookups, mut hits) = (0, 0);
        start.wait();
        'all: loop {
            for numbers in sequence.chunks_exact(LOOKUPS_PER_LOOK) {
                if stop.load(Relaxed) {
                    break 'all;
                }
                for number in numbers {
                    hits += u64::from(lookup(*number, &mut buf));
                    black_box(&mut buf);
                }
                lookups += LOOKUPS_PER_LOOK as u64;
            }
        }
        (lookups, hits)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = sequences.iter().map(|sequence| scope.spawn(|| work(sequence))).collect();
        start.wait();
        let began = Instant::now();
        thread::sleep(duration);
        stop.store(true, Relaxed);
        let elapsed = began.elapsed();
        let done = threads.into_iter().map(|thread| thread.join().expect("no thread panics"));
        let (lookups, hits) = done.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        Pass { lookups, hits, elapsed }
    })
}
