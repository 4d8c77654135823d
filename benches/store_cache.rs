//! What a cache is worth above each way of reading a file: page reads of a store that all hit, against the same reads
//! without a cache, and with the bypass left to itself. Random, one thread, every read verified (a hit was, when it came
//! in).
//!
//! `cargo bench --bench store_cache` prints two tables of interleaved rounds: with the file in the page cache, and with
//! the page cache dropped before each pass. `STORE_CACHE_PAGES` is the number of pages of 4 KiB, 2^17 where it is not
//! set.
#![allow(clippy::print_stdout, reason = "a bench's result is what it prints")]

#[allow(dead_code, reason = "nothing is timed by criterion here")]
#[path = "support/file.rs"]
mod file;
#[path = "support/run.rs"]
mod run;
#[allow(dead_code, reason = "offsets are not asked for here")]
#[path = "support/store.rs"]
mod store;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mapfall::workload::cache_state::FileCache;
use mapfall::{CacheBypass, CacheOptions, IoMode, IoOptions, PageId, Store, StoreCache};

use self::file::warm;
use self::run::{Contender, Result, interleave, is_quick, ratio, rounds, shown, spread, wants_table};
use self::store::{PAGE_BYTES, directory, make, setting, shuffled};

const MODES: [IoMode; 2] = [IoMode::Mmap, IoMode::Pread];

/// A store without a cache, one whose reads all hit, or one that may go past its cache.
struct Subject {
    store: Store,
}

impl Subject {
    fn new(path: &Path, mode: IoMode, pages: u64, bypass: Option<CacheBypass>) -> Result<Self> {
        let io = IoOptions::new().mode(mode).write(true).open(path)?;
        let Some(bypass) = bypass else {
            return Ok(Subject { store: Store::options().open_io(io)? });
        };
        // A quarter more than the pages, for tables and for shards that get more than others.
        let cache = Arc::new(CacheOptions::new((pages * PAGE_BYTES as u64 * 5 / 4).max(4 << 20)).build()?);
        let options = Store::options().cache(StoreCache::new(cache).bypass(bypass));
        Ok(Subject { store: options.open_io(io)? })
    }

    /// Nanoseconds a read.
    fn read(&self, order: &[u64]) -> Result<f64> {
        let (pages, mut buf) = (self.store.pages(), [0; PAGE_BYTES]);
        let begun = Instant::now();
        for page in order {
            pages.read(PageId(*page), &mut buf)?;
        }
        Ok(begun.elapsed().as_nanos() as f64 / order.len() as f64)
    }
}

fn main() -> Result<()> {
    if !wants_table() {
        return Ok(());
    }
    let pages: u64 = if is_quick() { 1 << 10 } else { setting("STORE_CACHE_PAGES", 1 << 17)? };
    let dir = directory()?;
    let path = dir.path().join("pages");
    drop(make(&path, &shuffled(pages, 1))?);
    warm(&path)?;
    let order = shuffled(pages, 2);
    println!("random reads of {pages} pages of 4 KiB, each verified; {} interleaved rounds;", rounds());
    println!("ns a read: median; speed ratios: median (least-greatest) over the rounds");
    println!("\nthe file in the page cache");
    println!("{:<6} {:>10} {:>10} {:>10}  {:<19}  {:<19}", "io", "none", "cache", "auto", "cache/none", "auto/none");
    for mode in MODES {
        print_warm(&path, mode, &order)?;
    }
    print_cold(&path, &order)
}

fn print_warm(path: &Path, mode: IoMode, order: &[u64]) -> Result<()> {
    let pages = order.len() as u64;
    let of = |bypass| Subject::new(path, mode, pages, bypass);
    let subjects = [of(None)?, of(Some(CacheBypass::Never))?, of(Some(CacheBypass::Auto))?];
    let mut contenders: Vec<Contender<'_, f64>> = Vec::new();
    for subject in &subjects {
        contenders.push(Box::new(|| subject.read(order)));
    }
    // Off the clock: page tables, maps and caches are filled.
    let _ = interleave(2, &mut contenders)?;
    let ns = interleave(rounds(), &mut contenders)?;
    print!("{:<6}", mode.name());
    ns.iter().for_each(|ns| print!(" {:>10.0}", spread(ns.iter().copied()).median));
    println!("  {:<19}  {:<19}", shown(ratio(&ns[0], &ns[1])), shown(ratio(&ns[0], &ns[2])));
    for (name, subject) in ["", "cache", "auto"].iter().zip(&subjects) {
        let Some(stats) = subject.store.cache_stats() else { continue };
        let (bypass, hit_ratio) = (stats.bypass, stats.cache.hit_ratio().unwrap_or_default());
        println!(
            "       {name}: hit ratio {hit_ratio:.3}; a hit {} ns, a load {} ns; {} reads went past it, {} switches",
            bypass.hit_ns, bypass.load_ns, bypass.bypassed_reads, bypass.switches
        );
    }
    Ok(())
}

/// Reads of a device. A map that has touched a page keeps it in the page cache, so the stores without a cache are opened
/// for each pass, and the one with a cache reads by `pread(2)` when it fills it.
fn print_cold(path: &Path, order: &[u64]) -> Result<()> {
    let pages = order.len() as u64;
    let cached = Subject::new(path, IoMode::Pread, pages, Some(CacheBypass::Never))?;
    for _ in 0..2 {
        let _ = cached.read(order)?;
    }
    let order = &order[..order.len().min(4096)];
    let control = FileCache::open(path, false)?;
    let cold = || {
        let reached = control.make_cold()?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(reached?)
    };
    let uncached = |mode| {
        let _ = cold()?;
        Subject::new(path, mode, pages, None)?.read(order)
    };
    let mut contenders: [Contender<'_, f64>; 3] = [
        Box::new(|| uncached(IoMode::Mmap)),
        Box::new(|| uncached(IoMode::Pread)),
        Box::new(|| {
            let _ = cold()?;
            cached.read(order)
        }),
    ];
    let ns = interleave(rounds(), &mut contenders)?;
    println!("\nthe page cache dropped before each pass of {} reads", order.len());
    println!("{:>10} {:>10} {:>10}  {:<19}  {:<19}", "mmap", "pread", "cache", "cache/mmap", "cache/pread");
    ns.iter().for_each(|ns| print!("{:>10.0} ", spread(ns.iter().copied()).median));
    println!(" {:<19}  {:<19}", shown(ratio(&ns[0], &ns[2])), shown(ratio(&ns[1], &ns[2])));
    Ok(())
}
