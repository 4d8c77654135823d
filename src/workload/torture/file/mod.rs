//! A file that another process changes under its readers.
//!
//! The other process runs free. It counts each change before and after, and keeps the last of them in memory that both
//! have (`shared`), so a reader knows in which states the file can have been while it read: if no change overlapped the
//! read, in exactly one, and the answer must be exactly that (`state`). Each word of the file says its version and its
//! place (`content`).
//!
//! What a read may give: bytes that were there at some moment of the read, each for itself; zeros behind a cut that
//! overlapped it, which `pread` has too; [`crate::Error::PastEnd`] with a length that the file had; and, where the
//! device is said to fail, its error. Everything else is a failure, and ends the run.
//!
//! # Holes on XFS
//!
//! XFS punches a hole by taking whole pages out of the page cache, those included that the hole only begins or ends in,
//! and fills a large folio's part with zeros before that. A page fault in between maps it: for a moment a map shows
//! zeros in bytes beside the hole. `pread` waits for the hole and does not. No reader of a map can know, so there, and
//! only by a map, zeros in those pages during the call that punches are let pass, and counted.

mod change;
mod changer;
mod content;
mod outcome;
mod reader;
mod shared;
mod state;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub use changer::{Changing, serve};
pub use outcome::{Counts, IoOutcome, Outcome};
pub use reader::{Failure, IoModeName};

use self::change::Change;
use self::changer::tidy_up;
use self::reader::{Counters, Reader};
use self::shared::{HOLES_REFUSED, NOT_READING, READERS_MAX, REFUSED, RENAMES, ROUNDS, STOP, Shared};
use self::state::State;
use crate::workload::error::{Error, Result};
use crate::workload::grid::Helper;
use crate::{IoMode, IoOptions};

/// Threads that can read at once.
pub const THREADS_MAX: usize = READERS_MAX - 1;
/// The version that a file begins with. Changes have their number plus 1, or begin anew here after 2^32 of them.
const FIRST_VERSION: u64 = 1;
/// How often the counters are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The changing process is given this long to end by itself.
const END_WITHIN: Duration = Duration::from_secs(30);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file. It is there already, and is changed.
    pub path: PathBuf,
    /// How long the part is that is changed and read, in bytes: at least 2.
    pub file_bytes: u64,
    /// The file's first bytes, which the device cannot read: reads there must fail with `EIO`, and nobody changes them.
    pub broken_bytes: u64,
    /// Ends after so many rounds with a read in them.
    pub rounds: Option<u64>,
    /// Ends after so much time.
    pub time: Option<Duration>,
    /// Reading threads, 1 to [`THREADS_MAX`], which the paths share.
    pub threads: usize,
    /// The paths that are read by, at least one.
    pub ios: Vec<IoMode>,
    /// What chance begins from.
    pub seed: u64,
    /// Kills the changing process (`SIGKILL`) about so often, and starts another.
    pub kill_every: Option<Duration>,
    /// The program that calls [`serve`] with its standard input as `shared` and its standard output as `file`.
    pub helper: Helper,
}

