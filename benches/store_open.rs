//! What must not depend on the size of a store: the time to open it, which is held against its number of pages, and the
//! time of a checkpoint, which is held against the number of pages that changed, with what it does to a writer.
//!
//! `cargo bench --bench store_open` has criterion's figures for opening and then tables from interleaved rounds; with
//! `-- table` the tables alone. `STORE_OPEN_SCALE` divides the sizes of the stores by what it says.
//!
//! Where the page cache cannot be emptied of a file otherwise, and root runs this, the page cache of the whole machine
//! is dropped for the cold rows: nothing else should be measured at the same time.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

#[path = "support/run.rs"]
mod run;
#[allow(dead_code, reason = "where pages are is for the bench of reads")]
#[path = "support/store.rs"]
mod store;

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use hdrhistogram::Histogram;
use mapfall::workload::cache_state::FileCache;
use mapfall::{CheckpointOptions, CheckpointReport, PageId, Pages, Store};
use tempfile::TempDir;

use self::run::{Contender, Result, interleave, is_quick, ratio, rounds, shown, spread, wants_table};
use self::store::{Content, directory, make, setting, shuffled};

// ---- Opening ----

const SMALL_PAGES: u64 = 1_000;
const LARGE_PAGES: u64 = 10_000_000;
/// Short pages, of which one in so many is written: the page table has all of them whether or not they are.
const SHORT_PAGE_BYTES: usize = 512;
const WRITTEN_EVERY: u64 = 1_000;

/// A store to be opened.
struct Closed {
    path: PathBuf,
    pages: u64,
    file_bytes: u64,
    cache: FileCache,
    _dir: TempDir,
}

/// How it is opened.
#[derive(Clone, Copy)]
enum Way {
    Store,
    Snapshot,
}

const WAYS: [(Way, &str); 2] = [(Way::Store, "open"), (Way::Snapshot, "open_snapshot")];

/// How often a store is opened in a round.
fn opens() -> usize {
    if is_quick() { 1 } else { 21 }
}

/// How long the two steps took.
#[derive(Clone, Copy)]
struct Opened {
    open: Duration,
    first_read: Duration,
}

impl Closed {
    fn new(count: u64) -> Result<Self> {
        let dir = directory()?;
        let path = dir.path().join("pages");
        let store = Store::options().page_bytes(u32::try_from(SHORT_PAGE_BYTES)?).create(&path)?;
        let pages = store.pages();
        for number in 0..count {
            let page = pages.allocate()?;
            if number % WRITTEN_EVERY == 0 {
                pages.write(page, &[7; SHORT_PAGE_BYTES])?;
            }
        }
        let _ = store.checkpoint(CheckpointOptions::new())?;
        drop((pages, store));
        let file_bytes = std::fs::metadata(&path)?.len();
        let cache = FileCache::open(&path, false)?;
        Ok(Closed { path, pages: count, file_bytes, cache, _dir: dir })
    }

    /// Opens it and reads a page from its middle.
    fn open(&self, way: Way) -> Result<Opened> {
        let page = PageId(self.pages / 2 / WRITTEN_EVERY * WRITTEN_EVERY);
        let mut buf = [0; SHORT_PAGE_BYTES];
        let begun = Instant::now();
        let (open, first_read) = match way {
            Way::Store => {
                let store = Store::options().open(&self.path)?;
                let open = begun.elapsed();
                store.pages().read(page, &mut buf)?;
                (open, begun.elapsed() - open)
            }
            Way::Snapshot => {
                let snapshot = Store::options().open_snapshot(&self.path)?;
                let open = begun.elapsed();
                snapshot.read(page, &mut buf)?;
                (open, begun.elapsed() - open)
            }
        };
        assert_eq!(buf, [7; SHORT_PAGE_BYTES]);
        Ok(Opened { open, first_read })
    }

    /// Several times, with the file in the page cache or not; the middle of the times.
    fn open_often(&self, way: Way, cold: bool) -> Result<Opened> {
        let mut all = Vec::new();
        for _ in 0..opens() {
            if cold {
                let _ = self.cache.make_cold()??;
            }
            all.push(self.open(way)?);
        }
        let middle = |value: &dyn Fn(&Opened) -> Duration| {
            Duration::from_secs_f64(spread(all.iter().map(|opened| value(opened).as_secs_f64())).median)
        };
        Ok(Opened { open: middle(&|opened| opened.open), first_read: middle(&|opened| opened.first_read) })
    }
}

fn measure_each(criterion: &mut Criterion, stores: &[Closed; 2]) {
    let mut group = criterion.benchmark_group("store_open");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for (way, name) in WAYS {
        for store in stores {
            let _ = group.bench_function(BenchmarkId::new(name, store.pages), |bencher| {
                bencher.iter(|| store.open(way).expect("the store is there"));
            });
        }
    }
    group.finish();
}

