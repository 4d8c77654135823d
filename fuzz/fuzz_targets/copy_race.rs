//! A file is cut, and sometimes grows back, while it is read through the map. Every read returns bytes that the file
//! had, or the typed error.
//!
//! The reads are this thread's; the changes are made by another. What is found may take many tries to happen again.

#![no_main]

use std::cmp::Reverse;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::{hint, thread};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mapfall::{BlockIo, Error, FallbackReason, MmapFile};
use mapfall_fuzz::choices::{Fill, Length, Place, Setup};
use mapfall_fuzz::hand::Hand;
use mapfall_fuzz::model::Model;

const CUTS_MAX: usize = 16;
const READS_MAX: usize = 16;
/// How often the list of reads is gone through at most.
const ROUNDS_MAX: u32 = 64;
const READ_BYTES_MAX: usize = 64 << 10;
/// Bytes that are written again in all.
const REWRITTEN_BYTES_MAX: usize = 16 << 20;
const SMALL_BYTES_MAX: u64 = 256 << 10;
const LARGE_BYTES_MAX: u64 = 12 << 20;
const PAGE_BYTES: u64 = 4096;
const TILE_BYTES_MAX: usize = 64 << 10;

#[derive(Arbitrary, Debug)]
struct Plan {
    setup: Setup,
    /// The file at first, in tiles of one length, the last of them cut off at the file's end.
    len: Place,
    /// Longer than a folio can be, so that blocks are proven by a touch of the last page. Slower.
    large: bool,
    tile: u16,
    fill: Fill,
    change: Change,
    cuts: Vec<Cut>,
    /// Whether the length is changed through the map that is read, or by a descriptor that it knows nothing of.
    by_map: bool,
    reads: Vec<Read>,
}

/// A new length, some reads and some moments after the one before.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Cut {
    to: Place,
    reads: u8,
    moments: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Read {
    Anywhere(Place, Length),
    /// Over one of the cuts, to an end in the page that holds it, where a cut raises no fault.
    OverCut {
        which: u8,
        before: u16,
        past: u16,
    },
}

/// What happens while reads run.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Ever shorter. What a read returns was there.
    Shrink,
    /// Cut, and written again from the cut on: the same bytes, so at any time the file is a beginning of what it was.
    Rewrite,
    /// Cut, and made as long as before: there are zeros now.
    Zero,
}

fuzz_target!(|plan: Plan| {
    let (file, path) = mapfall_fuzz::nameless_file();
    let other = Hand(file);
    let full_bytes = plan.len.resolve_inside(0) % (if plan.large { LARGE_BYTES_MAX } else { SMALL_BYTES_MAX } + 1);
    let tile_bytes = (plan.tile as usize).clamp(512, TILE_BYTES_MAX);
    let mut model = Model::default();
    for at in (0..full_bytes).step_by(tile_bytes) {
        let bytes = plan.fill.bytes(at, tile_bytes.min((full_bytes - at) as usize));
        other.write(at, &bytes);
        model.write(at, &bytes);
    }
    let map = plan.setup.options().open_mmap(&path).expect("a map");
    let inside = |place: Place| place.resolve(full_bytes) % (full_bytes + 1);
    let mut cuts: Vec<_> = plan.cuts.iter().take(CUTS_MAX).map(|&cut| (inside(cut.to), cut)).collect();
    if plan.change == Change::Shrink {
        cuts.sort_unstable_by_key(|(len_bytes, _)| Reverse(*len_bytes));
    }
    let reads: Vec<_> = plan
        .reads
        .iter()
        .take(READS_MAX)
        .map(|&read| match read {
            Read::Anywhere(at, len) => (inside(at), len.resolve(inside(at), full_bytes, READ_BYTES_MAX)),
            Read::OverCut { which, before, past } => {
                let cut = cuts.get(which as usize % cuts.len().max(1)).map_or(full_bytes, |(len_bytes, _)| *len_bytes);
                let start = cut.saturating_sub(u64::from(before));
                let end = (cut + u64::from(past) % (PAGE_BYTES - cut % PAGE_BYTES) + 1).min(full_bytes);
                (start, end.saturating_sub(start) as usize)
            }
        })
        .collect();
    let lowest_bytes = cuts.iter().map(|(len_bytes, _)| *len_bytes).min().unwrap_or(full_bytes);
    let progress = AtomicU64::new(0);
    let cutting = Cutting::default();
    let done = AtomicBool::new(false);
    let (change, by_map) = (plan.change, plan.by_map);
    let changes = Changes {
        change,
        cuts: &cuts,
        by_map,
        map: &map,
        other: &other,
        model: &model,
        progress: &progress,
        cutting: &cutting,
    };
    let reader = Reader { change, map: &map, model: &model, lowest_bytes, progress: &progress, cutting: &cutting };

    let found = thread::scope(|scope| {
        scope.spawn(|| {
            changes.make();
            done.store(true, Relaxed);
        });
        let mut found = Found::default();
        for _ in 0..ROUNDS_MAX {
            let last = done.load(Relaxed);
            reader.round(&reads, &mut found);
            if last || reads.is_empty() {
                break;
            }
        }
        progress.store(u64::MAX, Relaxed);
        found
    });
    reader.check(&found);

    // At rest again: what is there is all there.
    let len_bytes = map.len().expect("a length");
    for at in (0..len_bytes).step_by(250_007) {
        let mut bytes = vec![0; (len_bytes - at).min(10_000) as usize];
        map.read_at(at, &mut bytes).expect("a read inside the file");
        reader.compare(at, &bytes, plan.change == Change::Zero);
    }
});

