//! The report: one HTML file that needs nothing else.

mod chart;
mod heat;
mod series;
mod tables;

use std::fmt::Write;

use mapfall::workload::cache_state::CacheState;
use mapfall::workload::contender::Io;
use mapfall::workload::outcome::{Cell, CellKey, Outcome};
use mapfall::workload::size::ByteSize;

use crate::method::POINTS;
use crate::numbers::times;
use crate::table;
use chart::{Bar, Chart, Group};

pub(crate) const STYLE: &str = include_str!("report/style.css");

/// The whole file.
pub(crate) fn render(outcome: &Outcome) -> String {
    let mut body = String::new();
    body += "<h1>pread or a memory map?</h1>\n";
    let _ = writeln!(body, "<p class=\"lead\">{}</p>", lead(outcome));
    if !outcome.complete {
        body += "<p class=\"warn\">The run was interrupted: this is what was measured by then.</p>\n";
    }
    body += &section("Throughput", &throughput(outcome));
    if let Some(over_time) = series::render(outcome) {
        body += &section("Over time", &over_time);
    }
    body += &section("Ratios", &tables::ratios(outcome));
    if let Some(choices) = tables::choices(outcome) {
        body += &section("Against the best and the worst choice", &choices);
    }
    if let Some(decided) = heat::render(outcome) {
        body += &section("What auto decided", &decided);
    }
    if let Some(breakdown) = breakdown(outcome) {
        body += &section("Where the time goes", &breakdown);
    }
    body += &section("All figures", &tables::figures(outcome));
    body += &left_out(outcome);
    body += &section("The machine", &machine(outcome));
    body += &section("How it was measured", &method());
    page("mapfall grid", STYLE, &body)
}

/// A file that needs no other.
pub(crate) fn page(title: &str, style: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

pub(crate) fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{content}</section>\n")
}

/// Text as HTML shows it.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // A file name may hold anything.
            control if control.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

/// The result in a sentence or two.
fn lead(outcome: &Outcome) -> String {
    let config = &outcome.config;
    let file = ByteSize::new(config.file_bytes);
    let threads: Vec<String> = config.threads.iter().map(usize::to_string).collect();
    let plural = if config.threads == [1] { "thread reads" } else { "threads read" };
    let mut lead = format!("{} {plural} a file of {file} in blocks, each copied to a buffer.", threads.join(" or "));
    for &cache in &config.cache {
        let of_cache = outcome.ratios.iter().filter(|ratio| {
            ratio.key.cache == cache && (ratio.of, ratio.to) == (Io::MMAP, Io::PREAD) && !ratio.partial
        });
        let medians: Vec<f64> = of_cache.map(|ratio| ratio.ratio.median).collect();
        let least = medians.iter().copied().reduce(f64::min);
        if let Some((least, most)) = least.zip(medians.into_iter().reduce(f64::max)) {
            let (least, most) = (times(least), times(most));
            let range = if least == most { least } else { format!("{least} to {most}") };
            let _ = write!(lead, " {} the safe map is <b>{range}</b> as fast as pread.", state(cache));
        }
    }
    lead
}

/// A state of the page cache, as a sentence begins with it.
fn state(cache: CacheState) -> String {
    match cache {
        CacheState::Warm | CacheState::Cold => format!("With a {cache} page cache"),
        CacheState::Limited { percent } => format!("With memory for {percent} % of the file"),
    }
}

/// The cells that stand in a chart together, in the order they were measured: all but the block size is the same.
fn charts(outcome: &Outcome) -> Vec<(String, Vec<CellKey>)> {
    let mut charts: Vec<(String, Vec<CellKey>)> = Vec::new();
    for key in table::keys(outcome) {
        let threads = if key.threads == 1 { String::new() } else { format!(", {} threads", key.threads) };
        let title = format!("{}, {}{threads}", key.pattern.title(), key.cache);
        match charts.iter_mut().find(|(other, _)| *other == title) {
            Some((_, keys)) => keys.push(key),
            None => charts.push((title, vec![key])),
        }
    }
    charts
}

/// The contenders that have a figure, in the order of tables.
fn contenders(outcome: &Outcome) -> Vec<Io> {
    Io::all().into_iter().filter(|io| outcome.cells.iter().any(|cell| cell.io == *io)).collect()
}

