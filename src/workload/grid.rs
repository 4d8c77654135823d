//! The grid: every pattern by every block size by every state of the page cache, the contenders interleaved round by
//! round inside each cell.
//!
//! Within a round every contender reads the same offsets, in an order that is rotated from round to round, so that a
//! machine that gets slower or faster does so for all. Files are opened and mapped before the clock of a pass starts
//! and closed after it has ended; the page faults of a fresh map are inside. Warm cells come first, since the pages
//! that a cold pass brings in are smaller ones. The passes of limited cells are made by children ([`Helper`]), since a
//! limit on memory is a process's.

mod cell;
mod child;
mod limited;
mod series;
mod tally;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::cache_state::CacheState;
use super::contender::Io;
use super::error::{Error, Result};
use super::machine::Machine;
use super::outcome::{CellKey, LimitChange, Outcome, Settings, Skipped};
use super::pattern::Pattern;
use crate::{Advice, HugePages};
use cell::Bench;
pub use child::serve;
pub use limited::Helper;
use tally::Tally;

/// Mixes the round into the seed, so that rounds have unlike offsets.
const ROUND_SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

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
    /// The contenders, of [`Io::choosable`].
    pub ios: Vec<Io>,
    /// Whether those they are judged by take part too.
    pub references: bool,
    /// The threads that share a pass, each a number.
    pub threads: Vec<usize>,
    /// Reads that are done by one call. With 1 each is done for itself.
    pub batch: usize,
    /// Reads of a batch that may be under way at a time, 1 to 1024.
    pub queue_depth: u32,
    /// Rounds of a warm cell.
    pub rounds: usize,
    /// Rounds of a cold or limited cell.
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
    /// The reads of a pass; as many as the file has whole blocks where it is `None`.
    pub pass_reads: Option<u64>,
    /// How long at most the reads of a limited pass go on before its clock starts.
    pub warm_up: Duration,
    /// Passes that last so long, going over their offsets again and again, and keep their throughput over time. A
    /// pattern that moves does so half way.
    pub series: Option<Duration>,
    /// Where the limit of limited cells goes during a pass of a `series`, in the order of time.
    pub limit_changes: Vec<LimitChange>,
    /// Whether what [`Io::AUTO`] decides is looked at during its passes, part by part of the file.
    pub explain: bool,
    /// What makes the passes of limited cells. Without it they are skipped.
    pub helper: Option<Helper>,
    /// Only the cells of one of so many equal parts, counted from 1: a grid in pieces.
    pub part: Option<(usize, usize)>,
}

impl Config {
    /// The cells in the order they are measured.
    #[must_use]
    pub fn cells(&self) -> Vec<CellKey> {
        let mut cells = Vec::new();
        let place = |cache: &CacheState| match cache {
            CacheState::Warm => 0,
            CacheState::Cold => 1,
            CacheState::Limited { .. } => 2,
        };
        let mut caches = self.caches.clone();
        caches.sort_by_key(place);
        for cache in caches {
            for &pattern in &self.patterns {
                for &block_bytes in &self.blocks_bytes {
                    for &threads in &self.threads {
                        cells.push(CellKey { pattern, cache, block_bytes, threads });
                    }
                }
            }
        }
        if let Some((part, parts)) = self.part {
            let bound = |part: usize| cells.len() * part / parts.max(1);
            cells = cells[bound(part.saturating_sub(1))..bound(part).min(cells.len())].to_vec();
        }
        cells
    }

    /// Who takes part in cells of a state.
    #[must_use]
    pub fn contenders(&self, cache: CacheState) -> Vec<Io> {
        let chosen = |io| self.ios.contains(&io);
        let warm = cache == CacheState::Warm;
        let takes_part = |io: &Io| match io {
            Io::MmapReused => chosen(Io::MMAP) && self.reuse_map && warm,
            Io::Bare => self.references && !cache.is_limited(),
            Io::BareReused => self.references && self.reuse_map && warm,
            Io::BarePread => self.references && chosen(Io::PREAD) && warm,
            Io::Limit => self.references && warm,
            io => chosen(*io),
        };
        Io::all().into_iter().filter(takes_part).collect()
    }

    /// Rounds of cells of a state.
    #[must_use]
    pub fn rounds(&self, cache: CacheState) -> usize {
        match cache {
            CacheState::Warm => self.rounds,
            CacheState::Cold | CacheState::Limited { .. } => self.cold_rounds,
        }
    }

    fn seed_of(&self, round: usize) -> u64 {
        self.seed.wrapping_add(ROUND_SEED_STEP.wrapping_mul(round as u64))
    }

    /// What happens in the middle of each pass of a cell, in the order of time.
    fn changes(&self, key: &CellKey) -> Vec<(f64, String)> {
        let Some(series) = self.series else { return Vec::new() };
        let mut changes = Vec::new();
        if key.pattern.phases() > 1 {
            changes.push((series.as_secs_f64() / 2.0, "shift".to_owned()));
        }
        if key.cache.is_limited() {
            let limits = self.limit_changes.iter();
            changes.extend(limits.map(|change| (change.at_s, format!("limit {}%", change.percent))));
        }
        changes.sort_by(|one, other| one.0.total_cmp(&other.0));
        changes
    }

    /// Passes of one cell of a state, those without the copy included.
    #[must_use]
    pub fn passes(&self, cache: CacheState) -> usize {
        let contenders = self.contenders(cache);
        let skeletons = contenders.iter().filter(|io| self.has_skeletons(cache) && io.has_skeleton()).count();
        self.rounds(cache) * (contenders.len() + skeletons)
    }

    /// Whether passes without the copy are made. Not in cold cells: a read of one byte brings in what is around it, and
    /// the device takes the time. Not where reads are timed for themselves, done in batches, or done for a time.
    fn has_skeletons(&self, cache: CacheState) -> bool {
        cache == CacheState::Warm && !self.latency && self.batch == 1 && self.series.is_none()
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
            threads: self.threads.clone(),
            batch: self.batch,
            queue_depth: self.queue_depth,
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
            pass_reads: self.pass_reads,
            warm_up_s: self.warm_up.as_secs_f64(),
            series_s: self.series.map(|series| series.as_secs_f64()),
            limit_changes: self.limit_changes.clone(),
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
        choices: Vec::new(),
        skipped: Vec::new(),
        notes: Vec::new(),
    };
    for key in config.cells() {
        let contenders = bench.contenders(&key);
        let reads = config.series.is_none().then(|| bench.extent(&key).reads);
        let mut tally = Tally::new(key, reads, config.changes(&key), &contenders);
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
                outcome.choices.extend(tally.choices());
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
    let (notes, given_up) = bench.into_notes();
    outcome.notes = notes;
    outcome.skipped.extend(given_up);
    Ok(outcome)
}

/// The contenders that have no form in a cell, with the reason.
fn left_out(config: &Config, key: CellKey) -> Vec<Skipped> {
    // In limited memory the paths are held against each other only.
    if key.cache == CacheState::Warm || key.cache.is_limited() {
        return Vec::new();
    }
    let takes_part = config.contenders(key.cache);
    let warm_only = config.contenders(CacheState::Warm).into_iter().filter(|io| !takes_part.contains(io));
    let reason = |io| match io {
        Io::Limit => "memory has no cold form",
        Io::BarePread => "the device's time hides what a layer above pread costs",
        _ => "pages that a map has touched cannot be dropped while it lives",
    };
    warm_only.map(|io| Skipped { key, io: Some(io), reason: reason(io).to_owned() }).collect()
}