fn print_opening(stores: &[Closed; 2]) -> Result<()> {
    println!("\nopening a store and reading a page, us: median of {} interleaved rounds, each the median", rounds());
    println!("of {}; ratio of the larger to the smaller: median (least-greatest) over the rounds", opens());
    for store in stores {
        let mib = store.file_bytes as f64 / f64::from(1 << 20);
        println!("{} pages: a file of {mib:.1} MiB", store.pages);
    }
    print!("{:<14} {:<5} {:>10} {:>10}  {:<17}", "", "cache", stores[0].pages, stores[1].pages, "ratio");
    println!(" {:>10} {:>10}  ratio, of the first read", stores[0].pages, stores[1].pages);
    for (way, name) in WAYS {
        for (cold, cache) in [(false, "warm"), (true, "cold")] {
            let mut contenders: [Contender<'_, Opened>; 2] =
                [Box::new(|| stores[0].open_often(way, cold)), Box::new(|| stores[1].open_often(way, cold))];
            let given = interleave(rounds(), &mut contenders)?;
            print!("{name:<14} {cache:<5}");
            for value in [|opened: &Opened| opened.open, |opened: &Opened| opened.first_read] {
                let us = |rounds: &[Opened]| rounds.iter().map(|round| value(round).as_secs_f64() * 1e6).collect();
                let (small, large): (Vec<f64>, Vec<f64>) = (us(&given[0]), us(&given[1]));
                let median = |us: &[f64]| spread(us.iter().copied()).median;
                print!(" {:>10.1} {:>10.1}  {:<17}", median(&small), median(&large), shown(ratio(&large, &small)));
            }
            println!();
        }
    }
    Ok(())
}

// ---- Checkpoints ----

const STORE_PAGES: u64 = 1_000_000;
const CHANGED: [u64; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];
/// The writer beside a checkpoint writes a page this often, if it can.
const PACE: Duration = Duration::from_micros(50);
/// In a round, checkpoints go on until they took this long in all; the writer is watched at rest for as long.
const WATCHED: Duration = Duration::from_millis(200);

const AT_REST: usize = 0;
const BESIDE: usize = 1;

/// A store whose pages are changed.
struct Changing {
    store: Store,
    /// All pages, in a random order.
    order: Vec<u64>,
    /// Where in it the changed pages begin next time.
    at: usize,
    content: Content,
    _dir: TempDir,
}

/// What one round gave: sums over its checkpoints, and the writer's times.
struct Round {
    checkpoints: u64,
    report: CheckpointReport,
    cut_ns_max: u64,
    publish_ns_max: u64,
    /// One write of the writer: at rest, and beside checkpoints.
    write_ns: [Histogram<u64>; 2],
}

impl Round {
    /// Of one checkpoint.
    fn mean(&self, sum: u64) -> f64 {
        sum as f64 / self.checkpoints as f64
    }
}

impl Changing {
    fn new(count: u64) -> Result<Self> {
        let dir = directory()?;
        let order = shuffled(count, 7);
        let store = make(&dir.path().join("pages"), &order)?;
        Ok(Changing { store, order, at: 0, content: Content::new(), _dir: dir })
    }

    /// Changes so many pages that no checkpoint under way has, and says which.
    fn change(&mut self, count: u64) -> Result<Vec<PageId>> {
        let all = self.order.iter().cycle().skip(self.at);
        let changed: Vec<_> = all.take(usize::try_from(count)?).map(|page| PageId(*page)).collect();
        self.at = (self.at + changed.len()) % self.order.len();
        let pages = self.store.pages();
        changed.iter().try_for_each(|page| pages.write(*page, self.content.of(page.0)))?;
        Ok(changed)
    }

    fn round(&mut self, count: u64) -> Result<Round> {
        let mut round = Round {
            checkpoints: 0,
            report: CheckpointReport::default(),
            cut_ns_max: 0,
            publish_ns_max: 0,
            write_ns: [histogram(), histogram()],
        };
        while round.checkpoints == 0 || Duration::from_nanos(round.report.commit_ns) < WATCHED && !is_quick() {
            // What the writer wrote in the last one.
            let _ = self.store.checkpoint(CheckpointOptions::new())?;
            let changed = self.change(count)?;
            let pages = self.store.pages();
            if round.checkpoints == 0 {
                let resting = if is_quick() { PACE } else { WATCHED };
                watch_writer(&pages, &changed, &mut round.write_ns[AT_REST], || {
                    thread::sleep(resting);
                    Ok(())
                })?;
            }
            let store = &self.store;
            let report = watch_writer(&pages, &changed, &mut round.write_ns[BESIDE], || {
                Ok(store.checkpoint(CheckpointOptions::new())?)
            })?;
            round.add(&report);
        }
        Ok(round)
    }
}

impl Round {
    fn add(&mut self, report: &CheckpointReport) {
        self.checkpoints += 1;
        self.report.pages_changed += report.pages_changed;
        self.report.nodes_written += report.nodes_written;
        self.report.bytes_written += report.bytes_written;
        self.report.cut_ns += report.cut_ns;
        self.report.publish_ns += report.publish_ns;
        self.report.commit_ns += report.commit_ns;
        self.cut_ns_max = self.cut_ns_max.max(report.cut_ns);
        self.publish_ns_max = self.publish_ns_max.max(report.publish_ns);
    }
}

/// Of nanoseconds, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// Does something beside a writer that writes one of these pages at a time. So no more pages are changed than these.
fn watch_writer<T>(
    pages: &Pages,
    changed: &[PageId],
    write_ns: &mut Histogram<u64>,
    during: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (start, stop) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            let mut content = Content::new();
            let _ = start.wait();
            let mut due = Instant::now();
            for page in changed.iter().cycle() {
                if stop.load(Relaxed) {
                    break;
                }
                let bytes = content.of(page.0);
                let begun = Instant::now();
                pages.write(*page, bytes)?;
                let took = begun.elapsed();
                write_ns.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                due = due.max(begun) + PACE;
                while Instant::now() < due {
                    std::hint::spin_loop();
                }
            }
            Ok(())
        });
        let _ = start.wait();
        let result = during();
        stop.store(true, Relaxed);
        writer.join().expect("the writer does not panic")?;
        result
    })
}

