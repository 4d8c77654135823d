//! Batches of reads at depth against the same reads one by one, and against `fio` on the same file.
//!
//! `cargo bench --bench batch` prints tables of interleaved rounds: cold random reads, cold reads in order, warm random
//! reads. Cold is verified before each contender: not a byte of the file is in the page cache. `fio` (Debian's package)
//! is told to read the same file in the same way within the same minute; where it is not installed that is said.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

#[path = "support/file.rs"]
#[allow(dead_code, reason = "every bench takes what it needs")]
mod file;
#[path = "support/run.rs"]
#[allow(dead_code, reason = "every bench takes what it needs")]
mod run;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use mapfall::workload::cache_state::FileCache;
use mapfall::workload::pattern::Pattern;
use mapfall::workload::size::ByteSize;
use mapfall::{AccessHint, AutoFile, BatchRead, BlockIo, IoOptions};

use self::file::{random_file, warm};
use self::run::{Contender, Result, interleave, is_quick, ratio, rounds, shown, spread};

const BATCH_READS: usize = 32;
const BLOCK_BYTES: usize = 4096;
const LARGE_BYTES: usize = 1 << 20;
const LARGE_DEPTH: usize = 8;

fn main() -> Result<()> {
    let file_bytes: u64 = if is_quick() { 16 << 20 } else { 1 << 30 };
    let file = random_file(file_bytes)?;
    let bench = Bench { path: file.path(), file_bytes, cache: FileCache::open(file.path(), false)? };
    bench.cold_random()?;
    bench.cold_in_order()?;
    bench.warm_random()
}

struct Bench<'a> {
    path: &'a Path,
    file_bytes: u64,
    cache: FileCache,
}

/// Memory for so many blocks, aligned as direct I/O wants it.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    block_bytes: usize,
}

impl Buffer {
    fn new(blocks: usize, block_bytes: usize) -> Self {
        let bytes = vec![1; blocks * block_bytes + 4096];
        let start = bytes.as_ptr().addr().next_multiple_of(4096) - bytes.as_ptr().addr();
        Buffer { bytes, start, block_bytes }
    }

    fn blocks(&mut self) -> std::slice::ChunksExactMut<'_, u8> {
        self.bytes[self.start..].chunks_exact_mut(self.block_bytes)
    }
}