/// Runs until a limit, `stop`, or the first failure. `event` hears how it stands, ten times a second.
///
/// A fault that is not recovered from ends the process, as it must.
///
/// # Errors
///
/// Where the file or the process cannot be had. What a read did wrong is no error but [`Outcome::failure`].
pub fn run(config: &Config, stop: &AtomicBool, event: &mut dyn FnMut(&Counts)) -> Result<Outcome> {
    let system = |doing| Error::system(doing, &config.path);
    let file = File::options().read(true).write(true).open(&config.path).map_err(system("open"))?;
    let first_bytes = write_first(config, &file).map_err(system("write"))?;
    let opened = config.ios.iter().map(|io| IoOptions::new().mode(*io).open(&config.path));
    let files = opened.collect::<crate::Result<Vec<_>>>()?;
    let (shared, shared_file) = Shared::create().map_err(system("make shared memory for"))?;
    let counters: Vec<_> = (0..config.threads).map(|_| Counters::default()).collect();
    (0..config.threads).for_each(|reader| shared.applied(reader).store(0, SeqCst));
    let mut first = State::new(first_bytes, FIRST_VERSION);
    first.apply(Change::Extend { len: config.file_bytes });
    let known = (first, 0);
    let hole_page_bytes = is_on_xfs(&file).then(|| rustix::param::page_size() as u64);
    let begin = Instant::now();
    let mut process = Process { config, file, shared_file, child: None, kills: 0 };
    process.start()?;
    let reader = |index: usize, known| Reader {
        index,
        io: config.ios[index % files.len()],
        file: &*files[index % files.len()],
        shared: &shared,
        counters: &counters[index % counters.len()],
        file_bytes: config.file_bytes,
        first_byte: config.broken_bytes,
        seed: config.seed,
        hole_page_bytes: hole_page_bytes
            .filter(|_| matches!(config.ios[index % files.len()], IoMode::Mmap | IoMode::Auto)),
        known,
    };
    let counts = || Counts::of(&counters, &files, shared.word(ROUNDS).load(Relaxed), begin.elapsed());
    let mut failure = None;
    let mut ended = Ok(false);
    let mut last = known.clone();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..config.threads)
            .map(|index| {
                let (reader, shared) = (reader(index, known.clone()), &shared);
                scope.spawn(move || {
                    let result = reader.run();
                    if result.is_err() {
                        // Whoever still reads ends, too.
                        shared.word(STOP).store(1, SeqCst);
                        shared.applied(index).store(NOT_READING, SeqCst);
                    }
                    result
                })
            })
            .collect();
        ended = process.attend(&shared, stop, &mut || {
            let counts = counts();
            event(&counts);
            counts.rounds
        });
        shared.word(STOP).store(1, SeqCst);
        for thread in threads {
            match thread.join() {
                Ok(Ok(state)) => last = if state.1 > last.1 { state } else { last.clone() },
                Ok(Err(found)) => failure = failure.take().or(Some(found)),
                Err(_) => failure = failure.take().or(Some(Failure::other("a reading thread panicked", config.seed))),
            }
        }
    });
    let complete = ended?;
    if !complete && failure.is_none() && !stop.load(Relaxed) {
        failure = Some(Failure::other("the changing process ended by itself", config.seed));
    }
    if let Some(status) = process.end()?
        && !status.success()
    {
        failure = failure.or(Some(Failure::other(&format!("the changing process ended: {status}"), config.seed)));
    }
    if failure.is_none() {
        let at_rest = |index| reader(index, last.clone()).run_at_rest();
        failure = (0..files.len()).find_map(|index| at_rest(index).err());
    }
    if let Some(file) = files.iter().find(|file| !file.stats().paths_add_up()) {
        let what = format!("the bytes of all paths are not the bytes read: {:?}", file.stats());
        failure = failure.or(Some(Failure::other(&what, config.seed)));
    }
    tidy_up(&config.path);
    let ios = config.ios.iter().zip(&files).map(|(io, file)| IoOutcome::new(*io, &file.stats())).collect();
    Ok(Outcome {
        complete: complete || failure.is_some(),
        failures: u64::from(failure.is_some()),
        failure,
        counts: counts(),
        ios,
        changes: shared.done(),
        renames: shared.word(RENAMES).load(Relaxed),
        refused_changes: shared.word(REFUSED).load(Relaxed),
        refused_holes: shared.word(HOLES_REFUSED).load(Relaxed),
        kills: process.kills,
        threads: config.threads,
        file_bytes: config.file_bytes,
        broken_bytes: config.broken_bytes,
        seed: config.seed,
    })
}

