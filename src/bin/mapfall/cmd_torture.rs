//! `mapfall torture`: attacks on what the library promises.

mod file;
mod sim;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::fail::{EXIT_CODES, Failure};

pub(crate) use file::{ChangerArgs, change};

/// What was typed after `mapfall torture`.
#[derive(Debug, Args)]
pub(crate) struct TortureArgs {
    #[command(subcommand)]
    command: TortureCommand,
}

#[derive(Debug, Subcommand)]
enum TortureCommand {
    /// A file that another process cuts, grows, punches and rewrites under its readers: every read is checked
    #[command(after_long_help = file::HELP, after_help = EXIT_CODES)]
    File(file::FileArgs),
    /// A store on a simulated file, decided by seeds: crashes, faults, interleavings, and what must come of them
    #[command(after_long_help = sim::HELP, after_help = EXIT_CODES)]
    Sim(sim::SimArgs),
}

impl TortureArgs {
    pub(crate) fn simulates(&self) -> bool {
        matches!(self.command, TortureCommand::Sim(_))
    }
}

pub(crate) fn run(args: TortureArgs) -> Result<ExitCode, Failure> {
    match args.command {
        TortureCommand::File(args) => file::run(&args),
        TortureCommand::Sim(args) => sim::run(&args),
    }
}
