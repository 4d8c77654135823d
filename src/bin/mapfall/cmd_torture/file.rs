//! `mapfall torture file`, and the hidden command of its other process.

use std::fmt::Write;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use clap::Args;
use mapfall::IoMode;
use mapfall::workload::content;
use mapfall::workload::grid::Helper;
use mapfall::workload::memory_limit::MemoryLimit;
use mapfall::workload::size::ByteSize;
use mapfall::workload::torture::file::{self, Changing, Config, Counts, Failure as WrongRead, Outcome, THREADS_MAX};

use crate::args::{distinct, parse_duration};
use crate::fail::{self, Failure};
use crate::json::JsonArg;
use crate::numbers::seconds;
use crate::{console, interrupt, progress};

/// The name of the command that the other process is started by.
pub(crate) const CHANGER: &str = "torture-changer";
/// How long it takes where nothing is said.
const TIME_DEFAULT: Duration = Duration::from_secs(10);
/// Smaller files have too few pages to be cut between.
const SIZE_MIN: u64 = 8 << 10;
const SIZE_MAX: u64 = 1 << 40;

pub(crate) const HELP: &str = "\
What is checked:
  A read must give bytes that the file had while it was read, or an error that is true: past an
  end that it had, or the device's own where --broken says that it fails. A round is a cut and
  growth by the other process, and counts when a read was checked in it. The first read that
  cannot have been ends the run with exit code 3. A process that dies of SIGBUS has failed, too.

JSON (--json):
  complete, failures, failure (what, io, offset, len_bytes, expected, found, during, seed), counts
  (rounds, checks, blocks, exact_blocks, past_end, faults_recovered, fallbacks, ..), ios (for each
  path: reads, served, fallbacks, faults_recovered, step_downs), changes, renames, kills, ..";

/// What was typed after `mapfall torture file`.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// Make the file in this directory [default: TMPDIR unless that is in memory, else the current directory]
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    dir: Option<PathBuf>,

    /// Use this file, and change it: for --broken
    #[arg(long, value_name = "PATH", requires = "broken")]
    file: Option<PathBuf>,

    /// So many of the first bytes of --file cannot be read: reads there must fail with an I/O error of the device
    #[arg(long, value_name = "SIZE", requires = "file")]
    broken: Option<ByteSize>,

    /// End after so many rounds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rounds: Option<u64>,

    /// End after so much time, such as 60 or 10m [default: 10s, unless --rounds is there]
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    seconds: Option<Duration>,

    /// Threads that read
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=THREADS_MAX as i64))]
    threads: u16,

    /// Paths to read by, which the threads share: pread, mmap, auto, uring
    #[arg(long, value_name = "IO,..", value_delimiter = ',', default_value = "mmap", value_parser = parse_io)]
    io: Vec<IoMode>,

    /// How long the part of the file is that is changed and read
    #[arg(long, value_name = "SIZE", default_value = "32KiB")]
    size: ByteSize,

    /// What chance begins from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Kill the other process about so often (SIGKILL), and start another
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    kill: Option<Duration>,

    /// Give all of it so much memory, page cache included (by a control group)
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,

    #[command(flatten)]
    json: JsonArg,
}

/// What comes after the hidden command's name.
#[derive(Debug, Args)]
pub(crate) struct ChangerArgs {
    path: PathBuf,
    file_bytes: u64,
    first_byte: u64,
    seed: u64,
}

