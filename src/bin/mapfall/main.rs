//! The command line of mapfall.

mod args;
mod cmd_grid;
mod console;
mod fail;
mod interrupt;
mod method;
mod numbers;
mod output_file;
mod progress;
mod report;
mod table;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};
use fail::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(failure) => {
            console::error(&failure.message);
            failure.code
        }
    }
}

fn run() -> Result<ExitCode, Failure> {
    start_log()?;
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return Err(Failure::usage(args::one_line(&error))),
        // Help or the version, asked for.
        Err(error) => {
            console::text(&error.render().to_string());
            return Ok(ExitCode::SUCCESS);
        }
    };
    match cli.command {
        Command::Grid(args) => cmd_grid::run(args),
    }
}

/// Log lines go to standard error, those that `MAPFALL_LOG` asks for; by default warnings and errors.
fn start_log() -> Result<(), Failure> {
    const VARIABLE: &str = "MAPFALL_LOG";
    let filter = match std::env::var(VARIABLE) {
        Ok(text) => EnvFilter::try_new(&text)
            .map_err(|error| Failure::usage(format!("{VARIABLE}: expected a filter such as mapfall=debug: {error}")))?,
        Err(_) => EnvFilter::new("warn"),
    };
    let stderr = std::io::stderr;
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(stderr().is_terminal()).with_writer(stderr).init();
    Ok(())
}
