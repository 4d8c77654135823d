//! A file in memory that can crash: it keeps a log of what was done to it, and makes of any moment of that log the
//! files that a machine without power may leave.
#![allow(dead_code, reason = "every test binary takes what it needs")]

#[path = "../../src/workload/torture/sim/content.rs"]
mod content;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use mapfall::{BlockIo, Error, IoStats, Operation, Result, SyncKind};

use content::drop_some;
pub(crate) use content::{Content, Loss, SECTOR, SLOTS, Step};

/// What is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Write,
    SetLen,
    Reserve,
    Sync,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) call: Call,
    /// How many of these calls succeed before.
    pub(crate) after: usize,
    /// Whether all later ones fail too.
    pub(crate) always: bool,
    pub(crate) errno: i32,
    /// Of a sync: whether what was written before is lost for good, though it can be read until the crash.
    pub(crate) forgets: bool,
}

#[derive(Debug, Default)]
struct State {
    now: Content,
    /// What the last sync made durable.
    durable: Content,
    /// What was done since, as far as the system remembers.
    waiting: Vec<Step>,
    log: Vec<Step>,
    /// How long the log was at each sync, and what was durable then.
    syncs: Vec<(usize, Content)>,
    fault: Option<Fault>,
    failed: usize,
}

/// A file in memory. Clones are the same file.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimFile {
    state: Arc<Mutex<State>>,
}

impl SimFile {
    pub(crate) fn new() -> Self {
        Self::from_content(Content::default())
    }

    /// A file with this content, all of it durable.
    pub(crate) fn from_content(content: Content) -> Self {
        let syncs = vec![(0, content.clone())];
        let state = State { now: content.clone(), durable: content, syncs, ..State::default() };
        SimFile { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn boxed(&self) -> Box<dyn BlockIo> {
        Box::new(self.clone())
    }

    pub(crate) fn content(&self) -> Content {
        self.state().now.clone()
    }

    /// How much was done so far.
    pub(crate) fn log_len(&self) -> usize {
        self.state().log.len()
    }

    /// What was done from a place of the log on.
    pub(crate) fn log_from(&self, from: usize) -> Vec<Step> {
        self.state().log[from..].to_vec()
    }

    /// The next call of a kind, or the one so many after it, fails.
    pub(crate) fn inject(&self, fault: Fault) {
        let mut state = self.state();
        state.fault = Some(fault);
        state.failed = 0;
    }

    /// Nothing fails anymore. How many calls did.
    pub(crate) fn heal(&self) -> usize {
        let mut state = self.state();
        state.fault = None;
        state.failed
    }

    /// How many calls have failed since the injection.
    pub(crate) fn failed(&self) -> usize {
        self.state().failed
    }

    /// The file as a crash leaves it that happens after `at` steps of the log.
    pub(crate) fn crash(&self, at: usize, loss: Loss) -> Content {
        let state = self.state();
        let last = state.syncs.partition_point(|(log_len, _)| *log_len <= at) - 1;
        let (from, durable) = &state.syncs[last];
        let mut waiting = Vec::new();
        for step in &state.log[*from..at] {
            match step {
                Step::FailedSync { forgot: true } => waiting.retain(|step| !matches!(step, Step::Write { .. })),
                Step::FailedSync { forgot: false } | Step::Sync => {}
                step => waiting.push(step.clone()),
            }
        }
        drop_some(durable.clone(), &waiting, loss)
    }
}

impl State {
    /// Whether a call is to fail.
    fn fails(&mut self, call: Call) -> Option<Fault> {
        let fault = self.fault.as_mut().filter(|fault| fault.call == call)?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        let found = *fault;
        self.failed += 1;
        if !found.always {
            self.fault = None;
        }
        Some(found)
    }

    fn log(&mut self, step: Step) {
        self.log.push(step.clone());
        self.waiting.push(step);
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.now.write(offset, bytes);
        self.log(Step::Write { offset, bytes: bytes.into() });
    }
}

fn own_path() -> Arc<Path> {
    Path::new("(simulated)").into()
}

fn failed(operation: Operation, offset: u64, len_bytes: u64, fault: Fault) -> Error {
    let source = io::Error::from_raw_os_error(fault.errno);
    Error::Io { operation, path: own_path(), offset, len_bytes, source }
}

fn past_end(content_len: u64, offset: u64, wanted: usize) -> Result<()> {
    let wanted_bytes = wanted as u64;
    match offset.checked_add(wanted_bytes).is_some_and(|end| end <= content_len) {
        true => Ok(()),
        false => Err(Error::PastEnd { offset, wanted_bytes, file_len_bytes: content_len }),
    }
}

impl BlockIo for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let state = self.state();
        if !buf.is_empty() {
            past_end(state.now.len(), offset, buf.len())?;
            state.now.read(offset, buf);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        if let Some(fault) = state.fails(Call::Write) {
            // A part of it may have come through. Not the same part each time.
            let count = bytes.len() * (state.log.len() % 5) / 4;
            if count > 0 {
                state.write(offset, &bytes[..count]);
            }
            return Err(failed(Operation::Write, offset, bytes.len() as u64, fault));
        }
        if !bytes.is_empty() {
            state.write(offset, bytes);
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.state().now.len())
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        let mut state = self.state();
        if let Some(fault) = state.fails(Call::SetLen) {
            return Err(failed(Operation::SetLen, 0, len_bytes, fault));
        }
        state.now.set_len(len_bytes);
        state.log(Step::SetLen(len_bytes));
        Ok(())
    }

    fn reserve(&self, len_bytes: u64) -> Result<()> {
        let mut state = self.state();
        if let Some(fault) = state.fails(Call::Reserve) {
            return Err(failed(Operation::Reserve, 0, len_bytes, fault));
        }
        if state.now.len() < len_bytes {
            state.now.set_len(len_bytes);
            state.log(Step::Reserve(len_bytes));
        }
        Ok(())
    }

    fn sync(&self, _kind: SyncKind) -> Result<()> {
        let mut state = self.state();
        if let Some(fault) = state.fails(Call::Sync) {
            state.log.push(Step::FailedSync { forgot: fault.forgets });
            if fault.forgets {
                state.waiting.retain(|step| !matches!(step, Step::Write { .. }));
            }
            return Err(failed(Operation::Sync, 0, 0, fault));
        }
        let waiting = std::mem::take(&mut state.waiting);
        state.durable = drop_some(std::mem::take(&mut state.durable), &waiting, Loss::Nothing);
        state.log.push(Step::Sync);
        let durable = (state.log.len(), state.durable.clone());
        state.syncs.push(durable);
        Ok(())
    }

    fn stats(&self) -> IoStats {
        IoStats::default()
    }
}

/// Plain bytes as a file. Clones are the same file.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemIo {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl MemIo {
    pub(crate) fn boxed(&self) -> Box<dyn BlockIo> {
        Box::new(self.clone())
    }

    /// The bytes themselves, to be changed behind the store's back.
    pub(crate) fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap()
    }
}

impl BlockIo for MemIo {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let bytes = self.bytes();
        if !buf.is_empty() {
            past_end(bytes.len() as u64, offset, buf.len())?;
            buf.copy_from_slice(&bytes[offset as usize..][..buf.len()]);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut own = self.bytes();
        let end = offset as usize + bytes.len();
        if own.len() < end {
            own.resize(end, 0);
        }
        own[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        self.bytes().resize(len_bytes as usize, 0);
        Ok(())
    }

    fn sync(&self, _kind: SyncKind) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> IoStats {
        IoStats::default()
    }
}
