//! `mapfall ycsb compare`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use clap::Args;
use mapfall::IoMode;
use mapfall::workload::cache_state::FileCache;
use mapfall::workload::machine::Machine;
use mapfall::workload::size::ByteSize;
use mapfall::workload::ycsb::{Configuration, PageCache, PhaseOutcome, THREADS_MAX};

use super::job::{self, Job};
use super::{WorkloadArgs, child};
use crate::args::{QUEUE_DEPTH_DEFAULT, distinct, parse_duration, parse_queue_depth, refuse_overwriting};
use crate::fail::{self, Failure};
use crate::json::JsonArg;
use crate::output_file::OutputFile;
use crate::ycsb_compared::{Compared, Comparison};
use crate::{console, interrupt, ycsb_compared, ycsb_report};

const DEFAULT_REPORT: &str = "mapfall-ycsb.html";

/// What stands below the options.
pub(super) const HELP: &str = "\
How it is compared:
  Every combination of --store, --io, --cache, --threads, --queue-depth and --page-cache is a
  configuration. In each round each of them does the workload once, in a process of its own, in an
  order that is rotated from round to round; all of a round have the same seed. Ratios are made
  pair by pair within the rounds, to the first configuration with the same --page-cache. The
  interval is Student's for the mean of the logarithms, widened for the number of comparisons, so
  that all of them hold together at 95 %. Where it has 1 in it no difference is called one, nor
  from fewer than 3 rounds.

State of the page cache:
  warm is every byte of the file, verified; the file is dropped first and brought in through a map
  that asks for 2 MiB pages. cold is no byte, verified; opening the store then reads the index.
  limited:PART is cold, and a memory control group around the process has room for this part of the
  file beside the index and 48 MiB for the process; a block cache comes out of that part. What a
  machine does not allow is skipped, and said.

Block sizes:
  A store has pages of one length: load several, and name them all: --store 4k.store,16k.store
";

/// What was typed after `mapfall ycsb compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    workload: WorkloadArgs,

    /// Stores that were loaded alike
    #[arg(long, value_name = "FILE,..", value_delimiter = ',')]
    store: Vec<PathBuf>,

    /// Bare files that were loaded alike
    #[arg(long, value_name = "FILE,..", value_delimiter = ',')]
    bare: Vec<PathBuf>,

    /// Paths of the reads, by the names of the I/O modes
    #[arg(long, value_name = "IO,..", value_delimiter = ',', default_value = "pread,mmap")]
    io: Vec<IoMode>,

    /// Block caches of these sizes, or none; bare files have none
    #[arg(long, value_name = "SIZE|none,..", value_delimiter = ',', default_value = "none")]
    cache: Vec<CacheArg>,

    /// Reads of a scan that may be under way at a time, on the paths that go to depth: uring, direct, auto
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [QUEUE_DEPTH_DEFAULT])]
    #[arg(value_parser = parse_queue_depth())]
    queue_depth: Vec<u32>,

    /// Where the data is: as-is, warm, cold, limited:PART
    #[arg(long, value_name = "STATE,..", value_delimiter = ',', default_value = "warm")]
    page_cache: Vec<PageCache>,

    /// How often each configuration does the workload
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Do operations for so long before the clock starts
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    warm_up: Option<Duration>,

    #[command(flatten)]
    json: JsonArg,

    /// Write the report to this file [default: mapfall-ycsb.html]
    #[arg(long, value_name = "FILE.html", conflicts_with = "no_report")]
    report: Option<PathBuf>,

    /// Write no report
    #[arg(long)]
    no_report: bool,
}

/// `64MiB`, or `none`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct CacheArg(Option<u64>);

impl FromStr for CacheArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(CacheArg(None)),
            size => size.parse().map(|size: ByteSize| CacheArg(Some(size.bytes()))).map_err(|error| error.to_string()),
        }
    }
}

