//! What came of a comparison: figures, and the table that is shown.

use std::collections::BTreeMap;
use std::fmt::Write;

use mapfall::workload::machine::Machine;
use mapfall::workload::summary::Spread;
use mapfall::workload::ycsb::statistics::{Ratio, Verdict};
use mapfall::workload::ycsb::{Configuration, PhaseOutcome};
use serde::Serialize;

use crate::cmd_ycsb::Job;
use crate::numbers::times;

/// Everything, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) mapfall_version: &'static str,
    pub(crate) complete: bool,
    pub(crate) machine: Machine,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) record_bytes: usize,
    pub(crate) rounds: usize,
    pub(crate) contenders: Vec<Compared>,
}

/// A configuration, what came of its rounds, and how it stands to the one it is compared with.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) label: String,
    pub(crate) configuration: Configuration,
    pub(crate) throughput_per_s: Option<Spread>,
    pub(crate) p50_ns: Option<Spread>,
    pub(crate) p99_ns: Option<Spread>,
    /// The label of what it is compared with, if it is not that itself.
    pub(crate) compared_with: Option<String>,
    pub(crate) throughput_ratio: Option<Ratio>,
    pub(crate) p99_ratio: Option<Ratio>,
    pub(crate) skipped: Option<String>,
    /// A round each.
    pub(crate) outcomes: Vec<PhaseOutcome>,
}

impl Compared {
    pub(crate) fn new(configuration: &Configuration, all: &[Configuration]) -> Compared {
        Compared {
            label: configuration.label(all),
            configuration: configuration.clone(),
            throughput_per_s: None,
            p50_ns: None,
            p99_ns: None,
            compared_with: None,
            throughput_ratio: None,
            p99_ratio: None,
            skipped: None,
            outcomes: Vec::new(),
        }
    }

    fn spread(&self, figure: impl Fn(&PhaseOutcome) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.outcomes.iter().filter_map(figure))
    }
}

fn throughput(outcome: &PhaseOutcome) -> Option<f64> {
    Some(outcome.throughput_per_s)
}

/// Of all operations, from when they should have begun where that is known.
fn percentile(outcome: &PhaseOutcome, percentile: f64) -> Option<f64> {
    let latency = outcome.all_intended.as_ref().or(outcome.all.as_ref())?;
    latency.percentile_ns(percentile).map(|ns| ns as f64)
}

impl Comparison {
    pub(crate) fn new(
        job: &Job,
        machine: Machine,
        rounds: usize,
        complete: bool,
        mut contenders: Vec<Compared>,
    ) -> Comparison {
        let page_cache = |one: &Compared| one.configuration.page_cache;
        let baseline = |place: usize, all: &[Compared]| {
            all.iter().position(|one| page_cache(one) == page_cache(&all[place]) && one.skipped.is_none())
        };
        let baselines: Vec<_> = (0..contenders.len()).map(|place| baseline(place, &contenders)).collect();
        let is_compared = |place: usize| baselines[place].is_some_and(|baseline| baseline != place);
        // Throughput and the 99th percentile of each.
        let comparisons = 2 * (0..contenders.len()).filter(|place| is_compared(*place)).count();
        for place in 0..contenders.len() {
            let ratio = |figure: &dyn Fn(&PhaseOutcome) -> Option<f64>| {
                let other = &contenders[baselines[place].filter(|_| is_compared(place))?];
                let pairs = contenders[place].outcomes.iter().zip(&other.outcomes);
                let pairs: Vec<_> = pairs.filter_map(|(one, other)| figure(one).zip(figure(other))).collect();
                Ratio::of(&pairs, comparisons)
            };
            let ratios = (ratio(&throughput), ratio(&|outcome| percentile(outcome, 99.0)));
            let with = baselines[place].filter(|_| is_compared(place)).map(|place| contenders[place].label.clone());
            let one = &mut contenders[place];
            (one.throughput_ratio, one.p99_ratio) = ratios;
            one.compared_with = with.filter(|_| one.skipped.is_none());
            one.throughput_per_s = one.spread(throughput);
            one.p50_ns = one.spread(|outcome| percentile(outcome, 50.0));
            one.p99_ns = one.spread(|outcome| percentile(outcome, 99.0));
        }
        Comparison {
            mapfall_version: env!("CARGO_PKG_VERSION"),
            complete,
            machine,
            properties: job.properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            record_bytes: job.workload.layout.record_bytes(),
            rounds,
            contenders,
        }
    }
}

