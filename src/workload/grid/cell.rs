//! One cell: its passes in rounds, each from the state of the page cache that the cell is about.

use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::tally::Tally;
use super::{Config, Event};
use crate::workload::bare::BareMap;
use crate::workload::cache_state::{CacheState, DropMethod, FileCache, Reached};
use crate::workload::contender::{Io, LimitPages, Opening, Reader, ReaderTask, open_and};
use crate::workload::error::{Error, Result};
use crate::workload::machine::{HugeMapped, memory_available_bytes};
use crate::workload::outcome::{CellKey, Skipped};
use crate::workload::pass::{self, End, Job, Kind, Pass, SeriesPlan};
use crate::workload::pattern::Extent;
use crate::workload::size::ByteSize;
use crate::{IoOptions, MmapFile};

/// What all cells share.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    pub(super) config: &'a Config,
    pub(super) stop: &'a AtomicBool,
    pub(super) file_bytes: u64,
    cache: FileCache,
    options: IoOptions,
    has_bare: bool,
    is_warmed: bool,
    limit: Option<LimitPages>,
    /// For the passes without the copy: [`Job::warmer`].
    warmer: Option<BareMap>,
    notes: Vec<String>,
    /// Contenders that failed in the middle of a cell.
    pub(super) given_up: Vec<Skipped>,
}

/// A pass of a contender that took its own path.
struct Measured {
    pass: Pass,
    fallback_reads: u64,
    huge_mapped_bytes: Option<u64>,
}

/// The maps that live through all rounds of a cell.
#[derive(Default)]
struct Reused {
    mmap: Option<MmapFile>,
    bare: Option<BareMap>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(config: &'a Config, stop: &'a AtomicBool) -> Result<Self> {
        let file = open(config)?;
        let file_bytes = file.metadata().map_err(Error::system("ask for the length of", &config.path))?.len();
        let mut notes = Vec::new();
        for &block_bytes in &config.blocks_bytes {
            let tail_bytes = file_bytes % block_bytes;
            if tail_bytes > 0 {
                let block = ByteSize::new(block_bytes);
                notes.push(format!(
                    "the last {tail_bytes} bytes of the file are no whole block of {block} and are not read"
                ));
            }
        }
        let bare = config.references.then(|| BareMap::new(&file, config.huge_pages, config.advice));
        match &bare {
            Some(Err(error)) => notes.push(format!("bare is left out: the file cannot be mapped ({error})")),
            Some(Ok(map)) if config.wants_huge() && !map.is_huge_aligned() => {
                notes.push("bare got no address that is a multiple of 2 MiB, so no 2 MiB pages".to_owned());
            }
            _ => {}
        }
        Ok(Bench {
            config,
            stop,
            file_bytes,
            cache: FileCache::open(&config.path, config.wants_huge())?,
            options: IoOptions::new().huge_pages(config.huge_pages).advice(config.advice),
            has_bare: matches!(bare, Some(Ok(_))),
            is_warmed: false,
            limit: None,
            warmer: None,
            notes,
            given_up: Vec::new(),
        })
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub(super) fn warm_method(&self) -> &'static str {
        self.cache.warm_method()
    }

    /// The notes, and the contenders that were given up.
    pub(super) fn into_notes(self) -> (Vec<String>, Vec<Skipped>) {
        (self.notes, self.given_up)
    }

    /// Who takes part in a cell here: those of the plan that this file and system can have.
    pub(super) fn contenders(&self, key: &CellKey) -> Vec<Io> {
        let planned = self.config.contenders(key.cache);
        planned.into_iter().filter(|io| self.has_bare || !matches!(io, Io::Bare | Io::BareReused)).collect()
    }

    /// The reads of one pass.
    pub(super) fn extent(&self, key: &CellKey) -> Extent {
        let blocks = self.file_bytes / key.block_bytes;
        let reads = self.config.pass_reads.unwrap_or(blocks);
        Extent { blocks, block_bytes: key.block_bytes, reads, threads: key.threads }
    }

