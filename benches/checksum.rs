//! What it costs to check a block: the candidates for a store's checksums, and those that it has, seeds included.
//!
//! `cargo bench --bench checksum` has criterion's figures for each contender by itself and then a table from
//! interleaved rounds; with `-- table` the table alone. The contender `scalar-crc32` is `crc32fast` as it is on a
//! processor without carry-less multiplication and without instructions for a CRC.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

/// The library's own, which nobody outside of it can name.
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a bench needs only a part of it")]
#[path = "../src/checksum.rs"]
mod checksum;
/// What the library's module finds under this name.
mod error {
    pub(crate) use mapfall::Error;
}
#[path = "support/run.rs"]
mod run;

use std::hint::black_box;
use std::time::{Duration, Instant};

use crc_fast::CrcAlgorithm::{Crc32Iscsi, Crc32IsoHdlc};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use mapfall::workload::pattern::Pattern;
use mapfall::workload::size::ByteSize;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use twox_hash::XxHash3_64;
use xxhash_rust::xxh3::xxh3_64;

use self::checksum::{ChecksumKind, Seeds};
use self::run::{Contender, Result, interleave, is_quick, ratio, rounds, shown, spread, wants_table};

/// Arrays to take random blocks from, and the sizes of these. The first is longer than a usual first-level cache and
/// fits a usual second-level one, the second fits the third level of some processors, the last no cache of most.
const ARRAYS: [(usize, &[usize]); 3] =
    [(256 << 10, &[4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10]), (64 << 20, &[4 << 10]), (1 << 30, &[4 << 10])];
/// The longest array where it is only tested that the bench runs.
const QUICK_BYTES: usize = 1 << 20;

const GENERATION: u64 = 7;

const CRC32FAST: usize = 0;
const NAMES: [&str; 8] = [
    "crc32fast",
    "crc-fast",
    "scalar-crc32",
    "crc-fast-crc32c",
    "twox-hash",
    "xxhash-rust",
    "store-crc32",
    "store-xxh3",
];
/// Contenders that compute the same function.
const SAME: [&[usize]; 2] = [&[0, 1, 2], &[4, 5]];

/// Some blocks of an array.
struct Work<'a> {
    array: &'a [u8],
    block_bytes: usize,
    offsets: &'a [u64],
}

/// What came of them.
struct Pass {
    elapsed: Duration,
    /// Of all checksums.
    sum: u64,
}

