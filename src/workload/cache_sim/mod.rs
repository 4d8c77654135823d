//! Which policy, and which size? The requests of a trace through caches of several policies and sizes, without the
//! blocks.
//!
//! A trace is gone through twice: a first pass finds its objects and numbers them, which is what percentages are of,
//! and in a second all simulations run side by side. Memory goes with the number of distinct objects (some 30 bytes
//! each, and for each simulation some 40 for each that is in), never with the length of the trace.

mod lanes;
mod outcome;
mod size;
mod survey;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::error::{Error, Result};
use super::trace::{Blocks, Requests, Source, TraceError};
use crate::cache::CachePolicy;
use crate::cache::policy::UNIT_BYTES;
use crate::cache::sim::Simulation;
use lanes::{Item, Lane, Timeline};
pub use outcome::{Cell, Outcome, Settings, SizeFigures, TraceFigures};
pub use size::{CacheSize, CacheSizeError, Counted};
use survey::Survey;

/// Intervals of the miss ratio over time.
const INTERVALS: u64 = 100;
/// Requests that go through one simulation after another.
const BATCH_REQUESTS: usize = 16 << 10;
/// Costs are told to policies in units of which a usual object has at least so many, so that rounding up to whole
/// units is little.
const UNITS_PER_OBJECT: u64 = 8;
/// What the others are compared with.
const BASELINE: &str = "lru";

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Config {
    /// The requests.
    pub source: Source,
    /// The policies.
    pub policies: Vec<CachePolicy>,
    /// The sizes of the caches.
    pub sizes: Vec<CacheSize>,
    /// The share of the requests, from 0 to below 1, that fill the caches before anything is counted.
    pub warmup: f64,
    /// Whether each object counts as one even where the trace has sizes.
    pub ignore_sizes: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// In the first pass.
    Surveying {
        /// What was read of the files.
        read_bytes: u64,
        /// Requests so far.
        requests: u64,
    },
    /// In the second.
    Simulating {
        /// Requests so far.
        done: u64,
        /// Of so many.
        requests: u64,
    },
}

/// Simulates. `hear` is told how far it is. When `stop` is set in the second pass, the outcome is of what was done by
/// then.
///
/// # Errors
///
/// [`Error::Trace`] where a trace cannot be read, [`Error::CacheSize`] where a size means nothing for it, and
/// [`Error::Interrupted`] where `stop` was set before there was anything to tell.
pub fn run(config: &Config, stop: &AtomicBool, hear: &mut dyn FnMut(Event)) -> Result<Outcome> {
    let start = Instant::now();
    let survey = Survey::of(&config.source, stop, hear)?;
    let survey_s = start.elapsed().as_secs_f64();
    let counted = if survey.has_sizes && !config.ignore_sizes { Counted::Bytes } else { Counted::Objects };
    let unit = unit(counted, &survey);
    let sizes = sizes(config, counted, &survey)?;
    // A share of 1 would count nothing.
    let warmup = ((survey.requests as f64 * config.warmup) as u64).min(survey.requests - 1);
    let timeline = Timeline::new(survey.requests, warmup, INTERVALS);
    let lanes = config.policies.iter().flat_map(|policy| {
        let lane = |(index, size): (usize, &SizeFigures)| {
            Lane::new(*policy, index, Simulation::new(*policy, size.capacity, unit))
        };
        sizes.iter().enumerate().map(lane)
    });
    let mut lanes: Vec<Lane> = lanes.collect();
    let batches = Batches::new(&config.source, &survey, counted, warmup);
    let start = Instant::now();
    let (done, cold_misses) = simulate(&mut lanes, batches, &timeline, stop, hear)?;
    if done <= warmup {
        return Err(Error::Interrupted);
    }
    let counted_requests = done - warmup;
    let mut outcome = Outcome {
        mapfall_version: env!("CARGO_PKG_VERSION"),
        complete: done == survey.requests,
        config: settings(config, counted, sizes, warmup, &survey),
        trace: trace_figures(config, &survey),
        counted_requests,
        cold_misses,
        cold_miss_ratio: cold_misses as f64 / counted_requests as f64,
        interval_ends: timeline.ends.iter().copied().filter(|end| *end <= done).collect(),
        results: Vec::new(),
        notes: notes(config, &survey),
        survey_s,
        simulate_s: start.elapsed().as_secs_f64(),
    };
    outcome.results = lanes.iter().map(|lane| cell(lane, &outcome)).collect();
    compare(&mut outcome.results);
    Ok(outcome)
}

