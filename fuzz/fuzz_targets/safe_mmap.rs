//! One file opened as a map and by `pread`, and a model of it in memory. After every operation, by our hand or by
//! another, the three hold the same bytes and give the same errors; at the end the statistics are exact.
//!
//! One thread only, so that what is found happens again: `copy_race` is for races.

#![no_main]

use std::path::Path;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapfall::{BatchRead, BlockIo, Error, IoOptions, MmapFile, PreadFile, Result, SyncKind};
use mapfall_fuzz::choices::{Fill, Length, Place, Setup};
use mapfall_fuzz::exhaustive;
use mapfall_fuzz::hand::Hand;
use mapfall_fuzz::model::Model;

/// Operations in a run.
const STEPS_MAX: usize = 48;
/// Bytes that a run may move. What comes after is done with small lengths.
const BYTES_MAX: usize = 6 << 20;
const SMALL_BYTES: usize = 4096;
/// Syncs in a run: a disk takes milliseconds for each.
const SYNCS_MAX: u32 = 2;

#[derive(Arbitrary, Debug)]
struct Plan {
    setup: Setup,
    steps: Vec<Step>,
}

/// Who does it.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum By {
    Map,
    Pread,
    Other,
}

#[derive(Arbitrary, Clone, Debug)]
enum Step {
    Write {
        by: By,
        at: Place,
        len: Length,
        fill: Fill,
    },
    SetLen {
        by: By,
        to: Place,
    },
    /// Much longer than any range, if the file system can.
    SetLenFar {
        by: By,
        bits: u8,
    },
    /// Cut and grown again before anyone looks.
    Regrow {
        cut: Place,
        to: Place,
    },
    Punch {
        at: Place,
        len: Length,
    },
    Read {
        at: Place,
        len: Length,
    },
    Batch(Vec<(Place, Length)>),
    Sync {
        by: By,
        all: bool,
    },
    DropPages,
    Reopen(Setup),
}

/// What the statistics of a map must say.
#[derive(Debug, Default)]
struct Tally {
    reads: u64,
    read_bytes: u64,
    failed_reads: u64,
    writes: u64,
    write_bytes: u64,
    set_lens: u64,
    syncs: u64,
}

struct Run<'a> {
    path: &'a Path,
    setup: Setup,
    map: MmapFile,
    pread: PreadFile,
    other: Hand,
    model: Model,
    tally: Tally,
    bytes_left: usize,
    syncs_left: u32,
}

/// Operations of which every short sequence is tried, on a file of two pages and a bit.
const ALPHABET: [Step; 16] = {
    use Fill::{Mixed, MixedThenZeros, Zeros};
    use Length::{Few, Pages, ToEnd};
    use Place::{Border, End, Start};
    const SECOND: Place = Border { kind: 0, number: 1, nudge: 0 };
    [
        Step::Write { by: By::Map, at: End(0), len: Few(100), fill: Mixed(1) },
        Step::Write {
            by: By::Other,
            at: SECOND,
            len: Pages { count: 1, nudge: 0 },
            fill: MixedThenZeros { seed: 3, zeros: 9 },
        },
        Step::Write { by: By::Other, at: End(100), len: Few(9), fill: Zeros },
        Step::SetLen { by: By::Map, to: End(-50) },
        Step::SetLen { by: By::Pread, to: SECOND },
        Step::SetLen { by: By::Other, to: Start(100) },
        Step::SetLen { by: By::Other, to: Start(0) },
        Step::SetLen { by: By::Other, to: Border { kind: 2, number: 1, nudge: 1 } },
        Step::SetLenFar { by: By::Other, bits: 2 },
        Step::Regrow { cut: Start(50), to: Border { kind: 0, number: 2, nudge: 77 } },
        Step::Punch { at: SECOND, len: Pages { count: 1, nudge: 0 } },
        Step::Read { at: SECOND, len: ToEnd(0) },
        Step::Read { at: Start(1), len: ToEnd(1) },
        Step::DropPages,
        Step::Sync { by: By::Other, all: false },
        Step::Reopen(Setup::PLAIN),
    ]
};

