//! A file whose every byte is known at every moment.
//!
//! A script is a list of changes that anyone can work out from its seed. One process carries it out, counting each
//! change before and after; readers note the counts before and after each read. So a reader knows in which states the
//! file can have been while it read: if no change overlapped the read, in exactly one, and the answer must be exactly
//! that.
#![allow(dead_code, reason = "every test binary takes what it needs")]

use std::fs::File;
use std::hint;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread;
use std::time::Duration;

use mapfall::{BlockIo, Error};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::{FallocateFlags, fallocate};

use super::children::Progress;

/// The unit that carries its number and version, in every word of it.
const WORD_BYTES: usize = 8;
/// Changes in a script: enough for hundreds of faults.
const CHANGES: u64 = 12_000;

/// Fills `bytes` with what `version` of the file has from `start` on.
///
/// About half of the bytes before a multiple of 64 are zero: a block that ends in one could be the rest of a cut page,
/// for all that its last byte tells.
pub(crate) fn fill(version: u64, start: usize, bytes: &mut [u8]) {
    let mut word = None;
    for (index, byte) in bytes.iter_mut().enumerate() {
        let place = start + index;
        if word.is_none() || place.is_multiple_of(WORD_BYTES) {
            word = Some(mixed((version << 32) ^ (place / WORD_BYTES) as u64));
        }
        let [.., last] = word.unwrap_or_default().to_le_bytes();
        *byte = match place % 64 {
            63 if last & 1 == 0 => 0,
            // Never zero, so that a zero elsewhere is known to come from a hole or a cut.
            _ => (word.unwrap_or_default().to_le_bytes()[place % WORD_BYTES]).max(1),
        };
    }
}

/// The finaliser of SplitMix64.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

pub(crate) fn filled(version: u64, start: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(version, start, &mut bytes);
    bytes
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// `ftruncate` to less.
    Cut { len: usize },
    /// `ftruncate` to more: zeros.
    Extend { len: usize },
    /// One `pwrite` of `version`.
    Write { start: usize, end: usize, version: u64 },
    /// `fallocate(PUNCH_HOLE)`: zeros.
    Punch { start: usize, end: usize },
}

/// Which changes a script is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The file is cut in the middle of a page and the same place is written again: no byte of it is ever zero that was
    /// not written as zero.
    CutAndWrite,
    /// The same at the beginning of a long file, where a look at the file's last page tells whether it was cut.
    CutFarFromTheEnd,
    /// Cuts to nothing, to the middle of a page and to its end; growth by writes and by zeros; holes; writes in place.
    Anything,
    /// The same without holes, for what has no call to make them.
    AnythingButHoles,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] =
        [Kind::CutAndWrite, Kind::CutFarFromTheEnd, Kind::Anything, Kind::AnythingButHoles];
}

pub(crate) struct Script {
    /// The part of the file that readers read. It may be longer.
    pub(crate) file_bytes: usize,
    pub(crate) changes: Vec<Change>,
}

impl Script {
    pub(crate) fn new(kind: Kind, seed: u64) -> Self {
        let page = rustix::param::page_size();
        let file_bytes = 16 * page;
        let mut rng = SmallRng::seed_from_u64(seed);
        // Past the largest folio there is, which is as far as a cut can zero.
        let far_bytes = page << 12;
        let mut len = file_bytes;
        let next = |version| {
            let change = match kind {
                Kind::CutAndWrite if len == file_bytes => Change::Cut { len: rng.random_range(1..file_bytes) },
                Kind::CutFarFromTheEnd if len == far_bytes => Change::Cut { len: rng.random_range(1..file_bytes) },
                Kind::CutFarFromTheEnd if len == file_bytes => Change::Extend { len: far_bytes },
                Kind::CutAndWrite | Kind::CutFarFromTheEnd => Change::Write { start: len, end: file_bytes, version },
                _ if len < file_bytes / 4 => {
                    let end = rng.random_range(file_bytes / 4..=file_bytes);
                    if rng.random() { Change::Extend { len: end } } else { Change::Write { start: len, end, version } }
                }
                _ => match rng.random_range(0..12) {
                    0 => Change::Cut { len: 0 },
                    1..3 => Change::Cut { len: rng.random_range(0..len) / page * page },
                    3..5 => Change::Cut { len: rng.random_range(0..len) },
                    5..7 if len < file_bytes => Change::Extend { len: rng.random_range(len + 1..=file_bytes) },
                    7..9 if kind == Kind::Anything => {
                        let start = rng.random_range(0..len);
                        Change::Punch { start, end: (start + rng.random_range(1..=2 * page)).min(len) }
                    }
                    _ => {
                        let start = rng.random_range(0..len);
                        Change::Write { start, end: (start + rng.random_range(1..=4 * page)).min(file_bytes), version }
                    }
                },
            };
            len = match change {
                Change::Cut { len } | Change::Extend { len } => len,
                Change::Write { end, .. } => len.max(end),
                Change::Punch { .. } => len,
            };
            change
        };
        let changes = (1..=CHANGES).map(next).collect();
        Script { file_bytes, changes }
    }

