//! What a page read costs above the block read that it ends in: the store against the bare I/O layer, which reads the
//! same bytes at the same offsets of the same file in the same order. Warm, random, one thread.
//!
//! `cargo bench --bench store_read` has criterion's figures for each contender by itself and then tables of ratios from
//! interleaved rounds; with `-- table` the tables alone. `STORE_READ_PAGES` is the number of pages of 4 KiB, 2^20 where
//! it is not set.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

#[allow(dead_code, reason = "here the files are stores")]
#[path = "support/file.rs"]
mod file;
#[path = "support/run.rs"]
mod run;
#[path = "support/store.rs"]
mod store;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use mapfall::workload::contender::{Probe, Reader};
use mapfall::workload::pass::Pass;
use mapfall::workload::pattern::Pattern;
use mapfall::workload::{self, size::ByteSize};
use mapfall::{BatchRead, BlockIo, IoMode, IoOptions, PageId, PageRead, Pages, Store, Verification};
use tempfile::TempDir;

use self::file::{Runner, runner, timed, warm};
use self::run::{Contender, Result, interleave, is_quick, ratio, rounds, shown, spread, wants_table};
use self::store::{PAGE_BYTES, directory, make, offsets, setting, shuffled};

const MODES: [IoMode; 2] = [IoMode::Mmap, IoMode::Pread];
const BATCH_READS: usize = 32;

const BARE: usize = 0;
const STORE: usize = 2;
const VERIFIED: usize = 3;
/// `lookup` is the bare read behind the least that a page table can be, a slice of offsets. What it loses is the wait
/// for an entry that is in no near cache.
const NAMES: [&str; 4] = ["bare", "lookup", "store", "store-verified"];

/// The pages of a store side by side, as if they were a file: page 0 at offset 0.
struct SideBySide(Pages);

impl Reader for SideBySide {
    const PROBE: Probe = Probe::OneByte;

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> workload::Result<()> {
        Ok(self.0.read(PageId(offset / PAGE_BYTES as u64), buf)?)
    }
}

/// The same with nothing of a store but where its pages are.
struct LookedUp<'a, F> {
    file: F,
    offsets: &'a [u64],
}

impl<F: Reader> Reader for LookedUp<'_, F> {
    const PROBE: Probe = F::PROBE;

    #[inline]
    fn read(&self, offset: u64, buf: &mut [u8]) -> workload::Result<()> {
        self.file.read(self.offsets[offset as usize / PAGE_BYTES], buf)
    }
}

/// A store whose every page was written once, in some order.
struct Subject {
    /// The order, in words.
    written: &'static str,
    path: PathBuf,
    /// Where each page's bytes are.
    offsets: Vec<u64>,
    _dir: TempDir,
}

impl Subject {
    /// Leaves the file in the page cache, in 2 MiB pages where the file system has them.
    fn new(written: &'static str, order: &[u64]) -> Result<Self> {
        let dir = directory()?;
        let path = dir.path().join("pages");
        drop(make(&path, order)?);
        warm(&path)?;
        let offsets = offsets(&path, order.len() as u64)?;
        Ok(Subject { written, path, offsets, _dir: dir })
    }

    fn pages_bytes(&self) -> u64 {
        (self.offsets.len() * PAGE_BYTES) as u64
    }

    /// In the order of [`NAMES`].
    fn contenders(&self, mode: IoMode) -> Result<[Runner<'_>; 4]> {
        let [bare, lookup] = match mode {
            IoMode::Mmap => self.without_store(|| IoOptions::new().open_mmap(&self.path))?,
            _ => self.without_store(|| IoOptions::new().open_pread(&self.path))?,
        };
        let of_store = |verification| -> Result<Runner<'_>> {
            Ok(runner(SideBySide(open(&self.path, mode, verification)?.pages()), self.pages_bytes()))
        };
        Ok([bare, lookup, of_store(Verification::Off)?, of_store(Verification::Always)?])
    }

    fn without_store<F: Reader + 'static>(&self, open: impl Fn() -> mapfall::Result<F>) -> Result<[Runner<'_>; 2]> {
        let file_bytes = std::fs::metadata(&self.path)?.len();
        let lookup = LookedUp { file: open()?, offsets: &self.offsets };
        Ok([runner(open()?, file_bytes), runner(lookup, self.pages_bytes())])
    }

    /// Random reads of a pass: for stores, and the same reads for the bare file.
    fn reads(&self, seed: u64) -> (Vec<u64>, Vec<u64>) {
        let of_store = Pattern::Rand.offsets(self.offsets.len() as u64, PAGE_BYTES as u64, seed);
        let of_bare = of_store.iter().map(|offset| self.offsets[*offset as usize / PAGE_BYTES]).collect();
        (of_store, of_bare)
    }
}

/// Several handles of one file, which nobody writes: a store that is opened by its path is opened once.
fn open(path: &Path, mode: IoMode, verification: Verification) -> Result<Store> {
    let io = IoOptions::new().mode(mode).write(true).open(path)?;
    Ok(Store::options().verification(verification).open_io(io)?)
}

fn main() -> Result<()> {
    let pages: u64 = if is_quick() { 1 << 10 } else { setting("STORE_READ_PAGES", 1 << 20)? };
    let in_order: Vec<u64> = (0..pages).collect();
    let subjects = [Subject::new("in order", &in_order)?, Subject::new("shuffled", &shuffled(pages, 1))?];
    let mut criterion = Criterion::default().configure_from_args();
    measure_each(&mut criterion, &subjects[1])?;
    criterion.final_summary();
    if wants_table() {
        print_table(&subjects)?;
        print_batches(&subjects)?;
    }
    Ok(())
}

