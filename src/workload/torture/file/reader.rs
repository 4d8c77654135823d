//! A thread that reads the file, and holds every read against what the file was meanwhile.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::thread;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::change::Change;
use super::content::origin;
use super::shared::{ROUNDS, ROUNDS_READ, STOP, Shared};
use super::state::State;
use crate::{BlockIo, Error, IoMode, Operation};

/// Reads are no longer than this many pages.
const READ_PAGES_MAX: u64 = 8;
/// So many reads of a state that does not change are enough for now.
const IDLE_READS_MAX: u32 = 4;
/// Versions that found bytes are looked for in.
const ORIGIN_VERSIONS: u64 = 20_000;

/// What a reader has seen so far, for others to look at.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Rounds that this reader was the first to read in.
    pub(super) rounds: AtomicU64,
    pub(super) blocks: AtomicU64,
    pub(super) exact_blocks: AtomicU64,
    pub(super) past_end: AtomicU64,
    pub(super) exact_past_end: AtomicU64,
    pub(super) cut_while_read: AtomicU64,
    pub(super) punched_while_read: AtomicU64,
    pub(super) device_errors: AtomicU64,
}

fn count(counter: &AtomicU64) {
    // Nobody else writes it.
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// A read that cannot have been.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// What is wrong.
    pub what: String,
    /// The path that was read by.
    pub io: IoModeName,
    /// Where the read began.
    pub offset: u64,
    /// How long it was.
    pub len_bytes: u64,
    /// What should have been found, from the first wrong byte on.
    pub expected: String,
    /// What was.
    pub found: String,
    /// What happened to the file during the read, at most the first few changes.
    pub during: Vec<String>,
    /// How many changes had been done before it.
    pub changes_before: u64,
    /// The seed of the script.
    pub seed: u64,
}

/// A mode by its name.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(into = "&'static str")]
pub struct IoModeName(pub IoMode);

impl From<IoModeName> for &'static str {
    fn from(name: IoModeName) -> Self {
        name.0.name()
    }
}

/// What a reader reads.
pub(super) struct Reader<'a> {
    pub(super) index: usize,
    pub(super) io: IoMode,
    pub(super) file: &'a dyn BlockIo,
    pub(super) shared: &'a Shared,
    pub(super) counters: &'a Counters,
    pub(super) file_bytes: u64,
    /// Where the part that changes begins; what comes before it cannot be read.
    pub(super) first_byte: u64,
    pub(super) seed: u64,
    /// Where a map may show zeros in the pages around a hole, while it is punched: how long a page is.
    pub(super) hole_page_bytes: Option<u64>,
    /// The file after so many changes.
    pub(super) known: (State, u64),
}

/// What a reader needs on its way.
struct Way {
    rng: SmallRng,
    state: State,
    applied: u64,
    round: u64,
    /// Since something changed.
    idle_reads: u32,
    buf: Vec<u8>,
    scratch: Vec<u8>,
    during: Vec<Change>,
}

