//! What a client does, and whether what comes of it can be right.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::baton::reading;
use super::disk::Disk;
use super::oracle::{Block, Cut, Oracle, State, bytes_of, state_of};
use super::plan::{Op, Setup};
use crate::{CheckpointOptions, Error, Operation, PageId, PageRead, Store};

/// Where a store writes its slots: whoever fails to cannot know what is there.
const SLOTS: std::ops::Range<u64> = super::content::SLOTS;
/// Snapshots that are open at a time.
const SNAPSHOTS_MAX: usize = 3;

/// What is wrong, in words. The first one ends a run.
pub(super) type Checked<T = ()> = std::result::Result<T, String>;

/// A store that is open, and what it must hold.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) disk: Disk,
    pub(super) setup: Setup,
    oracle: Mutex<Oracle>,
}

impl World {
    pub(super) fn new(store: Store, disk: Disk, setup: Setup, oracle: Oracle) -> Self {
        World { store, disk, setup, oracle: Mutex::new(oracle) }
    }

    pub(super) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the store. What is left is what was known of it.
    pub(super) fn close(self) -> (Disk, Oracle) {
        let mut oracle = self.oracle.into_inner().unwrap_or_else(PoisonError::into_inner);
        oracle.snapshots.clear();
        (self.disk, oracle)
    }
}

/// Whether nobody can know what is on the device after this error of a checkpoint.
fn poisons(error: &Error) -> bool {
    match error {
        Error::Io { operation: Operation::Sync, .. } => true,
        Error::Io { operation: Operation::Write, offset, .. } => SLOTS.contains(offset),
        _ => false,
    }
}

/// Whether an error says that something is damaged, or that the system failed.
pub(super) fn tells_of_damage(error: &Error) -> bool {
    match error {
        Error::Batch { source, .. } => tells_of_damage(source),
        Error::Corrupt { .. }
        | Error::NotAStore { .. }
        | Error::Unsupported { .. }
        | Error::PastEnd { .. }
        | Error::Poisoned { .. }
        | Error::Io { .. } => true,
        _ => false,
    }
}

fn is_of_the_system(error: &Error) -> bool {
    match error {
        Error::Batch { source, .. } => is_of_the_system(source),
        Error::Io { .. } => true,
        _ => false,
    }
}

/// One client of a world.
pub(super) struct Client<'a> {
    pub(super) world: &'a World,
    pub(super) number: usize,
}

