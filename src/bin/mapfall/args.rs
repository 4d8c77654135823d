//! What was typed ([`Cli`]), and what `mapfall grid` will do ([`GridPlan`]): two types, and the way from one to the
//! other. The store's commands have what was typed beside what they do.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use mapfall::workload::cache_state::{CacheState, parse_percent};
use mapfall::workload::contender::Io;
use mapfall::workload::content;
pub(crate) use mapfall::workload::duration::parse_duration;
use mapfall::workload::outcome::LimitChange;
use mapfall::workload::pattern::Pattern;
use mapfall::workload::size::ByteSize;
use mapfall::{Advice, BlockIo, Error, HugePages, IoOptions, Operation};

use crate::cmd_cache_sim::{self, CacheSimArgs};
use crate::cmd_compact::CompactArgs;
use crate::cmd_create::CreateArgs;
use crate::cmd_dump::DumpArgs;
use crate::cmd_grid_pass::GridPassArgs;
use crate::cmd_info::InfoArgs;
use crate::cmd_salvage::SalvageArgs;
use crate::cmd_torture::{ChangerArgs, TortureArgs};
use crate::cmd_verify::VerifyArgs;
use crate::cmd_ycsb::YcsbArgs;
use crate::fail::{EXIT_CODES, Failure};
use crate::method;

/// Blocks are whole multiples of this.
const BLOCK_STEP_BYTES: u64 = 512;
/// No pass has more threads than this.
const THREADS_MAX: u16 = 1024;
/// No call does more reads than this.
const BATCH_MAX: u32 = 65_536;
/// The offsets of a pass are in memory.
const PASS_READS_MAX: u64 = 1 << 30;
/// Shorter passes have too few slices to say anything.
const SERIES_MIN: Duration = Duration::from_secs(1);
/// The report's name where none is given.
const DEFAULT_REPORT: &str = "mapfall-grid.html";
/// Cold rounds where nothing is said: cold passes are long.
const COLD_ROUNDS_DEFAULT: usize = 3;

/// A block store in one file, and block I/O for Linux by system calls or a safe memory map, measured.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Is a memory map faster than pread here? Reads a file both ways over a grid of patterns, block sizes and cache
    /// states.
    #[command(after_long_help = method::help())]
    Grid(GridArgs),
    /// One pass of a grid, for a process in limited memory: talks to the grid that started it
    #[command(hide = true)]
    GridPass(GridPassArgs),
    /// Which cache policy and which size? A trace through caches of several policies and sizes, without the blocks
    #[command(after_long_help = format!("{}\n{EXIT_CODES}", cmd_cache_sim::HELP), after_help = EXIT_CODES)]
    CacheSim(CacheSimArgs),
    /// Make an empty store
    #[command(after_help = EXIT_CODES)]
    Create(CreateArgs),
    /// What a store is and has, also while it is open for writing elsewhere
    #[command(after_help = EXIT_CODES)]
    Info(InfoArgs),
    /// Is everything there and as it was written? Also while the store is open for writing elsewhere
    #[command(after_help = EXIT_CODES)]
    Verify(VerifyArgs),
    /// Write what can be read of a damaged store into a new one, even where the header is lost; it is only read itself
    #[command(after_help = EXIT_CODES)]
    Salvage(SalvageArgs),
    /// Move pages to the front of a store and cut off its end; interrupted, it can be run again
    #[command(after_help = EXIT_CODES)]
    Compact(CompactArgs),
    /// Where everything in a store is, or the bytes of a page or a block, for debugging
    #[command(after_help = EXIT_CODES)]
    Dump(DumpArgs),
    /// YCSB's workloads on a store or on the bare I/O layer: load, run, compare, trace
    #[command(after_help = EXIT_CODES)]
    Ycsb(YcsbArgs),
    /// Try to break what the library promises, and check every answer: file, sim
    #[command(after_help = EXIT_CODES)]
    Torture(TortureArgs),
    /// The process that changes the file, for mapfall torture file
    #[command(hide = true)]
    TortureChanger(ChangerArgs),
}

impl Command {
    pub(crate) fn simulates(&self) -> bool {
        matches!(self, Command::Torture(args) if args.simulates())
    }
}

/// What was typed after `mapfall grid`.
#[derive(Debug, Args)]
pub(crate) struct GridArgs {
    /// Read this file, which is never written to; without it a temporary one is made and removed
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,

    /// Make the temporary file in this directory [default: TMPDIR unless that is in memory, else the current directory]
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    dir: Option<PathBuf>,

