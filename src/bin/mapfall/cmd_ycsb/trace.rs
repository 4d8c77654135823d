//! `mapfall ycsb trace`: operations to a file, and again from one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use mapfall::IoMode;
use mapfall::workload::trace::{Format, Generator, Source, TraceFile};
use mapfall::workload::ycsb::{PageCache, PhaseKind, Recording};

use super::job::{self, Job};
use super::{FileArgs, IosArg, OutputArgs, RunningArgs, WorkloadArgs};
use crate::args::distinct;
use crate::fail::{EXIT_CODES, Failure};
use crate::interrupt;
use crate::ycsb_output::Outputs;

/// As many requests of a trace are held in memory, 32 bytes each, where nothing is said.
const REQUESTS_MAX: u64 = 100_000_000;

#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Do the operations of a workload, and write each to a file: when it began, what it was, which record
    #[command(after_help = EXIT_CODES)]
    Record(RecordArgs),
    /// Do the operations of such a file again, or read the records that a trace of a cache asks for
    #[command(after_help = EXIT_CODES)]
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// Write the operations to this file
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,

    #[command(flatten)]
    workload: WorkloadArgs,

    #[command(flatten)]
    file: FileArgs,

    /// The path of the reads
    #[arg(long, value_name = "IO", default_value_t = IoMode::Pread)]
    io: IoMode,

    #[command(flatten)]
    running: RunningArgs,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The operations: a file of `trace record`, or a trace as `cache-sim` reads it, also compressed by gzip or zstd:
    /// each block it asks for is a read of the record that a hash of its number says
    #[arg(long, value_name = "FILE", required_unless_present = "generate", conflicts_with = "generate")]
    trace: Option<PathBuf>,

    /// Made-up requests instead, as `cache-sim` has them: zipf:SKEW:OBJECTS:REQUESTS, loop:.., scan-zipf:.., drift:..
    #[arg(long, value_name = "SPEC")]
    generate: Option<Generator>,

    /// How a trace of a cache is written: keys, arc, spc, oracle [default: by name and content]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,

    /// Begin each operation when it began in the recording, not as soon as the one before has ended
    #[arg(long)]
    paced: bool,

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

pub(crate) fn run(command: TraceCommand) -> Result<ExitCode, Failure> {
    match command {
        TraceCommand::Record(args) => record(args),
        TraceCommand::Replay(args) => replay(args),
    }
}

fn not_limited(running: &RunningArgs) -> Result<(), Failure> {
    match running.page_cache {
        PageCache::Limited(_) => Err(Failure::usage("--page-cache: expected as-is, warm or cold beside a trace")),
        _ => Ok(()),
    }
}

fn record(args: RecordArgs) -> Result<ExitCode, Failure> {
    not_limited(&args.running)?;
    let job = Job::resolve(&args.workload, false)?;
    let file = args.file.path().to_owned();
    job::must_exist("--store", &file)?;
    if args.trace == file {
        return Err(Failure::usage(format!("--trace: {} is the file to work on", file.display())));
    }
    crate::args::refuse_overwriting(&args.trace, Some(&file))?;
    let outputs = Outputs::reserve(&args.output, &job, &file)?;
    let stop = interrupt::flag()?;
    let configuration = job::configuration(&args.file, &args.running, args.io, job.settings.threads);
    job::prepare(&configuration, &stop)?.map_err(|reason| Failure::while_running(format!("skipped: {reason}")))?;
    let target = job::open(&job, &configuration)?;
    let mut config = job.phase(PhaseKind::Run, args.output.hlog.as_deref());
    config.warm_up = args.running.warm_up.unwrap_or(Duration::ZERO);
    config.record = Some(args.trace);
    let outcomes = vec![job::measure(&job, &target, &config, &stop)?];
    let code = job::ended(&outcomes, &stop);
    outputs.show(&job, vec![configuration], &outcomes)?;
    code
}

fn replay(args: ReplayArgs) -> Result<ExitCode, Failure> {
    not_limited(&args.running)?;
    let job = Job::resolve(&args.workload, false)?;
    let file = args.file.path().to_owned();
    job::must_exist("--store", &file)?;
    let ios = distinct(args.io.io.iter().copied());
    let outputs = Outputs::reserve(&args.output, &job, &file)?;
    let stop = interrupt::flag()?;
    let configurations: Vec<_> =
        ios.iter().map(|io| job::configuration(&args.file, &args.running, *io, job.settings.threads)).collect();
    let (mut outcomes, mut recording) = (Vec::new(), None);
    for configuration in &configurations {
        job::prepare(configuration, &stop)?.map_err(|reason| Failure::while_running(format!("skipped: {reason}")))?;
        let target = job::open(&job, configuration)?;
        let recording = match &recording {
            Some(recording) => recording,
            None => recording.insert(read(&args, &job, target.records())?),
        };
        let kind = PhaseKind::Replay { recording: recording.clone(), paced: args.paced };
        let mut config = job.phase(kind, args.output.hlog.as_deref());
        config.warm_up = args.running.warm_up.unwrap_or(Duration::ZERO);
        outcomes.push(job::measure(&job, &target, &config, &stop)?);
    }
    let code = job::ended(&outcomes, &stop);
    outputs.show(&job, configurations, &outcomes)?;
    code
}

/// The operations, as many as are asked for.
fn read(args: &ReplayArgs, job: &Job, records: u64) -> Result<Recording, Failure> {
    let count = job.workload.operation_count.unwrap_or(REQUESTS_MAX);
    let source = match (&args.trace, args.generate) {
        (Some(path), _) => {
            job::must_exist("--trace", path)?;
            if Recording::is_recorded(path) {
                let mut recording = Recording::read(path)?;
                recording.truncate(count);
                return usable(recording);
            }
            Source::Files { files: vec![TraceFile::new(path)], format: args.format, blocks: None }
        }
        (None, Some(generator)) => Source::Generated { generator, seed: job.seed() },
        (None, None) => return Err(Failure::usage("expected --trace or --generate")),
    };
    if args.paced {
        return Err(Failure::usage("--paced: a trace of a cache does not say when"));
    }
    let records = job.workload.record_count.unwrap_or(records).min(records);
    usable(Recording::of_trace(&source, records, count)?)
}

fn usable(recording: Recording) -> Result<Recording, Failure> {
    match recording.is_empty() {
        true => Err(Failure::usage("the trace has no operations")),
        false => Ok(recording),
    }
}