fn measure_each(criterion: &mut Criterion, subject: &Subject) -> Result<()> {
    let (of_store, of_bare) = subject.reads(2);
    for mode in MODES {
        let mut group = criterion.benchmark_group(format!("store_read/{}", mode.name()));
        group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(PAGE_BYTES as u64));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        let runners = subject.contenders(mode)?;
        for (place, (name, runner)) in NAMES.iter().zip(&runners).enumerate() {
            let offsets = if place == BARE { &of_bare } else { &of_store };
            let _ = group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter_custom(|reads| timed(runner, offsets, PAGE_BYTES, 1, reads));
            });
        }
        group.finish();
    }
    Ok(())
}

fn print_table(subjects: &[Subject]) -> Result<()> {
    let (pages, bytes) = (subjects[0].offsets.len(), ByteSize::new(subjects[0].pages_bytes()));
    println!("\nrandom page reads of a warm store of {pages} pages of 4 KiB ({bytes}), one thread;");
    println!("{} interleaved rounds of {pages} reads", rounds());
    print_head(&NAMES);
    for subject in subjects {
        let (of_store, of_bare) = subject.reads(3);
        for mode in MODES {
            let runners = subject.contenders(mode)?;
            let mut contenders: Vec<Contender<'_, Pass>> = Vec::new();
            for (place, runner) in runners.iter().enumerate() {
                let offsets = if place == BARE { &of_bare } else { &of_store };
                contenders.push(Box::new(|| Ok(runner(offsets, PAGE_BYTES, 1))));
            }
            let passes = interleave(rounds(), &mut contenders)?;
            let same = passes.iter().all(|of_one| of_one[0].checksum == passes[0][0].checksum);
            assert!(same, "two contenders read different bytes");
            let ns = |pass: &Pass| pass.elapsed.as_nanos() as f64 / pass.reads as f64;
            let ns: Vec<Vec<f64>> = passes.iter().map(|passes| passes.iter().map(ns).collect()).collect();
            print_row(subject, mode, &ns);
        }
    }
    Ok(())
}

fn print_head(names: &[&str]) {
    println!("ns a read: median; speed ratios and the checksum's cost: median (least-greatest) over the rounds");
    print!("{:<10} {:<6}", "written", "io");
    names.iter().for_each(|name| print!(" {name:>14}"));
    names[1..].iter().for_each(|name| print!("  {:<19}", format!("{name}/bare")));
    println!("  checksum ns");
}

/// Nanoseconds a read, by contender and round: the bare one is the first, those of stores are the last two.
fn print_row(subject: &Subject, mode: IoMode, ns: &[Vec<f64>]) {
    print!("{:<10} {:<6}", subject.written, mode.name());
    ns.iter().for_each(|ns| print!(" {:>14.1}", spread(ns.iter().copied()).median));
    // A speed is the inverse of a time.
    ns[1..].iter().for_each(|other| print!("  {:<19}", shown(ratio(&ns[BARE], other))));
    let (store, verified) = (&ns[ns.len() - 2], &ns[ns.len() - 1]);
    let checksum = spread(verified.iter().zip(store).map(|(verified, store)| verified - store));
    println!("  {:.0} ({:.0}-{:.0})", checksum.median, checksum.min, checksum.max);
}

fn print_batches(subjects: &[Subject]) -> Result<()> {
    println!("\nthe same in batches of {BATCH_READS}");
    print_head(&[NAMES[BARE], NAMES[STORE], NAMES[VERIFIED]]);
    for subject in subjects {
        let (of_store, of_bare) = subject.reads(4);
        for mode in MODES {
            let bare = IoOptions::new().mode(mode).open(&subject.path)?;
            let stores = [Verification::Off, Verification::Always].map(|kind| open(&subject.path, mode, kind));
            let [plain, verified] = stores;
            let (plain, verified) = (plain?.pages(), verified?.pages());
            let mut contenders: [Contender<'_, f64>; 3] = [
                Box::new(|| ns_of_batches(&of_bare, |buf, offsets| bare_batch(&*bare, buf, offsets))),
                Box::new(|| ns_of_batches(&of_store, |buf, offsets| store_batch(&plain, buf, offsets))),
                Box::new(|| ns_of_batches(&of_store, |buf, offsets| store_batch(&verified, buf, offsets))),
            ];
            // Off the clock, so that every map is touched and every leaf of a page table is in memory.
            let _ = interleave(1, &mut contenders)?;
            print_row(subject, mode, &interleave(rounds(), &mut contenders)?);
        }
    }
    Ok(())
}

fn bare_batch(file: &dyn BlockIo, buf: &mut [u8], offsets: &[u64]) -> Result<()> {
    let blocks = buf.chunks_mut(PAGE_BYTES).zip(offsets);
    let mut reads: Vec<_> = blocks.map(|(buf, &offset)| BatchRead { offset, buf }).collect();
    Ok(file.read_batch(&mut reads)?)
}

fn store_batch(pages: &Pages, buf: &mut [u8], offsets: &[u64]) -> Result<()> {
    let blocks = buf.chunks_mut(PAGE_BYTES).zip(offsets);
    let mut reads: Vec<_> =
        blocks.map(|(buf, offset)| PageRead { page: PageId(offset / PAGE_BYTES as u64), buf }).collect();
    Ok(pages.read_batch(&mut reads)?)
}

/// Nanoseconds a read, over all offsets.
fn ns_of_batches(offsets: &[u64], mut read: impl FnMut(&mut [u8], &[u64]) -> Result<()>) -> Result<f64> {
    let mut buf = vec![1; BATCH_READS * PAGE_BYTES];
    let begun = Instant::now();
    offsets.chunks(BATCH_READS).try_for_each(|offsets| read(&mut buf, offsets))?;
    Ok(begun.elapsed().as_nanos() as f64 / offsets.len() as f64)
}