fn is_on_xfs(file: &File) -> bool {
    const XFS_MAGIC: i64 = 0x5846_5342;
    #[allow(clippy::useless_conversion, reason = "the field's type depends on the architecture")]
    rustix::fs::fstatfs(file).is_ok_and(|stat| i64::from(stat.f_type) == XFS_MAGIC)
}

/// The file as it is before the first change. Returns how much of it there is room for; the rest is a hole.
fn write_first(config: &Config, file: &File) -> io::Result<u64> {
    const PART_BYTES: u64 = 1 << 20;
    file.set_len(config.broken_bytes)?;
    let mut end = OpenOptions::new().append(true).open(&config.path)?;
    let mut bytes = vec![0; PART_BYTES.min(config.file_bytes) as usize];
    for start in (0..config.file_bytes).step_by(PART_BYTES as usize) {
        let part = &mut bytes[..PART_BYTES.min(config.file_bytes - start) as usize];
        content::fill(FIRST_VERSION, start, part);
        match end.write_all(part) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
            result => result?,
        }
    }
    let written = file.metadata()?.len() - config.broken_bytes;
    file.set_len(config.broken_bytes + config.file_bytes)?;
    Ok(written)
}

/// The process that changes the file, whichever it is now.
struct Process<'a> {
    config: &'a Config,
    file: File,
    shared_file: File,
    child: Option<Child>,
    kills: u64,
}

impl Process<'_> {
    fn start(&mut self) -> Result<()> {
        let (config, helper) = (self.config, &self.config.helper);
        let failed = || Error::system("start a process to change", &config.path);
        let mut command = Command::new(&helper.program);
        command.args(&helper.args).arg(&config.path);
        command.args([config.file_bytes, config.broken_bytes, config.seed].map(|number| number.to_string()));
        command.stdin(Stdio::from(self.shared_file.try_clone().map_err(failed())?));
        command.stdout(Stdio::from(self.file.try_clone().map_err(failed())?));
        self.child = Some(command.spawn().map_err(failed())?);
        Ok(())
    }

    /// Waits for a limit or `stop`, and kills the process now and then. Whether a limit was reached.
    fn attend(&mut self, shared: &Shared, stop: &AtomicBool, rounds: &mut dyn FnMut() -> u64) -> Result<bool> {
        let config = self.config;
        let begin = Instant::now();
        let mut rng = SmallRng::seed_from_u64(config.seed);
        let mut next_kill = config.kill_every.map(|every| begin + every);
        loop {
            let rounds = rounds();
            let enough = config.rounds.is_some_and(|wanted| rounds >= wanted);
            let late = config.time.is_some_and(|time| begin.elapsed() >= time);
            if enough || late {
                return Ok(true);
            }
            // A reader has failed, or the process has ended: that is seen later.
            if stop.load(Relaxed) || shared.word(STOP).load(Relaxed) != 0 || self.has_ended() {
                return Ok(false);
            }
            let left = config.time.map_or(LOOK_EVERY, |time| time.saturating_sub(begin.elapsed()).min(LOOK_EVERY));
            let now = Instant::now();
            thread::sleep(next_kill.map_or(left, |at| at.saturating_duration_since(now).min(left)));
            if let (Some(at), Some(every)) = (next_kill, config.kill_every)
                && Instant::now() >= at
            {
                self.kill()?;
                self.start()?;
                next_kill = Some(Instant::now() + every.mul_f64(rng.random_range(0.2..1.8)));
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }

    fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let killed = child.kill().and_then(|()| child.wait());
        killed.map_err(Error::system("kill the process that changes", &self.config.path))?;
        self.kills += 1;
        Ok(())
    }

    /// Waits for its end, and how it was. One that does not end is killed, and that is no good end.
    fn end(&mut self) -> Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        let path: &Path = &self.config.path;
        let begin = Instant::now();
        loop {
            match child.try_wait().map_err(Error::system("wait for the process that changes", path))? {
                Some(status) => return Ok(Some(status)),
                None if begin.elapsed() > END_WITHIN => {
                    let _ = child.kill();
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
