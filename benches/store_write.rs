//! Page writes with a checkpoint after every so many, against the same bytes by `pwrite(2)` with an `fdatasync(2)`
//! after every so many: at the same random offsets in a file as large as the store, which is what overwriting in place
//! would cost, and appended in order, which is the best that a log could do. Neither of the two survives a crash as a
//! whole.
//!
//! `cargo bench --bench store_write` has criterion's figures for each contender by itself and then a table from
//! interleaved rounds; with `-- table` the table alone. `STORE_WRITE_SCALE` divides all sizes by what it says.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

#[path = "support/run.rs"]
mod run;
#[allow(dead_code, reason = "where pages are is for the bench of reads")]
#[path = "support/store.rs"]
mod store;

use std::cell::RefCell;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use mapfall::{CheckpointOptions, PageId, Store};
use tempfile::TempDir;

use self::run::{Contender, Result, interleave, is_quick, ratio, rounds, shown, spread, wants_table};
use self::store::{Content, PAGE_BYTES, directory, make, setting, shuffled};

/// Pages of a store, and writes between two checkpoints.
const PAGES: [u64; 2] = [100_000, 1_000_000];
const INTERVALS: [usize; 2] = [1_000, 100_000];
/// Writes of a round, at least one interval.
const WRITES: usize = 20_000;

#[derive(Clone, Copy)]
enum Kind {
    Store,
    Random,
    Append,
}

const KINDS: [(Kind, &str); 3] = [(Kind::Store, "store"), (Kind::Random, "random"), (Kind::Append, "append")];
const STORE: usize = 0;
const RANDOM: usize = 1;
const APPEND: usize = 2;

/// A store and its rivals of the same size.
struct Stage {
    store: Store,
    random: File,
    append: File,
    append_bytes: u64,
    /// All pages in a random order. Writes go through it again and again, so that none of an interval comes twice: the
    /// page cache would make one of two.
    order: Vec<u64>,
    at: usize,
    content: Content,
    _dir: TempDir,
}

/// What a contender's round did.
#[derive(Clone, Copy, Default)]
struct Round {
    writes: u64,
    elapsed: Duration,
    /// Of that, time in checkpoints or syncs.
    syncing: Duration,
    syncs: u64,
    /// Of checkpoints: written beside the pages.
    nodes: u64,
    beside_bytes: u64,
}

impl Round {
    fn rate(&self) -> f64 {
        self.writes as f64 / self.elapsed.as_secs_f64()
    }

    /// Bytes written for each byte of a page.
    fn amplification(&self) -> f64 {
        1.0 + self.beside_bytes as f64 / (self.writes * PAGE_BYTES as u64) as f64
    }
}

impl Stage {
    fn new(pages: u64) -> Result<Self> {
        let dir = directory()?;
        let in_order: Vec<u64> = (0..pages).collect();
        let store = make(&dir.path().join("pages"), &in_order)?;
        let file = |name| File::options().write(true).create_new(true).open(dir.path().join(name));
        let (random, append) = (file("random")?, file("append")?);
        // As the store's pages: allocated and written once.
        let mut content = Content::new();
        in_order.iter().try_for_each(|page| random.write_all_at(content.of(*page), page * PAGE_BYTES as u64))?;
        random.sync_all()?;
        let order = shuffled(pages, 5);
        Ok(Stage { store, random, append, append_bytes: 0, order, at: 0, content, _dir: dir })
    }

    fn write(&mut self, kind: Kind) -> Result<()> {
        let page = self.order[self.at % self.order.len()];
        self.at += 1;
        let bytes = self.content.of(page);
        match kind {
            Kind::Store => self.store.pages().write(PageId(page), bytes)?,
            Kind::Random => self.random.write_all_at(bytes, page * PAGE_BYTES as u64)?,
            Kind::Append => {
                self.append.write_all_at(bytes, self.append_bytes)?;
                self.append_bytes += bytes.len() as u64;
            }
        }
        Ok(())
    }

    fn sync(&mut self, kind: Kind, round: &mut Round) -> Result<()> {
        let begun = Instant::now();
        match kind {
            Kind::Store => {
                let report = self.store.checkpoint(CheckpointOptions::new())?;
                round.nodes += report.nodes_written;
                round.beside_bytes += report.bytes_written;
            }
            Kind::Random => self.random.sync_data()?,
            Kind::Append => self.append.sync_data()?,
        }
        round.syncing += begun.elapsed();
        round.syncs += 1;
        Ok(())
    }

