//! `mapfall compact`: passes of the library's compaction until the file gets no shorter.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::Args;
use indicatif::ProgressBar;
use mapfall::{CheckpointOptions, Store, StoreInfo};
use serde::Serialize;

use crate::fail::{self, Failure};
use crate::json::JsonArg;
use crate::store_text::{count, row, size};
use crate::{interrupt, progress, store_json};

/// Bytes of pages moved before the user's wish to end is looked at again.
const STEP_BYTES: u64 = 2 << 20;
/// Steps between checkpoints.
const CHECKPOINT_STEPS: u64 = 16;
/// A pass finds little to do after the first one. More than this are of no use.
const PASSES_MAX: u64 = 8;
/// Checkpoints behind the last pass, each of which moves the store's own structures further down.
const PACKS_MAX: usize = 16;

/// What was typed after `mapfall compact`.
#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// The store, which nobody may have open for writing
    file: PathBuf,

    #[command(flatten)]
    json: JsonArg,
}

#[derive(Debug, Default, Serialize)]
struct Figures {
    file: String,
    /// Whether it came to its end.
    complete: bool,
    before_bytes: u64,
    after_bytes: u64,
    passes: u64,
    checkpoints: u64,
    pages_moved: u64,
    pages_stuck: u64,
    pages_damaged: u64,
    /// Whether other processes read old checkpoints, so that their space could not be used.
    is_quarantined: bool,
}

pub(crate) fn run(args: &CompactArgs) -> Result<ExitCode, Failure> {
    let stop = interrupt::flag()?;
    let json = args.json.reserve(&[&args.file])?;
    let before_bytes = file_bytes(&args.file)?;
    let store = Store::options().open(&args.file)?;
    let mut figures = Figures { file: store_json::path(&args.file), before_bytes, ..Figures::default() };
    let bar = progress::pages("compacting", store.snapshot().info()?.page_limit);
    let compacted = compact(&store, &stop, &bar, &mut figures);
    bar.finish_and_clear();
    compacted?;
    figures.complete = !stop.load(Relaxed);
    figures.is_quarantined = store.stats().is_quarantined;
    let info = store.snapshot().info()?;
    // Closing it cuts off what is free at the end.
    drop(store);
    figures.after_bytes = file_bytes(&args.file)?;
    json.show(&text(&args.file, &figures, &info), &figures)?;
    Ok(match figures {
        _ if !figures.complete => fail::interrupted(),
        _ if figures.pages_damaged > 0 => fail::damaged(),
        _ => ExitCode::SUCCESS,
    })
}

fn file_bytes(file: &Path) -> Result<u64, Failure> {
    let cannot = |error| Failure::usage(format!("cannot open {}: {error}", file.display()));
    std::fs::metadata(file).map(|metadata| metadata.len()).map_err(cannot)
}

fn compact(store: &Store, stop: &AtomicBool, bar: &ProgressBar, figures: &mut Figures) -> Result<(), Failure> {
    let mut pack = || {
        figures.checkpoints += 1;
        store.checkpoint(CheckpointOptions::new().pack(true)).map(|_| store.stats().file_bytes)
    };
    let step_pages = STEP_BYTES / store.pages().page_bytes() as u64;
    let (mut moved, mut last_bytes) = (1, u64::MAX);
    while figures.passes < PASSES_MAX && moved > 0 && !stop.load(Relaxed) {
        figures.passes += 1;
        let mut compaction = store.compaction()?;
        bar.set_length(compaction.progress().pages_total);
        let (mut goes_on, mut steps) = (true, 0_u64);
        while goes_on && !stop.load(Relaxed) {
            goes_on = compaction.step(step_pages)?;
            bar.set_position(compaction.progress().pages_seen);
            steps += 1;
            if steps.is_multiple_of(CHECKPOINT_STEPS) {
                pack()?;
            }
        }
        // What was moved before an interruption stays moved.
        last_bytes = pack()?;
        let progress = compaction.progress();
        moved = progress.pages_moved;
        figures.pages_moved += moved;
        (figures.pages_stuck, figures.pages_damaged) = (progress.pages_stuck, progress.pages_damaged);
    }
    for _ in 0..PACKS_MAX {
        let bytes = if stop.load(Relaxed) { last_bytes } else { pack()? };
        if bytes >= last_bytes {
            break;
        }
        last_bytes = bytes;
    }
    Ok(())
}

fn text(file: &Path, figures: &Figures, info: &StoreInfo) -> String {
    let mut text = format!("{}: {}\n", if figures.complete { "compacted" } else { "interrupted" }, file.display());
    row(&mut text, "before", &size(figures.before_bytes));
    row(&mut text, "after", &size(figures.after_bytes));
    row(&mut text, "pages moved", &figures.pages_moved.to_string());
    row(&mut text, "passes", &format!("{}, with {}", figures.passes, count(figures.checkpoints, "checkpoint")));
    if figures.pages_stuck > 0 {
        row(&mut text, "pages stuck", &format!("{}: no room further down", figures.pages_stuck));
    }
    if figures.pages_damaged > 0 {
        let damaged = format!("{}: left where they are (see mapfall verify)", figures.pages_damaged);
        row(&mut text, "pages damaged", &damaged);
    }
    if info.block_bytes > 0 {
        let _ = writeln!(
            text,
            "note: {} of blocks stay where they are: only their owner can move them",
            size(info.block_bytes)
        );
    }
    if info.held_extents > 0 {
        let extents = count(info.held_extents, "extent");
        let _ = writeln!(text, "note: what only kept checkpoints have stays where it is, in {extents}");
    }
    if figures.is_quarantined {
        text += "note: other processes read older checkpoints; run it again when they have ended\n";
    }
    if !figures.complete {
        text += "What was moved stays moved; run it again to go on.\n";
    }
    text
}
