//! `mapfall ycsb run`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mapfall::workload::ycsb::{PageCache, PhaseKind, PhaseOutcome};

use super::job::{self, Job};
use super::{FileArgs, IosArg, OutputArgs, RunningArgs, WorkloadArgs, child};
use crate::args::distinct;
use crate::fail::Failure;
use crate::interrupt;
use crate::ycsb_output::Outputs;

/// What was typed after `mapfall ycsb run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    workload: WorkloadArgs,

    #[command(flatten)]
    file: FileArgs,

    #[command(flatten)]
    io: IosArg,

    #[command(flatten)]
    running: RunningArgs,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let job = Job::resolve(&args.workload, false)?;
    let ios = distinct(args.io.io.iter().copied());
    if ios.len() > 1 && args.output.hlog.is_some() {
        return Err(Failure::usage("--hlog: a log is of one run: expected one of --io beside it"));
    }
    let file = args.file.path().to_owned();
    job::must_exist(if args.file.is_bare() { "--bare" } else { "--store" }, &file)?;
    let outputs = Outputs::reserve(&args.output, &job, &file)?;
    let stop = interrupt::flag()?;
    let configurations = ios.iter().map(|io| job::configuration(&args.file, &args.running, *io, job.settings.threads));
    let configurations: Vec<_> = configurations.collect();
    let mut outcomes: Vec<PhaseOutcome> = Vec::new();
    for configuration in &configurations {
        if let PageCache::Limited(_) = configuration.page_cache {
            let warm_up = args.running.warm_up.unwrap_or(Duration::ZERO);
            let run =
                child::Run { job: &job, configuration, warm_up, seed: job.seed(), hlog: args.output.hlog.as_deref() };
            // A run that cannot be is not shown as another one.
            outcomes
                .push(child::run(&run, &stop)?.map_err(|reason| Failure::while_running(format!("skipped: {reason}")))?);
            continue;
        }
        let cold = job::prepare(configuration, &stop)?;
        cold.map_err(|reason| Failure::while_running(format!("skipped: {reason}")))?;
        let target = job::open(&job, configuration)?;
        let mut config = job.phase(PhaseKind::Run, args.output.hlog.as_deref());
        config.warm_up = args.running.warm_up.unwrap_or(Duration::ZERO);
        outcomes.push(job::measure(&job, &target, &config, &stop)?);
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
    }
    let code = job::ended(&outcomes, &stop);
    outputs.show(&job, configurations, &outcomes)?;
    code
}