fuzz_target!(
    init: exhaustive::if_wanted(&ALPHABET, |steps| {
        let begun = Step::Write {
            by: By::Other,
            at: Place::Start(0),
            len: Length::Pages { count: 2, nudge: 77 },
            fill: Fill::Mixed(7),
        };
        let steps = std::iter::once(&begun).chain(steps).cloned().collect();
        check(&Plan { setup: Setup::PLAIN, steps });
    }),
    |plan: Plan| check(&plan)
);

fn check(plan: &Plan) {
    let (file, path) = mapfall_fuzz::nameless_file();
    let mut run = Run {
        path: &path,
        setup: plan.setup,
        map: plan.setup.options().open_mmap(&path).expect("a map"),
        pread: IoOptions::new().write(true).open_pread(&path).expect("the oracle"),
        other: Hand(file),
        model: Model::default(),
        tally: Tally::default(),
        bytes_left: BYTES_MAX,
        syncs_left: SYNCS_MAX,
    };
    for step in plan.steps.iter().take(STEPS_MAX) {
        run.step(step);
        assert_eq!(run.map.len().expect("a length"), run.model.len_bytes());
    }
    run.read_samples();
    run.check_stats();
}

impl Run<'_> {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write { by, at, len, fill } => self.write(by, at, len, fill),
            Step::SetLen { by, to } => self.set_len(by, to.resolve_inside(self.model.len_bytes())),
            Step::SetLenFar { by, bits } => self.set_len(by, 1 << (26 + bits % 37)),
            Step::Regrow { cut, to } => {
                for place in [cut, to] {
                    self.set_len(By::Other, place.resolve_inside(self.model.len_bytes()));
                }
            }
            Step::Punch { at, len } => {
                let at = at.resolve_inside(self.model.len_bytes());
                let len = len.resolve(at, self.model.len_bytes(), usize::MAX) as u64;
                let len = len.min(self.model.len_bytes().saturating_sub(at));
                if self.other.punch(at, len) {
                    self.model.punch(at, len);
                }
            }
            Step::Read { at, len } => {
                let (at, len) = self.range(at, len);
                self.read(at, len);
            }
            Step::Batch(ref reads) => self.batch(reads),
            Step::Sync { by, all } => self.sync(by, if all { SyncKind::All } else { SyncKind::Data }),
            Step::DropPages => self.other.drop_pages(),
            Step::Reopen(setup) => {
                self.check_stats();
                self.map = setup.options().open_mmap(self.path).expect("a map");
                self.setup = setup;
                self.tally = Tally::default();
            }
        }
    }

    /// A range to read or write, within what the run may still move.
    fn range(&mut self, at: Place, len: Length) -> (u64, usize) {
        let at = at.resolve(self.model.len_bytes());
        let max = if self.bytes_left > 0 { BYTES_MAX } else { SMALL_BYTES };
        let len = len.resolve(at, self.model.len_bytes(), max);
        self.bytes_left = self.bytes_left.saturating_sub(len);
        (at, len)
    }

    fn write(&mut self, by: By, at: Place, len: Length, fill: Fill) {
        let (at, len) = self.range(at, len);
        let overflows = len > 0 && at.checked_add(len as u64).is_none_or(|end| end > i64::MAX as u64);
        // Between what is usual and what no file can have, a write would only fill the disk.
        let at = if overflows { at } else { at % mapfall_fuzz::FILE_BYTES_MAX };
        let bytes = if overflows { vec![1; len] } else { fill.bytes(at, len) };
        let result = match by {
            By::Map => self.map.write_at(at, &bytes),
            By::Pread => self.pread.write_at(at, &bytes),
            By::Other if overflows => return,
            By::Other => {
                self.other.write(at, &bytes);
                Ok(())
            }
        };
        if overflows {
            let Err(Error::OffsetOverflow { offset, len_bytes, .. }) = result else { panic!("{result:?}") };
            assert_eq!((offset, len_bytes), (at, len as u64));
            return;
        }
        result.expect("a write");
        self.model.write(at, &bytes);
        if matches!(by, By::Map) && len > 0 {
            self.tally.writes += 1;
            self.tally.write_bytes += len as u64;
        }
    }

    fn set_len(&mut self, by: By, len_bytes: u64) {
        let done = match by {
            By::Map => done(self.map.set_len(len_bytes)),
            By::Pread => done(self.pread.set_len(len_bytes)),
            By::Other => self.other.set_len(len_bytes),
        };
        if done {
            self.model.set_len(len_bytes);
            self.tally.set_lens += u64::from(matches!(by, By::Map));
        } else {
            assert!(len_bytes > mapfall_fuzz::FILE_BYTES_MAX, "no file of {len_bytes} bytes");
        }
    }

    fn sync(&mut self, by: By, kind: SyncKind) {
        let Some(syncs_left) = self.syncs_left.checked_sub(1) else { return };
        self.syncs_left = syncs_left;
        match by {
            By::Map => {
                self.map.sync(kind).expect("a sync");
                self.tally.syncs += 1;
            }
            By::Pread => self.pread.sync(kind).expect("a sync"),
            By::Other => self.other.0.sync_all().expect("a sync"),
        }
    }

    fn read(&mut self, at: u64, len: usize) {
        let mut mapped = Buffer::new(len);
        let mut oracle = Buffer::new(len);
        let outcome = Outcome::of(self.map.read_at(at, mapped.inside()));
        assert_eq!(outcome, Outcome::of(self.pread.read_at(at, oracle.inside())), "the oracle, {len} bytes at {at}");
        assert_eq!(outcome, self.expected(at, len), "the model, {len} bytes at {at}");
        self.count(&outcome, len);
        for (buffer, name) in [(&mut mapped, "map"), (&mut oracle, "oracle")] {
            buffer.check_borders();
            if outcome == Outcome::Done {
                self.compare(name, at, buffer.inside());
            }
        }
    }

    fn batch(&mut self, reads: &[(Place, Length)]) {
        let ranges: Vec<_> = reads.iter().take(16).map(|&(at, len)| self.range(at, len)).collect();
        let mut buffers: Vec<_> = ranges.iter().map(|&(_, len)| Buffer::new(len)).collect();
        let mut batch: Vec<_> = ranges
            .iter()
            .zip(&mut buffers)
            .map(|(&(offset, _), buffer)| BatchRead { offset, buf: buffer.inside() })
            .collect();
        let failed = failed_read(self.map.read_batch(&mut batch));
        for (&(at, len), buffer) in ranges.iter().zip(&mut buffers) {
            let outcome = self.expected(at, len);
            self.count(&outcome, len);
            buffer.check_borders();
            // Where one has failed, nothing is promised of the others.
            if failed.is_none() {
                self.compare("batch", at, buffer.inside());
            }
        }
        let expected = ranges.iter().map(|&(at, len)| self.expected(at, len)).enumerate();
        assert_eq!(failed, expected.into_iter().find(|(_, outcome)| *outcome != Outcome::Done));
    }

    fn expected(&self, at: u64, len: usize) -> Outcome {
        if len == 0 || self.model.holds(at, len) {
            return Outcome::Done;
        }
        Outcome::PastEnd { at, len: len as u64, file_len_bytes: self.model.len_bytes() }
    }

    /// A read of the map with this outcome belongs into its statistics.
    fn count(&mut self, outcome: &Outcome, len: usize) {
        if *outcome != Outcome::Done {
            self.tally.failed_reads += 1;
        } else if len > 0 {
            self.tally.reads += 1;
            self.tally.read_bytes += len as u64;
        }
    }

    fn compare(&self, who: &str, at: u64, found: &[u8]) {
        if found.is_empty() {
            return;
        }
        let mut expected = vec![0; found.len()];
        self.model.read(at, &mut expected);
        if found == expected {
            return;
        }
        if let Some(place) = (0..found.len()).find(|&place| found[place] != expected[place]) {
            let (found, expected) = (found[place], expected[place]);
            panic!("{who}: byte {place} of a read at {at} is {found}, expected {expected}; {:?}", self.map.stats());
        }
    }

    /// Blocks from all over the usual part of the file, at a distance that fits no border, and its end.
    fn read_samples(&mut self) {
        let len_bytes = self.model.len_bytes();
        for at in (0..len_bytes.min(mapfall_fuzz::FILE_BYTES_MAX)).step_by(500_009) {
            self.read(at, (len_bytes - at).min(10_000) as usize);
        }
        for (back, len) in [(9_000, 9_000), (1, 1), (1, 2), (0, 1)] {
            self.read(len_bytes.saturating_sub(back), len);
        }
    }

    fn check_stats(&self) {
        let stats = self.map.stats();
        assert!(stats.paths_add_up(), "{stats:?}");
        let found = (stats.reads, stats.read_bytes, stats.failed_reads);
        assert_eq!(found, (self.tally.reads, self.tally.read_bytes, self.tally.failed_reads), "{stats:?}");
        let found = (stats.writes, stats.write_bytes, stats.set_lens, stats.syncs);
        assert_eq!(
            found,
            (self.tally.writes, self.tally.write_bytes, self.tally.set_lens, self.tally.syncs),
            "{stats:?}"
        );
        assert_eq!(stats.fallbacks.total(), stats.pread.reads + stats.failed_reads, "{stats:?}");
        let map = stats.map.as_ref().expect("a map's statistics");
        if self.setup.declines_handler() {
            assert_eq!((map.maps, stats.mmap.reads), (0, 0), "{stats:?}");
        } else if map.refusals == 0 {
            // Nothing here fails but the file's length: whatever the file holds comes from the map.
            assert_eq!(stats.pread.reads, 0, "{stats:?}");
            assert_eq!(map.step_downs, 0, "{stats:?}");
        }
    }
}