impl Reader<'_> {
    /// Reads until it is over, or to the first read that cannot have been. Returns the file as it knows it.
    pub(super) fn run(&self) -> Result<(State, u64), Box<Failure>> {
        let page = rustix::param::page_size() as u64;
        let mut way = self.way();
        while self.shared.word(STOP).load(Relaxed) == 0 {
            if self.first_byte > 0 && way.rng.random_range(0..8) == 0 {
                self.read_broken(&mut way)?;
            }
            let len = match way.rng.random_range(0..8) {
                0..3 => 512,
                3..6 => page,
                6 => way.rng.random_range(1..=2 * page),
                _ => way.rng.random_range(1..=READ_PAGES_MAX * page),
            };
            let len = len.min(self.file_bytes);
            let place = way.rng.random_range(0..=self.file_bytes - len);
            let place = if way.rng.random() { place / len * len } else { place };
            self.read(&mut way, place, len)?;
        }
        Ok((way.state, way.applied))
    }

    /// Reads all of a file that nobody changes any more.
    pub(super) fn run_at_rest(&self) -> Result<(), Box<Failure>> {
        const STEP_BYTES: u64 = 3 << 10;
        let mut way = self.way();
        self.catch_up(&mut way, self.shared.done());
        let len = way.state.len();
        let found = self.file.len().map_err(|error| self.failed(&way, 0, 0, format!("no length: {error}")))?;
        if found != self.first_byte + len {
            let what = format!("the file is {found} bytes long at rest, expected {}", self.first_byte + len);
            return Err(self.failed(&way, 0, 0, what));
        }
        let end = len.min(self.file_bytes);
        for place in (0..end).step_by(STEP_BYTES as usize) {
            self.read(&mut way, place, STEP_BYTES.min(end - place))?;
        }
        Ok(())
    }

    fn way(&self) -> Way {
        Way {
            rng: SmallRng::seed_from_u64(self.seed ^ (self.index as u64 + 1) << 32),
            state: self.known.0.clone(),
            applied: self.known.1,
            round: 0,
            idle_reads: 0,
            buf: Vec::new(),
            scratch: Vec::new(),
            during: Vec::new(),
        }
    }

    fn catch_up(&self, way: &mut Way, done: u64) {
        if way.applied < done {
            (way.applied + 1..=done).for_each(|number| way.state.apply(self.shared.change(number)));
            way.applied = done;
        }
    }

    fn read(&self, way: &mut Way, place: u64, len: u64) -> Result<(), Box<Failure>> {
        way.buf.resize(len as usize, 0);
        let round = self.shared.word(ROUNDS).load(Relaxed);
        let done = self.shared.done();
        let result = self.file.read_at(self.first_byte + place, &mut way.buf);
        let begun = self.shared.begun();
        // The other process may need the processor.
        way.idle_reads = if way.applied == begun { way.idle_reads + 1 } else { 0 };
        if way.idle_reads >= IDLE_READS_MAX {
            way.idle_reads = 0;
            thread::yield_now();
        }
        self.catch_up(way, done);
        way.during.clear();
        way.during.extend((done + 1..=begun).map(|number| self.shared.change(number)));
        // Not before the changes were read that this lets be overwritten.
        self.shared.applied(self.index).store(done, Release);
        self.judge(way, place, result)?;
        if way.round < round {
            way.round = round;
            if self.shared.word(ROUNDS_READ).fetch_max(round, Relaxed) < round {
                count(&self.counters.rounds);
            }
        }
        Ok(())
    }

    fn judge(&self, way: &mut Way, place: u64, result: crate::Result<()>) -> Result<(), Box<Failure>> {
        let (counters, is_exact) = (self.counters, way.during.is_empty());
        let len = way.buf.len() as u64;
        let Way { state, during, buf, scratch, .. } = way;
        match result {
            Ok(()) => match state.explain(during, place, buf, self.hole_page_bytes, scratch) {
                Ok(needed) => {
                    count(&counters.blocks);
                    if is_exact {
                        count(&counters.exact_blocks);
                    }
                    if needed.cut {
                        count(&counters.cut_while_read);
                    }
                    if needed.hole {
                        count(&counters.punched_while_read);
                    }
                    Ok(())
                }
                Err(first) => Err(self.wrong_bytes(way, place, first)),
            },
            Err(Error::PastEnd { offset, wanted_bytes, file_len_bytes }) => {
                let (shortest, longest) = state.lengths(during);
                let lengths = self.first_byte + shortest..=self.first_byte + longest;
                let is_right = (offset, wanted_bytes) == (self.first_byte + place, len)
                    && lengths.contains(&file_len_bytes)
                    && file_len_bytes < offset + wanted_bytes;
                if !is_right {
                    let what = format!(
                        "{wanted_bytes} bytes at {offset} are said to be past an end at {file_len_bytes}; the file was \
                         {} to {} bytes long",
                        lengths.start(),
                        lengths.end()
                    );
                    return Err(self.failed(way, place, len, what));
                }
                count(&counters.past_end);
                if is_exact {
                    count(&counters.exact_past_end);
                }
                Ok(())
            }
            Err(error) => Err(self.failed(way, place, len, format!("an error that nothing explains: {error}"))),
        }
    }

    /// A read of the part that the device cannot read.
    fn read_broken(&self, way: &mut Way) -> Result<(), Box<Failure>> {
        let page = rustix::param::page_size() as u64;
        let len = way.rng.random_range(1..=2 * page).min(self.first_byte);
        let offset = way.rng.random_range(0..=self.first_byte - len);
        way.buf.resize(len as usize, 0);
        let what = match self.file.read_at(offset, &mut way.buf) {
            Err(Error::Io { operation: Operation::Read, source, .. }) if source.raw_os_error() == Some(libc::EIO) => {
                count(&self.counters.device_errors);
                return Ok(());
            }
            Ok(()) => "bytes that the device cannot read were read".to_owned(),
            Err(error) => format!("expected an I/O error of the device: {error}"),
        };
        let mut failure = self.failed(way, 0, len, what);
        failure.offset = offset;
        Err(failure)
    }

    fn failed(&self, way: &Way, place: u64, len_bytes: u64, what: String) -> Box<Failure> {
        const SHOWN: usize = 12;
        Box::new(Failure {
            what,
            io: IoModeName(self.io),
            offset: self.first_byte + place,
            len_bytes,
            expected: String::new(),
            found: String::new(),
            during: way.during.iter().take(SHOWN).map(|change| format!("{change:?}")).collect(),
            changes_before: way.applied,
            seed: self.seed,
        })
    }

    fn wrong_bytes(&self, way: &mut Way, place: u64, first: usize) -> Box<Failure> {
        const SHOWN: usize = 16;
        let at = place + first as u64;
        let mut expected = [0; SHOWN];
        let there = way.state.read(at, &mut expected);
        let found = &way.buf[first..(first + SHOWN).min(way.buf.len())];
        // The first whole word from there on.
        let aligned = (8 - at % 8) % 8;
        let word = way.buf.get(first + aligned as usize..).and_then(|bytes| bytes.first_chunk());
        let versions = way.applied.saturating_sub(ORIGIN_VERSIONS) + 1..=way.applied + way.during.len() as u64 + 1;
        let from = match word.map(|word| u64::from_le_bytes(*word)) {
            Some(0) => " (zeros)".to_owned(),
            Some(word) => origin(word, versions, self.file_bytes.min(1 << 16))
                .map_or(String::new(), |(version, at)| {
                    format!(" (version {version} of the bytes at {})", self.first_byte + at)
                }),
            None => String::new(),
        };
        let what = format!("byte {} was not there while it was read", self.first_byte + at);
        let mut failure = self.failed(way, place, way.buf.len() as u64, what);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        failure.expected = hex(&expected[..there.min(SHOWN)]);
        failure.found = hex(found) + &from;
        failure
    }
}
