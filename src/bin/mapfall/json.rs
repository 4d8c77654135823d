//! `--json`: the figures for programs, in a file or on standard output.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::args::refuse_overwriting;
use crate::console;
use crate::fail::Failure;
use crate::output_file::OutputFile;

/// What stands for standard output.
const STDOUT: &str = "-";

/// The option, as the store's commands have it.
#[derive(Debug, Args)]
pub(crate) struct JsonArg {
    /// Write all figures to this file, or to standard output (-) instead of the text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl JsonArg {
    pub(crate) fn path(&self) -> Option<&Path> {
        self.json.as_deref()
    }

    /// Reserves the place. `files` are what the command reads or writes, and are not to be replaced.
    pub(crate) fn reserve(&self, files: &[&Path]) -> Result<JsonOutput, Failure> {
        if let Some(json) = &self.json {
            for file in files {
                if json == file {
                    return Err(Failure::usage(format!("--json names {}", file.display())));
                }
                refuse_overwriting(json, Some(file))?;
            }
        }
        JsonOutput::reserve(self.json.as_deref())
    }
}

/// Where the figures go.
#[derive(Debug)]
pub(crate) enum JsonOutput {
    Nowhere,
    Stdout,
    File(OutputFile),
}

impl JsonOutput {
    pub(crate) fn reserve(path: Option<&Path>) -> Result<Self, Failure> {
        Ok(match path {
            None => JsonOutput::Nowhere,
            Some(path) if path == Path::new(STDOUT) => JsonOutput::Stdout,
            Some(path) => JsonOutput::File(OutputFile::reserve_for("--json", path)?),
        })
    }

    /// Shows a result: the text, unless standard output is for the figures, and the figures.
    pub(crate) fn show(self, text: &str, figures: &impl Serialize) -> Result<(), Failure> {
        let make = || {
            let json = serde_json::to_string_pretty(figures);
            let json = json.map_err(|error| Failure::while_running(format!("cannot make the JSON: {error}")));
            json.map(|json| json + "\n")
        };
        match self {
            JsonOutput::Nowhere => console::write(text.as_bytes()).map(|_| ()),
            JsonOutput::Stdout => console::write(make()?.as_bytes()).map(|_| ()),
            JsonOutput::File(output) => {
                let shown = console::write(text.as_bytes());
                output.write_and_say(&make()?)?;
                shown.map(|_| ())
            }
        }
    }
}
