//! The passes of one cell, held against each other and summed up.

use super::series;
use crate::workload::cache_state::DropMethod;
use crate::workload::contender::Io;
use crate::workload::error::{Error, Result};
use crate::workload::outcome::{Cell, CellKey, Choice, LatencyNs, Limited, PassFigures, Ratio};
use crate::workload::pass::{End, Pass};
use crate::workload::summary::Spread;

const GIB: f64 = (1u64 << 30) as f64;

/// What is divided by what, where both took part: each choice by plain `pread`, and contenders by their judges.
fn pairs() -> impl Iterator<Item = (Io, Io)> {
    let choices = Io::choosable().into_iter().filter(|io| *io != Io::PREAD).map(|io| (io, Io::PREAD));
    choices.chain([
        (Io::MmapReused, Io::PREAD),
        (Io::MMAP, Io::Bare),
        (Io::MmapReused, Io::BareReused),
        (Io::MMAP, Io::Limit),
        (Io::MmapReused, Io::Limit),
        (Io::PREAD, Io::BarePread),
    ])
}

/// All passes of a cell so far.
#[derive(Debug)]
pub(super) struct Tally {
    key: CellKey,
    /// The reads of a complete pass; none where passes last a time.
    reads: Option<u64>,
    /// What happens in the middle of each pass, and when.
    changes: Vec<(f64, String)>,
    lines: Vec<Line>,
}

/// All passes of a contender so far.
#[derive(Debug)]
struct Line {
    io: Io,
    rounds: Vec<Round>,
    facts: Facts,
    limited: Vec<Limited>,
}

/// The passes of a contender in a round.
#[derive(Debug)]
struct Round {
    index: usize,
    copy: Option<Pass>,
    skeleton: Option<Pass>,
}

/// What is known of a contender in a cell beside its passes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) fallback_reads: u64,
    pub(super) huge_mapped_bytes: Option<u64>,
    pub(super) drop_method: Option<DropMethod>,
}

impl Tally {
    pub(super) fn new(key: CellKey, reads: Option<u64>, changes: Vec<(f64, String)>, contenders: &[Io]) -> Self {
        let line = |io: &Io| Line { io: *io, rounds: Vec::new(), facts: Facts::default(), limited: Vec::new() };
        Tally { key, reads, changes, lines: contenders.iter().map(line).collect() }
    }

