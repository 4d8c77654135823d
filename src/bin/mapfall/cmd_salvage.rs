//! `mapfall salvage`: the library's salvage, with a bar and a report. The new file has its name when it is whole.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Args;
use mapfall::{SalvageReport, Store};
use serde::Serialize;
use tempfile::TempPath;

use crate::fail::{self, Failure};
use crate::json::JsonArg;
use crate::store_text::{row, size};
use crate::{interrupt, progress, store_json};

/// So many lost pages are told of one by one; the JSON has all.
const LOST_SHOWN: usize = 20;

/// What was typed after `mapfall salvage`.
#[derive(Debug, Args)]
pub(crate) struct SalvageArgs {
    /// The damaged store, which is only read
    file: PathBuf,

    /// The store to make; nothing may be there
    new_file: PathBuf,

    #[command(flatten)]
    json: JsonArg,
}

#[derive(Debug, Serialize)]
struct Figures {
    file: String,
    new_file: String,
    is_complete: bool,
    generation: u64,
    from_record: bool,
    pages_saved: u64,
    pages_lost: Vec<LostPage>,
    numbers_lost: Vec<(u64, u64)>,
    block_bytes: u64,
    space_map_damaged: bool,
    kept_lost: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LostPage {
    page: u64,
    text: String,
}

pub(crate) fn run(args: &SalvageArgs) -> Result<ExitCode, Failure> {
    let stop = interrupt::flag()?;
    let json = args.json.reserve(&[&args.file, &args.new_file])?;
    let report = salvage(&args.file, &args.new_file, &stop)?;
    let is_complete = report.is_complete() && report.kept_lost.is_empty();
    let figures = Figures {
        file: store_json::path(&args.file),
        new_file: store_json::path(&args.new_file),
        is_complete,
        generation: report.generation,
        from_record: report.from_record,
        pages_saved: report.pages_saved,
        pages_lost: report.pages_lost.iter().map(|(page, text)| LostPage { page: *page, text: text.clone() }).collect(),
        numbers_lost: report.numbers_lost.clone(),
        block_bytes: report.block_bytes,
        space_map_damaged: report.space_map_damaged,
        kept_lost: report.kept_lost.clone(),
    };
    json.show(&text(args, &report), &figures)?;
    Ok(if is_complete { ExitCode::SUCCESS } else { fail::damaged() })
}

/// Salvages into a directory of our own beside the new file, and moves the file from there: what is not whole is a
/// store too, and nobody is to take it for the result.
fn salvage(file: &Path, new_file: &Path, stop: &AtomicBool) -> Result<SalvageReport, Failure> {
    let cannot = |error| Failure::usage(format!("cannot make {}: {error}", new_file.display()));
    if new_file.symlink_metadata().is_ok() {
        return Err(Failure::exists(new_file));
    }
    let dir = new_file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = tempfile::Builder::new().prefix(".mapfall-").suffix(".part").tempdir_in(dir).map_err(cannot)?;
    let part = scratch.path().join("store");
    let pages = Store::options().open_snapshot(file).map_or(0, |snapshot| snapshot.count());
    let bar = progress::pages("salvaging", pages);
    let (source, target, shown) = (file.to_owned(), part.clone(), bar.clone());
    let report = interrupt::unless_interrupted(stop, move || {
        Store::options().salvage(&source, &target, &mut |report| {
            shown.set_position(report.pages_saved + report.pages_lost.len() as u64);
        })
    });
    bar.finish_and_clear();
    let report = report?.map_err(|error| {
        let failure = Failure::from(error);
        let message = failure.message.replace(&store_json::path(&part), &store_json::path(new_file));
        Failure { message, ..failure }
    })?;
    let moved = TempPath::try_from_path(part).and_then(|part| Ok(part.persist_noclobber(new_file)?));
    moved.and_then(|()| std::fs::File::open(dir)?.sync_all()).map_err(cannot)?;
    Ok(report)
}

fn text(args: &SalvageArgs, report: &SalvageReport) -> String {
    let (file, new_file) = (args.file.display(), args.new_file.display());
    let mut text = format!("salvaged {file} into {new_file}\n");
    row(&mut text, "generation", &report.generation.to_string());
    if report.from_record {
        text += "  the header is lost: this is the newest checkpoint that was found behind it\n";
    }
    row(&mut text, "pages saved", &report.pages_saved.to_string());
    row(&mut text, "pages lost", &report.pages_lost.len().to_string());
    for (_, problem) in report.pages_lost.iter().take(LOST_SHOWN) {
        let _ = writeln!(text, "    {problem}");
    }
    if let Some(more) = report.pages_lost.len().checked_sub(LOST_SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "    and {more} more; --json has all");
    }
    if !report.numbers_lost.is_empty() {
        let ranges: Vec<_> = report.numbers_lost.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        row(&mut text, "entries lost", &format!("of pages {}, if there were any", ranges.join(", ")));
    }
    row(&mut text, "blocks copied", &format!("{}, unproven: only their owner can", size(report.block_bytes)));
    if report.space_map_damaged {
        text += "  the space map is damaged: space that was free was copied too\n";
    }
    if !report.kept_lost.is_empty() {
        let names: Vec<_> = report.kept_lost.iter().map(|name| format!("{name:?}")).collect();
        row(&mut text, "checkpoints lost", &names.join(", "));
    }
    text
}
