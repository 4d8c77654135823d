//! `mapfall torture sim`: seeds of the simulator.

use std::fmt::Write;
use std::process::ExitCode;
use std::thread;

use clap::Args;
use mapfall::workload::torture::sim::{self, Config, Failure as FailedSeed, Outcome};

use crate::fail::{self, Failure};
use crate::json::JsonArg;
use crate::numbers::seconds;
use crate::{interrupt, progress};

/// Operations of a seed, at most: a plan is in memory.
const OPS_MAX: i64 = 1_000_000;

pub(crate) const HELP: &str = "\
What a seed is:
  A store on a simulated file, one to three clients, and what goes wrong: crashes, errors of the
  system, full disks, lost, torn and misdirected writes, bits that flip, a file that is cut. The
  store must survive it, or find the damage and say so; a wrong byte is a failure (exit code 3).
  A seed makes the same calls in the same order each time; a failing one is shrunk, and
  --first-seed N --seeds 1 with the same --ops does it again.

JSON (--json):
  complete, first_seed, seeds, ops, faults, crashes, opened, fatal, hash, seconds, failures,
  failure (seed, problem, hash, size, shrunk_size, shrunk_problem, shrunk_plan)";

/// What was typed after `mapfall torture sim`.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// Operations of each
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=OPS_MAX))]
    ops: u32,

    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_seed: u64,

    /// Threads, each with seeds of its own [default: as many as processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,

    #[command(flatten)]
    json: JsonArg,
}

pub(crate) fn run(args: &SimArgs) -> Result<ExitCode, Failure> {
    let json = args.json.reserve(&[])?;
    let stop = interrupt::flag()?;
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let config = Config {
        first_seed: args.first_seed,
        seeds: args.seeds,
        ops: args.ops as usize,
        threads: args.threads.map_or_else(processors, usize::from),
    };
    // A panic is a finding, and is told as one.
    std::panic::set_hook(Box::new(|_| ()));
    let bar = progress::seeds(args.seeds);
    let outcome = sim::run(&config, &stop, &|done| bar.set_position(done));
    bar.finish_and_clear();
    drop(std::panic::take_hook());
    json.show(&text(&outcome), &outcome)?;
    Ok(match (outcome.failures, outcome.complete) {
        (0, true) => ExitCode::SUCCESS,
        (0, false) => fail::interrupted(),
        _ => fail::damaged(),
    })
}

fn text(outcome: &Outcome) -> String {
    let Outcome { first_seed, seeds, ops, faults, crashes, opened, fatal, hash, .. } = outcome;
    let mut text = String::new();
    let (taken, rate) = (seconds(outcome.seconds), *seeds as f64 / outcome.seconds.max(1e-9));
    let _ = writeln!(text, "{seeds} seeds from {first_seed}, {ops} operations each, in {taken} s ({rate:.0} a second)");
    let _ = writeln!(
        text,
        "  {faults} faults, {crashes} crashes; {opened} stores opened and examined, {fatal} damaged beyond that"
    );
    let _ = writeln!(text, "  hash of all runs {hash:016x}");
    match &outcome.failure {
        None => text + "no failures\n",
        Some(failure) => text + &describe(failure, *ops),
    }
}

fn describe(failure: &FailedSeed, ops: usize) -> String {
    let FailedSeed { seed, problem, hash, size, shrunk_size, shrunk_problem, shrunk_plan, .. } = failure;
    format!(
        "FAILED: seed {seed}: {problem}\n  again: mapfall torture sim --first-seed {seed} --seeds 1 --ops {ops} (hash \
         {hash:016x})\nfrom {} operations and {} faults to {} and {}: {shrunk_problem}\n{shrunk_plan}",
        size.0, size.1, shrunk_size.0, shrunk_size.1
    )
}
