//! What a random read costs in the steady state: every byte of the file in the page cache, every map touched.
//!
//! `cargo bench --bench read_path` has criterion's figures for each contender by itself and then a table of ratios from
//! interleaved rounds; with `-- table` the table alone.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

#[path = "support/file.rs"]
mod file;
#[path = "support/run.rs"]
mod run;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use mapfall::workload::BareMap;
use mapfall::workload::contender::{BarePread, LimitPages};
use mapfall::workload::pass::Pass;
use mapfall::workload::pattern::Pattern;
use mapfall::workload::size::ByteSize;
use mapfall::{Advice, BatchRead, BlockIo, HugePages, IoOptions};

use self::file::{Runner, random_file, runner, timed, warm};
use self::run::{Contender, Result, interleave, is_quick, ratio, rounds, shown, spread, wants_table};

const BLOCKS_BYTES: [usize; 9] = [512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Enough reads for a pass of some tens of milliseconds at the least.
const READS_MAX: usize = 1 << 18;
/// The block size of the reads that end in a zero byte, and how far from the end of a file such a read always asks the
/// system for its length (nearer than the largest folio of the page cache).
const ZERO_ENDED_BLOCK_BYTES: usize = 4096;
const LAST_FOLIO_BYTES: u64 = 2 << 20;
const BATCH_READS: usize = 32;

const PREAD: usize = 0;
const BARE_PREAD: usize = 1;
const MMAP: usize = 2;
const BARE: usize = 3;
const LIMIT: usize = 4;
const NAMES: [&str; 5] = ["pread", "bare-pread", "mmap", "bare", "limit"];

fn main() -> Result<()> {
    let file_bytes: u64 = if is_quick() { 16 << 20 } else { 1 << 30 };
    let file = random_file(file_bytes)?;
    let runners = contenders(file.path(), file_bytes)?;
    let mut criterion = Criterion::default().configure_from_args();
    measure_each(&mut criterion, &runners, file_bytes);
    criterion.final_summary();
    if wants_table() {
        print_table(&runners, file_bytes)?;
        print_zero_ended(&runners[MMAP], file_bytes)?;
        print_batches(file.path(), file_bytes)?;
    }
    Ok(())
}

/// In the order of [`NAMES`]. All read the same pages.
fn contenders(path: &Path, file_bytes: u64) -> Result<[Runner<'_>; 5]> {
    warm(path)?;
    let pread = IoOptions::new().open_pread(path)?;
    let limit = LimitPages::copy_of(&pread, path, usize::try_from(file_bytes)?)?;
    Ok([
        runner(pread, file_bytes),
        runner(BarePread::open(path)?, file_bytes),
        runner(IoOptions::new().open_mmap(path)?, file_bytes),
        runner(BareMap::new(&File::open(path)?, HugePages::Auto, Advice::Normal)?, file_bytes),
        runner(limit, file_bytes),
    ])
}

fn random_offsets(file_bytes: u64, block_bytes: usize, seed: u64) -> Vec<u64> {
    let mut offsets = Pattern::Rand.offsets(file_bytes / block_bytes as u64, block_bytes as u64, seed);
    offsets.truncate(READS_MAX);
    offsets
}

fn measure_each(criterion: &mut Criterion, runners: &[Runner<'_>; 5], file_bytes: u64) {
    let mut group = criterion.benchmark_group("read_path");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for block_bytes in BLOCKS_BYTES {
        group.throughput(Throughput::Bytes(block_bytes as u64));
        let offsets = random_offsets(file_bytes, block_bytes, 2);
        for (name, runner) in NAMES.iter().zip(runners) {
            let _ = group.bench_function(BenchmarkId::new(*name, block_bytes), |bencher| {
                bencher.iter_custom(|reads| timed(runner, &offsets, block_bytes, 1, reads));
            });
        }
    }
    group.finish();
}

/// Passes of all contenders round by round, by contender and round.
fn rounds_of(contenders: &[(&Runner<'_>, &[u64])], block_bytes: usize) -> Result<Vec<Vec<Pass>>> {
    let mut boxed: Vec<Contender<'_, _>> = Vec::new();
    for (runner, offsets) in contenders {
        boxed.push(Box::new(|| Ok(runner(offsets, block_bytes, 1))));
    }
    interleave(rounds(), &mut boxed)
}

/// Nanoseconds a read in each round.
fn ns(passes: &[Pass]) -> Vec<f64> {
    passes.iter().map(|pass| pass.elapsed.as_nanos() as f64 / pass.reads as f64).collect()
}

fn print_table(runners: &[Runner<'_>; 5], file_bytes: u64) -> Result<()> {
    println!(
        "\nrandom reads of a warm {} file, one thread, {} interleaved rounds",
        ByteSize::new(file_bytes),
        rounds()
    );
    println!("ns a read: median; speed ratios: median (least-greatest) over the rounds");
    print!("{:>8}", "block");
    NAMES.iter().for_each(|name| print!(" {name:>10}"));
    for pair in ["mmap/pread", "mmap/bare", "mmap/limit", "pread/bare-pread"] {
        print!("  {pair:<17}");
    }
    println!();
    let mut faults_of_mmap = 0;
    for block_bytes in BLOCKS_BYTES {
        let offsets = random_offsets(file_bytes, block_bytes, 3);
        let contenders: Vec<_> = runners.iter().map(|runner| (runner, &*offsets)).collect();
        let passes = rounds_of(&contenders, block_bytes)?;
        let same = passes.iter().all(|of_one| of_one[0].checksum == passes[0][0].checksum);
        assert!(same, "two contenders read different bytes at the same offsets");
        faults_of_mmap += passes[MMAP].iter().map(|pass| pass.usage.minor_faults).sum::<u64>();
        let ns: Vec<_> = passes.iter().map(|passes| ns(passes)).collect();
        print!("{:>8}", ByteSize::new(block_bytes as u64).to_string());
        ns.iter().for_each(|ns| print!(" {:>10.1}", spread(ns.iter().copied()).median));
        for (ours, theirs) in [(MMAP, PREAD), (MMAP, BARE), (MMAP, LIMIT), (PREAD, BARE_PREAD)] {
            // A speed is the inverse of a time.
            print!("  {:<17}", shown(ratio(&ns[theirs], &ns[ours])));
        }
        println!();
    }
    println!("minor faults in all passes of mmap: {faults_of_mmap}");
    Ok(())
}

/// The map's rule for blocks that end in a zero byte, which a cut file also shows: a touch of the file's last page, or
/// a call for its length where the block is in the same folio as that.
fn print_zero_ended(usual: &Runner<'_>, file_bytes: u64) -> Result<()> {
    let zero_ended = random_file(file_bytes)?;
    let writer = File::options().write(true).open(zero_ended.path())?;
    for block in 1..=file_bytes / ZERO_ENDED_BLOCK_BYTES as u64 {
        writer.write_all_at(&[0], block * ZERO_ENDED_BLOCK_BYTES as u64 - 1)?;
    }
    warm(zero_ended.path())?;
    let zero_ended = runner(IoOptions::new().open_mmap(zero_ended.path())?, file_bytes);
    let tail_at = file_bytes - LAST_FOLIO_BYTES.min(file_bytes);
    let anywhere = random_offsets(tail_at, ZERO_ENDED_BLOCK_BYTES, 4);
    let tail = random_offsets(file_bytes - tail_at, ZERO_ENDED_BLOCK_BYTES, 5);
    let tail: Vec<u64> = tail.iter().map(|offset| tail_at + offset).collect();
    let contenders = [(usual, &*anywhere), (&zero_ended, &*anywhere), (usual, &*tail), (&zero_ended, &*tail)];
    let ns: Vec<_> = rounds_of(&contenders, ZERO_ENDED_BLOCK_BYTES)?.iter().map(|passes| ns(passes)).collect();
    println!("\nmmap, 4 KiB blocks whose last byte is zero, as above");
    for (what, usual, zero_ended) in [("anywhere", &ns[0], &ns[1]), ("in the last 2 MiB", &ns[2], &ns[3])] {
        let median = |ns: &[f64]| spread(ns.iter().copied()).median;
        let cost = shown(ratio(usual, zero_ended));
        println!("{what:<18} usual {:>7.1} ns, zero-ended {:>7.1} ns, ratio {cost}", median(usual), median(zero_ended));
    }
    Ok(())
}

/// The same reads through the map one by one and in batches, whose next block is fetched while one is copied.
fn print_batches(path: &Path, file_bytes: u64) -> Result<()> {
    let map = IoOptions::new().open_mmap(path)?;
    println!("\nmmap, reads in batches of {BATCH_READS} against the same reads one by one");
    for block_bytes in BLOCKS_BYTES.into_iter().filter(|bytes| *bytes <= 64 << 10) {
        let offsets = random_offsets(file_bytes, block_bytes, 6);
        let one_by_one = |buf: &mut [u8], offsets: &[u64]| -> Result<()> {
            let mut blocks = buf.chunks_mut(block_bytes).zip(offsets);
            Ok(blocks.try_for_each(|(block, offset)| map.read_at(*offset, block))?)
        };
        let batch = |buf: &mut [u8], offsets: &[u64]| -> Result<()> {
            let blocks = buf.chunks_mut(block_bytes).zip(offsets);
            let mut reads: Vec<_> = blocks.map(|(buf, &offset)| BatchRead { offset, buf }).collect();
            Ok(map.read_batch(&mut reads)?)
        };
        let mut buf = vec![1; BATCH_READS * block_bytes];
        let mut other = buf.clone();
        let mut contenders: [Contender<'_, f64>; 2] = [
            Box::new(|| ns_of_batches(&offsets, |offsets| one_by_one(&mut buf, offsets))),
            Box::new(|| ns_of_batches(&offsets, |offsets| batch(&mut other, offsets))),
        ];
        let ns = interleave(rounds(), &mut contenders)?;
        let median = |ns: &[f64]| spread(ns.iter().copied()).median;
        let gain = shown(ratio(&ns[0], &ns[1]));
        let block = ByteSize::new(block_bytes as u64).to_string();
        println!("{block:>8} {:>10.1} ns, in batches {:>10.1} ns, speed {gain}", median(&ns[0]), median(&ns[1]));
    }
    Ok(())
}

/// Nanoseconds a read, over all offsets.
fn ns_of_batches(offsets: &[u64], mut read: impl FnMut(&[u64]) -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    offsets.chunks(BATCH_READS).try_for_each(&mut read)?;
    Ok(begun.elapsed().as_nanos() as f64 / offsets.len() as f64)
}
