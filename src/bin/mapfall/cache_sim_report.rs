//! The report of a simulation: one HTML file that needs nothing else.

pub(crate) mod curves;

use std::fmt::Write;

use mapfall::workload::cache_sim::{Cell, Outcome, SizeFigures};

use crate::cache_sim_text::{Figure, capacity, facts, percent, points, sizes_differ};
use crate::report::{STYLE, escape, page, section};
use crate::store_text::count;
use curves::{Line, Plot};

const OWN_STYLE: &str = include_str!("cache_sim_report/style.css");

/// The whole file.
pub(crate) fn render(outcome: &Outcome) -> String {
    let mut body = "<h1>Which cache policy, and which size?</h1>\n".to_owned();
    let _ = writeln!(body, "<p class=\"lead\">{}</p>", lead(outcome));
    if !outcome.complete {
        body += "<p class=\"warn\">The run was interrupted: this is what was simulated by then.</p>\n";
    }
    let hit_ratio: Figure = |cell| Some(cell.hit_ratio);
    body += &section("Hit ratio", &(legend(outcome) + &by_size(outcome, hit_ratio, true) + &table(outcome, hit_ratio)));
    if sizes_differ(outcome) {
        let byte_hit_ratio: Figure = |cell| cell.byte_hit_ratio;
        let content = legend(outcome) + &by_size(outcome, byte_hit_ratio, false) + &table(outcome, byte_hit_ratio);
        body += &section("Byte hit ratio", &content);
    }
    body += &section("Miss ratio over time", &over_time(outcome));
    body += &section("All figures", &figures(outcome));
    body += &section("The trace", &trace(outcome));
    page("mapfall cache-sim", &format!("{STYLE}{OWN_STYLE}"), &body)
}

/// The result in a sentence or two.
fn lead(outcome: &Outcome) -> String {
    let (trace, config) = (&outcome.trace, &outcome.config);
    let mut lead = format!(
        "{} requests for {} objects, through caches of {} under {}.",
        trace.requests,
        trace.objects,
        count(config.sizes.len() as u64, "size"),
        config.policies.join(", ")
    );
    if config.policies.len() > 1 {
        for size in [config.sizes.first(), config.sizes.last()].into_iter().flatten() {
            let ranking = ranking(outcome, size);
            if let [best, .., worst] = ranking[..] {
                let (of, best_ratio, worst_ratio) = (size.asked, percent(best.hit_ratio), percent(worst.hit_ratio));
                let _ = write!(
                    lead,
                    " At {of}, <b>{}</b> hits most, {best_ratio} % ({} least, {worst_ratio} %).",
                    best.policy, worst.policy
                );
            }
            if config.sizes.len() == 1 {
                break;
            }
        }
    }
    lead
}

/// The cells of a size, the one with the most hits first.
fn ranking<'a>(outcome: &'a Outcome, size: &SizeFigures) -> Vec<&'a Cell> {
    let mut cells: Vec<&Cell> = outcome.results.iter().filter(|cell| cell.capacity == size.capacity).collect();
    cells.sort_by_key(|cell| std::cmp::Reverse(cell.hits));
    cells
}

fn legend(outcome: &Outcome) -> String {
    let mut html = "<ul class=\"keys\">\n".to_owned();
    for (look, policy) in outcome.config.policies.iter().enumerate() {
        let _ = writeln!(html, "<li>{}{policy}</li>", curves::sample(look));
    }
    html + "</ul>\n"
}

/// Where a size stands on a logarithmic axis from the smallest to the largest.
fn place(outcome: &Outcome, size: &SizeFigures) -> f64 {
    let log = |size: &SizeFigures| (size.capacity as f64).ln();
    let ends = outcome.config.sizes.first().zip(outcome.config.sizes.last());
    match ends {
        Some((first, last)) if first.capacity < last.capacity => (log(size) - log(first)) / (log(last) - log(first)),
        _ => 0.5,
    }
}

fn by_size(outcome: &Outcome, figure: Figure, is_limited: bool) -> String {
    let (sizes, counted) = (&outcome.config.sizes, outcome.config.counted);
    let line = |(look, policy): (usize, &&'static str)| {
        let cells = outcome.results.iter().filter(|cell| cell.policy == *policy).zip(sizes);
        let point = |(cell, size): (&Cell, &SizeFigures)| {
            let ratio = figure(cell)?;
            let said = format!("{policy} at {} ({}): {} %", size.asked, capacity(size, counted), percent(ratio));
            Some((place(outcome, size), ratio, said))
        };
        Line { name: (*policy).to_owned(), look, points: cells.filter_map(point).collect() }
    };
    let plot = Plot {
        title: "Hits by size of the cache".to_owned(),
        unit: "% of requests",
        width: 1040.0,
        height: 380.0,
        labels: sizes.iter().map(|size| (place(outcome, size), size.asked.to_string())).collect(),
        lines: outcome.config.policies.iter().enumerate().map(line).collect(),
        limit: is_limited.then_some((1.0 - outcome.cold_miss_ratio, "all but the cold misses")),
        has_marks: true,
    };
    let plot = if is_limited {
        plot
    } else {
        Plot { title: "Bytes hit by size of the cache".to_owned(), unit: "% of bytes", ..plot }
    };
    plot.render()
}