    fn round(&mut self, kind: Kind, writes: usize, interval: usize) -> Result<Round> {
        // Each appender begins with an empty file; what the device still has to do for others is done before.
        self.append.set_len(0)?;
        self.append_bytes = 0;
        self.append.sync_all()?;
        let mut round = Round::default();
        let begun = Instant::now();
        while round.writes < writes as u64 {
            (0..interval).try_for_each(|_| self.write(kind))?;
            self.sync(kind, &mut round)?;
            round.writes += interval as u64;
        }
        round.elapsed = begun.elapsed();
        Ok(round)
    }
}

fn main() -> Result<()> {
    let scale = if is_quick() { 1_000 } else { setting("STORE_WRITE_SCALE", NonZeroU64::MIN)?.get() };
    let mut criterion = Criterion::default().configure_from_args();
    let stages = PAGES.map(|pages| Ok(RefCell::new(Stage::new((pages / scale).max(100))?)));
    let stages: Vec<RefCell<Stage>> = stages.into_iter().collect::<Result<_>>()?;
    measure_each(&mut criterion, &mut stages[0].borrow_mut(), (INTERVALS[0] / scale as usize).max(10));
    criterion.final_summary();
    if wants_table() {
        print_head();
        for stage in &stages {
            for interval in INTERVALS {
                print_rows(stage, (interval / scale as usize).max(10))?;
            }
        }
    }
    Ok(())
}

fn measure_each(criterion: &mut Criterion, stage: &mut Stage, interval: usize) {
    let mut group = criterion.benchmark_group(format!("store_write/{interval}"));
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(interval as u64));
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (kind, name) in KINDS {
        let _ = group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|intervals| {
                let writes = usize::try_from(intervals).unwrap_or(usize::MAX).saturating_mul(interval);
                stage.round(kind, writes, interval).expect("the files can be written").elapsed
            });
        });
    }
    group.finish();
}

fn print_head() {
    println!("\nwrites of random pages of 4 KiB, one thread, {} interleaved rounds, of a store and", rounds());
    println!("- random: pwrite at the same offsets of a file of the same size, and fdatasync");
    println!("- append: pwrite at the end of a file, and fdatasync");
    println!("medians over the rounds; (least-greatest). Amplification: bytes written for a byte of a page, the pages");
    println!("themselves and all that checkpoints write");
}

fn print_rows(stage: &RefCell<Stage>, interval: usize) -> Result<()> {
    let writes = if is_quick() { interval } else { WRITES.max(interval) };
    let mut contenders: Vec<Contender<'_, Round>> = Vec::new();
    for (kind, _) in &KINDS {
        contenders.push(Box::new(|| stage.borrow_mut().round(*kind, writes, interval)));
    }
    // Off the clock: the first time the store's file must grow.
    if !is_quick() {
        let _ = interleave(1, &mut contenders)?;
    }
    let given = interleave(rounds(), &mut contenders)?;
    let pages = stage.borrow().order.len();
    println!("\n{pages} pages, a checkpoint or sync every {interval} writes, {writes} writes a round");
    println!("{:<8} {:>26} {:>12} {:>14}", "", "writes/s", "in syncs", "ms a sync");
    let rates: Vec<Vec<f64>> = given.iter().map(|rounds| rounds.iter().map(Round::rate).collect()).collect();
    for ((_, name), (rounds, rates)) in KINDS.iter().zip(given.iter().zip(&rates)) {
        let over = |value: &dyn Fn(&Round) -> f64| spread(rounds.iter().map(value)).median;
        let rate = spread(rates.iter().copied());
        let rate = format!("{:.0} ({:.0}-{:.0})", rate.median, rate.min, rate.max);
        let share = over(&|round| 100.0 * round.syncing.as_secs_f64() / round.elapsed.as_secs_f64());
        let sync_ms = over(&|round| round.syncing.as_secs_f64() * 1e3 / round.syncs as f64);
        println!("{name:<8} {rate:>26} {share:>10.0} % {sync_ms:>14.2}");
    }
    let of_store = |value: &dyn Fn(&Round) -> f64| spread(given[STORE].iter().map(value)).median;
    println!(
        "store/random {}, store/append {}; {:.1} nodes a checkpoint, amplification {:.3}",
        shown(ratio(&rates[STORE], &rates[RANDOM])),
        shown(ratio(&rates[STORE], &rates[APPEND])),
        of_store(&|round| round.nodes as f64 / round.syncs as f64),
        of_store(&Round::amplification),
    );
    Ok(())
}
