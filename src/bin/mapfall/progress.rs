//! The bar on the terminal: what runs, how much is done, and how long it will take.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mapfall::workload::cache_sim;
use mapfall::workload::cache_state::CacheState;
use mapfall::workload::grid::{Config, Event};
use mapfall::workload::trace::Source;

use crate::console;

/// What a pass of a state is taken to last before one was seen.
const WARM_GUESS_S: f64 = 1.5;
const COLD_GUESS_S: f64 = 8.0;
const LIMITED_GUESS_S: f64 = 10.0;

/// Shows a grid on standard error, if that is a terminal. Notes are shown anyway.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    warm: Share,
    cold: Share,
    limited: Share,
}

/// The passes of one kind of state of the page cache.
#[derive(Debug)]
struct Share {
    guess_s: f64,
    /// The passes of each cell that is not finished.
    cells: Vec<usize>,
    done_in_cell: usize,
    done: usize,
    taken_s: f64,
}

impl Share {
    fn new(config: &Config, is_in: fn(CacheState) -> bool, guess_s: f64) -> Self {
        let cells = config.cells().into_iter().filter(|cell| is_in(cell.cache));
        let cells = cells.map(|cell| config.passes(cell.cache)).collect();
        let guess_s = config.series.map_or(guess_s, |series| series.as_secs_f64());
        Share { guess_s, cells, done_in_cell: 0, done: 0, taken_s: 0.0 }
    }

    fn left(&self) -> usize {
        self.cells.iter().sum::<usize>().saturating_sub(self.done_in_cell)
    }

    fn left_s(&self) -> f64 {
        let mean_s = if self.done == 0 { self.guess_s } else { self.taken_s / self.done as f64 };
        self.left() as f64 * mean_s
    }

    fn pass_ended(&mut self, taken: Duration) {
        self.done += 1;
        self.done_in_cell += 1;
        self.taken_s += taken.as_secs_f64();
    }

    fn cell_ended(&mut self) {
        self.done_in_cell = 0;
        self.cells.pop();
    }
}

/// A bar for pages that something is done with.
pub(crate) fn pages(doing: &str, pages: u64) -> ProgressBar {
    let bar = new_bar(pages);
    bar.set_style(style("{msg} {wide_bar} {human_pos} of {human_len} pages, {eta} left"));
    bar.set_message(doing.to_owned());
    bar
}

/// A line of counters.
pub(crate) fn counters() -> ProgressBar {
    let bar = new_bar(0);
    bar.set_style(style("{spinner} {msg}"));
    bar
}

/// A bar for seeds that are run.
pub(crate) fn seeds(seeds: u64) -> ProgressBar {
    let bar = new_bar(seeds);
    bar.set_style(style("{wide_bar} {human_pos} of {human_len} seeds, {eta} left"));
    bar
}

/// A bar for bytes that are written.
pub(crate) fn writing(len_bytes: u64) -> ProgressBar {
    let bar = new_bar(len_bytes);
    bar.set_style(style("writing {wide_bar} {bytes} of {total_bytes}, {eta} left"));
    bar
}

impl Progress {
    pub(crate) fn new(config: &Config) -> Self {
        let warm = Share::new(config, |cache| cache == CacheState::Warm, WARM_GUESS_S);
        let cold = Share::new(config, |cache| cache == CacheState::Cold, COLD_GUESS_S);
        let limited = Share::new(config, CacheState::is_limited, LIMITED_GUESS_S);
        let bar = new_bar((warm.left() + cold.left() + limited.left()) as u64);
        bar.set_style(style("{wide_bar} {pos} of {len} passes, {msg}"));
        bar.enable_steady_tick(Duration::from_millis(500));
        Progress { bar, warm, cold, limited }
    }

    pub(crate) fn hear(&mut self, event: Event<'_>) {
        match event {
            Event::Preparing(what) => self.bar.set_message(what.to_owned()),
            Event::PassBegins { cell, io, round } => {
                self.bar.set_message(format!("{} left, {cell} round {}: {io}", self.time_left(), round + 1));
            }
            Event::PassEnds { cell, taken } => {
                self.share(cell.cache).pass_ended(taken);
                self.bar.inc(1);
            }
            Event::CellEnds { cell, skipped } => {
                self.share(cell.cache).cell_ended();
                let left = self.warm.left() + self.cold.left() + self.limited.left();
                self.bar.set_length(self.bar.position() + left as u64);
                if let Some(reason) = skipped {
                    self.say(&format!("skipped {cell}: {reason}"));
                }
            }
            Event::Note(note) => self.say(note),
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| console::say(line));
    }

    fn share(&mut self, cache: CacheState) -> &mut Share {
        match cache {
            CacheState::Warm => &mut self.warm,
            CacheState::Cold => &mut self.cold,
            CacheState::Limited { .. } => &mut self.limited,
        }
    }

    fn time_left(&self) -> String {
        let left_s = (self.warm.left_s() + self.cold.left_s() + self.limited.left_s()).ceil() as u64;
        if left_s < 100 { format!("{left_s} s") } else { format!("{} min", left_s.div_ceil(60)) }
    }
}

/// Shows a simulation on standard error, if that is a terminal.
#[derive(Debug)]
pub(crate) struct SimProgress {
    bar: ProgressBar,
    is_simulating: bool,
}

impl SimProgress {
    pub(crate) fn new(config: &cache_sim::Config) -> Self {
        let bar = match &config.source {
            Source::Files { files, .. } => {
                let sizes = files.iter().filter_map(|file| std::fs::metadata(&file.path).ok());
                let bar = new_bar(sizes.map(|metadata| metadata.len()).sum());
                bar.set_style(style("finding objects {wide_bar} {bytes} of {total_bytes}, {eta} left"));
                bar
            }
            Source::Generated { .. } => {
                let bar = new_bar(0);
                bar.set_style(style("finding objects: {human_pos} requests"));
                bar
            }
        };
        SimProgress { bar, is_simulating: false }
    }

    pub(crate) fn hear(&mut self, event: cache_sim::Event) {
        match event {
            cache_sim::Event::Surveying { read_bytes: 0, requests } => self.bar.set_position(requests),
            cache_sim::Event::Surveying { read_bytes, .. } => self.bar.set_position(read_bytes),
            cache_sim::Event::Simulating { done, requests } => {
                if !self.is_simulating {
                    self.is_simulating = true;
                    self.bar.reset();
                    self.bar.set_length(requests);
                    self.bar.set_style(style("simulating {wide_bar} {human_pos} of {human_len} requests, {eta} left"));
                }
                self.bar.set_position(done);
            }
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn new_bar(len: u64) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(Some(len), target)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