/// The other process. Its standard input is the shared memory, its standard output the file.
pub(crate) fn change(args: &ChangerArgs) -> Result<ExitCode, Failure> {
    let owned = |fd: std::io::Result<std::os::fd::OwnedFd>| {
        fd.map(File::from).map_err(|error| Failure::usage(format!("this command is for mapfall torture file: {error}")))
    };
    let shared = owned(std::io::stdin().as_fd().try_clone_to_owned())?;
    let file = owned(std::io::stdout().as_fd().try_clone_to_owned())?;
    // Ctrl-C is for both processes, and the other one says when it is over.
    let _stop = interrupt::silent_flag()?;
    let ChangerArgs { path, file_bytes, first_byte, seed } = args;
    let changing = Changing { path: path.clone(), file_bytes: *file_bytes, first_byte: *first_byte, seed: *seed };
    if !(SIZE_MIN..=SIZE_MAX).contains(file_bytes) {
        return Err(Failure::usage("this command is for mapfall torture file"));
    }
    let served = file::serve(&changing, &shared, file);
    served.map_err(|error| Failure::usage(format!("this command is for mapfall torture file: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(args: &FileArgs) -> Result<ExitCode, Failure> {
    if !(SIZE_MIN..=SIZE_MAX).contains(&args.size.bytes()) {
        let (least, most) = (ByteSize::new(SIZE_MIN), ByteSize::new(SIZE_MAX));
        return Err(Failure::usage(format!("--size: expected {least} to {most}, found {}", args.size)));
    }
    if let Some(memory) = args.memory {
        return in_less_memory(memory);
    }
    let json = args.json.reserve(&args.file.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let (path, _temporary) = match &args.file {
        Some(path) => (path.clone(), None),
        None => {
            let dir = args.dir.clone().unwrap_or_else(content::default_dir);
            if !dir.is_dir() {
                return Err(Failure::usage(format!("--dir: {} is not a directory", dir.display())));
            }
            let made = tempfile::Builder::new().prefix("mapfall-torture-").suffix(".tmp").tempfile_in(&dir);
            let made = made
                .map_err(|error| Failure::while_running(format!("cannot make a file in {}: {error}", dir.display())))?;
            (made.path().to_owned(), Some(made))
        }
    };
    let stop = interrupt::flag()?;
    let outcome = torture(args, &path, &stop)?;
    json.show(&text(&outcome), &outcome)?;
    Ok(match (outcome.failures, outcome.complete) {
        (0, true) => ExitCode::SUCCESS,
        (0, false) => fail::interrupted(),
        _ => fail::damaged(),
    })
}

fn torture(args: &FileArgs, path: &Path, stop: &AtomicBool) -> Result<Outcome, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::while_running(format!("cannot find this program: {error}")))?;
    let time = match (args.rounds, args.seconds) {
        (None, None) => Some(TIME_DEFAULT),
        (_, time) => time,
    };
    let config = Config {
        path: path.to_owned(),
        file_bytes: args.size.bytes(),
        broken_bytes: args.broken.map_or(0, ByteSize::bytes),
        rounds: args.rounds,
        time,
        threads: usize::from(args.threads),
        ios: distinct(args.io.iter().copied()),
        seed: args.seed,
        kill_every: args.kill,
        helper: Helper { program, args: vec![CHANGER.into()] },
    };
    let bar = progress::counters();
    let outcome = file::run(&config, stop, &mut |counts| bar.set_message(live(counts)));
    bar.finish_and_clear();
    Ok(outcome?)
}

/// The same command in a control group, and what that did.
fn in_less_memory(memory: ByteSize) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::while_running(format!("cannot start a child: {error}"));
    let limit = MemoryLimit::new(memory.bytes())
        .map_err(|error| Failure::while_running(format!("--memory: memory cannot be limited here: {error}")))?;
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == "--memory" {
            words.next();
        } else if !text.starts_with("--memory=") {
            command.arg(word);
        }
    }
    // It gets Ctrl-C itself, and says what there was.
    let stop = interrupt::silent_flag()?;
    let mut child = limit.spawn(command).map_err(failed)?;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None => thread::sleep(Duration::from_millis(50)),
        }
        if stop.swap(false, Relaxed)
            && let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
    };
    if let Ok(usage) = limit.usage() {
        console::say(&format!(
            "memory limited to {} by {}: {} refaults of the page cache, {} times at the limit",
            ByteSize::new(usage.limit_bytes).rounded(),
            limit.kind(),
            usage.refaulted_pages,
            usage.limit_hits
        ));
    }
    match status.code() {
        Some(code) => Ok(ExitCode::from(code as u8)),
        None => Err(Failure { message: format!("the process died: {status}"), code: fail::damaged() }),
    }
}

fn live(counts: &Counts) -> String {
    format!(
        "{} rounds, {} reads checked, {} faults recovered, {} fallbacks, {} s",
        counts.rounds, counts.checks, counts.faults_recovered, counts.fallbacks, counts.seconds as u64
    )
}

fn text(outcome: &Outcome) -> String {
    let counts = &outcome.counts;
    let mut text = String::new();
    let rate = counts.rounds as f64 / counts.seconds.max(1e-9);
    let _ = writeln!(text, "{} rounds in {} s ({rate:.0} a second)", counts.rounds, seconds(counts.seconds));
    let _ = writeln!(
        text,
        "  {} changes by the other process, {} new names, {} refused, killed {} times",
        outcome.changes,
        outcome.renames,
        outcome.refused_changes + outcome.refused_holes,
        outcome.kills
    );
    let _ = writeln!(
        text,
        "  {} reads checked: {} blocks ({} while nothing changed), {} past the end, {} errors of the device",
        counts.checks, counts.blocks, counts.exact_blocks, counts.past_end, counts.device_errors
    );
    if counts.punched_while_read > 0 {
        let found = counts.punched_while_read;
        let _ = writeln!(text, "  {found} blocks with zeros beside a hole that was just being punched (XFS does that)");
    }
    let list = |counts: &std::collections::BTreeMap<&str, u64>| {
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    for io in &outcome.ios {
        let _ = writeln!(
            text,
            "  {}: {} faults recovered, {} step-downs; served by {}; fallbacks: {}",
            io.io.0,
            io.faults_recovered,
            io.step_downs,
            list(&io.served),
            if io.fallbacks.is_empty() { "none".to_owned() } else { list(&io.fallbacks) }
        );
    }
    match &outcome.failure {
        None => text + "no failures\n",
        Some(failure) => text + &describe(failure),
    }
}

fn describe(failure: &WrongRead) -> String {
    let WrongRead { what, io, offset, len_bytes, expected, found, during, changes_before, seed, .. } = failure;
    let mut text = format!("FAILED: {what} (seed {seed})\n");
    if *len_bytes == 0 {
        return text;
    }
    let _ = writeln!(text, "  a read of {len_bytes} bytes at {offset} by {}", io.0);
    if !found.is_empty() {
        let _ = writeln!(text, "  expected {expected}\n  found    {found}");
    }
    let during = if during.is_empty() { "nothing".to_owned() } else { during.join(", ") };
    let _ = writeln!(text, "  after {changes_before} changes; during the read: {during}");
    text
}

/// `60`, in seconds, or a time with its unit.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(number) => parse_duration(&format!("{number}s")),
        Err(_) => parse_duration(text),
    }
}

fn parse_io(text: &str) -> Result<IoMode, String> {
    let mode = text.parse().ok().filter(|mode| *mode != IoMode::Direct);
    mode.ok_or_else(|| format!("expected pread, mmap, auto or uring, found {text:?}"))
}
