//! What the contract's suite is made of: the implementations, and a model in memory that says what each must do.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use mapfall::{BatchRead, BlockIo, Error, IoMode, IoOptions, IoStats, Operation, Result, SyncKind};
use proptest::prelude::*;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

pub(crate) const MIB: u64 = 1 << 20;
/// The least that a map can be: so a file that grows outgrows it soon.
pub(crate) const RANGE_BYTES_MIN: u64 = 2 * MIB;
const LARGEST_OFFSET: u64 = i64::MAX as u64;

/// One implementation, opened in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pread,
    Mmap,
    MmapTinyRange,
    MmapWithoutHandler,
    Auto,
    AutoTinyRange,
    AutoWithoutMemory,
    AutoWithoutHandler,
    Uring,
    /// Fewer reads at a time than a batch has.
    UringShallow,
    Direct,
}

impl Kind {
    pub(crate) const ALL: [Kind; 11] = [
        Kind::Pread,
        Kind::Mmap,
        Kind::MmapTinyRange,
        Kind::MmapWithoutHandler,
        Kind::Auto,
        Kind::AutoTinyRange,
        Kind::AutoWithoutMemory,
        Kind::AutoWithoutHandler,
        Kind::Uring,
        Kind::UringShallow,
        Kind::Direct,
    ];

    fn options(self) -> IoOptions {
        let mmap = IoOptions::new().mode(IoMode::Mmap);
        let auto = IoOptions::new().mode(IoMode::Auto);
        match self {
            Kind::Pread => IoOptions::new().mode(IoMode::Pread),
            Kind::Mmap => mmap,
            Kind::MmapTinyRange => mmap.map_range_bytes(RANGE_BYTES_MIN),
            Kind::MmapWithoutHandler => mmap.fault_handler(false),
            Kind::Auto => auto,
            Kind::AutoTinyRange => auto.map_range_bytes(RANGE_BYTES_MIN),
            Kind::AutoWithoutMemory => auto.page_cache_bytes_max(0).page_table_bytes_max(0),
            Kind::AutoWithoutHandler => auto.fault_handler(false),
            Kind::Uring => IoOptions::new().mode(IoMode::Uring),
            Kind::UringShallow => IoOptions::new().mode(IoMode::Uring).queue_depth(2),
            // Where the file system has no direct I/O, this is all the same what it has.
            Kind::Direct => IoOptions::new().mode(IoMode::Direct).direct_fallback(true),
        }
    }

    /// Opens for writing too; the file is made if it is not there.
    pub(crate) fn open(self, path: &Path) -> Box<dyn BlockIo> {
        self.options().write(true).create(true).open(path).unwrap()
    }

    pub(crate) fn open_read_only(self, path: &Path) -> Box<dyn BlockIo> {
        self.options().open(path).unwrap()
    }

    /// Whether reads of what is in the page cache come from a map, as long as nothing happens to the file.
    pub(crate) fn maps_resident(self) -> bool {
        self.maps() || matches!(self, Kind::Auto | Kind::AutoTinyRange | Kind::AutoWithoutMemory) && can_map()
    }

    /// Whether reads come from a map, as long as nothing happens to the file.
    pub(crate) fn maps(self) -> bool {
        matches!(self, Kind::Mmap | Kind::MmapTinyRange) && can_map()
    }
}

/// Whether this build has the map at all.
pub(crate) fn can_map() -> bool {
    cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(mapfall_no_map)))
}

/// Bytes that differ from place to place, without two equal blocks near each other, and with a zero now and then.
pub(crate) fn byte_at(place: u64, version: u8) -> u8 {
    let mixed = (place / 3).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23) ^ place;
    (mixed as u8).wrapping_add(version)
}

pub(crate) fn bytes_at(place: u64, len: usize, version: u8) -> Vec<u8> {
    (place..).take(len).map(|place| byte_at(place, version)).collect()
}

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fill {
    Mixed(u8),
    Zeros,
    /// As `Mixed`, but the second half of it is zeros: a block that looks as if the file had been cut in it.
    ZeroTailed(u8),
}

