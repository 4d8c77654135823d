//! The outcome as text, at most 100 columns wide.

use std::fmt::Write;

use mapfall::workload::cache_state::CacheState;
use mapfall::workload::contender::Io;
use mapfall::workload::outcome::{Cell, CellKey, Choice, LatencyNs, Limited, Outcome, Settings, Skipped};
use mapfall::workload::size::ByteSize;
use mapfall::workload::summary::Spread;

use crate::explained;
use crate::numbers::{gib_per_s, nanoseconds, seconds, times};

/// What stands where there is no figure.
const NONE: &str = "-";

/// The whole table, with what its reader must know around it.
pub(crate) fn render(outcome: &Outcome) -> String {
    let mut text = head(outcome);
    for key in keys(outcome) {
        text.push('\n');
        text += &group(outcome, key);
    }
    text += &choices(outcome);
    text += &explained::render(outcome);
    text.push('\n');
    text += &foot(outcome);
    text
}

/// The cells that have something to tell, in the order they were measured.
pub(crate) fn keys(outcome: &Outcome) -> Vec<CellKey> {
    let mut keys: Vec<CellKey> = Vec::new();
    let measured = outcome.cells.iter().map(|cell| cell.key);
    for key in measured.chain(outcome.skipped.iter().map(|skipped| skipped.key)) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// The machine in a line or two.
pub(crate) fn machine(outcome: &Outcome) -> Vec<(&'static str, String)> {
    let machine = &outcome.machine;
    let unknown = || "unknown".to_owned();
    let size = |bytes: Option<u64>| bytes.map_or_else(unknown, |bytes| ByteSize::new(bytes).rounded());
    let cpu = machine.cpu.clone().unwrap_or_else(|| machine.arch.to_owned());
    let cpus = machine.cpus.map(|cpus| format!(", {cpus} CPUs")).unwrap_or_default();
    let virtual_machine = if machine.virtual_machine { ", virtual machine" } else { "" };
    let file_system = machine.file_system.as_ref();
    let config = &outcome.config;
    let temporary = if config.file_is_temporary { " (temporary)" } else { "" };
    vec![
        ("cpu", format!("{cpu}{cpus}{virtual_machine}")),
        ("memory", format!("{}, {} available", size(machine.memory_bytes), size(machine.memory_available_bytes))),
        ("kernel", machine.kernel.clone().unwrap_or_else(unknown)),
        ("file", format!("{}{temporary}, {}", config.file, ByteSize::new(config.file_bytes))),
        (
            "on",
            file_system.map_or_else(unknown, |found| {
                format!("{} at {} ({}; {})", found.kind, found.mount_point, found.device, found.mount_options)
            }),
        ),
        (
            "2 MiB pages",
            format!(
                "asked for: {}, anonymous memory: {}",
                config.huge,
                machine.transparent_huge_pages.clone().unwrap_or_else(unknown)
            ),
        ),
    ]
}

fn head(outcome: &Outcome) -> String {
    let mut text = format!("mapfall {} grid\n", outcome.mapfall_version);
    for (what, value) in machine(outcome) {
        text += &wrap(&format!("{what}: {value}"), "  ", "    ");
    }
    text += &wrap(&run(&outcome.config), "  ", "    ");
    text
}

/// How the passes were made, in a line or two.
pub(crate) fn run(config: &Settings) -> String {
    let threads: Vec<String> = config.threads.iter().map(usize::to_string).collect();
    let plural = if config.threads == [1] { "" } else { "s" };
    let mut text = format!(
        "{} thread{plural}, {} warm and {} cold rounds, seed {}, advice {}",
        threads.join(" and "),
        config.rounds,
        config.cold_rounds,
        config.seed,
        config.advice
    );
    if config.batch > 1 {
        let _ = write!(text, ", batches of {}", config.batch);
    }
    match config.series_s {
        Some(series_s) => _ = write!(text, ", passes of {series_s} s"),
        None => _ = write!(text, ", pass limit {} s", config.pass_limit_s),
    }
    if config.cache.iter().any(|cache| cache.is_limited()) {
        let _ = write!(text, ", limited passes after a warm-up of at most {} s", config.warm_up_s);
        for change in &config.limit_changes {
            let _ = write!(text, ", limit {}% from {} s on", change.percent, change.at_s);
        }
    }
    text
}

fn group(outcome: &Outcome, key: CellKey) -> String {
    let cells: Vec<&Cell> = outcome.cells.iter().filter(|cell| cell.key == key).collect();
    let skipped = outcome.skipped.iter().filter(|skipped| skipped.key == key);
    let (whole, parts): (Vec<&Skipped>, Vec<&Skipped>) = skipped.partition(|skipped| skipped.io.is_none());
    let drop_method = cells.iter().filter_map(|cell| cell.drop_method).max();
    let dropped = drop_method.map(|method| format!(", dropped by {}", method.what())).unwrap_or_default();
    let limited = cells.iter().find_map(|cell| cell.limited).map(memory).unwrap_or_default();
    let work = work(&outcome.config, key);
    let mut text = wrap(&format!("{key}: {work}{dropped}{limited}"), "", "    ");
    for skipped in whole {
        text += &wrap(&format!("skipped: {}", skipped.reason), "  ", "    ");
    }
    if cells.is_empty() {
        return text;
    }
    text += if outcome.config.latency { LATENCY_HEADS } else { HEADS };
    for cell in cells {
        let ratio = ratio_beside(outcome, cell);
        text += &if outcome.config.latency { latency_row(cell, &ratio) } else { row(cell, &ratio) };
    }
    for skipped in parts {
        if let Some(io) = skipped.io {
            let _ = writeln!(text, "  {:<12} n/a: {}", io.name(), skipped.reason);
        }
    }
    text
}

/// How much a pass of a cell is.
fn work(config: &Settings, key: CellKey) -> String {
    let reads = config.pass_reads.unwrap_or(config.file_bytes / key.block_bytes);
    config.series_s.map_or_else(|| format!("{reads} reads a pass"), |series_s| format!("{series_s} s a pass"))
}

fn memory(limited: Limited) -> String {
    let all = ByteSize::new(limited.limit_bytes).rounded();
    let own = ByteSize::new(limited.allowance_bytes).rounded();
    format!(", in {all} of memory, {own} of it for the process itself")
}

/// What choosing for the user is worth, where a mode does.
fn choices(outcome: &Outcome) -> String {
    let mut text = String::new();
    for choice in &outcome.choices {
        if text.is_empty() {
            text += "\nagainst the best and the worst choice\n";
        }
        let Choice { key, of, best, worst, to_best, to_worst, .. } = choice;
        let (to_best, to_worst) = (times(to_best.median), times(to_worst.median));
        let partial = if choice.partial { "~" } else { "" };
        let (cell, best) = (key.to_string(), format!("{of}/{best}"));
        let _ = writeln!(text, "  {cell:<36} {partial}{to_best:>7} {best:<20} {partial}{to_worst:>8} {of}/{worst}");
    }
    text
}

const HEADS: &str = "  \
io            GiB/s   min - max   ns/read   minor  major user  sys copy rest  ratio
                                              faults faults    s    s    s    s
";

const LATENCY_HEADS: &str = "  \
io            GiB/s   min - max      p50      p90      p99    p99.9      max  ratio
                                            ns       ns       ns       ns       ns
";

fn row(cell: &Cell, ratio: &str) -> String {
    let optional = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), seconds);
    let line = format!(
        "  {:<12} {:>6}{} {:>11} {:>8} {:>7} {:>6} {:>4} {:>4} {:>4} {:>4}  {ratio}",
        cell.io.name(),
        gib_per_s(cell.gib_per_s.median),
        if cell.partial { '~' } else { ' ' },
        range(cell),
        nanoseconds(cell.ns_per_read),
        cell.minor_faults,
        cell.major_faults,
        seconds(cell.user_s),
        seconds(cell.sys_s),
        optional(cell.copy_s),
        optional(cell.rest_s),
    );
    line.trim_end().to_owned() + "\n" + &partial_line(cell)
}

