//! `mapfall info`: what a store is and has, by its header.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use mapfall::{Store, StoreInfo};

use crate::fail::{self, Failure};
use crate::json::JsonArg;
use crate::store_text::{bytes, count, row, size, uuid};
use crate::{console, store_json};

/// What was typed after `mapfall info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The store
    file: PathBuf,

    #[command(flatten)]
    json: JsonArg,
}

pub(crate) fn run(args: &InfoArgs) -> Result<ExitCode, Failure> {
    let snapshot = Store::options().open_snapshot(&args.file)?;
    let info = snapshot.info()?;
    let held_bytes = snapshot.held_bytes();
    let json = args.json.reserve(&[&args.file])?;
    let held = held_bytes.as_ref().ok().copied();
    json.show(&text(&args.file, &info, held), &store_json::Info::new(&args.file, &info, held))?;
    match held_bytes {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            console::error(&error.to_string());
            Ok(fail::damaged())
        }
    }
}

fn text(file: &Path, info: &StoreInfo, held_bytes: Option<u64>) -> String {
    let mut text = format!("{}: a mapfall store, format version {}\n", file.display(), info.format_version);
    let text_mut = &mut text;
    row(text_mut, "UUID", &uuid(info.uuid));
    row(text_mut, "page", &size(info.page_bytes.into()));
    row(text_mut, "allocation unit", &size(info.unit_bytes.into()));
    row(text_mut, "checksum", info.checksum.name());
    let open = match info.is_open_for_writing {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    row(text_mut, "open for writing", open);
    text += "last checkpoint\n";
    let text_mut = &mut text;
    row(text_mut, "generation", &info.generation.to_string());
    row(text_mut, "pages", &format!("{} (numbers below {})", info.pages, info.page_limit));
    row(text_mut, "cookie", &bytes(&info.cookie));
    text += "space\n";
    let text_mut = &mut text;
    row(text_mut, "file", &size(info.file_bytes));
    row(text_mut, "header", &size(info.header_bytes));
    row(text_mut, "in use", &size(info.used_bytes));
    row(text_mut, "  blocks", &size(info.block_bytes));
    let held = held_bytes.map_or_else(|| "unknown".to_owned(), size);
    row(text_mut, "  only kept", &format!("{held} in {}", count(info.held_extents, "extent")));
    row(text_mut, "free", &size(info.free_bytes));
    if info.kept_checkpoints.is_empty() {
        return text + "no kept checkpoints\n";
    }
    let _ = writeln!(text, "{}", count(info.kept_checkpoints.len() as u64, "kept checkpoint"));
    text += &kept(info);
    text
}

/// The kept checkpoints as a table. A name may hold anything, and is shown escaped.
pub(crate) fn kept(info: &StoreInfo) -> String {
    let names: Vec<String> = info.kept_checkpoints.iter().map(|kept| format!("{:?}", kept.name)).collect();
    let columns = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("name".len());
    let mut text = format!("  {:columns$}  {:>12}  {:>12}  cookie\n", "name", "generation", "pages");
    for (name, kept) in names.iter().zip(&info.kept_checkpoints) {
        let (generation, pages, cookie) = (kept.generation, kept.pages, bytes(&kept.cookie));
        let _ = writeln!(text, "  {name:columns$}  {generation:>12}  {pages:>12}  {cookie}");
    }
    text
}