/// A row for each size, a column for each policy; the best of a row is marked.
fn table(outcome: &Outcome, figure: Figure) -> String {
    let mut html = "<div class=\"scroll\"><table>\n<tr><th>size</th><th class=\"number\">capacity</th>".to_owned();
    for policy in &outcome.config.policies {
        let _ = write!(html, "<th class=\"number\">{policy} %</th>");
    }
    html += "</tr>\n";
    for size in &outcome.config.sizes {
        let (of, room) = (size.asked, capacity(size, outcome.config.counted));
        let _ = write!(html, "<tr><td>{of}</td><td class=\"number\">{room}</td>");
        let cells: Vec<&Cell> = outcome.results.iter().filter(|cell| cell.capacity == size.capacity).collect();
        let best = cells.iter().filter_map(|cell| figure(cell)).fold(0.0, f64::max);
        for cell in cells {
            let ratio = figure(cell);
            let class = if ratio == Some(best) && best > 0.0 { "number best" } else { "number" };
            let _ = write!(html, "<td class=\"{class}\">{}</td>", ratio.map_or_else(|| "-".to_owned(), percent));
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n"
}

fn over_time(outcome: &Outcome) -> String {
    let mut html = legend(outcome) + "<div class=\"charts over-time\">\n";
    let last = outcome.interval_ends.last().copied().unwrap_or(1) as f64;
    for size in &outcome.config.sizes {
        let line = |(look, policy): (usize, &&'static str)| {
            let mut cells = outcome.results.iter();
            let cell = cells.find(|cell| cell.policy == *policy && cell.capacity == size.capacity);
            let ratios = cell.map_or(&[][..], |cell| &cell.interval_miss_ratios);
            let ends = outcome.interval_ends.iter().map(|end| *end as f64 / last);
            let points = ends.zip(ratios).map(|(at, ratio)| (at, *ratio, String::new())).collect();
            Line { name: (*policy).to_owned(), look, points }
        };
        let share = |at: f64| (at, format!("{:.0}", at * last));
        let plot = Plot {
            title: format!("Cache of {}", size.asked),
            unit: "% misses, by request",
            width: 500.0,
            height: 210.0,
            labels: [0.0, 0.5, 1.0].map(share).into(),
            lines: outcome.config.policies.iter().enumerate().map(line).collect(),
            limit: None,
            has_marks: false,
        };
        html += &plot.render();
    }
    html + "</div>\n<p class=\"small\">The misses in each of up to 100 intervals, from the first request on, the \
            warm-up's included: an empty cache misses what comes first. The scales differ.</p>\n"
}

/// Every policy at every size.
fn figures(outcome: &Outcome) -> String {
    let heads = ["hits %", "over lru", "bytes hit %", "hits", "evictions", "too large", "refused", "ghost hits"];
    let mut html = "<div class=\"scroll\"><table>\n<tr><th>policy</th><th>size</th>".to_owned();
    for head in heads {
        let _ = write!(html, "<th class=\"number\">{head}</th>");
    }
    html += "</tr>\n";
    let mut last_policy = None;
    for cell in &outcome.results {
        let class = if last_policy.is_some_and(|last| last != cell.policy) { " class=\"first\"" } else { "" };
        last_policy = Some(cell.policy);
        let _ = write!(html, "<tr{class}><td>{}</td><td>{}</td>", cell.policy, cell.size);
        let optional = |figure: Option<String>| figure.unwrap_or_else(|| "-".to_owned());
        let row = [
            percent(cell.hit_ratio),
            optional(cell.hit_ratio_over_lru.map(points)),
            optional(cell.byte_hit_ratio.map(percent)),
            cell.hits.to_string(),
            cell.evictions.to_string(),
            cell.too_large.to_string(),
            cell.refusals.to_string(),
            cell.ghost_hits.to_string(),
        ];
        for figure in row {
            let _ = write!(html, "<td class=\"number\">{figure}</td>");
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n<p class=\"small\">Of the counted requests. Too large: requests for what does not fit the \
            whole cache. Refused: objects that the policy sent away at once in favour of what was there. Ghost hits: \
            objects that came back and that it remembered.</p>\n"
}

fn trace(outcome: &Outcome) -> String {
    let mut html = "<dl>\n".to_owned();
    for (what, value) in facts(outcome) {
        let _ = writeln!(html, "<dt>{what}</dt><dd>{}</dd>", escape(&value));
    }
    for note in &outcome.notes {
        let _ = writeln!(html, "<dt>note</dt><dd>{}</dd>", escape(note));
    }
    let _ = writeln!(html, "<dt>made by</dt><dd>mapfall {}</dd>", escape(outcome.mapfall_version));
    html + "</dl>\n"
}