    /// Makes all passes of a cell. The inner `Err` says why the cell had to be skipped.
    pub(super) fn measure(
        &mut self,
        key: &CellKey,
        contenders: &[Io],
        tally: &mut Tally,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<Reached<()>> {
        match key.cache {
            CacheState::Warm => self.warm_once(contenders, watch)?,
            // The memory is wanted back, and nothing warm follows.
            CacheState::Cold | CacheState::Limited { .. } => (self.limit, self.warmer) = (None, None),
        }
        if let CacheState::Limited { percent } = key.cache {
            return self.measure_limited(key, percent, contenders, tally, watch);
        }
        let reused = self.reused(contenders)?;
        let mut turns: Vec<(Io, Kind)> = Vec::new();
        for &io in contenders {
            turns.push((io, if self.config.latency { Kind::Latency } else { Kind::Copy }));
            if self.config.has_skeletons(key.cache) && io.has_skeleton() {
                turns.push((io, Kind::Skeleton));
            }
        }
        for round in 0..self.config.rounds(key.cache) {
            let offsets = key.pattern.offsets_of(&self.extent(key), self.config.seed_of(round));
            for &(io, kind) in &turns {
                watch(Event::PassBegins { cell: key, io, round });
                let begun = Instant::now();
                let drop_method = match self.prepare(key.cache)? {
                    Ok(drop_method) => drop_method,
                    Err(reason) => return Ok(Err(reason)),
                };
                let offsets_in_limit = (io == Io::Limit).then(|| self.offsets_in_limit(key, &offsets)).flatten();
                let offsets = offsets_in_limit.as_deref().unwrap_or(&offsets);
                let job = Job {
                    threads: key.threads,
                    kind,
                    warmer: self.warmer.as_ref().filter(|_| io != Io::Limit),
                    batch: self.config.batch,
                    limit: self.config.pass_limit,
                    close_look: key.cache == CacheState::Cold,
                    explain: self.config.explain && kind != Kind::Skeleton,
                    series: self.config.series.map(|duration| SeriesPlan { duration, phases: key.pattern.phases() }),
                    ..Job::new(offsets, key.block_bytes as usize, self.stop)
                };
                let measured = match self.pass(io, key.cache, &job, &reused)? {
                    Ok(measured) => measured,
                    Err(reason) => return Ok(Err(reason)),
                };
                if measured.pass.end == End::Stopped {
                    return Err(Error::Interrupted);
                }
                if let Some(facts) = tally.facts(io) {
                    facts.fallback_reads += measured.fallback_reads;
                    facts.huge_mapped_bytes = facts.huge_mapped_bytes.or(measured.huge_mapped_bytes);
                    facts.drop_method = facts.drop_method.max(drop_method);
                }
                tracing::debug!(cell = %key, %io, ?kind, round, elapsed = ?measured.pass.elapsed, "pass");
                tally.record(io, round, kind == Kind::Skeleton, measured.pass);
                watch(Event::PassEnds { cell: key, taken: begun.elapsed() });
            }
            let holds_all = self.limit.as_ref().is_some_and(|limit| limit.len_bytes() as u64 >= self.file_bytes);
            tally.check_round(round, (!holds_all).then_some(Io::Limit))?;
            turns.rotate_left(1);
        }
        Ok(Ok(()))
    }

    /// Before the first warm cell: brings the file in, in the pages that are wanted, and makes the copy for `limit`.
    fn warm_once(&mut self, contenders: &[Io], watch: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        if self.is_warmed {
            return Ok(());
        }
        watch(Event::Preparing("bringing the file into the page cache"));
        // Where not all of it stays in, the check before the first pass says so again and skips the cell.
        if let Err(reason) = self.cache.warm_afresh(self.stop)? {
            self.note(reason, watch);
        }
        if contenders.contains(&Io::Limit) {
            watch(Event::Preparing("copying the file into anonymous 2 MiB pages for `limit`"));
            self.make_limit(watch)?;
        }
        // Where the file cannot be mapped the contenders bring their own bytes near.
        if let Ok(map) = self.opening().bare() {
            self.touch(&map)?;
            self.warmer = Some(map);
        }
        self.is_warmed = true;
        Ok(())
    }

    fn make_limit(&mut self, watch: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        // Half of what is available: the page cache counts as available, and the file must stay in it.
        let room_bytes = memory_available_bytes().unwrap_or(u64::MAX) / 2;
        let largest_block = self.config.blocks_bytes.iter().copied().max().unwrap_or(1);
        let len_bytes = self.file_bytes.min(room_bytes.max(largest_block));
        let huge_before = HugeMapped::now();
        let file = self.options.open_pread(&self.config.path)?;
        let limit = LimitPages::copy_of(&file, &self.config.path, len_bytes as usize)?;
        if len_bytes < self.file_bytes {
            let held = ByteSize::new(len_bytes).rounded();
            self.note(
                format!("limit reads from a copy of the file's first {held}: memory has no room for more"),
                watch,
            );
        }
        if let Some((before, after)) = huge_before.zip(HugeMapped::now()) {
            let huge_bytes = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);
            let share = huge_bytes as f64 / len_bytes as f64;
            if share < 0.95 {
                let share = (100.0 * share).floor();
                self.note(format!("limit got only {share:.0} % of its memory in 2 MiB pages, so it is none"), watch);
            }
        }
        self.limit = Some(limit);
        Ok(())
    }