    /// The file before the first change.
    pub(crate) fn first(&self) -> State {
        State::of(filled(0, 0, self.file_bytes))
    }

    /// Carries the script out. Between two changes it waits for about as long as a few reads take, sometimes longer.
    pub(crate) fn carry_out(&self, seed: u64, progress: &Progress, on: &dyn Target) {
        let mut rng = SmallRng::seed_from_u64(seed);
        for (index, change) in (1..).zip(&self.changes) {
            progress.begun().store(index, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            on.change(change);
            fence(Ordering::SeqCst);
            progress.done().store(index, Ordering::SeqCst);
            match rng.random_range(0..64) {
                0 => thread::sleep(Duration::from_micros(500)),
                spins => (0..spins * 40).for_each(|_| hint::spin_loop()),
            }
        }
    }
}

/// What a script is carried out on.
pub(crate) trait Target {
    fn change(&self, change: &Change);
}

impl Target for File {
    #[allow(clippy::disallowed_methods, reason = "another process writes as it likes")]
    fn change(&self, change: &Change) {
        match *change {
            Change::Cut { len } | Change::Extend { len } => self.set_len(len as u64).unwrap(),
            Change::Write { start, end, version } => {
                let bytes = filled(version, start, end - start);
                assert_eq!(self.write_at(&bytes, start as u64).unwrap(), bytes.len());
            }
            Change::Punch { start, end } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(self, flags, start as u64, (end - start) as u64).unwrap();
            }
        }
    }
}

/// Any of ours that can write.
pub(crate) struct Own<'a>(pub(crate) &'a dyn BlockIo);

impl Target for Own<'_> {
    fn change(&self, change: &Change) {
        match *change {
            Change::Cut { len } | Change::Extend { len } => self.0.set_len(len as u64).unwrap(),
            Change::Write { start, end, version } => {
                self.0.write_at(start as u64, &filled(version, start, end - start)).unwrap();
            }
            Change::Punch { .. } => unreachable!("no call of ours makes holes"),
        }
    }
}

/// What the file holds after some of the changes, or a part of it from `start` on.
#[derive(Clone)]
pub(crate) struct State {
    /// As many as the file ever has; those past `len` are zero.
    pub(crate) bytes: Vec<u8>,
    start: usize,
    pub(crate) len: usize,
}

impl State {
    /// A whole file of these bytes.
    pub(crate) fn of(bytes: Vec<u8>) -> State {
        State { len: bytes.len(), bytes, start: 0 }
    }

    fn part(&self, start: usize, len: usize) -> State {
        State { bytes: self.bytes[start..start + len].to_vec(), start, len: self.len }
    }

    fn mine(&mut self, start: usize, end: usize) -> (usize, &mut [u8]) {
        let last = self.start + self.bytes.len();
        let (start, end) = (start.clamp(self.start, last), end.clamp(self.start, last));
        (start, &mut self.bytes[start - self.start..end.max(start) - self.start])
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match *change {
            Change::Cut { len } => {
                self.mine(len, usize::MAX).1.fill(0);
                self.len = len;
            }
            Change::Extend { len } => self.len = len,
            Change::Write { start, end, version } => {
                let (start, bytes) = self.mine(start, end);
                fill(version, start, bytes);
                self.len = self.len.max(end);
            }
            Change::Punch { start, end } => self.mine(start, end).1.fill(0),
        }
    }
}

/// What a reader has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Reads that gave bytes.
    pub(crate) blocks: u64,
    /// Of those, reads that no change overlapped: each was exactly the file.
    pub(crate) quiet_blocks: u64,
    /// Reads past the end.
    pub(crate) past_end: u64,
    /// Of those, reads that no change overlapped.
    pub(crate) quiet_past_end: u64,
    /// Blocks with zeros that only a cut during the read explains, which `pread` has too.
    pub(crate) cut_while_read: u64,
}

impl Seen {
    pub(crate) fn and(self, other: Seen) -> Seen {
        Seen {
            blocks: self.blocks + other.blocks,
            quiet_blocks: self.quiet_blocks + other.quiet_blocks,
            past_end: self.past_end + other.past_end,
            quiet_past_end: self.quiet_past_end + other.quiet_past_end,
            cut_while_read: self.cut_while_read + other.cut_while_read,
        }
    }
}