fn latency_row(cell: &Cell, ratio: &str) -> String {
    let latency = cell.latency_ns;
    let at = |of: fn(LatencyNs) -> u64| latency.map_or_else(|| NONE.to_owned(), |latency| of(latency).to_string());
    let line = format!(
        "  {:<12} {:>6}{} {:>11} {:>8} {:>8} {:>8} {:>8} {:>8}  {ratio}",
        cell.io.name(),
        gib_per_s(cell.gib_per_s.median),
        if cell.partial { '~' } else { ' ' },
        range(cell),
        at(|latency| latency.p50),
        at(|latency| latency.p90),
        at(|latency| latency.p99),
        at(|latency| latency.p99_9),
        at(|latency| latency.max),
    );
    line.trim_end().to_owned() + "\n" + &partial_line(cell)
}

fn range(cell: &Cell) -> String {
    format!("{}-{}", gib_per_s(cell.gib_per_s.min), gib_per_s(cell.gib_per_s.max))
}

/// What a row's marks mean.
fn partial_line(cell: &Cell) -> String {
    let mut text = String::new();
    if cell.partial {
        let _ =
            writeln!(text, "              ~ ended at the limit, after {:.1} % of its reads", 100.0 * cell.done_share);
    }
    if cell.fallback_reads > 0 {
        let _ = writeln!(text, "              ! {} reads were served by system calls instead", cell.fallback_reads);
    }
    for (what, at_s, recovery) in recoveries(cell) {
        let _ = writeln!(text, "              {what} at {at_s} s: {recovery}");
    }
    text
}

