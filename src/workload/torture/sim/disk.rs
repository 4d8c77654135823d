//! A simulated file: it does what its plan says, right or wrong, and keeps what a crash needs to know.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::baton::{self, Baton};
use super::content::{Content, Loss, SECTOR, Step, drop_some, sectors};
use super::plan::{Fault, FaultKind};
use crate::{BlockIo, Error, IoStats, Operation, Result, SyncKind};

/// The clients, and who opens and checks.
const CALLERS: usize = 4;

#[derive(Debug, Default)]
struct State {
    now: Content,
    /// What the last sync made durable.
    durable: Content,
    /// What was done since, as far as the system remembers.
    waiting: Vec<Step>,
    calls: u64,
    hash: u64,
    faults: Vec<Fault>,
    crash_at: Option<u64>,
    /// The power is gone.
    is_down: bool,
    no_writes: bool,
    no_space: bool,
    unreadable: Vec<Range<u64>>,
    /// Something went wrong that the system did not tell.
    is_damaged: bool,
    /// Calls that failed, or did other than they said, by caller.
    failed: [u64; CALLERS],
    /// How many faults came about.
    fired: u64,
}

/// A simulated file. Clones are the same file.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    state: Arc<Mutex<State>>,
    baton: Arc<Baton>,
}

impl Disk {
    /// A file with this content, all of it durable.
    pub(super) fn new(content: Content, baton: Baton) -> Self {
        let state = State { now: content.clone(), durable: content, ..State::default() };
        Disk { state: Arc::new(Mutex::new(state)), baton: Arc::new(baton) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn boxed(&self) -> Box<dyn BlockIo> {
        Box::new(self.clone())
    }

    pub(super) fn baton(&self) -> &Baton {
        &self.baton
    }

    /// From now on this is what goes wrong.
    pub(super) fn plan(&self, faults: &[Fault], crash_at: Option<u64>) {
        let mut state = self.state();
        (state.faults, state.crash_at) = (faults.to_vec(), crash_at);
        state.calls = 0;
    }

    /// From now on nothing goes wrong. What is damaged stays so.
    pub(super) fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        (state.no_writes, state.no_space) = (false, false);
        state.crash_at = None;
    }

    pub(super) fn is_down(&self) -> bool {
        self.state().is_down
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.state().is_damaged
    }

    /// Calls of this caller that failed so far.
    pub(super) fn failed(&self) -> u64 {
        self.state().failed[caller()]
    }

    pub(super) fn fired(&self) -> u64 {
        self.state().fired
    }

    pub(super) fn hash(&self) -> u64 {
        self.state().hash
    }

    /// Something that happened, for the hash of the run.
    pub(super) fn note(&self, word: u64) {
        self.state().mix(word);
    }

    /// The file after the power is back, with the same history.
    pub(super) fn after_crash(&self, loss: u64, baton: Baton) -> Disk {
        let old = self.state();
        let content = drop_some(old.durable.clone(), &old.waiting, Loss::Random(loss));
        old.succeeded_by(content.clone(), content, Vec::new(), baton)
    }

    /// The file for the next process. What the system has in memory is still there.
    pub(super) fn after_close(&self, baton: Baton) -> Disk {
        let old = self.state();
        old.succeeded_by(old.now.clone(), old.durable.clone(), old.waiting.clone(), baton)
    }
}

fn caller() -> usize {
    baton::client().map_or(CALLERS - 1, |client| client.min(CALLERS - 2))
}

impl State {
    fn succeeded_by(&self, now: Content, durable: Content, waiting: Vec<Step>, baton: Baton) -> Disk {
        let state = State {
            now,
            durable,
            waiting,
            hash: self.hash,
            unreadable: self.unreadable.clone(),
            is_damaged: self.is_damaged,
            fired: self.fired,
            ..State::default()
        };
        Disk { state: Arc::new(Mutex::new(state)), baton: Arc::new(baton) }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash ^= self.hash >> 29;
    }

