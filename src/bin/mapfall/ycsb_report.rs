//! The report of a run or a comparison: one HTML file that needs nothing else.

mod lines;
mod sections;

use std::collections::BTreeMap;
use std::fmt::Write;

use mapfall::workload::machine::Machine;
use mapfall::workload::size::ByteSize;
use mapfall::workload::ycsb::PhaseOutcome;
use mapfall::workload::ycsb::statistics::Ratio;

use crate::report::{STYLE, escape, page, section};
use crate::ycsb_compared::{Compared, Comparison, interval_of, spread_of, verdict};
use crate::ycsb_output::Figures;

const CURVES_STYLE: &str = include_str!("cache_sim_report/style.css");
const OWN_STYLE: &str = include_str!("ycsb_report/style.css");

/// What is shown of a contender: one outcome, or one for each round.
struct Shown<'a> {
    label: String,
    outcomes: Vec<&'a PhaseOutcome>,
}

impl Shown<'_> {
    /// The middle of a figure over the rounds, with the least and the greatest.
    fn spread(&self, figure: impl Fn(&PhaseOutcome) -> Option<f64>) -> Option<mapfall::workload::summary::Spread> {
        mapfall::workload::summary::Spread::of(self.outcomes.iter().filter_map(|outcome| figure(outcome)))
    }

    /// The round whose throughput is in the middle: what curves are drawn of.
    fn middle(&self) -> Option<&PhaseOutcome> {
        let mut outcomes = self.outcomes.clone();
        outcomes.sort_by(|a, b| a.throughput_per_s.total_cmp(&b.throughput_per_s));
        outcomes.get(outcomes.len().saturating_sub(1) / 2).copied()
    }
}

/// Of a load, a run or a replay.
pub(crate) fn of_run(figures: &Figures<'_>) -> String {
    let shown = figures.contenders.iter().map(|one| Shown { label: one.label.clone(), outcomes: vec![one.outcome] });
    let shown: Vec<_> = shown.collect();
    let phase = shown.first().and_then(Shown::middle).map_or("run", |outcome| outcome.phase.as_str());
    let mut body = format!("<h1>mapfall ycsb {phase}</h1>\n<p class=\"lead\">{}</p>\n", run_lead(&shown));
    if shown.iter().flat_map(|one| &one.outcomes).any(|outcome| !outcome.complete) {
        body += "<p class=\"warn\">It did not come to its end: this is what was measured by then.</p>\n";
    }
    let properties = figures.properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    body += &common(&shown, "");
    body += &setting(&properties, figures.record_bytes, &figures.machine, figures.mapfall_version);
    page("mapfall ycsb", &format!("{STYLE}{CURVES_STYLE}{OWN_STYLE}"), &body)
}

/// Of a comparison.
pub(crate) fn of_comparison(comparison: &Comparison) -> String {
    let shown = comparison.contenders.iter().filter(|one| !one.outcomes.is_empty());
    let shown: Vec<_> =
        shown.map(|one| Shown { label: one.label.clone(), outcomes: one.outcomes.iter().collect() }).collect();
    let mut body = "<h1>mapfall ycsb: which is faster?</h1>\n".to_owned();
    let _ = writeln!(body, "<p class=\"lead\">{}</p>", comparison_lead(comparison));
    if !comparison.complete {
        body += "<p class=\"warn\">The run was interrupted: these are the rounds that were done by then.</p>\n";
    }
    body += &common(&shown, &section("Ratios", &ratios(comparison)));
    body += &setting(&comparison.properties, comparison.record_bytes, &comparison.machine, comparison.mapfall_version);
    page("mapfall ycsb compare", &format!("{STYLE}{CURVES_STYLE}{OWN_STYLE}"), &body)
}