impl Client<'_> {
    /// Does what is planned, to the end or until the power goes.
    pub(super) fn run(&self, ops: &[Op]) -> Checked {
        for op in ops {
            if self.world.disk.is_down() {
                return Ok(());
            }
            self.run_one(*op).map_err(|problem| format!("client {}, {op:?}: {problem}", self.number))?;
        }
        Ok(())
    }

    fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.world.oracle()
    }

    /// Whether an error can be, after `failed` calls of this client had failed before it.
    fn excuse(&self, error: &Error, failed: u64) -> Checked {
        let disk = &self.world.disk;
        let excused = match error {
            _ if disk.is_damaged() => tells_of_damage(error),
            Error::Poisoned { .. } => self.oracle().is_poisoned,
            error => is_of_the_system(error) && disk.failed() > failed,
        };
        disk.note(u64::from(excused) + 2);
        if excused { Ok(()) } else { Err(format!("an error that nothing explains: {error}")) }
    }

    fn run_one(&self, op: Op) -> Checked {
        match op {
            Op::Allocate { count } => (0..count).try_for_each(|_| self.allocate()),
            Op::Write { pick, count } => self.write(pick, count as usize),
            Op::Free { pick } => self.free(pick),
            Op::Read { pick } => self.read(pick, 1),
            Op::ReadBatch { pick, count } => self.read(pick, count as usize),
            Op::WriteBlock { len } => self.write_block(len as usize),
            Op::FreeBlock { pick } => self.free_block(pick),
            Op::ReadBlock { pick } => self.read_block(pick),
            Op::Checkpoint { keep, commit, pack } => self.checkpoint(keep, commit, pack),
            Op::DropName { pick } => self.drop_name(pick),
            Op::TakeSnapshot { pick } => self.take_snapshot(pick),
            Op::ReadSnapshots => self.read_snapshots(),
        }
    }

    fn page_bytes(&self) -> usize {
        self.world.setup.page_bytes as usize
    }

    fn allocate(&self) -> Checked {
        let (failed, begun) = {
            let mut oracle = self.oracle();
            oracle.allocations_in_flight += 1;
            (self.world.disk.failed(), oracle.now())
        };
        let result = self.world.store.pages().allocate();
        let mut oracle = self.oracle();
        oracle.allocations_in_flight -= 1;
        match result {
            Ok(PageId(page)) => {
                let now = oracle.now();
                let before = oracle.states(page, begun, now);
                if !before.contains(&State::Absent) && !oracle.unknown.contains(&page) {
                    return Err(format!("page {page} is given out, and it is live: {before:?}"));
                }
                oracle.begin(page, State::Zeros);
                oracle.end(page, true);
                oracle.owners.insert(page, self.number);
                Ok(())
            }
            Err(error) => {
                drop(oracle);
                self.excuse(&error, failed)
            }
        }
    }

    fn write(&self, pick: u64, count: usize) -> Checked {
        let mut batch = Vec::new();
        let failed = {
            let mut oracle = self.oracle();
            let mut own = oracle.own(self.number);
            for turn in 0..count as u64 {
                if own.is_empty() {
                    break;
                }
                let page = own.swap_remove(pick.rotate_left(turn as u32 * 7) as usize % own.len());
                let tag = oracle.tag();
                oracle.begin(page, State::Tag(tag));
                batch.push((PageId(page), bytes_of(tag, self.page_bytes())));
            }
            self.world.disk.failed()
        };
        if batch.is_empty() {
            return Ok(());
        }
        let written: Vec<_> = batch.iter().map(|(page, bytes)| (*page, &bytes[..])).collect();
        let result = self.world.store.pages().write_batch(&written);
        let mut oracle = self.oracle();
        batch.iter().for_each(|(page, _)| oracle.end(page.0, result.is_ok()));
        drop(oracle);
        result.or_else(|error| self.excuse(&error, failed))
    }

    fn free(&self, pick: u64) -> Checked {
        let (page, failed) = {
            let mut oracle = self.oracle();
            let own = oracle.own(self.number);
            if own.is_empty() {
                return Ok(());
            }
            let page = own[pick as usize % own.len()];
            oracle.begin(page, State::Absent);
            (page, self.world.disk.failed())
        };
        let result = self.world.store.pages().free(PageId(page));
        self.oracle().end(page, result.is_ok());
        result.or_else(|error| self.excuse(&error, failed))
    }

    fn read(&self, pick: u64, count: usize) -> Checked {
        let (pages, from, failed) = {
            let mut oracle = self.oracle();
            let live = oracle.live();
            let pages: Vec<_> = match live.len() {
                0 => return Ok(()),
                len => (0..count).map(|turn| live[pick.rotate_left(turn as u32 * 11) as usize % len]).collect(),
            };
            (pages, oracle.now(), self.world.disk.failed())
        };
        let mut bytes = vec![0xEE; self.page_bytes() * pages.len()];
        let store = &self.world.store;
        let result = match pages[..] {
            [page] => reading(|| store.pages().read(PageId(page), &mut bytes)),
            _ => {
                let bufs = bytes.chunks_exact_mut(self.page_bytes());
                let mut batch: Vec<_> =
                    pages.iter().zip(bufs).map(|(page, buf)| PageRead { page: PageId(*page), buf }).collect();
                reading(|| store.pages().read_batch(&mut batch))
            }
        };
        let mut oracle = self.oracle();
        let to = oracle.now();
        let may_be = |oracle: &Oracle, page: u64| {
            let mut states = oracle.states(page, from, to);
            if oracle.allocations_in_flight > 0 && states.contains(&State::Absent) {
                states.push(State::Zeros);
            }
            states
        };
        match result {
            Ok(()) => {
                for (page, found) in pages.iter().zip(bytes.chunks_exact(self.page_bytes())) {
                    let states = may_be(&oracle, *page);
                    if !oracle.unknown.contains(page) && state_of(found, &states).is_none() {
                        return Err(wrong(&format!("page {page}"), found, &states));
                    }
                    self.world.disk.note(u64::from(found[0]));
                }
                Ok(())
            }
            Err(error) => {
                let gone = match &error {
                    Error::Batch { source, .. } => missing_page(source),
                    error => missing_page(error),
                };
                if gone.is_some_and(|page| may_be(&oracle, page).contains(&State::Absent)) {
                    return Ok(());
                }
                drop(oracle);
                self.excuse(&error, failed)
            }
        }
    }

    fn write_block(&self, len: usize) -> Checked {
        let (tag, failed) = (self.oracle().tag(), self.world.disk.failed());
        match self.world.store.blocks().write(&bytes_of(tag, len)) {
            Ok(address) => {
                let mut oracle = self.oracle();
                let end = address.offset + u64::from(address.len_bytes);
                let overlaps = |other: &&Block| {
                    other.address.offset < end
                        && address.offset < other.address.offset + u64::from(other.address.len_bytes)
                };
                if let Some(other) = oracle.blocks.iter().find(overlaps) {
                    return Err(format!("block {address} is over block {}, which is live", other.address));
                }
                oracle.blocks.push(Block { address, tag, owner: self.number });
                Ok(())
            }
            Err(error) => self.excuse(&error, failed),
        }
    }

    /// A block of one's own, if there is any.
    fn own_block(&self, pick: u64) -> Option<Block> {
        let oracle = self.oracle();
        let own: Vec<_> = oracle.blocks.iter().filter(|block| block.owner == self.number).collect();
        (!own.is_empty()).then(|| *own[pick as usize % own.len()])
    }

    fn free_block(&self, pick: u64) -> Checked {
        let Some(block) = self.own_block(pick) else { return Ok(()) };
        self.oracle().blocks.retain(|other| *other != block);
        let failed = self.world.disk.failed();
        self.world.store.blocks().free(&block.address).or_else(|error| {
            self.oracle().blocks.push(block);
            self.excuse(&error, failed)
        })
    }

    fn read_block(&self, pick: u64) -> Checked {
        let Some(block) = self.own_block(pick) else { return Ok(()) };
        let failed = self.world.disk.failed();
        let mut bytes = vec![0xEE; block.address.len_bytes as usize];
        match reading(|| self.world.store.blocks().read(&block.address, &mut bytes)) {
            Ok(()) if bytes == bytes_of(block.tag, bytes.len()) => Ok(()),
            Ok(()) => Err(wrong(&format!("block {}", block.address), &bytes, &[State::Tag(block.tag)])),
            Err(error) => self.excuse(&error, failed),
        }
    }

    fn checkpoint(&self, keep: bool, commit: bool, pack: bool) -> Checked {
        let store = &self.world.store;
        let (tag, from, failed) = {
            let mut oracle = self.oracle();
            // Whoever else wants one would wait for this one to end, with the baton.
            if oracle.checkpoint_runs {
                return Ok(());
            }
            oracle.checkpoint_runs = true;
            (oracle.tag(), oracle.now(), self.world.disk.failed())
        };
        let name = format!("kept {tag}");
        let options = CheckpointOptions::new().cookie(&tag.to_le_bytes()).pack(pack);
        let options = if keep { options.keep_as(&name) } else { options };
        let pending = match store.begin_checkpoint(options) {
            Ok(pending) => pending,
            Err(error) => {
                self.oracle().checkpoint_runs = false;
                return self.excuse(&error, failed);
            }
        };
        let (cut, dropped) = {
            let mut oracle = self.oracle();
            let to = oracle.now();
            let mut cut = oracle.cut(from, to);
            cut.generation = store.generation() + 1;
            cut.cookie = tag.to_le_bytes().to_vec();
            if keep {
                cut.kept.push((name, Arc::new(Cut { kept: Vec::new(), ..cut.clone() })));
            }
            let cut = Arc::new(cut);
            if commit {
                oracle.candidates.push(cut.clone());
                oracle.all.push(cut.clone());
            }
            (cut, oracle.drops.clone())
        };
        if !commit {
            drop(pending);
            self.oracle().checkpoint_runs = false;
            return Ok(());
        }
        let result = pending.commit();
        let mut oracle = self.oracle();
        oracle.checkpoint_runs = false;
        match result {
            Ok(report) if report.generation != cut.generation => {
                Err(format!("a checkpoint is of generation {}, expected {}", report.generation, cut.generation))
            }
            Ok(_) => {
                oracle.candidates = vec![cut.clone()];
                oracle.kept.clone_from(&cut.kept);
                oracle.drops.retain(|name| !dropped.contains(name));
                Ok(())
            }
            Err(error) => {
                oracle.is_poisoned |= poisons(&error);
                drop(oracle);
                self.excuse(&error, failed)
            }
        }
    }

    fn drop_name(&self, pick: u64) -> Checked {
        let (name, failed) = {
            let oracle = self.oracle();
            let names: Vec<_> =
                oracle.kept.iter().map(|kept| &kept.0).filter(|name| !oracle.drops.contains(name)).collect();
            if names.is_empty() {
                return Ok(());
            }
            (names[pick as usize % names.len()].clone(), self.world.disk.failed())
        };
        match self.world.store.drop_checkpoint(&name) {
            Ok(()) => {
                self.oracle().drops.push(name);
                Ok(())
            }
            // The checkpoint under way has the drop that an earlier client asked for.
            Err(Error::NoSuchCheckpoint { .. }) if self.oracle().checkpoint_runs => Ok(()),
            Err(error) => self.excuse(&error, failed),
        }
    }

    fn take_snapshot(&self, pick: u64) -> Checked {
        let mut oracle = self.oracle();
        if oracle.snapshots.iter().filter(|(owner, ..)| *owner == self.number).count() >= SNAPSHOTS_MAX {
            return Ok(());
        }
        let snapshot = match oracle.kept.first().filter(|_| pick.is_multiple_of(3)) {
            Some((name, _)) => self.world.store.snapshot_of(name).map_err(|error| format!("{name:?}: {error}"))?,
            None => self.world.store.snapshot(),
        };
        let is_it = |cut: &&Arc<Cut>| cut.generation == snapshot.generation() && cut.cookie == snapshot.cookie();
        let kept = oracle.kept.iter().map(|(_, kept)| kept);
        let cut = kept.chain(oracle.all.iter().rev()).find(is_it).cloned();
        let cut =
            cut.ok_or_else(|| format!("a snapshot of generation {}, which nobody made", snapshot.generation()))?;
        oracle.snapshots.push((self.number, Arc::new(snapshot), cut));
        Ok(())
    }

    fn read_snapshots(&self) -> Checked {
        let own: Vec<_> = self.oracle().snapshots.iter().filter(|(owner, ..)| *owner == self.number).cloned().collect();
        for (_, snapshot, cut) in &own {
            let mut bytes = vec![0xEE; self.page_bytes()];
            for (page, states) in &cut.pages {
                let failed = self.world.disk.failed();
                match reading(|| snapshot.read(PageId(*page), &mut bytes)) {
                    Ok(()) if state_of(&bytes, states).is_none() => {
                        return Err(wrong(&format!("page {page} of generation {}", cut.generation), &bytes, states));
                    }
                    Ok(()) => {}
                    Err(Error::NoSuchPage { .. }) if states.contains(&State::Absent) => {}
                    Err(error) => self.excuse(&error, failed)?,
                }
            }
        }
        drop(own);
        // Outside of the lock: a snapshot that ends may give space back.
        let ended: Vec<_> = {
            let mut oracle = self.oracle();
            let (ended, kept) =
                std::mem::take(&mut oracle.snapshots).into_iter().partition(|(owner, ..)| *owner == self.number);
            oracle.snapshots = kept;
            ended
        };
        drop(ended);
        Ok(())
    }
}

fn missing_page(error: &Error) -> Option<u64> {
    match error {
        Error::NoSuchPage { page } => Some(*page),
        _ => None,
    }
}

/// What was read and cannot be.
pub(super) fn wrong(what: &str, found: &[u8], states: &[State]) -> String {
    let tag = found.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let whole = if found == bytes_of(tag, found.len()) { "the whole of it" } else { "not the whole of it" };
    format!("{what} has the bytes of tag {tag} ({whole}), expected {states:?}")
}
