//! `mapfall grid`: the file, the measurement, the table, the JSON and the report.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use mapfall::workload::content::TemporaryFile;
use mapfall::workload::grid::{self, Config, Helper};
use mapfall::workload::outcome::Outcome;
use mapfall::workload::size::ByteSize;

use crate::args::{GridArgs, GridPlan, Source};
use crate::fail::{self, Failure};
use crate::json::JsonOutput;
use crate::output_file::OutputFile;
use crate::progress::{self, Progress};
use crate::{cmd_grid_pass, console, interrupt, report, table};

pub(crate) fn run(args: GridArgs) -> Result<ExitCode, Failure> {
    let plan = GridPlan::resolve(args)?;
    let json = JsonOutput::reserve(plan.json.as_deref())?;
    let report = plan.report.as_deref().map(|path| OutputFile::reserve_for("--report", path)).transpose()?;
    let stop = interrupt::flag()?;
    let outcome = measure(&plan, &stop)?;
    json.show(&table::render(&outcome), &outcome)?;
    if let Some(output) = report {
        output.write_and_say(&report::render(&outcome))?;
    }
    Ok(if outcome.complete { ExitCode::SUCCESS } else { fail::interrupted() })
}

/// Makes the file where none was given, measures, and removes it.
fn measure(plan: &GridPlan, stop: &AtomicBool) -> Result<Outcome, Failure> {
    match &plan.source {
        Source::Given { path } => measure_file(plan, path, false, stop),
        Source::Temporary { dir, bytes, cut_by } => {
            let size = ByteSize::new(*bytes);
            let cut = cut_by.as_ref().map(|cut_by| format!(" (cut to {cut_by})")).unwrap_or_default();
            console::say(&format!("making a temporary file of {size} in {}{cut}", dir.display()));
            let bar = progress::writing(*bytes);
            let file = TemporaryFile::create(dir, *bytes, plan.seed, stop, |done_bytes| bar.set_position(done_bytes));
            bar.finish_and_clear();
            let file = file?;
            measure_file(plan, file.path(), true, stop)
        }
    }
}

/// This program again, for passes in limited memory.
fn helper() -> Option<Helper> {
    Some(Helper { program: std::env::current_exe().ok()?, args: vec![cmd_grid_pass::NAME.into()] })
}

fn measure_file(plan: &GridPlan, path: &Path, is_temporary: bool, stop: &AtomicBool) -> Result<Outcome, Failure> {
    let config = Config {
        path: path.to_owned(),
        file_is_temporary: is_temporary,
        blocks_bytes: plan.blocks_bytes.clone(),
        patterns: plan.patterns.clone(),
        caches: plan.caches.clone(),
        ios: plan.ios.clone(),
        references: plan.references,
        threads: plan.threads.clone(),
        batch: plan.batch,
        queue_depth: plan.queue_depth,
        rounds: plan.rounds,
        cold_rounds: plan.cold_rounds,
        seed: plan.seed,
        huge_pages: plan.huge_pages,
        advice: plan.advice,
        reuse_map: plan.reuse_map,
        latency: plan.latency,
        pass_limit: plan.pass_limit,
        pass_reads: plan.pass_reads,
        warm_up: plan.warm_up,
        series: plan.series,
        limit_changes: plan.limit_changes.clone(),
        explain: plan.explain,
        helper: helper(),
        part: plan.part,
    };
    let mut progress = Progress::new(&config);
    let outcome = grid::run(&config, stop, &mut |event| progress.hear(event));
    progress.finish();
    Ok(outcome?)
}
