//! `mapfall ycsb`: YCSB's workloads on a store, or on the bare I/O layer.

mod child;
mod compare;
mod job;
mod load;
mod run;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use mapfall::IoMode;
use mapfall::workload::size::ByteSize;
use mapfall::workload::ycsb::{CheckpointEvery, PageCache};

use crate::args::{QUEUE_DEPTH_DEFAULT, parse_duration, parse_queue_depth};
use crate::fail::{EXIT_CODES, Failure};
use crate::json::JsonArg;

pub(crate) use job::Job;

/// What was typed after `mapfall ycsb`.
#[derive(Debug, Args)]
pub(crate) struct YcsbArgs {
    #[command(subcommand)]
    command: YcsbCommand,
}

#[derive(Debug, Subcommand)]
enum YcsbCommand {
    /// Insert the records of a workload, into a new store, an empty one, or one that has such records
    #[command(after_long_help = HELP, after_help = EXIT_CODES)]
    Load(load::LoadArgs),
    /// Do the operations of a workload, by each of --io in turn
    #[command(after_long_help = HELP, after_help = EXIT_CODES)]
    Run(run::RunArgs),
    /// Which is faster? Several configurations on the same store, their runs interleaved over rounds
    #[command(after_long_help = compare::HELP, after_help = EXIT_CODES)]
    Compare(compare::CompareArgs),
    /// Record the operations of a run to a file, or do those of a file again
    #[command(subcommand)]
    Trace(trace::TraceCommand),
}

/// What is done, as all of the commands have it.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkloadArgs {
    /// Properties from this file; of several, the last that has a name counts
    #[arg(short = 'P', long = "properties", value_name = "FILE")]
    properties: Vec<PathBuf>,

    /// A property, over those of files
    #[arg(short = 'p', long = "property", value_name = "NAME=VALUE")]
    property: Vec<String>,

    /// Threads that do operations; also -threads [default: threadcount, else 1]
    #[arg(long, value_name = "N")]
    threads: Option<String>,

    /// Operations a second of all threads together; also -target [default: target, else as many as there can be]
    #[arg(long, value_name = "OPS")]
    target: Option<String>,

    /// Show how it stands every status.interval seconds (10)
    #[arg(short = 's', long)]
    status: bool,

    /// Make a checkpoint every so many operations (100000ops) or so much time (5s), beside the one at the end
    #[arg(long, value_name = "N", value_parser = parse_every)]
    checkpoint_every: Option<CheckpointEvery>,

    /// How long the stretches of the time series are
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    interval: Duration,

    /// What chance begins from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// What is driven.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct FileArgs {
    /// The store
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,

    /// Records one behind another in this file instead, by the I/O layer alone: no keys, no checkpoints
    #[arg(long, value_name = "FILE")]
    bare: Option<PathBuf>,
}

/// Where figures go.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    #[command(flatten)]
    pub(crate) json: JsonArg,

    /// Write the report to this file
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,

    /// Write all latencies to this file, an interval log of HdrHistogram
    #[arg(long, value_name = "FILE.hlog")]
    pub(crate) hlog: Option<PathBuf>,
}

/// How a run is done beside its workload.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunningArgs {
    /// Do operations for so long before the clock starts
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    warm_up: Option<Duration>,

    /// Where the data is when it begins: as-is, warm, cold, limited:PART (cold, and memory for this part of it only)
    #[arg(long, value_name = "STATE", default_value = "as-is")]
    page_cache: PageCache,

    /// A block cache of this size; it goes with --store
    #[arg(long, value_name = "SIZE", conflicts_with = "bare")]
    cache: Option<ByteSize>,

    /// Reads of a scan that may be under way at a time, on the paths that go to depth: uring, direct, auto
    #[arg(long, value_name = "N", default_value_t = QUEUE_DEPTH_DEFAULT, value_parser = parse_queue_depth())]
    queue_depth: u32,
}

/// `--io`, where there may be several.
#[derive(Clone, Debug, Args)]
pub(crate) struct IosArg {
    /// Paths of the reads, by the names of the I/O modes
    #[arg(long, value_name = "IO,..", value_delimiter = ',', default_value = "pread,mmap")]
    io: Vec<IoMode>,
}

/// What stands below the options.
const HELP: &str = "\
Records:
  A record is one page of the store, or several. Its key is YCSB's, and is found by an index that
  is kept in the store and, while that is open, in memory. An update writes one field, so it reads
  the record first, unless writeallfields=true or fieldcount=1. With dataintegrity=true every byte
  that was read is looked at; load and run must agree on it. At the end of a load and of a run that
  writes there is a checkpoint, which is not part of the run time ([CLEANUP]).

Properties:
  Those of YCSB's core workload and measurements, each obeyed or refused by name. Beside them:
  zipfianconstant=X  the exponent of zipfian and latest (0.99)
  requestdistribution=plainzipfian|constant  ranks that are not scattered, the first record alone
  keyprefix, table, minscanlength as in later versions of YCSB

Latencies:
  In microseconds, of nanoseconds with three digits. With a target [READ] is from when an operation
  began, and [Intended-READ] from when it should have: the time that it waited for others counts.
  The read and the update of a READ-MODIFY-WRITE should have begun when that should have.
  Without one, measurement.interval=both shows [Corrected-READ], in which a thread's operations
  should have begun at the mean time from one to the next.";

pub(crate) fn run(args: YcsbArgs) -> Result<ExitCode, Failure> {
    match args.command {
        YcsbCommand::Load(args) => load::run(args),
        YcsbCommand::Run(args) => run::run(args),
        YcsbCommand::Compare(args) => compare::run(args),
        YcsbCommand::Trace(command) => trace::run(command),
    }
}

/// `100000ops`, or a time.
fn parse_every(text: &str) -> Result<CheckpointEvery, String> {
    let wrong = || format!("expected a number of operations such as 100000ops or a time such as 5s, found {text:?}");
    match text.strip_suffix("ops") {
        Some(count) => {
            let count = count.parse().ok().filter(|count| *count > 0);
            count.map(CheckpointEvery::Operations).ok_or_else(wrong)
        }
        None => parse_duration(text).map(CheckpointEvery::Time).map_err(|_| wrong()),
    }
}

/// YCSB's own spelling of options, in which a word stands behind one dash.
pub(crate) fn spelled(arguments: impl Iterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<_> = arguments.collect();
    if arguments.get(1).is_some_and(|command| command == "ycsb") {
        for argument in &mut arguments {
            if argument == "-threads" || argument == "-target" {
                let mut spelled = std::ffi::OsString::from("-");
                spelled.push(&*argument);
                *argument = spelled;
            }
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ycsbs_spelling_is_known() {
        let words = |words: &[&str]| spelled(words.iter().map(std::ffi::OsString::from));
        assert_eq!(words(&["mapfall", "ycsb", "run", "-threads", "4"]), ["mapfall", "ycsb", "run", "--threads", "4"]);
        assert_eq!(words(&["mapfall", "grid", "-threads"]), ["mapfall", "grid", "-threads"]);
    }

    #[test]
    fn checkpoints_come_by_count_or_time() {
        assert_eq!(parse_every("500ops"), Ok(CheckpointEvery::Operations(500)));
        assert_eq!(parse_every("2s"), Ok(CheckpointEvery::Time(Duration::from_secs(2))));
        assert!(parse_every("0ops").is_err() && parse_every("500").is_err());
    }
}