/// The bytes of a unit in which costs are told to policies. As in the cache, unless objects are small.
fn unit(counted: Counted, survey: &Survey) -> u64 {
    match counted {
        Counted::Objects => 1,
        Counted::Bytes => {
            let part = survey.footprint_bytes / survey.objects / UNITS_PER_OBJECT;
            (1 << part.max(1).ilog2()).min(UNIT_BYTES)
        }
    }
}

/// The sizes, the smallest first, each once.
fn sizes(config: &Config, counted: Counted, survey: &Survey) -> Result<Vec<SizeFigures>> {
    let size =
        |asked: &CacheSize| asked.resolve(counted, survey).map(|capacity| SizeFigures { asked: *asked, capacity });
    let mut sizes: Vec<SizeFigures> = config.sizes.iter().map(size).collect::<Result<_, CacheSizeError>>()?;
    sizes.sort_by_key(|size| size.capacity);
    sizes.dedup_by_key(|size| size.capacity);
    Ok(sizes)
}

/// The second pass. Returns the number of requests that all lanes have gone through, and how many of the counted ones
/// are the first for their object.
fn simulate(
    lanes: &mut [Lane],
    mut batches: Batches<'_>,
    timeline: &Timeline,
    stop: &AtomicBool,
    hear: &mut dyn FnMut(Event),
) -> Result<(u64, u64)> {
    let requests = batches.survey.requests;
    let (mut done, mut cold_misses) = (0, 0);
    let mut batch = batches.make(Vec::new())?;
    let mut spare = Vec::new();
    while !batch.items.is_empty() {
        if stop.load(Relaxed) {
            return Ok((done, cold_misses));
        }
        let next = lanes::feed_all(lanes, &batch.items, done, timeline, || batches.make(spare))?;
        done += batch.items.len() as u64;
        cold_misses += batch.cold_misses;
        spare = std::mem::replace(&mut batch, next).items;
        hear(Event::Simulating { done, requests });
    }
    if done == requests { Ok((done, cold_misses)) } else { Err(batches.changed()) }
}

/// Requests that go through the simulations together.
#[derive(Debug)]
struct Batch {
    items: Vec<Item>,
    /// Counted requests that are the first for their object.
    cold_misses: u64,
}

/// The requests of the second pass, as simulations take them.
struct Batches<'a> {
    requests: Requests,
    source: &'a Source,
    survey: &'a Survey,
    counted: Counted,
    warmup: u64,
    made: u64,
    /// Objects so far. They are numbered in the order of their first requests.
    seen: u32,
}

impl<'a> Batches<'a> {
    fn new(source: &'a Source, survey: &'a Survey, counted: Counted, warmup: u64) -> Self {
        Batches { requests: source.requests(), source, survey, counted, warmup, made: 0, seen: 0 }
    }

    /// The next requests, none at the end. `items` is room to use again.
    fn make(&mut self, mut items: Vec<Item>) -> Result<Batch> {
        items.clear();
        let mut cold_misses = 0;
        while items.len() < BATCH_REQUESTS
            && let Some(request) = self.requests.next()?
        {
            let size_bytes = request.size_bytes;
            if size_bytes == 0 {
                continue;
            }
            let weight = match self.counted {
                Counted::Objects => 1,
                Counted::Bytes => size_bytes,
            };
            let object = self.survey.number(request.key).ok_or_else(|| self.changed())?;
            if object == self.seen {
                self.seen += 1;
                cold_misses += u64::from(self.made >= self.warmup);
            }
            self.made += 1;
            items.push(Item { object, weight, size_bytes });
        }
        Ok(Batch { items, cold_misses })
    }