    /// Size of the temporary file; at most a third of the available memory and half of the free disk are used
    #[arg(long, value_name = "SIZE", default_value = "4GiB", conflicts_with = "file")]
    size: ByteSize,

    /// Bytes of a read, multiples of 512
    #[arg(long, value_name = "SIZE,..", value_delimiter = ',', default_value = "4KiB,8KiB,16KiB")]
    block: Vec<ByteSize>,

    /// Order of the reads: seq, rand, zipf[:THETA], scan+rand, shift[:PERCENT%]
    #[arg(long, value_name = "PATTERN,..", value_delimiter = ',', default_value = "seq,rand")]
    pattern: Vec<Pattern>,

    /// State of the page cache before each pass: warm, cold, limited:PERCENT% (memory for so much of the file)
    #[arg(long, value_name = "STATE,..", value_delimiter = ',', default_value = "warm,cold")]
    cache: Vec<CacheState>,

    /// Contenders
    #[arg(long, value_name = "IO,..", value_delimiter = ',', default_value = "pread,mmap", help = io_help())]
    io: Vec<Io>,

    /// Leave out what they are judged by: bare, bare-pread, limit
    #[arg(long)]
    no_reference: bool,

    /// Threads that share the reads of a pass
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(THREADS_MAX)))]
    threads: Vec<u16>,

    /// Reads that are done by one call, by those contenders that can
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_MAX)))]
    batch: u32,

    /// Reads of a batch that may be under way at a time
    #[arg(long, value_name = "N", default_value_t = QUEUE_DEPTH_DEFAULT, value_parser = parse_queue_depth())]
    queue_depth: u32,

    /// Passes of each contender in a cell; the median is shown, with the least and the greatest
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// The same for cold and limited cells [default: 3, or fewer if --rounds is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    cold_rounds: Option<u16>,

    /// What random offsets are made from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Whether maps ask for 2 MiB pages
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Huge::Auto)]
    huge: Huge,

    /// What maps tell the kernel of the order of reads
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = AccessOrder::Normal)]
    advice: AccessOrder,

    /// Show maps that were touched before beside those made afresh for each pass
    #[arg(long)]
    reuse_map: bool,

    /// Time each read for itself and show percentiles; the clock costs 20 to 50 ns a read
    #[arg(long, conflicts_with = "batch")]
    latency: bool,

    /// End a pass that takes longer than this, and mark its figures as partial
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pass_limit: Duration,

    /// Reads of a pass [default: as many as the file has whole blocks]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=PASS_READS_MAX))]
    pass_reads: Option<u64>,

    /// How long at most a limited pass reads before its clock starts
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    warm_up: Duration,

    /// Let each pass last this long and keep its throughput over time; a working set that shifts does so half way
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["latency", "pass_reads"])]
    series: Option<Duration>,

    /// Show what auto decided, for which part of the file and when
    #[arg(long)]
    explain: bool,

    /// Move the limit of limited cells during each pass of a --series, such as 25%@4s,50%@8s
    #[arg(long, value_name = "PERCENT%@TIME,..", value_delimiter = ',', value_parser = parse_limit_change)]
    #[arg(requires = "series")]
    limit_change: Vec<LimitChange>,

    /// Measure one of so many equal parts of the cells, such as 2/8: a grid in pieces
    #[arg(long, value_name = "PART/PARTS", value_parser = parse_part)]
    part: Option<(usize, usize)>,

    /// Write all figures to this file, or to standard output (-) instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the report to this file [default: mapfall-grid.html]
    #[arg(long, value_name = "FILE.html", conflicts_with = "no_report")]
    report: Option<PathBuf>,

    /// Write no report
    #[arg(long)]
    no_report: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Huge {
    /// Unless the advice is random
    Auto,
    On,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AccessOrder {
    Normal,
    Random,
    Sequential,
}

/// What `mapfall grid` will do.
#[derive(Debug)]
pub(crate) struct GridPlan {
    pub(crate) source: Source,
    pub(crate) blocks_bytes: Vec<u64>,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) caches: Vec<CacheState>,
    pub(crate) ios: Vec<Io>,
    pub(crate) references: bool,
    pub(crate) threads: Vec<usize>,
    pub(crate) batch: usize,
    pub(crate) queue_depth: u32,
    pub(crate) rounds: usize,
    pub(crate) cold_rounds: usize,
    pub(crate) seed: u64,
    pub(crate) huge_pages: HugePages,
    pub(crate) advice: Advice,
    pub(crate) reuse_map: bool,
    pub(crate) latency: bool,
    pub(crate) pass_limit: Duration,
    pub(crate) pass_reads: Option<u64>,
    pub(crate) warm_up: Duration,
    pub(crate) series: Option<Duration>,
    pub(crate) limit_changes: Vec<LimitChange>,
    pub(crate) explain: bool,
    pub(crate) part: Option<(usize, usize)>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
}