struct Changes<'a> {
    change: Change,
    cuts: &'a [(u64, Cut)],
    by_map: bool,
    map: &'a MmapFile,
    other: &'a Hand,
    model: &'a Model,
    progress: &'a AtomicU64,
    cutting: &'a Cutting,
}

impl Changes<'_> {
    fn make(&self) {
        let full_bytes = self.model.len_bytes();
        let mut rewritten_bytes = 0;
        for &(cut, pace) in self.cuts {
            let goal = self.progress.load(Relaxed).saturating_add(u64::from(pace.reads % 8));
            while self.progress.load(Relaxed) < goal {
                thread::yield_now();
            }
            (0..pace.moments).for_each(|_| hint::spin_loop());
            if rewritten_bytes > REWRITTEN_BYTES_MAX {
                break;
            }
            // Made before the cut, so that there is no time in which a reader would notice it.
            let rest = if self.change == Change::Rewrite { self.rest(cut) } else { Vec::new() };
            self.cutting.begun.fetch_add(1, SeqCst);
            self.set_len(cut);
            self.cutting.done.fetch_add(1, SeqCst);
            match self.change {
                Change::Shrink => {}
                Change::Zero => self.set_len(full_bytes),
                Change::Rewrite => {
                    self.other.write(cut, &rest);
                    rewritten_bytes += rest.len();
                }
            }
        }
    }

    /// What the file holds from here on, at first.
    fn rest(&self, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; (self.model.len_bytes() - at) as usize];
        self.model.read(at, &mut bytes);
        bytes
    }

    fn set_len(&self, len_bytes: u64) {
        if self.by_map {
            self.map.set_len(len_bytes).expect("a change of length");
        } else {
            assert!(self.other.set_len(len_bytes));
        }
    }
}

/// How many cuts have begun and been done, so that a read knows whether one overlapped it.
#[derive(Debug, Default)]
struct Cutting {
    begun: AtomicU64,
    done: AtomicU64,
}

/// What reads came to.
#[derive(Debug, Default)]
struct Found {
    reads: u64,
    read_bytes: u64,
    failed: u64,
    /// Reads with zeros in the place of bytes that were never zero.
    zeroed: u64,
}

struct Reader<'a> {
    change: Change,
    map: &'a MmapFile,
    model: &'a Model,
    lowest_bytes: u64,
    progress: &'a AtomicU64,
    cutting: &'a Cutting,
}

impl Reader<'_> {
    fn round(&self, reads: &[(u64, usize)], found: &mut Found) {
        let (zeroed, by_pread) = (found.zeroed, self.map.stats().pread.reads);
        for &(at, len) in reads {
            self.read(at, len, found);
            self.progress.fetch_add(1, Relaxed);
        }
        // The kernel's own read may show such zeros: it looks at the length before it copies. The map may not, unless
        // the bytes were back before it could look.
        if self.change == Change::Shrink && found.zeroed > zeroed {
            let stats = self.map.stats();
            assert!(found.zeroed - zeroed <= stats.pread.reads - by_pread, "zeros from the map: {found:?}, {stats:?}");
        }
    }

    fn read(&self, at: u64, len: usize, found: &mut Found) {
        let mut bytes = vec![0xB7; len];
        let done_before = self.cutting.done.load(SeqCst);
        let result = self.map.read_at(at, &mut bytes);
        let overlaps_cut = self.cutting.begun.load(SeqCst) > done_before;
        match result {
            Ok(()) if len == 0 => {}
            Ok(()) => {
                found.reads += 1;
                found.read_bytes += len as u64;
                // In a file that is always a beginning of what it was, zeros come from a cut during the read.
                let zeros_allowed = self.change == Change::Zero || overlaps_cut;
                if !self.compare(at, &bytes, zeros_allowed) {
                    found.zeroed += 1;
                }
            }
            Err(Error::PastEnd { offset, wanted_bytes, file_len_bytes }) => {
                found.failed += 1;
                assert_eq!((offset, wanted_bytes), (at, len as u64));
                let lengths = self.lowest_bytes..=self.model.len_bytes();
                assert!(lengths.contains(&file_len_bytes), "no such length: {file_len_bytes}, of {lengths:?}");
                assert!(file_len_bytes < at + len as u64, "inside of {file_len_bytes} bytes");
            }
            // The file was cut and grew back again and again, and the read gave up.
            Err(Error::Io { ref source, .. })
                if self.change != Change::Shrink && source.kind() == std::io::ErrorKind::UnexpectedEof =>
            {
                found.failed += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// False if there are zeros where the model has none.
    fn compare(&self, at: u64, found: &[u8], zeros_allowed: bool) -> bool {
        let mut expected = vec![0; found.len()];
        if self.model.holds(at, found.len()) {
            self.model.read(at, &mut expected);
        }
        if found == expected {
            return true;
        }
        for (place, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
            let known = found == expected || (zeros_allowed && found == 0);
            assert!(known, "byte {place} of a read at {at} is {found}, expected {expected}; {:?}", self.map.stats());
        }
        false
    }

    fn check(&self, found: &Found) {
        let stats = self.map.stats();
        assert!(stats.paths_add_up(), "{stats:?}");
        let counted = (stats.reads, stats.read_bytes, stats.failed_reads);
        assert_eq!(counted, (found.reads, found.read_bytes, found.failed), "{stats:?}");
        assert_eq!(stats.fallbacks.total(), stats.pread.reads + stats.failed_reads, "{stats:?}");
        let map = stats.map.as_ref().expect("a map's statistics");
        assert!(stats.fallbacks.get(FallbackReason::Fault) <= map.faults_recovered, "{stats:?}");
    }
}