fn print_checkpoints(changing: Changing, counts: &[u64]) -> Result<()> {
    println!("\ncheckpoints of a store of {} pages of 4 KiB, beside a writer of one of the", changing.order.len());
    println!("changed pages every {PACE:?}; {} interleaved rounds of at least {WATCHED:?} of checkpoints", rounds());
    let changing = RefCell::new(changing);
    let mut contenders: Vec<Contender<'_, Round>> = Vec::new();
    for count in counts {
        contenders.push(Box::new(|| changing.borrow_mut().round(*count)));
    }
    let given = interleave(rounds(), &mut contenders)?;
    println!("\na checkpoint: medians over the rounds; (greatest of all)");
    print!("{:>9} {:>9} {:>11} {:>10} {:>11}", "changed", "nodes", "bytes", "bytes/page", "commit ms");
    println!(" {:>20} {:>20}", "cut us", "publish us");
    for rounds in &given {
        let over = |value: &dyn Fn(&Round) -> u64| spread(rounds.iter().map(|round| round.mean(value(round)))).median;
        let changed = over(&|round| round.report.pages_changed);
        let bytes = over(&|round| round.report.bytes_written);
        print!("{changed:>9.0} {:>9.0} {bytes:>11.0}", over(&|round| round.report.nodes_written));
        print!(" {:>10.0} {:>11.2}", bytes / changed, over(&|round| round.report.commit_ns) / 1e6);
        let greatest = |value: fn(&Round) -> u64| rounds.iter().map(value).max().unwrap_or(0) as f64 / 1e3;
        let cut = over(&|round| round.report.cut_ns) / 1e3;
        let publish = over(&|round| round.report.publish_ns) / 1e3;
        let cut = format!("{cut:.1} ({:.1})", greatest(|round| round.cut_ns_max));
        let publish = format!("{publish:.1} ({:.1})", greatest(|round| round.publish_ns_max));
        println!(" {cut:>20} {publish:>20}");
    }
    println!("\none write of the writer beside it, us: medians over the rounds; (greatest of all)");
    print!("{:>9} {:>8} {:>8} {:>22}", "changed", "p50", "p99.9", "max at rest");
    println!(" {:>8} {:>8} {:>22} {:>9}", "p50", "p99.9", "max in checkpoints", "writes");
    for (count, rounds) in counts.iter().zip(&given) {
        print!("{count:>9}");
        for place in [AT_REST, BESIDE] {
            let us = |value: &dyn Fn(&Histogram<u64>) -> u64| {
                spread(rounds.iter().map(|round| value(&round.write_ns[place]) as f64 / 1e3))
            };
            let max = us(&Histogram::max);
            let max = format!("{:.0} ({:.0})", max.median, max.max);
            let at = |quantile| us(&|all: &Histogram<u64>| all.value_at_quantile(quantile)).median;
            print!(" {:>8.1} {:>8.1} {max:>22}", at(0.5), at(0.999));
        }
        println!(" {:>9}", rounds.iter().map(|round| round.write_ns[BESIDE].len()).sum::<u64>());
    }
    Ok(())
}

fn main() -> Result<()> {
    let scale = if is_quick() { 1_000 } else { setting("STORE_OPEN_SCALE", NonZeroU64::MIN)?.get() };
    let mut criterion = Criterion::default().configure_from_args();
    let stores = [Closed::new(SMALL_PAGES)?, Closed::new((LARGE_PAGES / scale).max(SMALL_PAGES))?];
    measure_each(&mut criterion, &stores);
    criterion.final_summary();
    if wants_table() {
        print_opening(&stores)?;
        let pages = STORE_PAGES / scale;
        let counts: Vec<u64> = CHANGED.into_iter().filter(|count| *count <= pages).collect();
        print_checkpoints(Changing::new(pages)?, &counts)?;
    }
    Ok(())
}