    /// A call begins. The fault that it is to have, if any.
    fn begin(&mut self, call: Operation, offset: u64, len: u64) -> Result<Option<FaultKind>> {
        self.calls += 1;
        for word in [call as u64 + 1, caller() as u64, offset, len] {
            self.mix(word);
        }
        if self.crash_at.is_some_and(|at| self.calls >= at) {
            self.is_down = true;
        }
        if self.is_down {
            return Err(self.fail(call, offset, len, libc::EIO));
        }
        let due = |fault: &Fault| fault.at_call <= self.calls && happens_to(fault.kind, call);
        let Some(index) = self.faults.iter().position(due) else { return Ok(None) };
        let kind = self.faults.remove(index).kind;
        self.fired += 1;
        self.is_damaged |= !kind.is_told();
        self.mix(self.fired);
        Ok(Some(kind))
    }

    fn fail(&mut self, operation: Operation, offset: u64, len_bytes: u64, errno: i32) -> Error {
        self.failed[caller()] += 1;
        self.mix(errno as u64);
        let path: Arc<Path> = Path::new("(simulated)").into();
        Error::Io { operation, path, offset, len_bytes, source: io::Error::from_raw_os_error(errno) }
    }

    fn step(&mut self, step: Step) {
        match &step {
            Step::Write { offset, bytes } => self.now.write(*offset, bytes),
            Step::SetLen(len) | Step::Reserve(len) => self.now.set_len(*len),
            Step::Sync | Step::FailedSync { .. } => {}
        }
        self.waiting.push(step);
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.step(Step::Write { offset, bytes: bytes.into() });
        }
    }

    /// Flips a bit of the file, on the device and in memory.
    fn rot(&mut self, pick: u64) {
        if self.now.len() == 0 {
            return;
        }
        let (at, bit) = (pick / 8 % self.now.len(), pick % 8);
        for content in [&mut self.now, &mut self.durable] {
            if at < content.len() {
                let mut byte = [0];
                content.read(at, &mut byte);
                content.write(at, &[byte[0] ^ 1 << bit]);
            }
        }
        // What is still on its way would put it right again.
        let mut byte = [0];
        self.now.read(at, &mut byte);
        self.waiting.push(Step::Write { offset: at, bytes: byte[..].into() });
    }

    fn is_unreadable(&self, offset: u64, len: u64) -> bool {
        self.unreadable.iter().any(|range| range.start < offset + len && offset < range.end)
    }
}

/// Whether a fault can come about in such a call.
fn happens_to(kind: FaultKind, call: Operation) -> bool {
    match kind {
        FaultKind::Read | FaultKind::ReadForGood | FaultKind::ReadFlip { .. } => call == Operation::Read,
        FaultKind::Write { .. }
        | FaultKind::WriteForGood
        | FaultKind::LostWrite
        | FaultKind::TornWrite { .. }
        | FaultKind::Misdirected { .. } => call == Operation::Write,
        FaultKind::NoSpace => call == Operation::Reserve,
        FaultKind::SetLen => call == Operation::SetLen,
        FaultKind::Sync { .. } => call == Operation::Sync,
        FaultKind::Rot { .. } | FaultKind::Truncation { .. } => true,
    }
}

impl State {
    /// What happens to the file whatever the call is. What is left is for the call itself.
    fn happen(&mut self, fault: Option<FaultKind>) -> Option<FaultKind> {
        match fault {
            Some(FaultKind::Rot { pick }) => self.rot(pick),
            Some(FaultKind::Truncation { pick }) => {
                let len = pick % (self.now.len() + 1);
                self.step(Step::SetLen(len));
            }
            other => return other,
        }
        None
    }
}