/// Where the bytes come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file of the user's.
    Given { path: PathBuf },
    /// One that is made in `dir`.
    Temporary { dir: PathBuf, bytes: u64, cut_by: Option<String> },
}

impl GridPlan {
    /// Looks at the file system and refuses what cannot be.
    pub(crate) fn resolve(args: GridArgs) -> Result<GridPlan, Failure> {
        let blocks_bytes = distinct(args.block.iter().map(|block| block.bytes()));
        for &block_bytes in &blocks_bytes {
            if block_bytes == 0 || !block_bytes.is_multiple_of(BLOCK_STEP_BYTES) {
                let found = ByteSize::new(block_bytes);
                return Err(Failure::usage(format!(
                    "--block: expected multiples of {BLOCK_STEP_BYTES} B, found {found}"
                )));
            }
        }
        let (source, file_bytes) = match &args.file {
            Some(path) => (Source::Given { path: path.clone() }, given_len_bytes(path)?),
            None => temporary(args.dir.as_deref(), args.size)?,
        };
        let largest = blocks_bytes.iter().copied().max().unwrap_or(0);
        if largest > file_bytes {
            let (block, file) = (ByteSize::new(largest), ByteSize::new(file_bytes));
            return Err(Failure::usage(format!("--block: {block} is larger than the file, which has {file}")));
        }
        for path in [&args.json, &args.report].into_iter().flatten() {
            refuse_overwriting(path, args.file.as_deref())?;
        }
        if args.json.is_some() && args.json == args.report {
            return Err(Failure::usage("--json and --report name the same file"));
        }
        if args.explain && !args.io.contains(&Io::AUTO) {
            return Err(Failure::usage("--explain: expected auto in --io, since nothing else decides"));
        }
        check_series(&args)?;
        let rounds = usize::from(args.rounds);
        Ok(GridPlan {
            source,
            blocks_bytes,
            patterns: distinct(args.pattern),
            caches: distinct(args.cache),
            ios: distinct(args.io),
            references: !args.no_reference,
            threads: distinct(args.threads.into_iter().map(usize::from)),
            batch: args.batch as usize,
            queue_depth: args.queue_depth,
            rounds,
            cold_rounds: args.cold_rounds.map_or(rounds.min(COLD_ROUNDS_DEFAULT), usize::from),
            seed: args.seed,
            huge_pages: match args.huge {
                Huge::Auto => HugePages::Auto,
                Huge::On => HugePages::On,
                Huge::Off => HugePages::Off,
            },
            advice: match args.advice {
                AccessOrder::Normal => Advice::Normal,
                AccessOrder::Random => Advice::Random,
                AccessOrder::Sequential => Advice::Sequential,
            },
            reuse_map: args.reuse_map,
            latency: args.latency,
            pass_limit: args.pass_limit,
            pass_reads: args.pass_reads,
            warm_up: args.warm_up,
            series: args.series,
            limit_changes: args.limit_change,
            explain: args.explain,
            part: args.part,
            json: args.json,
            report: (!args.no_report).then(|| args.report.unwrap_or_else(|| DEFAULT_REPORT.into())),
        })
    }
}

/// That what is to happen in the middle of a pass can.
fn check_series(args: &GridArgs) -> Result<(), Failure> {
    let Some(series) = args.series else { return Ok(()) };
    if series < SERIES_MIN {
        return Err(Failure::usage(format!("--series: expected at least {SERIES_MIN:?}, found {series:?}")));
    }
    if args.limit_change.is_empty() {
        return Ok(());
    }
    if !args.cache.iter().any(|cache| cache.is_limited()) {
        return Err(Failure::usage("--limit-change: expected --cache limited:PERCENT% beside it"));
    }
    let mut last_s = 0.0;
    for &LimitChange { at_s, percent } in &args.limit_change {
        if at_s <= last_s || at_s >= series.as_secs_f64() {
            return Err(Failure::usage(format!(
                "--limit-change: expected times one after the other inside the {series:?} of --series, found \
                 {percent}%@{at_s}s"
            )));
        }
        last_s = at_s;
    }
    Ok(())
}