/// Reads until the script is over or `stop`, and panics at the first read that `pread` could not have given.
pub(crate) fn read_along(
    script: &Script,
    file: &dyn BlockIo,
    progress: &Progress,
    seed: u64,
    stop: &AtomicBool,
) -> Seen {
    let page = rustix::param::page_size();
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut state = script.first();
    let mut applied = 0;
    let mut seen = Seen::default();
    let mut buf = vec![0; 2 * page];
    while !stop.load(Ordering::Relaxed) {
        let unit = [512, page, rng.random_range(1..=2 * page)][rng.random_range(0..3)];
        let place = rng.random_range(0..=script.file_bytes - unit);
        let place = if rng.random() { place / unit * unit } else { place };
        let done = progress.done().load(Ordering::SeqCst) as usize;
        fence(Ordering::SeqCst);
        let result = file.read_at(place as u64, &mut buf[..unit]);
        fence(Ordering::SeqCst);
        let begun = progress.begun().load(Ordering::SeqCst) as usize;
        script.changes[applied..done].iter().for_each(|change| state.apply(change));
        applied = done;
        let during = &script.changes[done..begun];
        match result {
            Ok(()) => match explain(&state, during, place, &buf[..unit]) {
                Ok(by_cut) => {
                    seen.blocks += 1;
                    seen.quiet_blocks += u64::from(during.is_empty());
                    seen.cut_while_read += u64::from(by_cut);
                }
                Err(first) => panic!(
                    "{unit} bytes at {place}: byte {} is {:#x}, which the file did not have while it was read\n\
                     wrong up to byte {}\nat first it was {} long and had {:?} there, then {during:?}",
                    place + first,
                    buf[first],
                    wrong_until(&state, during, place, first, &buf[..unit]),
                    state.len,
                    &state.bytes[place + first..(place + first + 16).min(script.file_bytes)],
                ),
            },
            Err(Error::PastEnd { offset, wanted_bytes, file_len_bytes }) => {
                assert_eq!((offset, wanted_bytes), (place as u64, unit as u64));
                let (shortest, longest) = lengths(&state, during);
                assert!(
                    (shortest as u64..=longest as u64).contains(&file_len_bytes)
                        && file_len_bytes < (place + unit) as u64,
                    "{unit} bytes at {place} are past an end at {file_len_bytes}; it was {}, then {during:?}",
                    state.len,
                );
                seen.past_end += 1;
                seen.quiet_past_end += u64::from(during.is_empty());
            }
            Err(error) => panic!("{unit} bytes at {place}: {error}"),
        }
    }
    seen
}

/// Whether every byte can have been in the file during the changes: the first that cannot, or whether a cut is needed
/// to explain some of them.
///
/// A `pread` looks at the file's length and then copies. If the file is cut in between, the rest of its last page is
/// zeros already, and that happens. So those are let pass, but only if the cut itself overlapped the read.
fn explain(state: &State, during: &[Change], place: usize, found: &[u8]) -> Result<bool, usize> {
    let mut state = state.part(place, found.len());
    let mut explained = vec![false; found.len()];
    let mut lowest_cut = usize::MAX;
    for change in std::iter::once(None).chain(during.iter().map(Some)) {
        if let Some(change) = change {
            state.apply(change);
        }
        if let Some(Change::Cut { len }) = change {
            lowest_cut = lowest_cut.min(*len);
        }
        let there = state.len.saturating_sub(place).min(found.len());
        for (index, explained) in explained[..there].iter_mut().enumerate() {
            *explained |= state.bytes[index] == found[index];
        }
    }
    let mut by_cut = false;
    for (index, explained) in explained.into_iter().enumerate() {
        if explained {
            continue;
        }
        if found[index] != 0 || place + index < lowest_cut {
            return Err(index);
        }
        by_cut = true;
    }
    Ok(by_cut)
}

/// Where the bytes are right again, as the file is after the changes.
fn wrong_until(state: &State, during: &[Change], place: usize, first: usize, found: &[u8]) -> usize {
    let mut state = state.part(place, found.len());
    during.iter().for_each(|change| state.apply(change));
    let right = |index: &usize| state.bytes[*index] == found[*index];
    place + (first..found.len()).find(right).unwrap_or(found.len())
}

/// The shortest and the longest that the file can have been.
fn lengths(state: &State, during: &[Change]) -> (usize, usize) {
    let mut state = state.part(0, 0);
    let (mut shortest, mut longest) = (state.len, state.len);
    for change in during {
        state.apply(change);
        shortest = shortest.min(state.len);
        longest = longest.max(state.len);
    }
    (shortest, longest)
}
