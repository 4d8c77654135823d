//! The tables of the report.

use std::fmt::Write;

use mapfall::workload::contender::Io;
use mapfall::workload::outcome::{Cell, Choice, Outcome, Ratio};
use mapfall::workload::summary::Spread;

use crate::numbers::{gib_per_s, nanoseconds, seconds, times};
use crate::table;

/// One row for each cell, one column for each pair of contenders.
pub(super) fn ratios(outcome: &Outcome) -> String {
    let mut pairs: Vec<(Io, Io)> = Vec::new();
    for ratio in &outcome.ratios {
        if !pairs.contains(&(ratio.of, ratio.to)) {
            pairs.push((ratio.of, ratio.to));
        }
    }
    if pairs.is_empty() {
        return "<p>There were no two contenders to compare.</p>\n".to_owned();
    }
    let mut html = "<div class=\"scroll\"><table>\n<tr><th>cell</th>".to_owned();
    for (of, to) in &pairs {
        let _ = write!(html, "<th class=\"number\">{of} / {to}</th>");
    }
    html += "</tr>\n";
    for key in table::keys(outcome) {
        let of_cell: Vec<&Ratio> = outcome.ratios.iter().filter(|ratio| ratio.key == key).collect();
        if of_cell.is_empty() {
            continue;
        }
        let _ = write!(html, "<tr><td>{key}</td>");
        for pair in &pairs {
            let found = of_cell.iter().find(|ratio| (ratio.of, ratio.to) == *pair);
            let text = found.map_or_else(|| "-".to_owned(), |ratio| ratio_text(ratio));
            let _ = write!(html, "<td class=\"number\">{text}</td>");
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n<p class=\"small\">GiB/s of one by GiB/s of the other, pair by pair within the rounds: the \
            median, and from the least to the greatest. ~ marks pairs that did not do the same work, since one ended \
            at the limit.</p>\n"
}

/// One row for each mode that chooses for its user in each cell.
pub(super) fn choices(outcome: &Outcome) -> Option<String> {
    if outcome.choices.is_empty() {
        return None;
    }
    let mut html = "<div class=\"scroll\"><table>\n<tr><th>cell</th><th>mode</th><th class=\"number\">to the best</th>\
                    <th>best</th><th class=\"number\">to the worst</th><th>worst</th></tr>\n"
        .to_owned();
    for choice in &outcome.choices {
        let Choice { key, of, best, worst, partial, .. } = choice;
        let (to_best, to_worst) = (spread_text(&choice.to_best, *partial), spread_text(&choice.to_worst, *partial));
        let _ = writeln!(
            html,
            "<tr><td>{key}</td><td>{of}</td><td class=\"number\">{to_best}</td><td>{best}</td>\
             <td class=\"number\">{to_worst}</td><td>{worst}</td></tr>"
        );
    }
    Some(
        html + "</table></div>\n<p class=\"small\">The best is the fastest of pread and the map, each with whatever \
                advice took part; the worst is the slower of the best pread and the best map.</p>\n",
    )
}

fn ratio_text(ratio: &Ratio) -> String {
    spread_text(&ratio.ratio, ratio.partial)
}

fn spread_text(ratio: &Spread, partial: bool) -> String {
    let (median, min, max) = (times(ratio.median), times(ratio.min), times(ratio.max));
    let partial = if partial { "~" } else { "" };
    format!("<b>{partial}{median}</b> <span class=\"range\">{min} - {max}</span>")
}

/// Every contender of every cell.
pub(super) fn figures(outcome: &Outcome) -> String {
    let timed_heads = ["p50 ns", "p90 ns", "p99 ns", "p99.9 ns", "max ns"];
    let split_heads = ["ns/read", "copy s", "rest s"];
    let heads: &[&str] = if outcome.config.latency { &timed_heads } else { &split_heads };
    let mut html = "<div class=\"scroll\"><table>\n<tr><th>cell</th><th>io</th><th class=\"number\">GiB/s</th>\
                    <th class=\"number\">min - max</th><th class=\"number\">minor faults</th>\
                    <th class=\"number\">major faults</th><th class=\"number\">user s</th>\
                    <th class=\"number\">sys s</th>"
        .to_owned();
    for head in heads {
        let _ = write!(html, "<th class=\"number\">{head}</th>");
    }
    html += "</tr>\n";
    let mut last_key = None;
    for cell in &outcome.cells {
        let class = if last_key.is_some_and(|last| last != cell.key) { " class=\"first\"" } else { "" };
        last_key = Some(cell.key);
        let partial = if cell.partial { format!(" ~{:.1} %", 100.0 * cell.done_share) } else { String::new() };
        let (min, max) = (gib_per_s(cell.gib_per_s.min), gib_per_s(cell.gib_per_s.max));
        let _ = write!(html, "<tr{class}><td>{}</td><td>{}{partial}</td>", cell.key, cell.io);
        let shared = [
            gib_per_s(cell.gib_per_s.median),
            format!("{min} - {max}"),
            cell.minor_faults.to_string(),
            cell.major_faults.to_string(),
            seconds(cell.user_s),
            seconds(cell.sys_s),
        ];
        let own = if outcome.config.latency { latency(cell) } else { split(cell) };
        for figure in shared.into_iter().chain(own) {
            let _ = write!(html, "<td class=\"number\">{figure}</td>");
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n"
}

fn split(cell: &Cell) -> Vec<String> {
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), seconds);
    vec![nanoseconds(cell.ns_per_read), optional(cell.copy_s), optional(cell.rest_s)]
}

fn latency(cell: &Cell) -> Vec<String> {
    let Some(latency) = cell.latency_ns else { return vec!["-".to_owned(); 5] };
    [latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max].map(|ns| ns.to_string()).into()
}