pub(crate) fn run(mut args: CompareArgs) -> Result<ExitCode, Failure> {
    let threads = threads(args.workload.threads.take())?;
    let job = Job::resolve(&args.workload, false)?;
    let threads = if threads.is_empty() { vec![job.settings.threads] } else { threads };
    let configurations = configurations(&args, &threads)?;
    let files: Vec<_> = distinct(configurations.iter().map(|one| one.file.as_path()));
    let report_path = (!args.no_report).then(|| args.report.clone().unwrap_or_else(|| DEFAULT_REPORT.into()));
    for file in &files {
        report_path.iter().try_for_each(|path| refuse_overwriting(path, Some(file)))?;
    }
    let json = args.json.reserve(&files)?;
    let report = report_path.map(|path| OutputFile::reserve_for("--report", &path)).transpose()?;
    // What a child would refuse is refused before anything takes its time.
    for one in distinct(configurations.iter().map(|one| Configuration { page_cache: PageCache::AsIs, ..one.clone() })) {
        job::open(&job, &one)?;
    }
    let stop = interrupt::flag()?;
    warm_afresh(&configurations, &stop)?;
    let machine = Machine::inspect(&configurations[0].file);
    let mut compared: Vec<Compared> = configurations.iter().map(|one| Compared::new(one, &configurations)).collect();
    let rounds = usize::from(args.rounds);
    for round in 0..rounds {
        for turn in 0..compared.len() {
            let place = (turn + round) % configurations.len();
            if compared[place].skipped.is_some() || stop.load(Relaxed) {
                continue;
            }
            console::say(&format!("round {} of {rounds}: {}", round + 1, compared[place].label));
            match one(&job, &args, &configurations[place], round, &stop) {
                Ok(Ok(outcome)) => compared[place].outcomes.push(outcome),
                Ok(Err(reason)) => {
                    console::say(&format!("skipped {}: {reason}", compared[place].label));
                    compared[place].skipped = Some(reason);
                }
                Err(_) if stop.load(Relaxed) => {}
                Err(failure) => return Err(failure),
            }
        }
    }
    let is_complete = !stop.load(Relaxed);
    if compared.iter().all(|one| one.outcomes.is_empty()) && !is_complete {
        return Err(Failure::interrupted());
    }
    let comparison = Comparison::new(&job, machine, rounds, is_complete, compared);
    json.show(&ycsb_compared::render(&comparison), &comparison)?;
    if let Some(report) = report {
        report.write_and_say(&ycsb_report::of_comparison(&comparison))?;
    }
    let failed: u64 = comparison.contenders.iter().flat_map(|one| &one.outcomes).map(|outcome| outcome.failed).sum();
    match (is_complete, failed) {
        (false, _) => Ok(fail::interrupted()),
        (true, 0) => Ok(ExitCode::SUCCESS),
        (true, failed) => Err(Failure::while_running(format!("{failed} operations failed"))),
    }
}

fn one(
    job: &Job,
    args: &CompareArgs,
    configuration: &Configuration,
    round: usize,
    stop: &AtomicBool,
) -> Result<Result<PhaseOutcome, String>, Failure> {
    let (warm_up, seed) = (args.warm_up.unwrap_or(Duration::ZERO), job.seed().wrapping_add(round as u64));
    child::run(&child::Run { job, configuration, warm_up, seed, hlog: None }, stop)
}

fn threads(words: Option<String>) -> Result<Vec<usize>, Failure> {
    let words = words.unwrap_or_default();
    let parse = |word: &str| {
        let threads = word.trim().parse().ok().filter(|threads| (1..=THREADS_MAX).contains(threads));
        let expected = format!("--threads: expected numbers from 1 to {THREADS_MAX} with commas, found {word:?}");
        threads.ok_or_else(|| Failure::usage(expected))
    };
    let threads: Result<Vec<_>, _> = words.split(',').filter(|word| !word.is_empty()).map(parse).collect();
    Ok(distinct(threads?))
}

/// Every combination, those of a state of the page cache beside each other.
fn configurations(args: &CompareArgs, threads: &[usize]) -> Result<Vec<Configuration>, Failure> {
    let files: Vec<_> =
        args.store.iter().map(|path| (path, false)).chain(args.bare.iter().map(|path| (path, true))).collect();
    if files.is_empty() {
        return Err(Failure::usage("expected --store or --bare"));
    }
    for (path, is_bare) in &files {
        job::must_exist(if *is_bare { "--bare" } else { "--store" }, path)?;
    }
    let mut all = Vec::new();
    for page_cache in distinct(args.page_cache.iter().copied()) {
        for (file, is_bare) in &files {
            for cache in distinct(args.cache.iter().copied()) {
                for io in distinct(args.io.iter().copied()) {
                    let each = threads.iter().flat_map(|threads| args.queue_depth.iter().map(move |d| (*threads, *d)));
                    all.extend(each.map(|(threads, queue_depth)| Configuration {
                        file: (*file).clone(),
                        is_bare: *is_bare,
                        io: io.name().to_owned(),
                        cache_bytes: cache.0.filter(|_| !is_bare),
                        threads,
                        queue_depth,
                        page_cache,
                    }));
                }
            }
        }
    }
    let all = distinct(all);
    if all.len() < 2 {
        return Err(Failure::usage(
            "expected at least two configurations, found one: give --io, --cache, .. more values",
        ));
    }
    Ok(all)
}

/// All files in the same pages, whatever they were brought in by before.
fn warm_afresh(configurations: &[Configuration], stop: &AtomicBool) -> Result<(), Failure> {
    let warm = configurations.iter().filter(|one| one.page_cache == PageCache::Warm);
    for file in distinct(warm.map(|one| &one.file)) {
        if let Err(reason) = FileCache::open(file, true)?.warm_afresh(stop)? {
            console::say(&format!("note: {}: {reason}", file.display()));
        }
    }
    Ok(())
}