impl Fill {
    fn bytes(self, place: u64, len: usize) -> Vec<u8> {
        let (version, zeros_from) = match self {
            Fill::Mixed(version) => (version, len),
            Fill::Zeros => (0, 0),
            Fill::ZeroTailed(version) => (version, len / 2),
        };
        let mut bytes = bytes_at(place, len, version);
        bytes[zeros_from..].fill(0);
        bytes
    }
}

/// Where a range begins: at an offset, or counted back from the file's end as it is then.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    At(u64),
    BeforeEnd(u64),
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Read(Place, usize),
    ReadBatch(Vec<(Place, usize)>),
    Write(Place, usize, Fill),
    WriteTooFar(u64, usize),
    SetLen(u64),
    SetLenTooFar(u64),
    Reserve(u64),
    ReserveTooFar(u64),
    Sync(SyncKind),
    OtherSetLen(u64),
    OtherWrite(Place, usize, Fill),
    OtherPunch(u64, u64),
}

/// Steps for a file of at most `longest` bytes and a little.
pub(crate) fn steps(longest: u64) -> impl Strategy<Value = Vec<Step>> {
    let offset = prop_oneof![
        4 => 0..=longest,
        2 => (0..=longest / 4096).prop_map(|page| page * 4096),
        1 => (0..=longest / RANGE_BYTES_MIN, -3..=3_i64).prop_map(|(range, by)| {
            (range * RANGE_BYTES_MIN).saturating_add_signed(by)
        }),
    ];
    let place = prop_oneof![
        3 => offset.clone().prop_map(Place::At),
        3 => (0..20_000_u64).prop_map(Place::BeforeEnd),
    ];
    let far = prop_oneof![LARGEST_OFFSET - 5..=LARGEST_OFFSET + 5, u64::MAX - 5..=u64::MAX, (1 << 40)..u64::MAX];
    let len = prop_oneof![4 => 0..=9_000_usize, 2 => Just(4096), 1 => 0..=200_000_usize];
    let read = (prop_oneof![9 => place.clone(), 1 => far.clone().prop_map(Place::At)], len.clone());
    let fill = prop_oneof![
        3 => any::<u8>().prop_map(Fill::Mixed),
        1 => Just(Fill::Zeros),
        1 => any::<u8>().prop_map(Fill::ZeroTailed),
    ];
    let step = prop_oneof![
        12 => read.clone().prop_map(|(place, len)| Step::Read(place, len)),
        3 => prop::collection::vec(read, 0..8).prop_map(Step::ReadBatch),
        6 => (place.clone(), len.clone(), fill.clone()).prop_map(|(place, len, fill)| Step::Write(place, len, fill)),
        1 => (LARGEST_OFFSET - 3..=u64::MAX, 4..100_usize).prop_map(|(offset, len)| Step::WriteTooFar(offset, len)),
        3 => offset.clone().prop_map(Step::SetLen),
        1 => (LARGEST_OFFSET + 1..=u64::MAX).prop_map(Step::SetLenTooFar),
        3 => offset.clone().prop_map(Step::Reserve),
        1 => (LARGEST_OFFSET + 1..=u64::MAX).prop_map(Step::ReserveTooFar),
        1 => prop_oneof![Just(SyncKind::Data), Just(SyncKind::All)].prop_map(Step::Sync),
        4 => offset.clone().prop_map(Step::OtherSetLen),
        4 => (place, len, fill).prop_map(|(place, len, fill)| Step::OtherWrite(place, len, fill)),
        2 => (offset, 0..=300_000_u64).prop_map(|(offset, len)| Step::OtherPunch(offset, len)),
    ];
    prop::collection::vec(step, 1..50)
}

