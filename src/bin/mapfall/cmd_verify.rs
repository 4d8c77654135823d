//! `mapfall verify`: the library's verification, with a bar and a report.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use mapfall::{Problem, Store, VerifyOptions, VerifyReport};
use serde::Serialize;

use crate::fail::{self, Failure};
use crate::json::JsonArg;
use crate::numbers::{gib_per_s, seconds};
use crate::store_json::{self, Found};
use crate::store_text::{count, size};
use crate::{interrupt, progress};

/// What was typed after `mapfall verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The store
    file: PathBuf,

    /// Verify the store's own structures only, not the bytes of pages
    #[arg(long)]
    no_contents: bool,

    #[command(flatten)]
    json: JsonArg,
}

#[derive(Debug, Serialize)]
struct Figures {
    file: String,
    is_clean: bool,
    contents: bool,
    generation: u64,
    pages: u64,
    kept_checkpoints: u64,
    nodes: u64,
    unit_bytes: u32,
    units: u64,
    block_units: u64,
    held_units: u64,
    bytes_verified: u64,
    seconds: f64,
    gib_per_s: f64,
    problems_total: u64,
    problems: Vec<Found>,
    notices: Vec<Found>,
}

pub(crate) fn run(args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let stop = interrupt::flag()?;
    let json = args.json.reserve(&[&args.file])?;
    let options = VerifyOptions::new().contents(!args.no_contents);
    // Where this fails, verification says why.
    let pages = Store::options().open_snapshot(&args.file).map_or(0, |snapshot| snapshot.count());
    let bar = progress::pages("verifying", pages);
    let (file, shown, start) = (args.file.clone(), bar.clone(), Instant::now());
    let report = interrupt::unless_interrupted(&stop, move || {
        Store::options().verify(&file, &options, &mut |report| shown.set_position(report.pages))
    });
    bar.finish_and_clear();
    let (report, taken_s) = (report??, start.elapsed().as_secs_f64());
    let figures = figures(args, &report, taken_s);
    json.show(&text(args, &report, &figures), &figures)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { fail::damaged() })
}

fn figures(args: &VerifyArgs, report: &VerifyReport, taken_s: f64) -> Figures {
    let found = |problems: &[Problem]| problems.iter().map(Found::new).collect();
    Figures {
        file: store_json::path(&args.file),
        is_clean: report.is_clean(),
        contents: !args.no_contents,
        generation: report.generation,
        pages: report.pages,
        kept_checkpoints: report.kept_checkpoints,
        nodes: report.nodes,
        unit_bytes: report.unit_bytes,
        units: report.units,
        block_units: report.block_units,
        held_units: report.held_units,
        bytes_verified: report.bytes_verified,
        seconds: taken_s,
        gib_per_s: report.bytes_verified as f64 / f64::from(1 << 30) / taken_s.max(1e-9),
        problems_total: report.problems_total,
        problems: found(&report.problems),
        notices: found(&report.notices),
    }
}

fn text(args: &VerifyArgs, report: &VerifyReport, figures: &Figures) -> String {
    let mut text = format!("{}: generation {}\n", args.file.display(), report.generation);
    let (kept, nodes) = (count(report.kept_checkpoints, "kept checkpoint"), count(report.nodes, "node"));
    let _ = writeln!(text, "  {}, {kept}, {nodes} of the store's trees", count(report.pages, "page"));
    let bytes = |units: u64| size(units.saturating_mul(u64::from(report.unit_bytes)));
    if args.no_contents {
        text += "  the bytes of pages were not looked at\n";
    } else {
        let (taken, rate) = (seconds(figures.seconds), gib_per_s(figures.gib_per_s));
        let _ = writeln!(text, "  {} of pages in {taken} s, {rate} GiB/s", size(report.bytes_verified));
    }
    if report.block_units > 0 {
        let blocks = bytes(report.block_units);
        let _ = writeln!(text, "  {blocks} of blocks, whose addresses and checksums only their owner has");
    }
    if report.held_units > 0 {
        let _ = writeln!(text, "  {} that only kept checkpoints have", bytes(report.held_units));
    }
    for notice in &report.notices {
        let _ = writeln!(text, "notice: {notice} (another copy is whole)");
    }
    if report.is_clean() {
        return text + "no problems\n";
    }
    let _ = writeln!(text, "{}:", count(report.problems_total, "problem"));
    for problem in &report.problems {
        let _ = writeln!(text, "  {problem}");
    }
    let untold = report.problems_total - report.problems.len() as u64;
    if untold > 0 {
        let _ = writeln!(text, "  and {untold} more");
    }
    text
}