/// What happened in the middle of the passes of a cell, when, and how the throughput came back.
pub(crate) fn recoveries(cell: &Cell) -> Vec<(String, f64, String)> {
    let series = || cell.passes.iter().filter_map(|pass| pass.series.as_ref());
    let Some(first) = series().next() else { return Vec::new() };
    let told = first.changes.iter().enumerate().map(|(index, change)| {
        let same = || series().filter_map(|series| series.changes.get(index));
        let steady = Spread::of(same().map(|change| change.steady_gib_per_s)).map_or(0.0, |spread| spread.median);
        let times: Vec<f64> = same().filter_map(|change| change.recovery_s).collect();
        let missed = same().count() - times.len();
        let mut text = match Spread::of(times) {
            Some(Spread { min, median, max }) => format!("back after {median:.1} s ({min:.1}-{max:.1})"),
            None => "not back".to_owned(),
        };
        if missed > 0 && missed < same().count() {
            let _ = write!(text, ", in {missed} passes never");
        }
        (change.what.clone(), change.at_s, format!("{text} at 90 % of {} GiB/s", gib_per_s(steady)))
    });
    told.collect()
}

/// The ratio that stands in a contender's row: of mmap to it, or of it to what it is judged by.
fn ratio_beside(outcome: &Outcome, cell: &Cell) -> String {
    let (of, to) = match cell.io {
        Io::PREAD => return String::new(),
        Io::Bare | Io::Limit => (Io::MMAP, cell.io),
        Io::BareReused => (Io::MmapReused, cell.io),
        Io::BarePread => (Io::PREAD, cell.io),
        io => (io, Io::PREAD),
    };
    let found = outcome.ratios.iter().find(|ratio| ratio.key == cell.key && ratio.of == of && ratio.to == to);
    // In the row of a contender the family says enough, and there is no room for more.
    let name = |io: Io| match io {
        Io::MmapReused => Io::MMAP.name(),
        Io::BareReused | Io::BarePread => Io::Bare.name(),
        Io::PreadRandom | Io::PreadSeq | Io::MmapRandom | Io::MmapSeq => "this",
        io => io.name(),
    };
    found.map_or_else(String::new, |ratio| {
        let partial = if ratio.partial { "~" } else { "" };
        format!("{}{partial} {}/{}", times(ratio.ratio.median), name(of), name(to))
    })
}

fn foot(outcome: &Outcome) -> String {
    let mut text = String::new();
    if !outcome.complete {
        text += "Interrupted: this is what was measured by then.\n";
    }
    for note in &outcome.notes {
        text += &wrap(&format!("note: {note}"), "", "  ");
    }
    if outcome.config.cache.contains(&CacheState::Cold) {
        text += "Cold: the page cache was verified empty; the device below may have caches of its own.\n";
    }
    if outcome.cells.iter().any(|cell| cell.copy_s.is_some()) {
        text += "Copy: a pass less one that does all but the copy (1 byte per call or page instead of a block).\n";
    }
    text + "Figures are medians over the rounds, ratios are made pair by pair; see mapfall grid --help.\n"
}

/// Breaks a line at spaces so that it keeps to 100 columns.
pub(crate) fn wrap(line: &str, first_indent: &str, next_indent: &str) -> String {
    const COLUMNS: usize = 100;
    let mut text = String::new();
    let mut current = first_indent.to_owned();
    let mut is_empty = true;
    for word in line.split(' ') {
        if !is_empty && current.chars().count() + 1 + word.chars().count() > COLUMNS {
            text += &current;
            text.push('\n');
            current = next_indent.to_owned();
            is_empty = true;
        }
        if !is_empty {
            current.push(' ');
        }
        current += word;
        is_empty = false;
    }
    text + &current + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_at_spaces() {
        let text = wrap(&"word ".repeat(50), "", "  ");
        assert!(text.lines().all(|line| line.chars().count() <= 100));
        assert_eq!(text.split_whitespace().count(), 50);
    }
}