/// What the file holds, and what has been asked of it.
#[derive(Debug, Default)]
pub(crate) struct Model {
    bytes: Vec<u8>,
    done: Done,
}

/// What the statistics must say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) reads: u64,
    pub(crate) read_bytes: u64,
    pub(crate) failed_reads: u64,
    pub(crate) writes: u64,
    pub(crate) write_bytes: u64,
    pub(crate) syncs: u64,
    pub(crate) set_lens: u64,
    pub(crate) reserves: u64,
}

impl Done {
    pub(crate) fn told_by(stats: &IoStats) -> Self {
        Done {
            reads: stats.reads,
            read_bytes: stats.read_bytes,
            failed_reads: stats.failed_reads,
            writes: stats.writes,
            write_bytes: stats.write_bytes,
            syncs: stats.syncs,
            set_lens: stats.set_lens,
            reserves: stats.reserves,
        }
    }
}

impl Model {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn offset(&self, place: Place) -> u64 {
        match place {
            Place::At(offset) => offset,
            Place::BeforeEnd(back) => self.len().saturating_sub(back),
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
    }

    /// What a read of this range must give, or nothing if it passes the end.
    fn read(&self, offset: u64, len: usize) -> Option<&[u8]> {
        if len == 0 {
            return Some(&[]);
        }
        let start = usize::try_from(offset).ok()?;
        self.bytes.get(start..start.checked_add(len)?)
    }

    /// Holds the outcome of one read, alone or in a batch, against what it must be. Counts it.
    fn check_read(&mut self, offset: u64, found: &[u8], error: Option<&Error>) {
        let expected = self.read(offset, found.len()).map(|expected| expected == found);
        match (expected, error) {
            (Some(true), None) => {
                self.done.reads += u64::from(!found.is_empty());
                self.done.read_bytes += found.len() as u64;
            }
            (Some(false), None) => panic!("{} bytes at {offset} of {} are wrong", found.len(), self.len()),
            (None, Some(error)) => {
                past_end(error, offset, found.len(), self.len());
                self.done.failed_reads += 1;
            }
            (Some(_), Some(error)) => panic!("{} bytes at {offset} of {}: {error}", found.len(), self.len()),
            (None, None) => panic!("{} bytes at {offset} of {} were read", found.len(), self.len()),
        }
    }

    fn check_batch(&mut self, file: &dyn BlockIo, reads: &[(Place, usize)]) {
        let offsets: Vec<_> = reads.iter().map(|(place, _)| self.offset(*place)).collect();
        let mut bufs: Vec<_> = reads.iter().map(|(_, len)| vec![0xEE; *len]).collect();
        let mut batch: Vec<_> =
            offsets.iter().zip(&mut bufs).map(|(offset, buf)| BatchRead { offset: *offset, buf }).collect();
        let result = file.read_batch(&mut batch);
        let fails = |(offset, buf): (&u64, &Vec<u8>)| self.read(*offset, buf.len()).is_none();
        let first = offsets.iter().zip(&bufs).position(fails);
        match (&result, first) {
            (Ok(()), None) => {}
            (Err(Error::Batch { index, source }), Some(first)) => {
                assert_eq!(*index, first);
                past_end(source, offsets[first], bufs[first].len(), self.len());
            }
            _ => panic!("{result:?}, but the first to fail is {first:?}"),
        }
        // Those behind the one that failed were tried too.
        for (offset, buf) in offsets.into_iter().zip(bufs) {
            if self.read(offset, buf.len()).is_some() {
                self.check_read(offset, &buf, None);
            } else {
                self.done.failed_reads += 1;
            }
        }
    }