/// What the help says of `--io`.
fn io_help() -> String {
    let names: Vec<&str> = Io::choosable().into_iter().map(Io::name).collect();
    format!("Contenders: {}", names.join(", "))
}

/// `25%@4s`.
fn parse_limit_change(text: &str) -> Result<LimitChange, String> {
    let expected = || format!("expected a limit and a time such as 25%@4s, found {text:?}");
    let (percent, at) = text.split_once('@').ok_or_else(expected)?;
    Ok(LimitChange { at_s: parse_duration(at)?.as_secs_f64(), percent: parse_percent(percent)? })
}

/// `2/8`.
fn parse_part(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    let valid = parts.filter(|(part, parts)| (1..=*parts).contains(part));
    valid.ok_or_else(|| format!("expected a part such as 2/8, found {text:?}"))
}

/// What `--queue-depth` is unless it is said, as in the I/O layer.
pub(crate) const QUEUE_DEPTH_DEFAULT: u32 = 64;

/// What `--queue-depth` may be.
pub(crate) fn parse_queue_depth() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1024)
}

/// Each value once, in the order of first mention.
pub(crate) fn distinct<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut kept = Vec::new();
    for value in values {
        if !kept.contains(&value) {
            kept.push(value);
        }
    }
    kept
}

/// The length of a file that can be read at offsets.
fn given_len_bytes(path: &Path) -> Result<u64, Failure> {
    let len_bytes = IoOptions::new().open_pread(path).and_then(|file| file.len()).map_err(|error| match error {
        Error::Io { operation: Operation::Open, source, .. } => {
            Failure::usage(format!("--file: cannot open {}: {source}", path.display()))
        }
        error => Failure::usage(format!("--file: {error}")),
    })?;
    if len_bytes == 0 {
        return Err(Failure::usage(format!("--file: {} is empty: there is nothing to read", path.display())));
    }
    Ok(len_bytes)
}

fn temporary(dir: Option<&Path>, size: ByteSize) -> Result<(Source, u64), Failure> {
    if size.bytes() == 0 {
        return Err(Failure::usage("--size: expected at least one block, found 0 B"));
    }
    let dir = dir.map_or_else(content::default_dir, Path::to_owned);
    if !dir.is_dir() {
        return Err(Failure::usage(format!("--dir: {} is not a directory", dir.display())));
    }
    let fitting = content::fitting_size(size.bytes(), &dir)?;
    if fitting.bytes == 0 {
        return Err(Failure::while_running(format!("there is no room for a temporary file in {}", dir.display())));
    }
    let (bytes, cut_by) = (fitting.bytes, fitting.cut_by);
    Ok((Source::Temporary { dir, bytes, cut_by }, bytes))
}

/// A result must not replace the file that is read.
pub(crate) fn refuse_overwriting(output: &Path, file: Option<&Path>) -> Result<(), Failure> {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    match file.and_then(identity) {
        Some(of_file) if identity(output) == Some(of_file) => {
            Err(Failure::usage(format!("{} is the file to read and would be overwritten", output.display())))
        }
        _ => Ok(()),
    }
}

/// What clap says, in one line: the message without the usage that follows it.
pub(crate) fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "expected a command (see mapfall --help)".to_owned();
    }
    let rendered = error.render().to_string();
    let message = rendered.split("\n\n").next().unwrap_or_default();
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let commands = Cli::command();
    let command =
        std::env::args_os().nth(1).and_then(|word| commands.find_subcommand(word).map(clap::Command::get_name));
    let command = command.map(|name| format!(" {name}")).unwrap_or_default();
    format!("{message} (see mapfall{command} --help)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn repeated_values_count_once() {
        assert_eq!(distinct([3, 1, 3, 2, 1]), [3, 1, 2]);
    }

    #[test]
    fn limits_with_times_and_parts_are_read() {
        assert_eq!(parse_limit_change("25%@1.5s"), Ok(LimitChange { at_s: 1.5, percent: 25 }));
        for text in ["", "25%", "25@1s", "0%@1s", "25%@", "@1s", "25%@1"] {
            assert!(parse_limit_change(text).is_err(), "{text}");
        }
        assert_eq!((parse_part("2/8"), parse_part("1/1")), (Ok((2, 8)), Ok((1, 1))));
        for text in ["", "2", "0/8", "9/8", "1/0", "a/b", "-1/2"] {
            assert!(parse_part(text).is_err(), "{text}");
        }
    }
}
