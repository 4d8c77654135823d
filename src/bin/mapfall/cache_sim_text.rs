//! What a simulation found as text, at most 100 columns wide.

use std::fmt::Write;

use mapfall::workload::cache_sim::{Cell, Counted, Outcome, SizeFigures};
use mapfall::workload::size::ByteSize;

use crate::numbers::seconds;
use crate::store_text::{row, size};
use crate::table::wrap;

/// Policies side by side in a table.
const COLUMNS: usize = 4;

/// A figure of a cell, where it has it.
pub(crate) type Figure = fn(&Cell) -> Option<f64>;

/// The tables, with what their reader must know around them.
pub(crate) fn render(outcome: &Outcome) -> String {
    let mut text = format!("mapfall {} cache-sim\n", outcome.mapfall_version);
    for (what, value) in facts(outcome) {
        row(&mut text, what, &value);
    }
    text += "\nHit ratio in %";
    let with_lru = outcome.results.iter().any(|cell| cell.hit_ratio_over_lru.is_some());
    text += if with_lru { " (and how much more than lru's)\n" } else { "\n" };
    text += &table(outcome, |cell| Some(cell.hit_ratio), |cell| cell.hit_ratio_over_lru);
    if sizes_differ(outcome) {
        text += "\nByte hit ratio in %\n";
        text += &table(outcome, |cell| cell.byte_hit_ratio, |_| None);
    }
    text.push('\n');
    text += &foot(outcome);
    text
}

/// Whether bytes tell something else than objects.
pub(crate) fn sizes_differ(outcome: &Outcome) -> bool {
    outcome.trace.min_bytes != outcome.trace.max_bytes
}

/// What the trace has, and what was done with it.
pub(crate) fn facts(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let (trace, config) = (&outcome.trace, &outcome.config);
    let formats: Vec<&str> = trace.formats.iter().map(|format| format.name()).collect();
    let origin = match config.seed {
        Some(seed) => format!("generated, seed {seed}"),
        None => formats.join(", "),
    };
    let blocks = config.block_bytes.map(|bytes| format!(", in blocks of {}", ByteSize::new(bytes))).unwrap_or_default();
    // A name may hold anything.
    let name: String = trace.name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let mut facts = vec![("trace", format!("{name} ({origin}{blocks})")), ("requests", trace.requests.to_string())];
    facts.push(("distinct objects", trace.objects.to_string()));
    if let (Some(footprint), Some(requested)) = (trace.footprint_bytes, trace.requested_bytes) {
        facts.push(("footprint", size(footprint)));
        facts.push(("requested", size(requested)));
    }
    if let (Some(min), Some(max)) = (trace.min_bytes, trace.max_bytes) {
        let range = if min == max { size(min) } else { format!("{} to {}", ByteSize::new(min), size(max)) };
        facts.push(("of an object", range));
    }
    if config.warmup_requests > 0 {
        facts.push(("warm-up", format!("{} requests, not counted", config.warmup_requests)));
    }
    let ratio = outcome.cold_miss_ratio;
    facts.push(("cold misses", format!("{}, {} % of the counted requests", outcome.cold_misses, percent(ratio))));
    facts
}

/// `12.34`: a ratio in percent.
pub(crate) fn percent(ratio: f64) -> String {
    format!("{:.2}", 100.0 * ratio)
}

/// `+1.20`: a difference of ratios in points.
pub(crate) fn points(difference: f64) -> String {
    // No sign before what is rounded to nothing.
    let points = (10_000.0 * difference).round() / 100.0;
    if points == 0.0 { "=".to_owned() } else { format!("{points:+.2}") }
}

/// What a size is for this trace.
pub(crate) fn capacity(size: &SizeFigures, counted: Counted) -> String {
    match counted {
        Counted::Bytes => ByteSize::new(size.capacity).rounded(),
        Counted::Objects => format!("{} obj", size.capacity),
    }
}

/// A row for each size, a column for each policy.
fn table(outcome: &Outcome, figure: Figure, difference: Figure) -> String {
    let mut text = String::new();
    let (policies, counted) = (&outcome.config.policies, outcome.config.counted);
    for policies in policies.chunks(COLUMNS) {
        let _ = write!(text, "  {:<10} {:>14}", "size", "capacity");
        for policy in policies {
            let _ = write!(text, " {policy:>16}");
        }
        text.push('\n');
        for size in &outcome.config.sizes {
            let _ = write!(text, "  {:<10} {:>14}", size.asked.to_string(), capacity(size, counted));
            for policy in policies {
                let mut cells = outcome.results.iter();
                let cell = cells.find(|cell| cell.policy == *policy && cell.capacity == size.capacity);
                let shown = cell.and_then(figure).map_or_else(|| "-".to_owned(), percent);
                let shown = match cell.filter(|cell| cell.policy != "lru").and_then(difference) {
                    Some(difference) => format!("{shown} ({})", points(difference)),
                    None => shown,
                };
                let _ = write!(text, " {shown:>16}");
            }
            text.push('\n');
        }
    }
    text
}

fn foot(outcome: &Outcome) -> String {
    let mut text = String::new();
    if !outcome.complete {
        text += "Interrupted: this is what was simulated by then.\n";
    }
    for note in &outcome.notes {
        text += &wrap(&format!("note: {note}"), "", "  ");
    }
    let too_large = outcome.results.iter().filter(|cell| cell.too_large > 0).map(|cell| cell.size.to_string());
    let mut sizes: Vec<String> = too_large.collect();
    sizes.dedup();
    sizes.sort_unstable();
    sizes.dedup();
    if !sizes.is_empty() {
        text += &wrap(&format!("note: some objects are larger than the caches of {}", sizes.join(", ")), "", "  ");
    }
    let most = percent(1.0 - outcome.cold_miss_ratio);
    text += &wrap(&format!("No cache hits more than {most} %, of any size: the rest is asked for once."), "", "  ");
    let simulated = outcome.results.len() as f64 * (outcome.counted_requests + outcome.config.warmup_requests) as f64;
    let (survey_s, simulate_s) = (seconds(outcome.survey_s), seconds(outcome.simulate_s));
    let rate = simulated / outcome.simulate_s.max(1e-9) / 1e6;
    let _ = writeln!(
        text,
        "{} simulations took {simulate_s} s, {rate:.1} million requests a second of all; the first pass {survey_s} s.",
        outcome.results.len()
    );
    text
}
