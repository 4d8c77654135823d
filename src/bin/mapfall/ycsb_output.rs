//! Where a phase's figures go: text as YCSB has it, JSON, the report.

use std::collections::BTreeMap;
use std::path::Path;

use mapfall::workload::machine::Machine;
use mapfall::workload::ycsb::{Configuration, Exporter, PhaseOutcome};
use serde::Serialize;

use crate::args::refuse_overwriting;
use crate::cmd_ycsb::{Job, OutputArgs};
use crate::fail::Failure;
use crate::json::JsonOutput;
use crate::output_file::OutputFile;
use crate::{console, ycsb_report, ycsb_text};

/// Everything, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Figures<'a> {
    pub(crate) mapfall_version: &'static str,
    pub(crate) machine: Machine,
    pub(crate) label: Option<&'a str>,
    /// As they were asked for.
    pub(crate) properties: BTreeMap<&'a str, &'a str>,
    pub(crate) record_bytes: usize,
    pub(crate) contenders: Vec<Contender<'a>>,
}

/// A configuration and what came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Contender<'a> {
    pub(crate) label: String,
    pub(crate) configuration: Configuration,
    pub(crate) outcome: &'a PhaseOutcome,
}

/// The places, which are known to be good before anything runs.
#[derive(Debug)]
pub(crate) struct Outputs {
    json: JsonOutput,
    report: Option<OutputFile>,
    export: Option<OutputFile>,
}

impl Outputs {
    pub(crate) fn reserve(args: &OutputArgs, job: &Job, file: &Path) -> Result<Outputs, Failure> {
        let export_file = job.settings.export_file.as_deref();
        for path in [args.report.as_deref(), args.hlog.as_deref(), export_file].into_iter().flatten() {
            if path == file {
                return Err(Failure::usage(format!(
                    "{} is the file to work on and would be overwritten",
                    path.display()
                )));
            }
            refuse_overwriting(path, Some(file))?;
        }
        if args.report.is_some() && args.report.as_deref() == args.json.path() {
            return Err(Failure::usage("--json and --report name the same file"));
        }
        Ok(Outputs {
            json: args.json.reserve(&[file])?,
            report: args.report.as_deref().map(|path| OutputFile::reserve_for("--report", path)).transpose()?,
            export: export_file.map(|path| OutputFile::reserve_for("exportfile", path)).transpose()?,
        })
    }

    /// Shows outcomes, each with its configuration; there may be fewer of them.
    pub(crate) fn show(
        self,
        job: &Job,
        configurations: Vec<Configuration>,
        outcomes: &[PhaseOutcome],
    ) -> Result<(), Failure> {
        let mut text = String::new();
        for (configuration, outcome) in configurations.iter().zip(outcomes) {
            if configurations.len() > 1 && job.settings.exporter == Exporter::Text {
                text += &format!("# {}\n", configuration.label(&configurations));
            }
            text += &ycsb_text::render(outcome, &job.settings);
        }
        let figures = figures(job, configurations, outcomes);
        match self.export {
            Some(file) => {
                file.write_and_say(&text)?;
                self.json.show("", &figures)?;
            }
            None => self.json.show(&text, &figures)?,
        }
        for note in outcomes.iter().flat_map(|outcome| &outcome.notes) {
            console::say(&format!("note: {note}"));
        }
        if let Some(report) = self.report {
            report.write_and_say(&ycsb_report::of_run(&figures))?;
        }
        Ok(())
    }
}

fn figures<'a>(job: &'a Job, configurations: Vec<Configuration>, outcomes: &'a [PhaseOutcome]) -> Figures<'a> {
    let machine = configurations.first().map(|first| Machine::inspect(&first.file)).unwrap_or_default();
    let labels: Vec<String> = configurations.iter().map(|one| one.label(&configurations)).collect();
    let contenders = configurations.into_iter().zip(labels).zip(outcomes);
    let contenders = contenders.map(|((configuration, label), outcome)| Contender { label, configuration, outcome });
    Figures {
        mapfall_version: env!("CARGO_PKG_VERSION"),
        machine,
        label: job.settings.label.as_deref(),
        properties: job.properties.iter().collect(),
        record_bytes: job.workload.layout.record_bytes(),
        contenders: contenders.collect(),
    }
}