/// What a ratio says, in words.
pub(crate) fn verdict(ratio: &Ratio, more: &str, less: &str) -> String {
    match ratio.verdict {
        Verdict::Above => more.to_owned(),
        Verdict::Below => less.to_owned(),
        Verdict::NotShown => "no difference shown".to_owned(),
        Verdict::TooFewRounds => "too few rounds".to_owned(),
    }
}

/// `1.23x (1.20-1.31)`.
pub(crate) fn spread_of(ratio: &Ratio) -> String {
    format!("{} ({:.2}-{:.2})", times(ratio.spread.median), ratio.spread.min, ratio.spread.max)
}

/// `1.19-1.30`.
pub(crate) fn interval_of(ratio: &Ratio) -> String {
    ratio.interval.map_or_else(|| "-".to_owned(), |(low, high)| format!("{low:.2}-{high:.2}"))
}

pub(crate) fn per_s(spread: &Spread) -> String {
    format!("{:.0} ({:.0}-{:.0})", spread.median, spread.min, spread.max)
}

pub(crate) fn us(spread: &Spread) -> String {
    format!("{:.2}", spread.median / 1e3)
}

/// The tables.
pub(crate) fn render(comparison: &Comparison) -> String {
    let mut rows =
        vec![["", "ops/s (least-greatest)", "p50 us", "p99 us", "throughput to", "95 %", ""].map(str::to_owned)];
    for one in &comparison.contenders {
        let shown = |spread: &Option<Spread>, show: fn(&Spread) -> String| spread.as_ref().map_or("-".to_owned(), show);
        let ratio = one.throughput_ratio.as_ref().filter(|_| one.skipped.is_none());
        rows.push([
            one.label.clone(),
            shown(&one.throughput_per_s, per_s),
            shown(&one.p50_ns, us),
            shown(&one.p99_ns, us),
            match (ratio, &one.compared_with) {
                (Some(ratio), Some(with)) => format!("{with}: {}", spread_of(ratio)),
                _ => "-".to_owned(),
            },
            ratio.map_or("-".to_owned(), interval_of),
            match (&one.skipped, ratio) {
                (Some(_), _) => "skipped".to_owned(),
                (None, Some(ratio)) => verdict(ratio, "faster", "slower"),
                (None, None) => String::new(),
            },
        ]);
    }
    let mut text = table(&rows);
    text.push('\n');
    text += &table(&resources(comparison));
    for one in comparison.contenders.iter().filter(|one| one.skipped.is_some()) {
        let _ = writeln!(text, "skipped {}: {}", one.label, one.skipped.as_deref().unwrap_or_default());
    }
    if !comparison.complete {
        text += "interrupted: these are the rounds that were done by then\n";
    }
    text
}

/// What a round cost, in the middle.
pub(crate) fn resources(comparison: &Comparison) -> Vec<[String; 9]> {
    let heads = [
        "per round",
        "user s",
        "system s",
        "minor faults",
        "major faults",
        "device MiB",
        "waits",
        "switched",
        "cache hits",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    for one in comparison.contenders.iter().filter(|one| !one.outcomes.is_empty()) {
        let resource = |figure: fn(&mapfall::workload::ycsb::Resources) -> f64, digits: usize| {
            let spread = one.spread(|outcome| outcome.resources.as_ref().map(figure));
            spread.map_or("-".to_owned(), |spread| format!("{:.digits$}", spread.median))
        };
        let hits = one.spread(|outcome| outcome.cache.as_ref()?.hit_ratio.map(|ratio| 100.0 * ratio));
        rows.push([
            one.label.clone(),
            resource(|used| used.cpu_user_s, 2),
            resource(|used| used.cpu_system_s, 2),
            resource(|used| used.minor_faults as f64, 0),
            resource(|used| used.major_faults as f64, 0),
            resource(|used| used.device_read_bytes.unwrap_or(0) as f64 / f64::from(1 << 20), 1),
            resource(|used| used.voluntary_switches as f64, 0),
            resource(|used| used.involuntary_switches as f64, 0),
            hits.map_or("-".to_owned(), |hits| format!("{:.1} %", hits.median)),
        ]);
    }
    rows
}

/// Columns as wide as they need be, the first to the left.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}