fn legend(contenders: &[Io]) -> String {
    let mut html = "<ul class=\"legend\">\n".to_owned();
    for io in contenders {
        let (name, what) = (io.name(), escape(io.what()));
        let _ = writeln!(html, "<li><span class=\"key bar-{name}\"></span><span><b>{name}</b> {what}</span></li>");
    }
    html + "</ul>\n"
}

fn throughput(outcome: &Outcome) -> String {
    let mut html = legend(&contenders(outcome));
    html += "<div class=\"charts\">\n";
    for (title, keys) in charts(outcome) {
        let groups = keys.iter().map(|key| group(outcome, key, rate_bar)).collect();
        html += &Chart { title, unit: "GiB/s", groups }.render();
    }
    html + "</div>\n<p class=\"small\">GiB/s by block size: medians, with a line from the least to the greatest. \
            More is better. The scales differ. ~ marks passes that ended at the limit.</p>\n"
}

fn group(outcome: &Outcome, key: &CellKey, bar: fn(&Cell) -> Option<Bar>) -> Group {
    let cells = outcome.cells.iter().filter(|cell| cell.key == *key);
    Group { label: ByteSize::new(key.block_bytes).to_string(), bars: cells.filter_map(bar).collect() }
}

fn rate_bar(cell: &Cell) -> Option<Bar> {
    Some(Bar {
        class: cell.io.name(),
        value: cell.gib_per_s.median,
        solid: cell.gib_per_s.median,
        whisker: Some((cell.gib_per_s.min, cell.gib_per_s.max)),
        is_partial: cell.partial,
    })
}

/// Bars of copy and rest, where any cell has them.
fn breakdown(outcome: &Outcome) -> Option<String> {
    let time_bar = |cell: &Cell| {
        Some(Bar { class: cell.io.name(), value: cell.pass_s, solid: cell.copy_s?, whisker: None, is_partial: false })
    };
    let mut html = "<p>Seconds of a pass over the file: below, in full colour, the copy; above, pale, the rest \
                    (system calls, page lookups, faults, TLB misses). Less is better.</p>\n<div class=\"charts\">\n"
        .to_owned();
    let mut is_empty = true;
    for (title, keys) in charts(outcome) {
        let groups: Vec<Group> = keys.iter().map(|key| group(outcome, key, time_bar)).collect();
        let groups: Vec<Group> = groups.into_iter().filter(|group| !group.bars.is_empty()).collect();
        if !groups.is_empty() {
            is_empty = false;
            html += &Chart { title, unit: "seconds", groups }.render();
        }
    }
    (!is_empty).then(|| html + "</div>\n")
}

fn left_out(outcome: &Outcome) -> String {
    if outcome.skipped.is_empty() && outcome.notes.is_empty() {
        return String::new();
    }
    let mut html = "<ul>\n".to_owned();
    for note in &outcome.notes {
        let _ = writeln!(html, "<li>{}</li>", escape(note));
    }
    // The same reason for several cells is told once.
    let mut told: Vec<(Option<Io>, &str)> = Vec::new();
    for skipped in &outcome.skipped {
        let what = (skipped.io, skipped.reason.as_str());
        if told.contains(&what) {
            continue;
        }
        told.push(what);
        let alike = outcome.skipped.iter().filter(|other| (other.io, other.reason.as_str()) == what);
        let cells: Vec<String> = alike.map(|skipped| skipped.key.to_string()).collect();
        let io = skipped.io.map(|io| format!("{io} in ")).unwrap_or_default();
        let _ = writeln!(html, "<li>Not measured: {io}{}: {}</li>", cells.join(", "), escape(&skipped.reason));
    }
    section("What was left out", &(html + "</ul>\n"))
}

fn machine(outcome: &Outcome) -> String {
    let mut html = "<dl>\n".to_owned();
    for (what, value) in table::machine(outcome) {
        let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escape(what), escape(&value));
    }
    let run = escape(&table::run(&outcome.config));
    let _ = writeln!(html, "<dt>run</dt><dd>{run}, mapfall {}</dd>", escape(outcome.mapfall_version));
    html + "</dl>\n"
}

fn method() -> String {
    let mut html = "<dl>\n".to_owned();
    for point in POINTS {
        let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escape(point.about), escape(point.text));
    }
    html + "</dl>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_file_name_becomes_markup() {
        assert_eq!(escape("<b a=\"1\" c='2'>&\n"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\u{fffd}");
    }
}
