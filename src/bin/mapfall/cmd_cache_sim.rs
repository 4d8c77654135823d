//! `mapfall cache-sim`: a trace through caches of several policies and sizes, without the blocks.

use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use clap::Args;
use mapfall::CachePolicy;
use mapfall::workload::cache_sim::{self, CacheSize, Config};
use mapfall::workload::content;
use mapfall::workload::size::ByteSize;
use mapfall::workload::trace::{Blocks, Format, Generator, Source, TraceFile};
use tempfile::NamedTempFile;

use crate::args::{distinct, refuse_overwriting};
use crate::fail::{self, Failure};
use crate::json::JsonArg;
use crate::output_file::OutputFile;
use crate::progress::SimProgress;
use crate::{cache_sim_report, cache_sim_text, console, interrupt};

/// The report's name where none is given.
const DEFAULT_REPORT: &str = "mapfall-cache-sim.html";
/// What stands for standard input.
const STDIN: &str = "-";

/// What was typed after `mapfall cache-sim`.
#[derive(Debug, Args)]
pub(crate) struct CacheSimArgs {
    /// Requests from this file, or from standard input (-), also compressed by gzip or zstd; several files are gone
    /// through one after another
    #[arg(long, value_name = "FILE", required_unless_present = "generate", conflicts_with = "generate")]
    trace: Vec<PathBuf>,

    /// Made-up requests instead: zipf:SKEW:OBJECTS:REQUESTS, loop:.., scan-zipf:.., drift:.. (see below)
    #[arg(long, value_name = "SPEC")]
    generate: Option<Generator>,

    /// How traces are written: keys, arc, spc, oracle (see below) [default: by name and content]
    #[arg(long, value_name = "FORMAT", conflicts_with = "generate")]
    format: Option<Format>,

    /// Blocks that requests of arc and spc traces are taken apart into [default: 512 for arc, 4KiB for spc]
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["generate", "whole"])]
    block_size: Option<ByteSize>,

    /// Take requests of arc and spc traces as one object each, known by its address
    #[arg(long, conflicts_with = "generate")]
    whole: bool,

    /// Policies [default: all]
    #[arg(long, value_name = "POLICY,..", value_delimiter = ',')]
    policy: Vec<CachePolicy>,

    /// Sizes of the caches: parts of the footprint (the sum of all distinct objects), bytes (64MiB), objects (1000obj)
    #[arg(long, value_name = "SIZE,..", value_delimiter = ',', default_value = "0.1%,0.5%,1%,2%,5%,10%,20%,50%")]
    size: Vec<CacheSize>,

    /// Let each object count as one even where the trace has sizes
    #[arg(long)]
    ignore_sizes: bool,

    /// Share of the requests that fill the caches before anything is counted, from 0 to below 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_warmup)]
    warmup: f64,

    /// What made-up requests are made from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    #[command(flatten)]
    json: JsonArg,

    /// Write the report to this file [default: mapfall-cache-sim.html]
    #[arg(long, alias = "output", value_name = "FILE.html", conflicts_with = "no_report")]
    report: Option<PathBuf>,

    /// Write no report
    #[arg(long)]
    no_report: bool,
}

/// What stands below the options.
pub(crate) const HELP: &str = "\
Formats of traces (--format):
  keys    a key a line, number or name; in a trace with sizes KEY,BYTES. Blank lines and lines
          that begin with # are passed over, in arc and spc too
  arc     START COUNT IGNORED NUMBER a line, in sectors of 512 bytes: P1.lis and others of the
          ARC paper
  spc     ASU,LBA,BYTES,OPCODE,TIME a line, the address in sectors of 512 bytes: the traces of
          UMass; reads and writes count alike
  oracle  libCacheSim's oracleGeneral: little-endian records of 24 bytes (time u32, object u64,
          size u32, next request i64)
  Requests for 0 bytes are left out, and counted. Standard input and pipes are copied to a
  temporary file, since a trace is gone through twice.

Made-up requests (--generate), without sizes:
  zipf:SKEW:OBJECTS:REQUESTS
          the n-th most popular object has a chance as 1/n^SKEW
  loop:OBJECTS:REQUESTS
          all objects in order, over and over
  scan-zipf:SKEW:OBJECTS:REQUESTS[:SHARE]
          zipf, and scans of objects that never come again, which are SHARE of all requests
          [default: 0.25]
  drift:OBJECTS:REQUESTS[:WINDOW]
          any of WINDOW objects, which move on from the first to the last
          [default: a hundredth of OBJECTS]

What is simulated:
  One cache without shards or threads. A hit costs nothing, a miss brings the object in, if it is
  not larger than the cache. A capacity in bytes is that of the objects alone. An object keeps
  the size that it came in with.