/// Whether it was done, or the file system has no such length.
fn done(result: Result<()>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) if error.raw_os_error().is_some() => false,
        Err(error) => panic!("{error}"),
    }
}

/// A buffer with something around it that no read may touch.
struct Buffer(Vec<u8>);

impl Buffer {
    const BORDER: usize = 64;
    const UNTOUCHED: u8 = 0xB7;

    fn new(len: usize) -> Self {
        Buffer(vec![Self::UNTOUCHED; len + 2 * Self::BORDER])
    }

    fn inside(&mut self) -> &mut [u8] {
        let len = self.0.len() - 2 * Self::BORDER;
        &mut self.0[Self::BORDER..Self::BORDER + len]
    }

    fn check_borders(&self) {
        let (front, back) = (&self.0[..Self::BORDER], &self.0[self.0.len() - Self::BORDER..]);
        let untouched = [Self::UNTOUCHED; Self::BORDER];
        assert!(front == untouched && back == untouched, "a read wrote outside of its buffer");
    }
}

/// A read's result in a form that can be compared.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    PastEnd { at: u64, len: u64, file_len_bytes: u64 },
    Other(String),
}

impl Outcome {
    fn of(result: Result<()>) -> Self {
        match result {
            Ok(()) => Outcome::Done,
            Err(Error::PastEnd { offset, wanted_bytes, file_len_bytes }) => {
                Outcome::PastEnd { at: offset, len: wanted_bytes, file_len_bytes }
            }
            Err(other) => Outcome::Other(other.to_string()),
        }
    }
}

/// The read of a batch that is told to have failed.
fn failed_read(result: Result<()>) -> Option<(usize, Outcome)> {
    match result {
        Ok(()) => None,
        Err(Error::Batch { index, source }) => Some((index, Outcome::of(Err(*source)))),
        Err(other) => panic!("not an error of a batch: {other}"),
    }
}