    fn changed(&self) -> Error {
        TraceError::Changed { trace: self.source.name() }.into()
    }
}

fn settings(config: &Config, counted: Counted, sizes: Vec<SizeFigures>, warmup: u64, survey: &Survey) -> Settings {
    let (block_bytes, seed) = match &config.source {
        Source::Generated { seed, .. } => (None, Some(*seed)),
        Source::Files { blocks: Some(Blocks::Whole), .. } => (None, None),
        Source::Files { blocks, .. } => {
            let customary = survey.formats.iter().find_map(|format| format.default_block_bytes());
            let asked = blocks.and_then(|blocks| match blocks {
                Blocks::Each { bytes } => Some(bytes),
                Blocks::Whole => None,
            });
            (customary.map(|customary| asked.unwrap_or(customary).get()), None)
        }
    };
    Settings {
        policies: config.policies.iter().map(|policy| policy.name()).collect(),
        sizes,
        counted,
        warmup: config.warmup,
        warmup_requests: warmup,
        block_bytes,
        seed,
    }
}

fn trace_figures(config: &Config, survey: &Survey) -> TraceFigures {
    let sized = |bytes: u64| survey.has_sizes.then_some(bytes);
    TraceFigures {
        name: config.source.name(),
        formats: survey.formats.clone(),
        requests: survey.requests,
        left_out_requests: survey.left_out,
        objects: survey.objects,
        requested_bytes: sized(survey.requested_bytes),
        footprint_bytes: sized(survey.footprint_bytes),
        min_bytes: sized(survey.min_bytes),
        max_bytes: sized(survey.max_bytes),
    }
}

fn notes(config: &Config, survey: &Survey) -> Vec<String> {
    let mut notes = Vec::new();
    if survey.left_out > 0 {
        notes.push(format!("{} requests for 0 bytes were left out", survey.left_out));
    }
    if config.ignore_sizes && survey.has_sizes {
        notes.push("sizes were ignored: each object counts as one".to_owned());
    }
    notes
}

fn cell(lane: &Lane, outcome: &Outcome) -> Cell {
    let counts = lane.simulation.counts();
    let size = outcome.config.sizes[lane.size];
    let ratio = |part: u64, whole: u64| part as f64 / whole as f64;
    let is_sized = outcome.trace.requested_bytes.is_some();
    let mut start = 0;
    let miss_ratios = outcome.interval_ends.iter().zip(&lane.interval_hits).map(|(end, hits)| {
        let requests = end - std::mem::replace(&mut start, *end);
        1.0 - ratio(*hits, requests)
    });
    Cell {
        policy: lane.policy.name(),
        size: size.asked,
        capacity: size.capacity,
        hits: counts.hits,
        hit_ratio: ratio(counts.hits, counts.requests),
        hit_bytes: is_sized.then_some(counts.hit_bytes),
        byte_hit_ratio: is_sized.then(|| ratio(counts.hit_bytes, counts.requested_bytes)),
        hit_ratio_over_lru: None,
        evictions: counts.evictions,
        too_large: counts.too_large,
        refusals: counts.policy.refusals,
        ghost_hits: counts.policy.ghost_hits,
        policy_memory_bytes: lane.simulation.policy_memory_bytes(),
        interval_miss_ratios: miss_ratios.collect(),
    }
}

/// Sets each cell beside lru's of the same size.
fn compare(cells: &mut [Cell]) {
    let baseline: Vec<(u64, f64)> =
        cells.iter().filter(|cell| cell.policy == BASELINE).map(|cell| (cell.capacity, cell.hit_ratio)).collect();
    for cell in cells {
        let found = baseline.iter().find(|(capacity, _)| *capacity == cell.capacity);
        cell.hit_ratio_over_lru = found.map(|(_, hit_ratio)| cell.hit_ratio - hit_ratio);
    }
}
