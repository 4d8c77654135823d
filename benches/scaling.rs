//! How reads of one shared handle scale with threads: a read path that writes nothing shared, against one that counts
//! itself in and out of the map.
//!
//! `cargo bench --bench scaling` has criterion's figures for each contender by itself and then a table from interleaved
//! rounds; with `-- table` the table alone.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

#[path = "support/file.rs"]
mod file;
#[allow(dead_code, reason = "what grows a file is for the growth bench")]
#[path = "support/remap.rs"]
mod remap;
#[path = "support/run.rs"]
mod run;

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use mapfall::workload::contender::{Probe, Reader};
use mapfall::workload::pattern::Pattern;
use mapfall::workload::size::ByteSize;
use mapfall::workload::{self, BareMap};
use mapfall::{Advice, HugePages, IoOptions};

use self::file::{Runner, random_file, runner, timed, warm};
use self::remap::RemapFile;
use self::run::{Contender, Result, interleave, is_quick, ratio, rounds, shown, spread, wants_table};

const THREADS: [usize; 3] = [1, 2, 4];
/// With the small ones the copy costs next to nothing, and what is left is the rest of the path.
const BLOCKS_BYTES: [usize; 3] = [64, 512, 4096];
/// Reads of a pass, over all threads.
const READS_MAX: u64 = 1 << 20;

const NAMES: [&str; 4] = ["mmap", "shared-use-counter", "bare", "pread"];

/// The protocol with a use count, while nothing grows: the same copy as `bare`, and two locked instructions.
impl Reader for RemapFile {
    const PROBE: Probe = Probe::OneBytePerPage;

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> workload::Result<()> {
        RemapFile::read(self, offset, buf).map_err(|_| {
            let mapped_bytes = usize::MAX;
            workload::Error::OutOfRange { io: "shared-use-counter", offset, len_bytes: buf.len(), mapped_bytes }
        })
    }
}

fn main() -> Result<()> {
    // Small enough that the caches of the processor take a part in it, large enough that the blocks of a pass differ.
    let file_bytes: u64 = if is_quick() { 4 << 20 } else { 64 << 20 };
    let file = random_file(file_bytes)?;
    let runners = contenders(file.path(), file_bytes)?;
    let mut criterion = Criterion::default().configure_from_args();
    measure_each(&mut criterion, &runners, file_bytes);
    criterion.final_summary();
    if wants_table() {
        print_table(&runners, file_bytes)?;
    }
    Ok(())
}

/// In the order of [`NAMES`]. Each is one handle that all threads share.
fn contenders(path: &Path, file_bytes: u64) -> Result<[Runner<'_>; 4]> {
    warm(path)?;
    Ok([
        runner(IoOptions::new().open_mmap(path)?, file_bytes),
        runner(RemapFile::open(path, u64::MAX)?, file_bytes),
        runner(BareMap::new(&File::open(path)?, HugePages::Auto, Advice::Normal)?, file_bytes),
        runner(IoOptions::new().open_pread(path)?, file_bytes),
    ])
}

/// As many as a pass has, whatever the size of the file.
fn random_offsets(file_bytes: u64, block_bytes: usize) -> Vec<u64> {
    let reads = if is_quick() { 1 << 10 } else { READS_MAX };
    let blocks = file_bytes / block_bytes as u64;
    Pattern::Rand.offsets(reads, 1, 6).iter().map(|number| number % blocks * block_bytes as u64).collect()
}

fn measure_each(criterion: &mut Criterion, runners: &[Runner<'_>; 4], file_bytes: u64) {
    for block_bytes in BLOCKS_BYTES {
        let mut group = criterion.benchmark_group(format!("scaling/{block_bytes}"));
        group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(1));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        let offsets = random_offsets(file_bytes, block_bytes);
        for (name, runner) in NAMES.iter().zip(runners) {
            for threads in THREADS {
                let _ = group.bench_function(BenchmarkId::new(*name, threads), |bencher| {
                    bencher.iter_custom(|reads| timed(runner, &offsets, block_bytes, threads, reads));
                });
            }
        }
        group.finish();
    }
}

fn print_table(runners: &[Runner<'_>; 4], file_bytes: u64) -> Result<()> {
    let processors = thread::available_parallelism()?;
    let (file, rounds) = (ByteSize::new(file_bytes), rounds());
    println!("\nrandom reads of a warm {file} file, {processors} processors, {rounds} interleaved rounds");
    println!("median (least-greatest) over the rounds; all ratios are of reads a second in the same round");
    println!(
        "{:>6} {:<18} {:>7} {:>14} {:>20} {:>24}",
        "block", "contender", "threads", "M reads/s", "to 1 thread", "to shared-use-counter"
    );
    for block_bytes in BLOCKS_BYTES {
        let offsets = random_offsets(file_bytes, block_bytes);
        let mut contenders: Vec<Contender<'_, f64>> = Vec::new();
        for runner in runners {
            for threads in &THREADS {
                contenders.push(Box::new(|| {
                    let pass = runner(&offsets, block_bytes, *threads);
                    Ok(pass.reads as f64 / pass.elapsed.as_secs_f64() / 1e6)
                }));
            }
        }
        let rates = interleave(rounds, &mut contenders)?;
        drop(contenders);
        for (contender, name) in NAMES.iter().enumerate() {
            let at = |contender: usize, threads: usize| &rates[contender * THREADS.len() + threads];
            for (place, threads) in THREADS.iter().enumerate() {
                println!(
                    "{block_bytes:>6} {name:<18} {threads:>7} {:>14.2} {:>20} {:>24}",
                    spread(at(contender, place).iter().copied()).median,
                    shown(ratio(at(contender, place), at(contender, 0))),
                    shown(ratio(at(contender, place), at(1, place))),
                );
            }
        }
    }
    Ok(())
}
