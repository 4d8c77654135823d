//! The outcome as text, at most 100 columns wide.

use std::fmt::Write;

use mapfall::workload::cache_state::CacheState;
use mapfall::workload::contender::Io;
use mapfall::workload::outcome::{Cell, CellKey, LatencyNs, Outcome, Skipped};
use mapfall::workload::size::ByteSize;

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
    let config = &outcome.config;
    let (warm, cold) = (config.rounds, config.cold_rounds);
    let plural = if config.threads == 1 { "" } else { "s" };
    let _ = writeln!(
        text,
        "  {} thread{plural}, {warm} warm and {cold} cold rounds, seed {}, advice {}, pass limit {} s",
        config.threads, config.seed, config.advice, config.pass_limit_s
    );
    text
}

fn group(outcome: &Outcome, key: CellKey) -> String {
    let cells: Vec<&Cell> = outcome.cells.iter().filter(|cell| cell.key == key).collect();
    let skipped = outcome.skipped.iter().filter(|skipped| skipped.key == key);
    let (whole, parts): (Vec<&Skipped>, Vec<&Skipped>) = skipped.partition(|skipped| skipped.io.is_none());
    let reads = outcome.config.file_bytes / key.block_bytes;
    let (cache, pattern, block) = (key.cache, key.pattern, ByteSize::new(key.block_bytes));
    let drop_method = cells.iter().filter_map(|cell| cell.drop_method).max();
    let dropped = drop_method.map(|method| format!(", dropped by {}", method.what())).unwrap_or_default();
    let mut text = wrap(&format!("{cache} {pattern} {block}: {reads} reads a pass{dropped}"), "", "    ");
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
            let _ = writeln!(text, "  {:<11} n/a: {}", io.name(), skipped.reason);
        }
    }
    text
}

const HEADS: &str = "  \
io           GiB/s   min - max   ns/read   minor  major user  sys copy rest  ratio
                                             faults faults    s    s    s    s
";

const LATENCY_HEADS: &str = "  \
io           GiB/s   min - max      p50      p90      p99    p99.9      max  ratio
                                           ns       ns       ns       ns       ns
";

fn row(cell: &Cell, ratio: &str) -> String {
    let optional = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), seconds);
    let line = format!(
        "  {:<11} {:>6}{} {:>11} {:>8} {:>7} {:>6} {:>4} {:>4} {:>4} {:>4}  {ratio}",
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
        "  {:<11} {:>6}{} {:>11} {:>8} {:>8} {:>8} {:>8} {:>8}  {ratio}",
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
    text
}

/// The ratio that stands in a contender's row: of mmap to it, or of it to what it is judged by.
fn ratio_beside(outcome: &Outcome, cell: &Cell) -> String {
    let (of, to) = match cell.io {
        Io::Pread => return String::new(),
        Io::Mmap | Io::MmapReused => (cell.io, Io::Pread),
        Io::Bare | Io::Limit => (Io::Mmap, cell.io),
        Io::BareReused => (Io::MmapReused, cell.io),
        Io::BarePread => (Io::Pread, cell.io),
    };
    let found = outcome.ratios.iter().find(|ratio| ratio.key == cell.key && ratio.of == of && ratio.to == to);
    // In the row of a contender the family says enough, and there is no room for more.
    let name = |io: Io| match io {
        Io::MmapReused => Io::Mmap.name(),
        Io::BareReused | Io::BarePread => Io::Bare.name(),
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
    if !outcome.config.latency {
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