impl BlockIo for Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        let (wanted_bytes, call) = (buf.len() as u64, Operation::Read);
        let fault = state.begin(call, offset, wanted_bytes)?;
        let fault = state.happen(fault);
        let file_len_bytes = state.now.len();
        if offset.checked_add(wanted_bytes).is_none_or(|end| end > file_len_bytes) {
            return Err(Error::PastEnd { offset, wanted_bytes, file_len_bytes });
        }
        if fault == Some(FaultKind::ReadForGood) {
            state.unreadable.push(offset..offset + wanted_bytes);
        }
        if fault == Some(FaultKind::Read) || state.is_unreadable(offset, wanted_bytes) {
            return Err(state.fail(call, offset, wanted_bytes, libc::EIO));
        }
        state.now.read(offset, buf);
        if let Some(FaultKind::ReadFlip { pick }) = fault {
            buf[(pick / 8) as usize % buf.len()] ^= 1 << (pick % 8);
        }
        drop(state);
        if let Some(client) = baton::client().filter(|_| baton::only_reads()) {
            self.baton.pass(client);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let result = self.write(offset, bytes);
        if let Some(client) = baton::client() {
            self.baton.pass(client);
        }
        result
    }

    fn len(&self) -> Result<u64> {
        let mut state = self.state();
        match state.is_down {
            true => Err(state.fail(Operation::Stat, 0, 0, libc::EIO)),
            false => Ok(state.now.len()),
        }
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        let mut state = self.state();
        let fault = state.begin(Operation::SetLen, 0, len_bytes)?;
        if state.happen(fault) == Some(FaultKind::SetLen) || state.no_writes {
            return Err(state.fail(Operation::SetLen, 0, len_bytes, libc::EIO));
        }
        state.step(Step::SetLen(len_bytes));
        Ok(())
    }

    fn reserve(&self, len_bytes: u64) -> Result<()> {
        let mut state = self.state();
        let fault = state.begin(Operation::Reserve, 0, len_bytes)?;
        state.no_space |= state.happen(fault) == Some(FaultKind::NoSpace);
        if len_bytes <= state.now.len() {
            return Ok(());
        }
        if state.no_space || state.no_writes {
            return Err(state.fail(Operation::Reserve, 0, len_bytes, libc::ENOSPC));
        }
        state.step(Step::Reserve(len_bytes));
        Ok(())
    }

    fn sync(&self, _kind: SyncKind) -> Result<()> {
        let result = self.sync_now();
        if let Some(client) = baton::client() {
            self.baton.pass(client);
        }
        result
    }

    fn stats(&self) -> IoStats {
        IoStats::default()
    }
}

impl Disk {
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        let (len, call) = (bytes.len() as u64, Operation::Write);
        let fault = state.begin(call, offset, len)?;
        state.mix(u64::from(crc32fast::hash(bytes)));
        let fault = state.happen(fault);
        state.no_writes |= fault == Some(FaultKind::WriteForGood);
        if state.no_writes {
            return Err(state.fail(call, offset, len, libc::EIO));
        }
        match fault {
            Some(FaultKind::Write { part }) => {
                let count = bytes.len() * usize::from(part) / 255;
                state.write(offset, &bytes[..count]);
                return Err(state.fail(call, offset, len, libc::EIO));
            }
            Some(FaultKind::LostWrite) => {
                // The file is as long as if it had been.
                let end = offset + len;
                if end > state.now.len() {
                    state.step(Step::Reserve(end));
                }
            }
            Some(FaultKind::TornWrite { pick }) => {
                let count = pick as usize % sectors(offset, bytes).count().max(1);
                let there = sectors(offset, bytes).take(count).map(|(_, part)| part.len()).sum();
                state.write(offset, &bytes[..there]);
            }
            Some(FaultKind::Misdirected { pick }) => {
                let sectors = (state.now.len() / SECTOR as u64).max(1);
                state.write(pick % sectors * SECTOR as u64, bytes);
            }
            _ => state.write(offset, bytes),
        }
        Ok(())
    }

    fn sync_now(&self) -> Result<()> {
        let mut state = self.state();
        let fault = state.begin(Operation::Sync, 0, 0)?;
        if let Some(FaultKind::Sync { forgets }) = state.happen(fault) {
            if forgets {
                state.waiting.retain(|step| !matches!(step, Step::Write { .. }));
            }
            return Err(state.fail(Operation::Sync, 0, 0, libc::EIO));
        }
        let waiting = std::mem::take(&mut state.waiting);
        state.durable = drop_some(std::mem::take(&mut state.durable), &waiting, Loss::Nothing);
        Ok(())
    }
}
