//! Where everything in a store is: what `mapfall dump` shows without a page.
//!
//! Pages come as runs: numbers in a row, at places in a row. Text is written as it is made, since there may be as many
//! runs as pages.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use mapfall::{BlockAddr, Error, Layout, PageId, Part, Snapshot, StoreInfo};
use serde::Serialize;

use crate::cmd_info::kept;
use crate::console;
use crate::fail::{self, Failure};
use crate::json::JsonOutput;
use crate::store_json::{self, Kept, Place};
use crate::store_text::{count, uuid};

/// Text is written in pieces of about this length.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Debug, Serialize)]
struct Figures {
    file: String,
    uuid: String,
    generation: u64,
    checkpoint: Option<String>,
    unit_bytes: u32,
    page_bytes: usize,
    header: Vec<HeaderCopy>,
    trees: Vec<Tree>,
    names: Option<Place>,
    record_offset: Option<u64>,
    kept_checkpoints: Vec<Kept>,
    pages: Vec<Run>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct HeaderCopy {
    part: String,
    offset: u64,
    generation: Option<u64>,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Tree {
    part: String,
    root: Option<Place>,
    levels: u32,
    count: u64,
}

/// Pages with numbers in a row and places in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Run {
    first: u64,
    last: u64,
    /// Where the first one is. Nothing where they were never written.
    offset: Option<u64>,
    /// The least and the greatest number of the writes that they are of; 0 where they were never written.
    generation_min: u64,
    generation_max: u64,
}

impl Run {
    fn new(page: PageId, place: Option<BlockAddr>) -> Self {
        let generation = place.map_or(0, |place| place.generation());
        let offset = place.map(|place| place.offset());
        Run { first: page.0, last: page.0, offset, generation_min: generation, generation_max: generation }
    }

