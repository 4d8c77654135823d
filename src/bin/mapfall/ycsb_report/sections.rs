//! The parts of the report, each a chart or a table over all contenders.

use std::collections::BTreeSet;
use std::fmt::Write;

use mapfall::workload::size::ByteSize;
use mapfall::workload::ycsb::{Latency, PhaseOutcome};

use super::Shown;
use super::lines::{Line, Plot};
use crate::cache_sim_report::curves::sample;
use crate::report::escape;

/// The curve goes up to there: 99.999 %.
const NINES_MAX: f64 = 5.0;

fn legend(shown: &[Shown<'_>]) -> String {
    let mut html = "<ul class=\"keys\">\n".to_owned();
    for (look, one) in shown.iter().enumerate() {
        let _ = writeln!(html, "<li>{}{}</li>", sample(look), escape(&one.label));
    }
    html + "</ul>\n"
}

/// The first columns, so many, are words; the others are numbers.
fn table(words: usize, heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = "<div class=\"scroll\"><table>\n<tr>".to_owned();
    for (column, head) in heads.iter().enumerate() {
        let class = if column < words { "" } else { " class=\"number\"" };
        let _ = write!(html, "<th{class}>{head}</th>");
    }
    html += "</tr>\n";
    for row in rows {
        html += "<tr>";
        for (column, cell) in row.iter().enumerate() {
            let class = if column < words { "" } else { " class=\"number\"" };
            let _ = write!(html, "<td{class}>{}</td>", escape(cell));
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n"
}

pub(super) fn throughput(shown: &[Shown<'_>]) -> String {
    let spreads = shown.iter().map(|one| one.spread(|outcome| Some(outcome.throughput_per_s)));
    let spreads: Vec<_> = spreads.collect();
    let most = spreads.iter().flatten().map(|spread| spread.median).fold(0.0, f64::max);
    let mut html = "<div class=\"bars\">\n".to_owned();
    for ((look, one), spread) in shown.iter().enumerate().zip(spreads) {
        let Some(spread) = spread else { continue };
        let width = if most > 0.0 { 50.0 * spread.median / most } else { 0.0 };
        let range =
            if one.outcomes.len() > 1 { format!(" ({:.0}-{:.0})", spread.min, spread.max) } else { String::new() };
        let _ = writeln!(
            html,
            "<div class=\"name\">{}</div><div class=\"bar look-{}\">\
             <div class=\"fill\" style=\"width: {width:.1}%\"></div>\
             <div class=\"figure\">{:.0}{range}</div></div>",
            escape(&one.label),
            look % crate::cache_sim_report::curves::LOOKS,
            spread.median
        );
    }
    html + "</div>\n<p class=\"small\">Operations a second. More is better.</p>\n"
}

/// Where a percentile stands: by its nines.
fn nines(percentile: f64) -> f64 {
    let outside = (1.0 - percentile / 100.0).max(10f64.powf(-NINES_MAX));
    -outside.log10() / NINES_MAX
}

pub(super) fn latency(shown: &[Shown<'_>]) -> String {
    let plot = |title, latency: fn(&PhaseOutcome) -> Option<&Latency>| {
        let line = |(look, one): (usize, &Shown<'_>)| {
            let latency = latency(one.middle()?)?;
            let points = latency.percentiles.iter().filter(|(percentile, _)| *percentile < 100.0);
            let points = points.map(|(percentile, ns)| (nines(*percentile), *ns as f64 / 1e3)).collect();
            Some(Line { look, name: one.label.clone(), points })
        };
        let lines: Vec<_> = shown.iter().enumerate().filter_map(line).collect();
        let labels = [0.0, 90.0, 99.0, 99.9, 99.99, 99.999];
        let labels = labels.map(|percentile| (nines(percentile), format!("{percentile}"))).into();
        let (is_logarithmic, marks) = (true, Vec::new());
        (!lines.is_empty())
            .then(|| Plot { title, unit: "us, by percentile", is_logarithmic, labels, marks, lines }.render())
    };
    let mut html = legend(shown) + "<div class=\"charts\">\n";
    html += &plot("From when an operation began", |outcome| outcome.all.as_ref()).unwrap_or_default();
    html += &plot("From when it should have begun", |outcome| outcome.all_intended.as_ref()).unwrap_or_default();
    html += "</div>\n<p class=\"small\">All operations that ended well, in microseconds, on a logarithmic scale.";
    if shown.iter().any(|one| one.outcomes.len() > 1) {
        html += " Of several rounds the one whose throughput is in the middle.";
    }
    html + "</p>\n"
}

/// Nothing where no phase lasted long enough for a line.
pub(super) fn over_time(shown: &[Shown<'_>]) -> String {
    if shown.iter().filter_map(Shown::middle).all(|outcome| outcome.intervals.len() < 2) {
        return "<p class=\"small\">All ended within one interval (--interval), so there is nothing to draw.</p>\n"
            .to_owned();
    }
    let end_s = shown.iter().filter_map(Shown::middle).filter_map(|outcome| outcome.intervals.last());
    let end_s = end_s.map(|interval| interval.end_s).fold(1e-9, f64::max);
    let digits = if end_s < 0.4 { 3 } else { 1 };
    let plot = |title, unit, is_logarithmic, value: &dyn Fn(&mapfall::workload::ycsb::Interval) -> Option<f64>| {
        let line = |(look, one): (usize, &Shown<'_>)| {
            let intervals = &one.middle()?.intervals;
            // The last is shorter than the others, and its rate means little.
            let whole = if intervals.len() > 2 { &intervals[..intervals.len() - 1] } else { intervals };
            let points = whole.iter().filter_map(|interval| Some((interval.end_s / end_s, value(interval)?)));
            Some(Line { look, name: one.label.clone(), points: points.collect() })
        };
        let lines: Vec<_> = shown.iter().enumerate().filter_map(line).collect();
        let labels = [0.0, 0.25, 0.5, 0.75, 1.0].map(|at| (at, format!("{:.digits$} s", at * end_s))).into();
        let made = shown.iter().filter_map(Shown::middle).flat_map(|outcome| &outcome.checkpoints);
        let marks = made.map(|checkpoint| checkpoint.at_s / end_s).filter(|at| *at < 1.0).take(200).collect();
        Plot { title, unit, is_logarithmic, labels, marks, lines }.render()
    };
    let slowest = |interval: &mapfall::workload::ycsb::Interval| {
        let operations = interval.series.iter().filter(|(name, _)| is_operation(name));
        operations.map(|(_, series)| series.p99_ns as f64 / 1e3).reduce(f64::max)
    };
    let mut html = legend(shown) + "<div class=\"charts over-time\">\n";
    html += &plot("Throughput", "ops/s", false, &|interval| {
        (interval.length_s > 0.0).then(|| interval.operations as f64 / interval.length_s)
    });
    html += &plot("99th percentile of the slowest kind", "us", true, &slowest);
    html += "</div>\n";
    if shown.iter().filter_map(Shown::middle).any(|outcome| outcome.checkpoints.iter().any(|one| one.at_s < end_s)) {
        html += "<p class=\"small\">Dotted: checkpoints begin.</p>\n";
    }
    html
}

fn is_operation(name: &str) -> bool {
    !["VERIFY", "CHECKPOINT", "CLEANUP"].contains(&name) && !name.ends_with("-FAILED")
}

pub(super) fn operations(shown: &[Shown<'_>]) -> String {
    let heads =
        ["operation", "contender", "count", "mean us", "p50", "p95", "p99", "p99.9", "max", "intended p99", "errors"];
    let names: BTreeSet<&str> =
        shown.iter().filter_map(Shown::middle).flat_map(|outcome| &outcome.series).map(|s| s.name.as_str()).collect();
    let mut rows = Vec::new();
    for name in names {
        for one in shown {
            let outcome = one.middle();
            let Some(series) = outcome.and_then(|outcome| outcome.series.iter().find(|series| series.name == name))
            else {
                continue;
            };
            let us = |ns: f64| format!("{:.2}", ns / 1e3);
            let percentile =
                |latency: &Latency, at| latency.percentile_ns(at).map_or("-".to_owned(), |ns| us(ns as f64));
            let measured = &series.measured;
            let errors: Vec<_> = series.errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            rows.push(vec![
                name.to_owned(),
                one.label.clone(),
                measured.count.to_string(),
                us(measured.mean_ns),
                percentile(measured, 50.0),
                percentile(measured, 95.0),
                percentile(measured, 99.0),
                percentile(measured, 99.9),
                us(measured.max_ns as f64),
                series.intended.as_ref().map_or("-".to_owned(), |intended| percentile(intended, 99.0)),
                if errors.is_empty() { "-".to_owned() } else { errors.join(", ") },
            ]);
        }
    }
    table(2, &heads, &rows)
}

pub(super) fn reads(shown: &[Shown<'_>]) -> String {
    let paths: BTreeSet<&str> = shown
        .iter()
        .filter_map(Shown::middle)
        .flat_map(|outcome| outcome.io.paths.keys())
        .map(String::as_str)
        .collect();
    let mut heads = vec!["contender".to_owned()];
    heads.extend(paths.iter().map(|path| format!("reads by {path}")));
    heads.extend(["bytes read", "fallbacks", "bytes written", "cache hits", "past the cache"].map(str::to_owned));
    let rows = shown.iter().filter_map(|one| {
        let outcome = one.middle()?;
        let mut row = vec![one.label.clone()];
        row.extend(paths.iter().map(|path| outcome.io.paths.get(*path).map_or(0, |(reads, _)| *reads).to_string()));
        let fallbacks: Vec<_> =
            outcome.io.fallbacks.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let cache = outcome.cache.as_ref();
        let hits = cache.and_then(|cache| cache.hit_ratio).map(|ratio| format!("{:.1} %", 100.0 * ratio));
        row.extend([
            ByteSize::new(outcome.io.read_bytes).rounded(),
            if fallbacks.is_empty() { "-".to_owned() } else { fallbacks.join(", ") },
            ByteSize::new(outcome.io.write_bytes).rounded(),
            hits.unwrap_or_else(|| "-".to_owned()),
            cache.map_or("-".to_owned(), |cache| cache.bypassed_reads.to_string()),
        ]);
        Some(row)
    });
    let rows: Vec<_> = rows.collect();
    table(1, &heads.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}

pub(super) fn resources(shown: &[Shown<'_>]) -> String {
    let heads = [
        "contender",
        "user s",
        "system s",
        "minor faults",
        "major faults",
        "read from device",
        "waits",
        "switched away",
        "index",
    ];
    let rows = shown.iter().filter_map(|one| {
        let outcome = one.middle()?;
        let used = outcome.resources?;
        let bytes = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| ByteSize::new(bytes).rounded());
        Some(vec![
            one.label.clone(),
            format!("{:.2}", used.cpu_user_s),
            format!("{:.2}", used.cpu_system_s),
            used.minor_faults.to_string(),
            used.major_faults.to_string(),
            bytes(used.device_read_bytes),
            used.voluntary_switches.to_string(),
            used.involuntary_switches.to_string(),
            bytes(outcome.index.map(|index| index.memory_bytes)),
        ])
    });
    let html = table(1, &heads, &rows.collect::<Vec<_>>());
    html + "<p class=\"small\">Of the threads that do operations, while they are measured. Waits: the thread waited \
            for something; switched away: another took its processor. Index: what it takes of memory.</p>\n"
}

pub(super) fn notes(shown: &[Shown<'_>]) -> String {
    let notes = shown.iter().flat_map(|one| one.outcomes.iter().map(move |outcome| (&one.label, &outcome.notes)));
    let items = notes.flat_map(|(label, notes)| {
        notes.iter().map(move |note| format!("<li>{}: {}</li>", escape(label), escape(note)))
    });
    // Rounds mostly say the same.
    let items = crate::args::distinct(items);
    match items.is_empty() {
        true => String::new(),
        false => crate::report::section("Notes", &format!("<ul>\n{}\n</ul>\n", items.join("\n"))),
    }
}