    /// Does one step, by the implementation or by the other hand, and holds it against the model.
    pub(crate) fn step(&mut self, step: &Step, file: &dyn BlockIo, other: &File) {
        match *step {
            Step::Read(place, len) => {
                let offset = self.offset(place);
                let mut found = vec![0xEE; len];
                let result = file.read_at(offset, &mut found);
                self.check_read(offset, &found, result.as_ref().err());
            }
            Step::ReadBatch(ref reads) => self.check_batch(file, reads),
            Step::Write(place, len, fill) => {
                let offset = self.offset(place);
                let bytes = fill.bytes(offset, len);
                file.write_at(offset, &bytes).unwrap();
                self.write(offset, &bytes);
                self.done.writes += u64::from(len > 0);
                self.done.write_bytes += len as u64;
            }
            Step::WriteTooFar(offset, len) => {
                overflow(file.write_at(offset, &vec![1; len]), Operation::Write, offset, len as u64);
            }
            Step::SetLen(len) => {
                file.set_len(len).unwrap();
                self.bytes.resize(len as usize, 0);
                self.done.set_lens += 1;
            }
            Step::SetLenTooFar(len) => overflow(file.set_len(len), Operation::SetLen, 0, len),
            Step::Reserve(len) => {
                file.reserve(len).unwrap();
                self.bytes.resize(self.bytes.len().max(len as usize), 0);
                self.done.reserves += 1;
            }
            Step::ReserveTooFar(len) => overflow(file.reserve(len), Operation::Reserve, 0, len),
            Step::Sync(kind) => {
                file.sync(kind).unwrap();
                self.done.syncs += 1;
            }
            Step::OtherSetLen(len) => {
                other.set_len(len).unwrap();
                self.bytes.resize(len as usize, 0);
            }
            Step::OtherWrite(place, len, fill) => {
                let offset = self.offset(place);
                let bytes = fill.bytes(offset, len);
                other.write_all_at(&bytes, offset).unwrap();
                self.write(offset, &bytes);
            }
            Step::OtherPunch(offset, len) => {
                let end = (offset + len).min(self.len());
                if offset < end && punch(other, offset, len).is_ok() {
                    self.bytes[offset as usize..end as usize].fill(0);
                }
            }
        }
        assert_eq!(file.len().unwrap(), self.len());
        assert_eq!(file.is_empty().unwrap(), self.bytes.is_empty());
    }

    /// Reads everything, and compares what was done with what was counted.
    pub(crate) fn check_whole(&mut self, file: &dyn BlockIo) {
        let step = 300_001;
        for start in (0..self.bytes.len()).step_by(step) {
            let mut found = vec![0xEE; step.min(self.bytes.len() - start)];
            let result = file.read_at(start as u64, &mut found);
            self.check_read(start as u64, &found, result.as_ref().err());
        }
        let stats = file.stats();
        assert_eq!(Done::told_by(&stats), self.done);
        assert!(stats.paths_add_up(), "{stats:?}");
    }
}

/// Makes a hole. Where the file system has none, that is no error of anyone's.
pub(crate) fn punch(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
        Err(Errno::OPNOTSUPP) => Err(Errno::OPNOTSUPP.into()),
        other => {
            other.unwrap();
            Ok(())
        }
    }
}

/// The error of a read past the end, with everything it says.
pub(crate) fn past_end(error: &Error, offset: u64, wanted: usize, file_len: u64) {
    match error {
        Error::PastEnd { offset: at, wanted_bytes, file_len_bytes } => {
            assert_eq!((*at, *wanted_bytes, *file_len_bytes), (offset, wanted as u64, file_len));
        }
        other => panic!("{wanted} bytes at {offset} of {file_len}: {other}"),
    }
}

/// The refusal of a range that no file can have, with everything it says.
pub(crate) fn overflow(result: Result<()>, expected: Operation, expected_offset: u64, expected_len: u64) {
    match result {
        Err(Error::OffsetOverflow { operation, offset, len_bytes }) => {
            assert_eq!((operation, offset, len_bytes), (expected, expected_offset, expected_len));
        }
        other => panic!("{expected} of {expected_len} bytes at {expected_offset}: {other:?}"),
    }
}
