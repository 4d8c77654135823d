//! `mapfall grid-pass`, hidden: the process in limited memory that makes one pass for `mapfall grid`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mapfall::workload::grid;

use crate::fail::Failure;

/// The name of the command, for whoever starts it.
pub(crate) const NAME: &str = "grid-pass";

/// What comes after the name.
#[derive(Debug, Args)]
pub(crate) struct GridPassArgs {
    /// The file to read
    path: PathBuf,
}

pub(crate) fn run(args: &GridPassArgs) -> Result<ExitCode, Failure> {
    let served = grid::serve(&args.path, io::stdin().lock(), io::stdout().lock());
    served.map_err(|error| Failure::usage(format!("this command is for mapfall grid, which speaks to it: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