type Runner = Box<dyn Fn(&Work<'_>) -> Result<Pass>>;

fn main() -> Result<()> {
    let array_bytes = ARRAYS.map(|(bytes, _)| bytes).into_iter().max().unwrap_or_default();
    let mut bytes = vec![0; if is_quick() { QUICK_BYTES } else { array_bytes }];
    SmallRng::seed_from_u64(1).fill_bytes(&mut bytes);
    let runners = contenders();
    let mut criterion = Criterion::default().configure_from_args();
    for_each_array(&bytes, |work| measure_each(&mut criterion, &runners, work))?;
    criterion.final_summary();
    if wants_table() {
        print_table(&runners, &bytes)?;
    }
    Ok(())
}

/// In the order of [`NAMES`].
fn contenders() -> [Runner; 8] {
    let crc32 = Seeds::new(ChecksumKind::Crc32, &[5; 16]);
    let xxh3 = Seeds::new(ChecksumKind::Xxh3, &[5; 16]);
    [
        runner(|_, block| u64::from(crc32fast::hash(block))),
        runner(|_, block| crc_fast::checksum(Crc32IsoHdlc, block)),
        runner(|_, block| {
            let mut hasher = crc32fast::Hasher::internal_new_baseline(0, 0);
            hasher.update(block);
            u64::from(hasher.finalize())
        }),
        runner(|_, block| crc_fast::checksum(Crc32Iscsi, block)),
        runner(|_, block| XxHash3_64::oneshot(block)),
        runner(|_, block| xxh3_64(block)),
        runner(move |offset, block| u64::from(crc32.checksum(offset, GENERATION, block))),
        runner(move |offset, block| u64::from(xxh3.checksum(offset, GENERATION, block))),
    ]
}

/// Wraps a contender up. The loop over the blocks is inside, compiled for the contender.
fn runner(checksum: impl Fn(u64, &[u8]) -> u64 + 'static) -> Runner {
    Box::new(move |work| {
        let begun = Instant::now();
        let mut sum = 0_u64;
        for &offset in work.offsets {
            let block = &work.array[usize::try_from(offset)?..][..work.block_bytes];
            sum = sum.wrapping_add(black_box(checksum(offset, block)));
        }
        Ok(Pass { elapsed: begun.elapsed(), sum })
    })
}

/// Blocks of each size in each array. A pass is over as many bytes as the longest array has.
fn for_each_array(bytes: &[u8], mut f: impl FnMut(&Work<'_>) -> Result<()>) -> Result<()> {
    for (array_bytes, blocks_bytes) in ARRAYS {
        let array = &bytes[..array_bytes.min(bytes.len())];
        for &block_bytes in blocks_bytes {
            let (blocks, reads) = (array.len() / block_bytes, bytes.len() / block_bytes);
            let places = Pattern::Rand.offsets(reads as u64, 1, 2).into_iter();
            let offsets: Vec<_> = places.map(|place| place % blocks as u64 * block_bytes as u64).collect();
            f(&Work { array, block_bytes, offsets: &offsets })?;
        }
    }
    Ok(())
}

fn measure_each(criterion: &mut Criterion, runners: &[Runner; 8], work: &Work<'_>) -> Result<()> {
    let mut group = criterion.benchmark_group(format!("checksum/{}", ByteSize::new(work.array.len() as u64)));
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(work.block_bytes as u64));
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (name, runner) in NAMES.iter().zip(runners) {
        let _ = group.bench_function(BenchmarkId::new(*name, work.block_bytes), |bencher| {
            bencher.iter_custom(|blocks| timed(runner, work, blocks).expect("the offsets are those of the array"));
        });
    }
    group.finish();
    Ok(())
}

/// The time of so many blocks, going through the offsets as often as it takes.
fn timed(runner: &Runner, work: &Work<'_>, blocks: u64) -> Result<Duration> {
    let mut left = usize::try_from(blocks)?;
    let mut elapsed = Duration::ZERO;
    while left > 0 {
        let offsets = &work.offsets[..left.min(work.offsets.len())];
        elapsed += runner(&Work { offsets, ..*work })?.elapsed;
        left -= offsets.len();
    }
    Ok(elapsed)
}

fn print_table(runners: &[Runner; 8], bytes: &[u8]) -> Result<()> {
    println!("\nrandom blocks of an array in memory, one thread, {} interleaved rounds", rounds());
    println!("median (least-greatest) over the rounds; the ratio is of speeds in the same round");
    println!(
        "{:>8} {:>7} {:<16} {:>28} {:>23} {:>18}",
        "array", "block", "contender", "ns a block", "GiB/s", "to crc32fast"
    );
    for_each_array(bytes, |work| {
        let mut boxed: Vec<Contender<'_, Pass>> = Vec::new();
        for runner in runners {
            boxed.push(Box::new(|| runner(work)));
        }
        let passes = interleave(rounds(), &mut boxed)?;
        for same in SAME {
            assert!(
                same.iter().all(|one| passes[*one][0].sum == passes[same[0]][0].sum),
                "two contenders have different checksums of the same blocks"
            );
        }
        let blocks = work.offsets.len() as f64;
        let ns_of = |pass: &Pass| pass.elapsed.as_nanos() as f64 / blocks;
        let ns: Vec<Vec<f64>> = passes.iter().map(|passes| passes.iter().map(ns_of).collect()).collect();
        let (array, block) = (ByteSize::new(work.array.len() as u64), ByteSize::new(work.block_bytes as u64));
        let gib = work.block_bytes as f64 / f64::from(1 << 30);
        for (name, of_one) in NAMES.iter().zip(&ns) {
            println!(
                "{:>8} {:>7} {name:<16} {:>28} {:>23} {:>18}",
                array.to_string(),
                block.to_string(),
                shown(spread(of_one.iter().copied())),
                shown(spread(of_one.iter().map(|ns| gib / ns * 1e9))),
                shown(ratio(&ns[CRC32FAST], of_one)),
            );
        }
        Ok(())
    })
}
