//! `mapfall ycsb load`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mapfall::workload::size::ByteSize;
use mapfall::workload::ycsb::{Bare, Configuration, PageCache, PhaseKind, Table, Target, YcsbError, describe};
use mapfall::{IoMode, IoOptions};

use super::job::{self, Job};
use super::{FileArgs, OutputArgs, WorkloadArgs};
use crate::args::QUEUE_DEPTH_DEFAULT;
use crate::fail::Failure;
use crate::interrupt;
use crate::ycsb_output::Outputs;

/// What was typed after `mapfall ycsb load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    workload: WorkloadArgs,

    #[command(flatten)]
    file: FileArgs,

    /// The path of the reads; a load has few
    #[arg(long, value_name = "IO", default_value_t = IoMode::Pread)]
    io: IoMode,

    /// The length of a page of a new store [default: the record's, up to the next power of two]
    #[arg(long, value_name = "SIZE", conflicts_with = "bare")]
    page: Option<ByteSize>,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: LoadArgs) -> Result<ExitCode, Failure> {
    let job = Job::resolve(&args.workload, true)?;
    job.workload.to_load()?;
    let outputs = Outputs::reserve(&args.output, &job, args.file.path())?;
    let stop = interrupt::flag()?;
    let target = target(&args, &job)?;
    let config = job.phase(PhaseKind::Load, args.output.hlog.as_deref());
    let outcome = job::measure(&job, &target, &config, &stop)?;
    drop(target);
    let configuration = Configuration {
        file: PathBuf::from(args.file.path()),
        is_bare: args.file.is_bare(),
        io: args.io.name().to_owned(),
        cache_bytes: None,
        threads: config.threads,
        queue_depth: QUEUE_DEPTH_DEFAULT,
        page_cache: PageCache::AsIs,
    };
    let outcomes = vec![outcome];
    let code = job::ended(&outcomes, &stop);
    outputs.show(&job, vec![configuration], &outcomes)?;
    code
}

fn target(args: &LoadArgs, job: &Job) -> Result<Target, Failure> {
    let (path, layout) = (args.file.path(), job.workload.layout.clone());
    if args.file.is_bare() {
        let file = IoOptions::new().mode(args.io).write(true).create(true).open(path)?;
        return Ok(Target::Bare(Bare::new(file, layout)?));
    }
    let options = job::store_options(IoOptions::new().mode(args.io), None)?;
    if path.exists() {
        if args.page.is_some() {
            return Err(Failure::usage(format!("--page: {} is there already, and has its pages", path.display())));
        }
        let table = match describe(path) {
            Ok((found, _)) => {
                found.check_asked(&layout)?;
                Table::open(options.open(path)?)?
            }
            // One that `mapfall create` made, if nothing is in it.
            Err(YcsbError::NotLoaded { .. }) => Table::create(options.open(path)?, layout)?,
            Err(error) => return Err(error.into()),
        };
        return Ok(Target::Table(Box::new(table)));
    }
    let page_bytes = match args.page {
        Some(page) => u32::try_from(page.bytes())
            .map_err(|_| Failure::usage(format!("--page: expected 512 B to 1 MiB, found {page}")))?,
        None => layout.page_bytes(),
    };
    let store = options.page_bytes(page_bytes).create(path)?;
    match Table::create(store, layout) {
        Ok(table) => Ok(Target::Table(Box::new(table))),
        Err(error) => {
            // It is ours, and empty.
            let _ = std::fs::remove_file(path);
            Err(error.into())
        }
    }
}
