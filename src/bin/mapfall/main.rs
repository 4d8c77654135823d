//! The command line of mapfall.

mod args;
mod cache_sim_report;
mod cache_sim_text;
mod cmd_cache_sim;
mod cmd_compact;
mod cmd_create;
mod cmd_dump;
mod cmd_grid;
mod cmd_grid_pass;
mod cmd_info;
mod cmd_salvage;
mod cmd_torture;
mod cmd_verify;
mod cmd_ycsb;
mod console;
mod explained;
mod fail;
mod interrupt;
mod json;
mod listing;
mod method;
mod numbers;
mod output_file;
mod progress;
mod report;
mod store_json;
mod store_text;
mod table;
mod ycsb_compared;
mod ycsb_output;
mod ycsb_report;
mod ycsb_text;

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
    let cli = match Cli::try_parse_from(cmd_ycsb::spelled(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return Err(Failure::usage(args::one_line(&error))),
        // Help or the version, asked for.
        Err(error) => {
            console::write(error.render().to_string().as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    start_log(&cli.command)?;
    match cli.command {
        Command::Grid(args) => cmd_grid::run(args),
        Command::GridPass(args) => cmd_grid_pass::run(&args),
        Command::CacheSim(args) => cmd_cache_sim::run(args),
        Command::Create(args) => cmd_create::run(&args),
        Command::Info(args) => cmd_info::run(&args),
        Command::Verify(args) => cmd_verify::run(&args),
        Command::Salvage(args) => cmd_salvage::run(&args),
        Command::Compact(args) => cmd_compact::run(&args),
        Command::Dump(args) => cmd_dump::run(&args),
        Command::Ycsb(args) => cmd_ycsb::run(args),
        Command::Torture(args) => cmd_torture::run(args),
        Command::TortureChanger(args) => cmd_torture::change(&args),
    }
}

/// Log lines go to standard error, those that `MAPFALL_LOG` asks for; by default warnings and errors. What simulated
/// devices do to stores is no news.
fn start_log(command: &Command) -> Result<(), Failure> {
    const VARIABLE: &str = "MAPFALL_LOG";
    let filter = match std::env::var(VARIABLE) {
        Ok(text) => EnvFilter::try_new(&text)
            .map_err(|error| Failure::usage(format!("{VARIABLE}: expected a filter such as mapfall=debug: {error}")))?,
        Err(_) if command.simulates() => return Ok(()),
        Err(_) => EnvFilter::new("warn"),
    };
    let stderr = std::io::stderr;
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(stderr().is_terminal()).with_writer(stderr).init();
    Ok(())
}
