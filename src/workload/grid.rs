//! The grid: every pattern by every block size by every state of the page cache, the contenders interleaved round by
//! round inside each cell.
//!
//! Within a round every contender reads the same offsets, in an order that is rotated from round to round, so that a
//! machine that gets slower or faster does so for all. Files are opened and mapped before the clock of a pass starts
//! and closed after it has ended; the page faults of a fresh map are inside. Warm cells come first, since the pages
//! that a cold pass brings in are smaller ones.

mod cell;
mod tally;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::cache_state::CacheState;
use super::contender::Io;
use super::error::{Error, Result};
use super::machine::Machine;
use super::outcome::{CellKey, Outcome, Settings, Skipped};
use super::pattern::Pattern;
use crate::{Advice, HugePages};
use cell::Bench;
use tally::Tally;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file. It is only read.
    pub path: PathBuf,
    /// Whether it was made for this run.
    pub file_is_temporary: bool,
    /// The bytes of a read, each a size.
    pub blocks_bytes: Vec<u64>,
    /// The orders of reads.
    pub patterns: Vec<Pattern>,
    /// The states of the page cache.
    pub caches: Vec<CacheState>,
    /// The contenders, of [`Io::Pread`] and [`Io::Mmap`].
    pub ios: Vec<Io>,
    /// Whether those they are judged by take part too.
    pub references: bool,
    /// The threads that share a pass.
    pub threads: usize,
    /// Rounds of a warm cell.
    pub rounds: usize,
    /// Rounds of a cold cell.
    pub cold_rounds: usize,
    /// What the offsets are made from.
    pub seed: u64,
    /// Whether maps ask for 2 MiB pages.
    pub huge_pages: HugePages,
    /// What maps tell the kernel of the order of reads.
    pub advice: Advice,
    /// Whether maps that were touched before take part beside fresh ones.
    pub reuse_map: bool,
    /// Whether each read is timed for itself.
    pub latency: bool,
    /// When a pass ends unfinished.
    pub pass_limit: Duration,
}

impl Config {
    /// The cells in the order they are measured.
    #[must_use]
    pub fn cells(&self) -> Vec<CellKey> {
        let mut cells = Vec::new();
        for cache in CacheState::ALL.into_iter().filter(|cache| self.caches.contains(cache)) {
            for &pattern in &self.patterns {
                for &block_bytes in &self.blocks_bytes {
                    cells.push(CellKey { pattern, cache, block_bytes, threads: self.threads });
                }
            }
        }
        cells
    }

    /// Who takes part in cells of a state.
    #[must_use]
    pub fn contenders(&self, cache: CacheState) -> Vec<Io> {
        let chosen = |io| self.ios.contains(&io);
        let warm = cache == CacheState::Warm;
        let takes_part = |io: &Io| match io {
            Io::Pread | Io::Mmap => chosen(*io),
            Io::MmapReused => chosen(Io::Mmap) && self.reuse_map && warm,
            Io::Bare => self.references,
            Io::BareReused => self.references && self.reuse_map && warm,
            Io::BarePread => self.references && chosen(Io::Pread) && warm,
            Io::Limit => self.references && warm,
        };
        Io::ALL.into_iter().filter(takes_part).collect()
    }

    /// Rounds of cells of a state.
    #[must_use]
    pub fn rounds(&self, cache: CacheState) -> usize {
        match cache {
            CacheState::Warm => self.rounds,
            CacheState::Cold => self.cold_rounds,
        }
    }

    /// Passes of one cell of a state, those without the copy included.
    #[must_use]
    pub fn passes(&self, cache: CacheState) -> usize {
        let per_contender = if self.has_skeletons(cache) { 2 } else { 1 };
        self.rounds(cache) * self.contenders(cache).len() * per_contender
    }

    /// Whether passes without the copy are made. Not in cold cells: a read of one byte brings in what is around it, and
    /// the device takes the time. Not where reads are timed for themselves.
    fn has_skeletons(&self, cache: CacheState) -> bool {
        cache == CacheState::Warm && !self.latency
    }

    /// Whether 2 MiB pages are wanted in the page cache.
    fn wants_huge(&self) -> bool {
        self.huge_pages != HugePages::Off
    }