/// Bytes a second, over all offsets.
fn timed(
    offsets: &[u64],
    buf: &mut Buffer,
    reads: usize,
    read: impl Fn(&mut [BatchRead<'_>]) -> Result<()>,
) -> Result<f64> {
    let begun = Instant::now();
    for offsets in offsets.chunks(reads) {
        let mut batch: Vec<_> =
            offsets.iter().zip(buf.blocks()).map(|(&offset, buf)| BatchRead { offset, buf }).collect();
        read(&mut batch)?;
    }
    Ok((offsets.len() * buf.block_bytes) as f64 / begun.elapsed().as_secs_f64())
}

fn one_by_one(file: &dyn BlockIo) -> impl Fn(&mut [BatchRead<'_>]) -> Result<()> {
    |batch| Ok(batch.iter_mut().try_for_each(|read| file.read_at(read.offset, read.buf))?)
}

fn at_once(file: &dyn BlockIo) -> impl Fn(&mut [BatchRead<'_>]) -> Result<()> {
    |batch| Ok(file.read_batch(batch)?)
}

impl Bench<'_> {
    /// Every contender begins with none of the file in the page cache.
    fn cold(&self) -> Result<()> {
        self.cache.make_cold()??;
        Ok(())
    }

    /// A file that knows nothing yet of what is in the page cache.
    fn auto(&self) -> Result<AutoFile> {
        Ok(IoOptions::new().open_auto(self.path)?)
    }

    /// What `fio` reads in a second, or nothing where there is none.
    fn fio(&self, pattern: &str, block_bytes: usize, depth: usize, reads: usize) -> Result<Option<f64>> {
        self.cold()?;
        let output = Command::new("fio")
            .args(["--name=batch", "--readonly", "--ioengine=io_uring", "--direct=1", "--output-format=json"])
            .args(["--randrepeat=0", "--norandommap", "--allow_file_create=0"])
            .arg(format!("--filename={}", self.path.display()))
            .arg(format!("--size={}", self.file_bytes))
            .arg(format!("--io_size={}", reads * block_bytes))
            .args([format!("--rw={pattern}"), format!("--bs={block_bytes}"), format!("--iodepth={depth}")])
            .output();
        let output = match output {
            Ok(output) if output.status.success() => output,
            Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let bytes_a_second = told["jobs"][0]["read"]["bw_bytes"].as_f64();
        Ok(Some(bytes_a_second.ok_or("fio tells no bandwidth")?))
    }

    /// Runs the contenders, `fio` last if there is one, and prints a line for each.
    fn table<'b>(
        &'b self,
        block_bytes: usize,
        mut contenders: Vec<(&'b str, Contender<'b, f64>)>,
        fio: Option<(&'b str, usize, usize)>,
    ) -> Result<()> {
        if let Some((pattern, depth, reads)) = fio {
            if self.fio(pattern, block_bytes, depth, depth)?.is_some() {
                let run = move || Ok(self.fio(pattern, block_bytes, depth, reads)?.unwrap_or_default());
                contenders.push(("fio, direct", Box::new(run)));
            } else {
                println!("SKIPPED fio: it is not installed");
            }
        }
        let (names, mut runs): (Vec<_>, Vec<_>) = contenders.into_iter().unzip();
        let given = interleave(rounds(), &mut runs)?;
        let fio = names.iter().position(|name| name.starts_with("fio"));
        println!("{:<34} {:>10} {:>9}  {:<19} of fio", "", "reads/s", "MiB/s", "of the first");
        for (name, speeds) in names.iter().zip(&given) {
            let median = spread(speeds.iter().copied()).median;
            let of_fio = fio.map_or_else(String::new, |fio| shown(ratio(speeds, &given[fio])));
            println!(
                "{name:<34} {:>10.0} {:>9.1}  {:<19} {of_fio}",
                median / block_bytes as f64,
                median / f64::from(1 << 20),
                shown(ratio(speeds, &given[0])),
            );
        }
        Ok(())
    }

    fn offsets(&self, block_bytes: usize, reads: usize, seed: u64) -> Vec<u64> {
        let blocks = self.file_bytes / block_bytes as u64;
        let mut offsets = Pattern::Rand.offsets(blocks, block_bytes as u64, seed);
        offsets.truncate(reads);
        offsets
    }

    fn cold_random(&self) -> Result<()> {
        let reads = if is_quick() { 256 } else { 16_384 };
        println!(
            "\ncold random reads of 4 KiB, {reads} of a {} file, batches of {BATCH_READS}, {} interleaved rounds",
            ByteSize::new(self.file_bytes),
            rounds()
        );
        let offsets = &*self.offsets(BLOCK_BYTES, reads, 1);
        let buf = || Buffer::new(BATCH_READS, BLOCK_BYTES);
        let pread = IoOptions::new().open_pread(self.path)?;
        let uring = IoOptions::new().open_uring(self.path)?;
        let hinted = IoOptions::new().open_uring(self.path)?;
        hinted.advise(0..self.file_bytes, AccessHint::Random)?;
        let direct = IoOptions::new().direct_fallback(true).open_direct(self.path)?;
        let mut bufs = [buf(), buf(), buf(), buf(), buf(), buf()];
        let [one, two, three, four, five, six] = &mut bufs;
        let contenders: Vec<(&str, Contender<'_, f64>)> = vec![
            (
                "pread, one by one",
                Box::new(|| self.cold().and_then(|()| timed(offsets, one, BATCH_READS, one_by_one(&pread)))),
            ),
            (
                "uring, batches",
                Box::new(|| self.cold().and_then(|()| timed(offsets, two, BATCH_READS, at_once(&uring)))),
            ),
            (
                "uring, batches, AccessHint::Random",
                Box::new(|| self.cold().and_then(|()| timed(offsets, three, BATCH_READS, at_once(&hinted)))),
            ),
            (
                "direct, one by one",
                Box::new(|| self.cold().and_then(|()| timed(offsets, four, BATCH_READS, one_by_one(&direct)))),
            ),
            (
                "direct, batches",
                Box::new(|| self.cold().and_then(|()| timed(offsets, five, BATCH_READS, at_once(&direct)))),
            ),
            (
                "auto, batches",
                Box::new(|| self.cold().and_then(|()| timed(offsets, six, BATCH_READS, at_once(&self.auto()?)))),
            ),
        ];
        self.table(BLOCK_BYTES, contenders, Some(("randread", BATCH_READS, reads)))?;
        println!("rings: {:?}\ndirect: {:?}", uring.stats().rings, direct.stats().direct_io);
        Ok(())
    }

    fn cold_in_order(&self) -> Result<()> {
        println!("\ncold reads in order, the whole file; batches of {LARGE_DEPTH} of 1 MiB");
        let large = &*Pattern::Seq.offsets(self.file_bytes / LARGE_BYTES as u64, LARGE_BYTES as u64, 0);
        let small = &*Pattern::Seq.offsets(self.file_bytes / BLOCK_BYTES as u64, BLOCK_BYTES as u64, 0);
        let pread = IoOptions::new().open_pread(self.path)?;
        let uring = IoOptions::new().open_uring(self.path)?;
        let direct = IoOptions::new().direct_fallback(true).open_direct(self.path)?;
        let buf = || Buffer::new(LARGE_DEPTH, LARGE_BYTES);
        let small_buf = || Buffer::new(BATCH_READS, BLOCK_BYTES);
        let mut bufs = [buf(), buf(), buf(), small_buf(), small_buf(), buf()];
        let [one, two, three, four, five, six] = &mut bufs;
        let contenders: Vec<(&str, Contender<'_, f64>)> = vec![
            (
                "pread, 1 MiB",
                Box::new(|| self.cold().and_then(|()| timed(large, one, LARGE_DEPTH, one_by_one(&pread)))),
            ),
            (
                "uring, batches of 1 MiB",
                Box::new(|| self.cold().and_then(|()| timed(large, two, LARGE_DEPTH, at_once(&uring)))),
            ),
            (
                "direct, batches of 1 MiB",
                Box::new(|| self.cold().and_then(|()| timed(large, three, LARGE_DEPTH, at_once(&direct)))),
            ),
            (
                "uring, batches of 32 of 4 KiB",
                Box::new(|| self.cold().and_then(|()| timed(small, four, BATCH_READS, at_once(&uring)))),
            ),
            (
                "auto, 4 KiB one by one",
                Box::new(|| self.cold().and_then(|()| timed(small, five, BATCH_READS, one_by_one(&self.auto()?)))),
            ),
            (
                "auto, 1 MiB one by one",
                Box::new(|| self.cold().and_then(|()| timed(large, six, LARGE_DEPTH, one_by_one(&self.auto()?)))),
            ),
        ];
        self.table(LARGE_BYTES, contenders, Some(("read", LARGE_DEPTH, large.len())))
    }

    fn warm_random(&self) -> Result<()> {
        let reads = if is_quick() { 4_096 } else { 1 << 18 };
        println!("\nwarm random reads of 4 KiB, batches of {BATCH_READS}");
        let offsets = &*self.offsets(BLOCK_BYTES, reads, 2);
        warm(self.path)?;
        let pread = IoOptions::new().open_pread(self.path)?;
        let uring = IoOptions::new().open_uring(self.path)?;
        let mmap = IoOptions::new().open_mmap(self.path)?;
        let buf = || Buffer::new(BATCH_READS, BLOCK_BYTES);
        let auto = self.auto()?;
        let mut bufs = [buf(), buf(), buf(), buf(), buf(), buf()];
        let [one, two, three, four, five, six] = &mut bufs;
        let contenders: Vec<(&str, Contender<'_, f64>)> = vec![
            ("pread, one by one", Box::new(|| timed(offsets, one, BATCH_READS, one_by_one(&pread)))),
            ("uring, batches", Box::new(|| timed(offsets, two, BATCH_READS, at_once(&uring)))),
            ("mmap, one by one", Box::new(|| timed(offsets, three, BATCH_READS, one_by_one(&mmap)))),
            ("mmap, batches", Box::new(|| timed(offsets, four, BATCH_READS, at_once(&mmap)))),
            ("auto, one by one", Box::new(|| timed(offsets, five, BATCH_READS, one_by_one(&auto)))),
            ("auto, batches", Box::new(|| timed(offsets, six, BATCH_READS, at_once(&auto)))),
        ];
        self.table(BLOCK_BYTES, contenders, None)
    }
}