    /// Takes in what memory did in a pass of a limited cell.
    pub(super) fn record_limited(&mut self, io: Io, limited: Limited) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.io == io) {
            line.limited.push(limited);
        }
    }

    /// The facts of a contender that takes part.
    pub(super) fn facts(&mut self, io: Io) -> Option<&mut Facts> {
        Some(&mut self.lines.iter_mut().find(|line| line.io == io)?.facts)
    }

    /// Takes in a pass that was not stopped.
    pub(super) fn record(&mut self, io: Io, round: usize, is_skeleton: bool, pass: Pass) {
        let Some(line) = self.lines.iter_mut().find(|line| line.io == io) else { return };
        if line.rounds.last().is_none_or(|last| last.index != round) {
            line.rounds.push(Round { index: round, copy: None, skeleton: None });
        }
        let Some(last) = line.rounds.last_mut() else { return };
        *(if is_skeleton { &mut last.skeleton } else { &mut last.copy }) = Some(pass);
    }

    /// That all complete passes of a round read the same, those of `except` left out.
    pub(super) fn check_round(&self, round: usize, except: Option<Io>) -> Result<()> {
        let mut first: Option<(Io, u64)> = None;
        for line in self.lines.iter().filter(|line| Some(line.io) != except) {
            let pass = line.rounds.iter().find(|found| found.index == round).and_then(|round| round.copy.as_ref());
            // Passes that last a time read as much as each of them can.
            let comparable = |pass: &&Pass| pass.end == End::Complete && pass.series.is_none();
            let Some(pass) = pass.filter(comparable) else { continue };
            let (first_io, checksum) = *first.get_or_insert((line.io, pass.checksum));
            if checksum != pass.checksum {
                let (first, second) = (first_io.name(), line.io.name());
                return Err(Error::Disagreement { first, second, cell: self.key.to_string() });
            }
        }
        Ok(())
    }

    /// The contenders that have at least one pass.
    pub(super) fn cells(&self) -> Vec<Cell> {
        self.lines.iter().filter_map(|line| self.cell(line)).collect()
    }

    fn cell(&self, line: &Line) -> Option<Cell> {
        let rounds: Vec<(&Round, &Pass)> =
            line.rounds.iter().filter_map(|round| Some((round, round.copy.as_ref()?))).collect();
        let median = |of: &dyn Fn(&Pass) -> f64| Some(Spread::of(rounds.iter().map(|(_, pass)| of(pass)))?.median);
        let least_reads = rounds.iter().map(|(_, pass)| pass.reads).min()?;
        let pass_s = median(&|pass| pass.elapsed.as_secs_f64())?;
        let copy_s = Spread::of(rounds.iter().filter_map(|(round, _)| round.copy_s())).map(|spread| spread.median);
        let latency_ns = rounds.iter().filter_map(|(_, pass)| pass.latency_ns.clone()).reduce(|mut all, pass| {
            all += pass;
            all
        });
        let threads = self.key.threads as f64;
        Some(Cell {
            key: self.key,
            io: line.io,
            gib_per_s: Spread::of(rounds.iter().map(|(_, pass)| self.gib_per_s(pass)))?,
            ns_per_read: median(&|pass| pass.elapsed.as_secs_f64() * 1e9 * threads / pass.reads as f64)?,
            pass_s,
            minor_faults: median(&|pass| pass.usage.minor_faults as f64)? as u64,
            major_faults: median(&|pass| pass.usage.major_faults as f64)? as u64,
            user_s: median(&|pass| pass.usage.user_s)?,
            sys_s: median(&|pass| pass.usage.sys_s)?,
            copy_s,
            rest_s: copy_s.map(|copy_s| (pass_s - copy_s).max(0.0)),
            partial: self.reads.is_some_and(|reads| least_reads < reads),
            done_share: self.reads.map_or(1.0, |reads| least_reads as f64 / reads as f64),
            fallback_reads: line.facts.fallback_reads,
            huge_mapped_bytes: line.facts.huge_mapped_bytes,
            drop_method: line.facts.drop_method,
            limited: middle_of(&line.limited),
            latency_ns: latency_ns.as_ref().map(LatencyNs::of),
            passes: rounds.iter().map(|(round, pass)| self.figures(round, pass)).collect(),
        })
    }

    fn figures(&self, round: &Round, pass: &Pass) -> PassFigures {
        PassFigures {
            round: round.index,
            pass_s: pass.elapsed.as_secs_f64(),
            skeleton_s: round.skeleton.as_ref().map(|skeleton| skeleton.elapsed.as_secs_f64()),
            reads: pass.reads,
            gib_per_s: self.gib_per_s(pass),
            minor_faults: pass.usage.minor_faults,
            major_faults: pass.usage.major_faults,
            user_s: pass.usage.user_s,
            sys_s: pass.usage.sys_s,
            series: pass.series.as_ref().map(|series| series::figures(series, &self.changes)),
            explanation: pass.explanation.clone(),
        }
    }

    fn gib_per_s(&self, pass: &Pass) -> f64 {
        (pass.reads * self.key.block_bytes) as f64 / GIB / pass.elapsed.as_secs_f64()
    }

    /// Every ratio whose contenders have a pass in a common round.
    pub(super) fn ratios(&self) -> Vec<Ratio> {
        pairs().filter_map(|(of, to)| self.ratio(of, to)).collect()
    }

    /// Every mode that chooses for its user, where there was something to choose from.
    pub(super) fn choices(&self) -> Vec<Choice> {
        let chooses = |io: Io| io == Io::AUTO;
        self.lines.iter().filter(|line| chooses(line.io)).filter_map(|line| self.choice(line.io)).collect()
    }

    fn choice(&self, of: Io) -> Option<Choice> {
        let rate = |line: &Line| {
            let passes = line.rounds.iter().filter_map(|round| round.copy.as_ref());
            Some(Spread::of(passes.map(|pass| self.gib_per_s(pass)))?.median)
        };
        let best_of = |family: fn(Io) -> bool| {
            let rates =
                self.lines.iter().filter(|line| family(line.io)).filter_map(|line| Some((line.io, rate(line)?)));
            rates.max_by(|one, other| one.1.total_cmp(&other.1))
        };
        let (pread, mmap) = (best_of(Io::is_pread)?, best_of(Io::is_mmap)?);
        let (best, worst) = if pread.1 >= mmap.1 { (pread.0, mmap.0) } else { (mmap.0, pread.0) };
        let (to_best, to_worst) = (self.ratio(of, best)?, self.ratio(of, worst)?);
        let partial = to_best.partial || to_worst.partial;
        Some(Choice { key: self.key, of, best, to_best: to_best.ratio, worst, to_worst: to_worst.ratio, partial })
    }

    fn ratio(&self, of: Io, to: Io) -> Option<Ratio> {
        let line = |io| self.lines.iter().find(|line| line.io == io);
        let (above, below) = (line(of)?, line(to)?);
        let mut partial = false;
        let mut ratios = Vec::new();
        for round in &above.rounds {
            let pair = below.rounds.iter().find(|below| below.index == round.index);
            let Some((above, below)) = round.copy.as_ref().zip(pair.and_then(|pair| pair.copy.as_ref())) else {
                continue;
            };
            partial |= above.reads != below.reads && above.series.is_none();
            ratios.push(self.gib_per_s(above) / self.gib_per_s(below));
        }
        Some(Ratio { key: self.key, of, to, ratio: Spread::of(ratios)?, partial })
    }
}

