//! The process that changes the file: it runs free, counts what it does, and waits for a read of most rounds.
//!
//! It may be killed at any moment. The one that comes after it begins by cutting the file to nothing, whatever the last
//! change has come to.

use std::fs::{self, File};
use std::hint;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::process::{Pid, getppid};

use super::change::{Change, Script};
use super::content::{VERSION_MAX, fill};
use super::shared::{HOLES_REFUSED, REFUSED, RENAMES, RING_CHANGES, ROUNDS, ROUNDS_READ, STOP, Shared};
use crate::workload::error::{Error, Result};

/// What the process is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changing {
    /// The file's name, for the moments when it is another's.
    pub path: PathBuf,
    /// The part of the file that is changed.
    pub file_bytes: u64,
    /// Where it begins.
    pub first_byte: u64,
    /// What chance begins from.
    pub seed: u64,
}

/// The whole life of the process: changes `file` until it is told to end, or whoever started it is gone. `shared` is
/// the memory that the readers' process made for it.
///
/// # Errors
///
/// Where `shared` is no such memory.
pub fn serve(changing: &Changing, shared: &File, file: File) -> Result<()> {
    let shared = Shared::of(shared).map_err(Error::system("map the shared memory for", &changing.path))?;
    let number = shared.begun();
    let seed = changing.seed.wrapping_add(number);
    let mut changer = Changer {
        changing,
        shared,
        file,
        parent: getppid(),
        number,
        free_until: 0,
        len: changing.file_bytes,
        bytes: Vec::new(),
        rng: SmallRng::seed_from_u64(seed),
    };
    if number > 0 {
        changer.change(Change::Cut { len: 0 });
    }
    let (mut script, mut round) = (Script::new(seed, changing.file_bytes), Vec::new());
    let mut version = 0;
    while !changer.is_over() {
        script.next_round(changer.len, &mut version, &mut round);
        for change in &round {
            if !changer.wait_for_room() {
                return Ok(());
            }
            changer.change(*change);
            changer.pause();
        }
        let rounds = changer.shared.word(ROUNDS).load(Relaxed) + 1;
        changer.shared.word(ROUNDS).store(rounds, Relaxed);
        if changer.rng.random_range(0..8) > 0 {
            changer.wait(|shared| shared.word(ROUNDS_READ).load(Relaxed) >= rounds);
        }
    }
    Ok(())
}

struct Changer<'a> {
    changing: &'a Changing,
    shared: Shared,
    file: File,
    parent: Option<Pid>,
    /// Of the last change.
    number: u64,
    /// The ring has room up to this change.
    free_until: u64,
    len: u64,
    bytes: Vec<u8>,
    rng: SmallRng,
}

impl Changer<'_> {
    fn is_over(&self) -> bool {
        self.shared.word(STOP).load(Relaxed) != 0
    }

    /// Until something is so. `false`: it is over, or the parent is gone.
    fn wait(&self, is_so: impl Fn(&Shared) -> bool) -> bool {
        const SPINS: u32 = 200;
        const LOOK_AFTER: u32 = 1 << 10;
        let mut waited = 0_u32;
        while !is_so(&self.shared) {
            if self.is_over() {
                return false;
            }
            waited += 1;
            match waited {
                0..SPINS => hint::spin_loop(),
                _ if waited.is_multiple_of(LOOK_AFTER) && getppid() != self.parent => return false,
                _ => thread::yield_now(),
            }
        }
        true
    }

    /// Until the readers are not too far behind.
    fn wait_for_room(&mut self) -> bool {
        if self.number + 1 < self.free_until {
            return true;
        }
        if getppid() != self.parent {
            return false;
        }
        let next = self.number + 1;
        // A change in the ring is overwritten by the one that comes so many after it.
        let room = |shared: &Shared| shared.applied_by_all().saturating_add(RING_CHANGES);
        let has_room = self.wait(|shared| room(shared) > next);
        self.free_until = room(&self.shared).min(next + RING_CHANGES / 4);
        has_room
    }

    /// Now and then as long as some reads take, so that there are reads of each state.
    fn pause(&mut self) {
        if self.rng.random_range(0..4) == 0 {
            (0..self.rng.random_range(0..1_000)).for_each(|_| hint::spin_loop());
        }
    }

    fn change(&mut self, change: Change) {
        self.number += 1;
        let change = match change {
            Change::Write { start, end, .. } => Change::Write { start, end, version: self.number % VERSION_MAX + 1 },
            other => other,
        };
        if let Change::Write { start, end, version } = change {
            self.bytes.resize((end - start) as usize, 0);
            fill(version, start, &mut self.bytes);
        }
        self.shared.begin(self.number, change);
        let done = self.carry_out(change);
        self.shared.end(self.number, done);
        self.len = done.len_after(self.len);
    }

    /// What came of it.
    #[allow(clippy::disallowed_methods, reason = "another process writes as it likes, and a short write is a change")]
    fn carry_out(&self, change: Change) -> Change {
        let first = self.changing.first_byte;
        let result = match change {
            Change::Nothing => Ok(change),
            Change::Cut { len } | Change::Extend { len } => self.file.set_len(first + len).map(|()| change),
            Change::Write { start, version, .. } => self
                .file
                .write_at(&self.bytes, first + start)
                .map(|count| Change::Write { start, end: start + count as u64, version }),
            Change::Punch { start, end } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                match fallocate(&self.file, flags, first + start, end - start) {
                    Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                        self.shared.word(HOLES_REFUSED).fetch_add(1, Relaxed);
                        return Change::Nothing;
                    }
                    result => result.map(|()| change).map_err(io::Error::from),
                }
            }
            Change::Rename => rename(&self.changing.path).map(|()| {
                self.shared.word(RENAMES).fetch_add(1, Relaxed);
                change
            }),
        };
        result.unwrap_or_else(|_| {
            self.shared.word(REFUSED).fetch_add(1, Relaxed);
            Change::Nothing
        })
    }
}

/// Names of the moments when another file has the name.
const KEPT: &str = ".kept";
const OTHER: &str = ".other";

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The file loses its name, another one has it, and then it gets it back.
fn rename(path: &Path) -> io::Result<()> {
    let (kept, other) = (beside(path, KEPT), beside(path, OTHER));
    tidy_up(path);
    fs::hard_link(path, &kept)?;
    fs::remove_file(path)?;
    let made = fs::write(&other, [0xEE; 3_000]).and_then(|()| fs::rename(&other, path));
    let given_back = fs::rename(&kept, path);
    made.and(given_back)
}

/// Undoes what a killed process may have left beside the file.
pub(super) fn tidy_up(path: &Path) {
    // Where nothing was left, there is nothing to give back.
    let _ = fs::rename(beside(path, KEPT), path);
    let _ = fs::remove_file(beside(path, OTHER));
}