JSON (--json):
  complete, config, trace (requests, objects, footprint_bytes, ..), counted_requests,
  cold_misses, cold_miss_ratio, interval_ends, results, notes, survey_s, simulate_s. Each of
  results is a policy at a size: policy, size, capacity (bytes or objects, as config.counted
  says), hits, hit_ratio, hit_bytes, byte_hit_ratio, hit_ratio_over_lru, evictions, too_large,
  refusals, ghost_hits, policy_memory_bytes, interval_miss_ratios (at interval_ends, from the
  first request on). What a trace does not have is null.
";

pub(crate) fn run(args: CacheSimArgs) -> Result<ExitCode, Failure> {
    let files: Vec<&Path> = args.trace.iter().map(PathBuf::as_path).filter(|path| !is_stdin(path)).collect();
    if args.trace.len() - files.len() > 1 {
        return Err(Failure::usage("--trace: standard input can be gone through only once"));
    }
    let json = args.json.reserve(&files)?;
    let report_path = (!args.no_report).then(|| args.report.clone().unwrap_or_else(|| DEFAULT_REPORT.into()));
    for file in &files {
        report_path.iter().try_for_each(|path| refuse_overwriting(path, Some(file)))?;
    }
    if report_path.is_some() && args.json.path() == report_path.as_deref() {
        return Err(Failure::usage("--json and --report name the same file"));
    }
    let blocks = blocks(&args)?;
    let report = report_path.map(|path| OutputFile::reserve_for("--report", &path)).transpose()?;
    let stop = interrupt::flag()?;
    // They live as long as they are read.
    let mut copies = Vec::new();
    let source = match args.generate {
        Some(generator) => Source::Generated { generator, seed: args.seed },
        None => {
            let files = args.trace.iter().map(|path| trace_file(path, &stop, &mut copies));
            Source::Files { files: files.collect::<Result<_, _>>()?, format: args.format, blocks }
        }
    };
    let policies = if args.policy.is_empty() { CachePolicy::ALL.to_vec() } else { distinct(args.policy) };
    let config = Config { source, policies, sizes: args.size, warmup: args.warmup, ignore_sizes: args.ignore_sizes };
    let mut progress = SimProgress::new(&config);
    let outcome = cache_sim::run(&config, &stop, &mut |event| progress.hear(event));
    progress.finish();
    let outcome = outcome?;
    json.show(&cache_sim_text::render(&outcome), &outcome)?;
    if let Some(output) = report {
        output.write_and_say(&cache_sim_report::render(&outcome))?;
    }
    Ok(if outcome.complete { ExitCode::SUCCESS } else { fail::interrupted() })
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new(STDIN)
}

fn blocks(args: &CacheSimArgs) -> Result<Option<Blocks>, Failure> {
    if args.whole {
        return Ok(Some(Blocks::Whole));
    }
    let Some(size) = args.block_size else { return Ok(None) };
    let whole_sectors = size.bytes().is_multiple_of(512);
    let bytes = NonZeroU64::new(size.bytes()).filter(|_| whole_sectors);
    let bytes =
        bytes.ok_or_else(|| Failure::usage(format!("--block-size: expected a multiple of 512 B, found {size}")))?;
    Ok(Some(Blocks::Each { bytes }))
}

/// A trace as it can be read twice: what is no regular file is copied first.
fn trace_file(path: &Path, stop: &AtomicBool, copies: &mut Vec<NamedTempFile>) -> Result<TraceFile, Failure> {
    let name = if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() };
    if !is_stdin(path) {
        let metadata = fs::metadata(path);
        let metadata = metadata.map_err(|error| Failure::usage(format!("--trace: cannot open {name}: {error}")))?;
        if metadata.is_file() || metadata.is_dir() {
            return Ok(TraceFile { path: path.to_owned(), name });
        }
    }
    let dir = content::default_dir();
    let copy = tempfile::Builder::new().prefix("mapfall-trace-").suffix(".tmp").tempfile_in(&dir);
    let failed = |error: io::Error| Failure::while_running(format!("cannot copy {name} to {}: {error}", dir.display()));
    let copy = copy.map_err(failed)?;
    let mut file = copy.as_file().try_clone().map_err(failed)?;
    let pipe = (!is_stdin(path)).then(|| path.to_owned());
    console::say(&format!("copying {name} to a temporary file in {}", dir.display()));
    let copied = interrupt::unless_interrupted(stop, move || {
        // Opening a named pipe waits for its writer.
        let mut input: Box<dyn Read> = match pipe {
            Some(path) => Box::new(File::open(path)?),
            None => Box::new(io::stdin().lock()),
        };
        io::copy(&mut input, &mut file)
    });
    copied?.map_err(failed)?;
    let path = copy.path().to_owned();
    copies.push(copy);
    Ok(TraceFile { path, name })
}

fn parse_warmup(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| format!("expected a share from 0 to below 1, found {text:?}"))
}