/// Medians of each figure.
fn middle_of(passes: &[Limited]) -> Option<Limited> {
    let median = |of: fn(&Limited) -> u64| {
        Spread::of(passes.iter().map(|pass| of(pass) as f64)).map_or(0, |spread| spread.median as u64)
    };
    let stalled = Spread::of(passes.iter().filter_map(|pass| Some(pass.stalled_us? as f64)));
    Some(Limited {
        file_bytes: median(|pass| pass.file_bytes),
        anonymous_bytes: median(|pass| pass.anonymous_bytes),
        refaulted_pages: median(|pass| pass.refaulted_pages),
        warm_up_reads: passes.iter().map(|pass| pass.warm_up_reads).min()?,
        stalled_us: stalled.map(|spread| spread.median as u64),
        ..*passes.first()?
    })
}

impl Round {
    /// What the whole pass took longer than the one without the copy, if both were complete.
    fn copy_s(&self) -> Option<f64> {
        let complete = |pass: &&Pass| pass.end == End::Complete;
        let (copy, skeleton) = (self.copy.as_ref().filter(complete)?, self.skeleton.as_ref().filter(complete)?);
        Some(copy.elapsed.saturating_sub(skeleton.elapsed).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::workload::cache_state::CacheState;
    use crate::workload::pattern::Pattern;
    use crate::workload::usage::Usage;

    fn pass(ms: u64, reads: u64, checksum: u64) -> Pass {
        let end = if reads == 1024 { End::Complete } else { End::LimitReached };
        let elapsed = Duration::from_millis(ms);
        Pass {
            elapsed,
            reads,
            checksum,
            end,
            usage: Usage::default(),
            latency_ns: None,
            series: None,
            explanation: None,
        }
    }

    fn tally() -> Tally {
        let key = CellKey { pattern: Pattern::Seq, cache: CacheState::Warm, block_bytes: 1 << 20, threads: 1 };
        Tally::new(key, Some(1024), Vec::new(), &[Io::PREAD, Io::PreadRandom, Io::MMAP, Io::Bare])
    }

    #[test]
    fn ratios_are_made_pair_by_pair() {
        let mut tally = tally();
        for (round, (pread_ms, mmap_ms)) in [(1000, 500), (2000, 500), (1000, 200)].into_iter().enumerate() {
            tally.record(Io::PREAD, round, false, pass(pread_ms, 1024, 7));
            tally.record(Io::MMAP, round, false, pass(mmap_ms, 1024, 7));
            tally.record(Io::MMAP, round, true, pass(100, 1024, 0));
        }
        tally.record(Io::PREAD, 3, false, pass(1, 1024, 7));
        let ratios = tally.ratios();
        assert_eq!(ratios.len(), 1);
        assert_eq!(ratios[0].ratio, Spread { min: 2.0, median: 4.0, max: 5.0 });
        assert!(!ratios[0].partial);
        let cells = tally.cells();
        assert_eq!(cells[1].gib_per_s, Spread { min: 2.0, median: 2.0, max: 5.0 });
        assert_eq!((cells[0].copy_s, cells[1].copy_s), (None, Some(0.4)));
        assert!(cells[1].rest_s.is_some_and(|rest_s| (rest_s - 0.1).abs() < 1e-9));
    }

    #[test]
    fn a_pass_that_ended_early_is_marked() {
        let mut tally = tally();
        tally.record(Io::PREAD, 0, false, pass(1000, 256, 7));
        tally.record(Io::PREAD, 0, true, pass(10, 1024, 0));
        tally.record(Io::MMAP, 0, false, pass(1000, 1024, 7));
        let cells = tally.cells();
        assert_eq!((cells[0].partial, cells[0].done_share, cells[0].gib_per_s.median), (true, 0.25, 0.25));
        assert_eq!(cells[0].copy_s, None);
        assert!(!cells[1].partial && tally.ratios()[0].partial);
    }

    #[test]
    fn a_choice_is_held_against_the_best_and_the_worst_that_one_could_have_made() {
        let mut tally = tally();
        for round in 0..2 {
            tally.record(Io::PREAD, round, false, pass(1000, 1024, 7));
            tally.record(Io::PreadRandom, round, false, pass(800, 1024, 7));
            tally.record(Io::MMAP, round, false, pass(200, 1024, 7));
            // Stands in for the mode that chooses: any contender outside of both families will do.
            tally.record(Io::Bare, round, false, pass(400, 1024, 7));
        }
        let choice = tally.choice(Io::Bare).unwrap();
        assert_eq!((choice.best, choice.worst, choice.partial), (Io::MMAP, Io::PreadRandom, false));
        assert_eq!((choice.to_best.median, choice.to_worst.median), (0.5, 2.0));
    }

    #[test]
    fn contenders_that_disagree_are_an_error() {
        let mut tally = tally();
        tally.record(Io::PREAD, 0, false, pass(1000, 1024, 7));
        tally.record(Io::MMAP, 0, false, pass(1000, 1024, 8));
        assert!(matches!(tally.check_round(0, None), Err(Error::Disagreement { .. })));
        assert!(tally.check_round(0, Some(Io::MMAP)).is_ok());
        assert!(tally.check_round(1, None).is_ok());
    }
}