    /// The offsets folded into what `limit` holds, where that is not the whole file.
    fn offsets_in_limit(&self, key: &CellKey, offsets: &[u64]) -> Option<Vec<u64>> {
        let held_bytes = self.limit.as_ref()?.len_bytes() as u64;
        if held_bytes >= self.file_bytes {
            return None;
        }
        let span_bytes = held_bytes / key.block_bytes * key.block_bytes;
        Some(offsets.iter().map(|offset| offset % span_bytes).collect())
    }

    /// The maps for contenders that keep theirs, every page of them touched.
    fn reused(&self, contenders: &[Io]) -> Result<Reused> {
        let mut reused = Reused::default();
        if contenders.contains(&Io::MmapReused) {
            let map = self.options.open_mmap(&self.config.path)?;
            self.touch(&map)?;
            reused.mmap = Some(map);
        }
        if contenders.contains(&Io::BareReused) {
            let map = self.opening().bare()?;
            self.touch(&map)?;
            reused.bare = Some(map);
        }
        Ok(reused)
    }

    fn touch(&self, reader: &impl Reader) -> Result<()> {
        let mut byte = [0];
        (0..self.file_bytes).step_by(4096).try_for_each(|offset| reader.read(offset, &mut byte))
    }

    fn opening(&self) -> Opening<'a> {
        let &Config { ref path, huge_pages, advice, queue_depth, .. } = self.config;
        Opening { path, huge_pages, advice, queue_depth }
    }

    /// Brings the file into the state that a pass begins with.
    pub(super) fn prepare(&self, cache: CacheState) -> Result<Reached<Option<DropMethod>>> {
        Ok(match cache {
            CacheState::Warm => self.cache.make_warm(self.stop)?.map(|()| None),
            CacheState::Cold | CacheState::Limited { .. } => self.cache.make_cold()?.map(Some),
        })
    }

    /// Opens a contender, reads, and closes it.
    fn pass(&self, io: Io, cache: CacheState, job: &Job<'_>, reused: &Reused) -> Result<Reached<Measured>> {
        let missing = || Err(format!("{io} was not set up"));
        match io {
            Io::MmapReused => reused.mmap.as_ref().map_or_else(|| Ok(missing()), |map| self.run(map, cache, job)),
            Io::BareReused => reused.bare.as_ref().map_or_else(|| Ok(missing()), |map| self.run(map, cache, job)),
            Io::Limit => self.limit.as_ref().map_or_else(|| Ok(missing()), |pages| self.run(pages, cache, job)),
            io => {
                let may_map = !io.is_pread() && io != Io::BarePread;
                let huge_before = if may_map { HugeMapped::now() } else { None };
                let task = FreshPass { bench: self, cache, job, huge_before };
                open_and(io, &self.opening(), task)?.unwrap_or_else(|| Ok(missing()))
            }
        }
    }

    fn run<R: Reader>(&self, reader: &R, cache: CacheState, job: &Job<'_>) -> Result<Reached<Measured>> {
        if cache == CacheState::Cold {
            let resident_bytes = self.cache.resident_bytes()?;
            if resident_bytes > 0 {
                return Ok(Err(format!("opening the file brought {resident_bytes} bytes of it into the page cache")));
            }
        }
        let fallback_reads_before = reader.fallback_reads();
        let pass = pass::run(reader, job)?;
        let fallback_reads = reader.fallback_reads() - fallback_reads_before;
        Ok(Ok(Measured { pass, fallback_reads, huge_mapped_bytes: None }))
    }

    fn note(&mut self, note: String, watch: &mut dyn FnMut(Event<'_>)) {
        watch(Event::Note(&note));
        self.notes.push(note);
    }
}

/// A pass of a contender that was just opened. Sees how much of the file is mapped with 2 MiB entries before it is
/// closed.
struct FreshPass<'a> {
    bench: &'a Bench<'a>,
    cache: CacheState,
    job: &'a Job<'a>,
    huge_before: Option<HugeMapped>,
}

impl ReaderTask for FreshPass<'_> {
    type Output = Result<Reached<Measured>>;

    fn run<R: Reader>(self, reader: &R) -> Self::Output {
        let measured = self.bench.run(reader, self.cache, self.job)?;
        let huge = self.huge_before.and_then(|before| Some((before, HugeMapped::now()?)));
        let huge_mapped_bytes = huge.map(|(before, after)| after.file_bytes.saturating_sub(before.file_bytes));
        Ok(measured.map(|measured| Measured { huge_mapped_bytes, ..measured }))
    }
}

fn open(config: &Config) -> Result<File> {
    File::open(&config.path).map_err(Error::system("open", &config.path))
}