    fn settings(&self, file_bytes: u64, warm_method: &'static str) -> Settings {
        Settings {
            file: self.path.display().to_string(),
            file_is_temporary: self.file_is_temporary,
            file_bytes,
            block_bytes: self.blocks_bytes.clone(),
            pattern: self.patterns.clone(),
            cache: self.caches.clone(),
            io: self.ios.clone(),
            references: self.references,
            threads: self.threads,
            rounds: self.rounds,
            cold_rounds: self.cold_rounds,
            seed: self.seed,
            huge: match self.huge_pages {
                HugePages::Auto => "auto",
                HugePages::On => "on",
                HugePages::Off => "off",
            },
            advice: match self.advice {
                Advice::Normal => "normal",
                Advice::Random => "random",
                Advice::Sequential => "sequential",
            },
            reuse_map: self.reuse_map,
            latency: self.latency,
            pass_limit_s: self.pass_limit.as_secs_f64(),
            warm_method,
        }
    }
}

/// What a watcher of a grid hears.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Something that takes a while and is no pass has begun.
    Preparing(&'a str),
    /// A pass has begun.
    PassBegins {
        /// In this cell.
        cell: &'a CellKey,
        /// Of this contender.
        io: Io,
        /// In this round, counted from 0.
        round: usize,
    },
    /// A pass has ended.
    PassEnds {
        /// In this cell.
        cell: &'a CellKey,
        /// The time since it began, with what had to be done before its clock started.
        taken: Duration,
    },
    /// A cell was finished, or skipped.
    CellEnds {
        /// Which.
        cell: &'a CellKey,
        /// Why, if it was skipped.
        skipped: Option<&'a str>,
    },
    /// Something that a reader of the figures must know.
    Note(&'a str),
}

/// Measures a grid. Setting `stop` ends it early, and what there is by then is the outcome.
///
/// # Errors
///
/// Where the file cannot be read, contenders disagree on what it holds, or the system fails something that every cell
/// needs. What only a cell or a contender needs makes it [skipped](Outcome::skipped).
pub fn run(config: &Config, stop: &AtomicBool, watch: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
    let machine = Machine::inspect(&config.path);
    let mut bench = Bench::new(config, stop)?;
    let mut outcome = Outcome {
        mapfall_version: env!("CARGO_PKG_VERSION"),
        machine,
        config: config.settings(bench.file_bytes(), bench.warm_method()),
        complete: true,
        cells: Vec::new(),
        ratios: Vec::new(),
        skipped: Vec::new(),
        notes: Vec::new(),
    };
    for key in config.cells() {
        let contenders = bench.contenders(&key);
        let mut tally = Tally::new(key, bench.reads(&key), &contenders);
        let measured = bench.measure(&key, &contenders, &mut tally, watch);
        let skipped = match measured {
            Ok(reached) => reached.err(),
            Err(Error::Interrupted) => {
                outcome.complete = false;
                None
            }
            Err(error) => return Err(error),
        };
        watch(Event::CellEnds { cell: &key, skipped: skipped.as_deref() });
        match skipped {
            Some(reason) => outcome.skipped.push(Skipped { key, io: None, reason }),
            None => {
                outcome.cells.extend(tally.cells());
                outcome.ratios.extend(tally.ratios());
                outcome.skipped.extend(left_out(config, key));
            }
        }
        if stop.load(Relaxed) {
            outcome.complete = false;
        }
        if !outcome.complete {
            break;
        }
    }
    outcome.notes = bench.into_notes();
    Ok(outcome)
}

/// The contenders that have no form in a cell, with the reason.
fn left_out(config: &Config, key: CellKey) -> Vec<Skipped> {
    if key.cache == CacheState::Warm {
        return Vec::new();
    }
    let takes_part = config.contenders(CacheState::Cold);
    let warm_only = config.contenders(CacheState::Warm).into_iter().filter(|io| !takes_part.contains(io));
    let reason = |io| match io {
        Io::Limit => "memory has no cold form",
        Io::BarePread => "the device's time hides what a layer above pread costs",
        _ => "pages that a map has touched cannot be dropped while it lives",
    };
    warm_only.map(|io| Skipped { key, io: Some(io), reason: reason(io).to_owned() }).collect()
}