fn common(shown: &[Shown<'_>], ratios: &str) -> String {
    let mut body = section("Throughput", &sections::throughput(shown));
    body += ratios;
    body += &section("Latency", &sections::latency(shown));
    body += &section("Over time", &sections::over_time(shown));
    body += &section("Each operation", &sections::operations(shown));
    body += &section("Reads by path, and the cache", &sections::reads(shown));
    body += &section("What it cost", &sections::resources(shown));
    body + &sections::notes(shown)
}

fn run_lead(shown: &[Shown<'_>]) -> String {
    let each = shown.iter().filter_map(|one| {
        let outcome = one.middle()?;
        let threads = if outcome.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", outcome.threads) };
        let failed = if outcome.failed == 0 { "none failed".to_owned() } else { format!("{} failed", outcome.failed) };
        Some(format!(
            "<b>{}</b>: {} operations by {threads} in {:.1} s, {:.0} a second; {failed}.",
            escape(&one.label),
            outcome.operations,
            outcome.run_time_s,
            outcome.throughput_per_s
        ))
    });
    each.collect::<Vec<_>>().join(" ")
}

fn comparison_lead(comparison: &Comparison) -> String {
    let mut lead = format!("{} configurations in {} rounds.", comparison.contenders.len(), comparison.rounds);
    for one in &comparison.contenders {
        let (Some(ratio), Some(with)) = (&one.throughput_ratio, &one.compared_with) else { continue };
        let said = verdict(ratio, "faster", "slower");
        let (label, with) = (escape(&one.label), escape(with));
        let _ = write!(lead, " <b>{label}</b> to {with}: {}, {said}.", spread_of(ratio));
    }
    lead
}

fn ratios(comparison: &Comparison) -> String {
    let heads = ["contender", "to", "throughput", "95 %", "", "p99 latency", "95 %", ""];
    let mut html = "<div class=\"scroll\"><table>\n<tr>".to_owned();
    heads.iter().for_each(|head| html += &format!("<th>{head}</th>"));
    html += "</tr>\n";
    let cells = |ratio: &Option<Ratio>, more: &str, less: &str| match ratio {
        Some(ratio) => format!(
            "<td>{}</td><td>{}</td><td>{}</td>",
            spread_of(ratio),
            interval_of(ratio),
            verdict(ratio, more, less)
        ),
        None => "<td>-</td><td>-</td><td></td>".to_owned(),
    };
    for one in comparison.contenders.iter().filter(|one| one.compared_with.is_some()) {
        let with = one.compared_with.as_deref().unwrap_or_default();
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td>{}{}</tr>",
            escape(&one.label),
            escape(with),
            cells(&one.throughput_ratio, "faster", "slower"),
            cells(&one.p99_ratio, "longer", "shorter")
        );
    }
    html += "</table></div>\n<p class=\"small\">Pair by pair within the rounds: the middle ratio (least-greatest), and \
             where the true one is, all of them together with 95 % confidence. A difference is called one only where 1 \
             is outside, from three rounds on.</p>\n";
    html + &skipped(&comparison.contenders)
}

fn skipped(contenders: &[Compared]) -> String {
    let skipped = contenders.iter().filter_map(|one| Some((escape(&one.label), escape(one.skipped.as_deref()?))));
    skipped.map(|(label, reason)| format!("<p class=\"warn\">Skipped {label}: {reason}</p>\n")).collect()
}

fn setting(properties: &BTreeMap<String, String>, record_bytes: usize, machine: &Machine, version: &str) -> String {
    let mut html = "<dl>\n".to_owned();
    let mut row = |what: &str, value: &str| {
        let _ = writeln!(html, "<dt>{}</dt><dd>{}</dd>", escape(what), escape(value));
    };
    let pairs: Vec<_> = properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    row("workload", &pairs.join(", "));
    row("record", &ByteSize::new(record_bytes as u64).to_string());
    row("processor", machine.cpu.as_deref().unwrap_or("unknown"));
    row("processors", &machine.cpus.map_or_else(|| "unknown".to_owned(), |cpus| cpus.to_string()));
    row("memory", &machine.memory_bytes.map_or_else(|| "unknown".to_owned(), |bytes| ByteSize::new(bytes).rounded()));
    row("kernel", machine.kernel.as_deref().unwrap_or("unknown"));
    if let Some(system) = &machine.file_system {
        row("file system", &format!("{} on {} ({})", system.kind, system.device, system.mount_options));
    }
    row("made by", &format!("mapfall {version}"));
    section("The workload and the machine", &(html + "</dl>\n"))
}