    /// Adds a run of one page, if it goes on there.
    fn take(&mut self, next: &Run, page_bytes: u64) -> bool {
        let end = self.offset.map(|offset| offset + (self.last - self.first + 1) * page_bytes);
        let follows = next.first == self.last + 1 && next.offset == end;
        if follows {
            self.last = next.last;
            self.generation_min = self.generation_min.min(next.generation_min);
            self.generation_max = self.generation_max.max(next.generation_max);
        }
        follows
    }
}

pub(crate) fn run(file: &Path, snapshot: &Snapshot, json: JsonOutput, stop: &AtomicBool) -> Result<ExitCode, Failure> {
    let (info, layout) = (snapshot.info()?, snapshot.layout()?);
    let (mut runs, mut problems) = (Vec::new(), Vec::new());
    let mut text = head(file, snapshot, &info, &layout);
    let keeps_runs = !matches!(json, JsonOutput::Nowhere);
    for_each_run(snapshot, stop, &mut problems, |run| {
        if keeps_runs {
            runs.push(run);
        }
        if matches!(json, JsonOutput::Stdout) {
            return Ok(true);
        }
        text += &line(&run);
        if text.len() < PIECE_BYTES {
            return Ok(true);
        }
        let is_read = console::write(text.as_bytes())?;
        text.clear();
        Ok(is_read || keeps_runs)
    })?;
    for problem in &problems {
        console::error(problem);
    }
    let is_whole = problems.is_empty();
    json.show(&text, &figures(file, snapshot, &info, layout, runs, problems))?;
    Ok(if is_whole { ExitCode::SUCCESS } else { fail::damaged() })
}

/// Goes through the pages until `show` says that nobody wants more. Nodes that cannot be read are told of and left out.
fn for_each_run(
    snapshot: &Snapshot,
    stop: &AtomicBool,
    problems: &mut Vec<String>,
    mut show: impl FnMut(Run) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let page_bytes = snapshot.page_bytes() as u64;
    let mut current: Option<Run> = None;
    for page in snapshot.iter() {
        if stop.load(Relaxed) {
            return Err(Failure::interrupted());
        }
        match page.and_then(|page| Ok(Run::new(page, snapshot.page_location(page)?))) {
            Ok(next) if current.as_mut().is_some_and(|run| run.take(&next, page_bytes)) => {}
            Ok(next) => {
                if let Some(run) = current.replace(next)
                    && !show(run)?
                {
                    return Ok(());
                }
            }
            Err(error @ Error::Corrupt { .. }) => problems.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    current.map_or(Ok(()), |run| show(run).map(|_| ()))
}

fn head(file: &Path, snapshot: &Snapshot, info: &StoreInfo, layout: &Layout) -> String {
    let mut text = format!("{}: UUID {}\nheader\n", file.display(), uuid(info.uuid));
    for copy in &layout.header {
        let state = match (&copy.problem, copy.generation) {
            (Some(problem), _) => format!("damaged: {problem}"),
            (None, Some(generation)) => format!("generation {generation}"),
            (None, None) if copy.part == Part::Slot => "never written".to_owned(),
            (None, None) => "whole".to_owned(),
        };
        let _ = writeln!(text, "  {:>16}  {:22}{state}", copy.offset, copy.part.to_string());
    }
    let name = snapshot.name().map(|name| format!(", kept as {name:?}")).unwrap_or_default();
    let _ = writeln!(text, "checkpoint of generation {}{name}", snapshot.generation());
    for tree in &layout.trees {
        let (what, of) = match tree.part {
            Part::PageTable => ("page table", "live page"),
            Part::SpaceMap => ("space map", "unit"),
            _ => ("held list", "extent"),
        };
        let offset = tree.root.map_or_else(|| "-".to_owned(), |root| root.offset().to_string());
        let levels = count(tree.levels.into(), "level");
        let _ = writeln!(text, "  {offset:>16}  {what:22}{}, {levels} of nodes", count(tree.count, of));
    }
    if let Some(names) = &layout.names {
        let (offset, len_bytes) = (names.offset(), names.len_bytes());
        let _ = writeln!(text, "  {offset:>16}  {:22}{len_bytes} bytes", "kept checkpoints");
    }
    if let Some(offset) = layout.record_offset {
        let _ = writeln!(text, "  {offset:>16}  record");
    }
    if !info.kept_checkpoints.is_empty() {
        text += "kept checkpoints\n";
        text += &kept(info);
    }
    let _ = writeln!(text, "pages of {} bytes", snapshot.page_bytes());
    let _ = writeln!(text, "  {:>16}  {:22}written as number", "offset", "pages");
    text
}

fn line(run: &Run) -> String {
    let range = |first: u64, last: u64| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let pages = range(run.first, run.last);
    match run.offset {
        None => format!("  {:>16}  {pages:22}never\n", "-"),
        Some(offset) => format!("  {offset:>16}  {pages:22}{}\n", range(run.generation_min, run.generation_max)),
    }
}

fn figures(
    file: &Path,
    snapshot: &Snapshot,
    info: &StoreInfo,
    layout: Layout,
    pages: Vec<Run>,
    problems: Vec<String>,
) -> Figures {
    let header = layout.header.into_iter().map(|copy| HeaderCopy {
        part: copy.part.to_string(),
        offset: copy.offset,
        generation: copy.generation,
        problem: copy.problem,
    });
    let trees = layout.trees.iter().map(|tree| Tree {
        part: tree.part.to_string(),
        root: tree.root.as_ref().map(Place::new),
        levels: tree.levels,
        count: tree.count,
    });
    Figures {
        file: store_json::path(file),
        uuid: uuid(info.uuid),
        generation: snapshot.generation(),
        checkpoint: snapshot.name().map(str::to_owned),
        unit_bytes: info.unit_bytes,
        page_bytes: snapshot.page_bytes(),
        header: header.collect(),
        trees: trees.collect(),
        names: layout.names.as_ref().map(Place::new),
        record_offset: layout.record_offset,
        kept_checkpoints: info.kept_checkpoints.iter().map(Kept::new).collect(),
        pages,
        problems,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, last: u64, offset: Option<u64>, generation: u64) -> Run {
        Run { first, last, offset, generation_min: generation, generation_max: generation }
    }

    #[test]
    fn pages_in_a_row_are_one_run() {
        let mut pages = run(3, 4, Some(8192), 7);
        assert!(!pages.take(&run(6, 6, Some(16384), 7), 4096), "a number is missing");
        assert!(!pages.take(&run(5, 5, Some(20480), 7), 4096), "it is elsewhere");
        assert!(!pages.take(&run(5, 5, None, 0), 4096), "it was never written");
        assert!(pages.take(&run(5, 5, Some(16384), 2), 4096));
        assert_eq!(pages, Run { first: 3, last: 5, offset: Some(8192), generation_min: 2, generation_max: 7 });
        let mut never = run(0, 0, None, 0);
        assert!(!never.take(&run(1, 1, Some(4096), 1), 4096));
        assert!(never.take(&run(1, 1, None, 0), 4096));
    }
}
