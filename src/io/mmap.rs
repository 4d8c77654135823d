//! The safe memory map.
//!
//! The usual read is: is the range readable (a load), copy (a routine that survives a fault), count (in the thread's
//! own cell). No lock, no store to memory that another thread uses, no system call. Everything else is in the cold
//! half: what the map cannot serve, `pread` does, and the statistics say why.

mod backoff;
mod down;
mod hints;
mod range;
mod suspects;

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::backoff::Backoff;
use self::down::Down;
use self::suspects::{Suspects, Verdict};
use super::{AccessHint, BatchRead, BlockIo, PreadFile, SyncKind, read_each};
use crate::error::Result;
use crate::map_options::{Advice, MapOptions};
use crate::stats::{FallbackReason, IoStats, MapStats, ReadCell};
use crate::sys;
use crate::sys::fault;
use crate::sys::mapping::Mapping;
use crate::sys::process::page_table_bytes;
use crate::sys::window::{Copied, Window};

/// Reads through the map by one thread between looks at whether the fault handler is still on top, and the
/// signal not blocked.
const HANDLER_CHECK_READS: u64 = 4096;
/// Reads by system call before a map that stepped down, or a larger map, is tried again: at first, and at most.
const WAIT_READS: (u32, u32) = (64, 4096);

/// A file read through a memory map that survives whatever happens to the file, with `pread(2)` where the map cannot
/// serve. Writes are `pwrite(2)`: never stores to the map.
///
/// - The file may grow by anyone's hand: the map reaches far past its end, so readers go on undisturbed.
/// - The file may be cut, replaced, punched or rewritten by anyone: a read returns bytes that were there or an error.
/// - The device may fail: the read returns the error that `pread(2)` gives, and works again when the device does.
///
/// A read that would have been served by the map costs no system call; [`IoStats::fallbacks`] counts the others by
/// reason. See [the crate's documentation](crate#the-fault-handler) for the signal handler that this needs.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use mapfall::{BlockIo, Error, IoOptions};
///
/// let file = IoOptions::new().write(true).create(true).open_mmap(dir.path().join("blocks"))?;
/// file.write_at(0, &[1; 8192])?;
/// let mut block = [0; 4096];
/// file.read_at(4096, &mut block)?;
/// file.set_len(4096)?;
/// assert!(matches!(file.read_at(4096, &mut block), Err(Error::PastEnd { file_len_bytes: 4096, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct MmapFile {
    pub(super) window: Window,
    suspects: Suspects,
    pub(super) pread: PreadFile,
    options: MapOptions,
    /// Why the whole map stands aside: a [`Down`]. While it is not `Down::Not` the window is closed.
    down: AtomicU8,
    /// When to try to come back.
    retry: Backoff,
    /// When to try to get a larger map.
    remap_retry: Backoff,
    faults_recovered: AtomicU64,
    /// What only one thread at a time may do: change the map, its published length, and `down`. Readers only ever try
    /// to take it, and go on by system call if they cannot.
    state: Mutex<State>,
}

/// The history that [`MapStats`] tells.
#[derive(Debug, Default)]
struct State {
    maps: u64,
    remaps: u64,
    remap_time: Duration,
    remap_time_max: Duration,
    refusals: u64,
    last_refusal: Option<String>,
    step_downs: u64,
    returns: u64,
    /// What has been said of the order of reads since the file was opened.
    advice: Option<Advice>,
}

impl MmapFile {
    /// Maps the file, or notes why it is served by `pread` for now.
    pub(crate) fn new(pread: PreadFile, options: MapOptions) -> Result<Self> {
        let file = MmapFile {
            window: Window::new(),
            suspects: Suspects::new(),
            pread,
            options,
            down: AtomicU8::new(Down::Not as u8),
            retry: Backoff::new(WAIT_READS.0, WAIT_READS.1),
            remap_retry: Backoff::new(WAIT_READS.0, WAIT_READS.1),
            faults_recovered: AtomicU64::new(0),
            state: Mutex::new(State::default()),
        };
        let mut state = file.state.lock();
        if !sys::CAN_RECOVER {
            file.step_down(&mut state, Down::Unsupported);
        } else if !file.options.fault_handler {
            file.step_down(&mut state, Down::HandlerDeclined);
        } else if let Err(down) = file.establish(&mut state) {
            file.step_down(&mut state, down);
        }
        drop(state);
        Ok(file)
    }

    // ---- The read path ----

    /// A read of at least one byte, counted in the thread's `cell`.
    #[inline]
    pub(super) fn read_counted(&self, cell: &ReadCell, offset: u64, buf: &mut [u8]) -> Result<()> {
        if self.suspects.any() || !fault::may_fault() {
            return self.read_otherwise(cell, offset, buf, None);
        }
        match self.window.copy_out(offset, buf) {
            Copied::Whole => {
                self.count_mapped(cell, buf.len());
                Ok(())
            }
            copied => self.read_otherwise(cell, offset, buf, Some(copied)),
        }
    }

    /// A read that the map served.
    #[inline]
    fn count_mapped(&self, cell: &ReadCell, len: usize) {
        cell.count_read(len, true);
        if cell.count_mmap(len).is_multiple_of(HANDLER_CHECK_READS) {
            self.check_handler();
        }
    }

    /// The rest of a read whose first try through the map, if there was one, came to `copied`.
    #[cold]
    #[inline(never)]
    fn read_otherwise(&self, cell: &ReadCell, offset: u64, buf: &mut [u8], copied: Option<Copied>) -> Result<()> {
        let copied = match copied {
            Some(copied) => Ok(copied),
            None => self.copy_past_suspects(offset, buf),
        };
        let served = copied.and_then(|copied| self.see_through(cell, offset, buf, copied));
        let Err(reason) = served else {
            self.count_mapped(cell, buf.len());
            return Ok(());
        };
        self.pread.counters().count_fallback(reason);
        let result = self.pread.read_exact(offset, buf);
        cell.count_read(buf.len(), result.is_ok());
        if result.is_ok() {
            cell.count_pread(buf.len());
        }
        result
    }

    /// The copy, where some region of the file is suspect or this thread blocks the signal.
    fn copy_past_suspects(&self, offset: u64, buf: &mut [u8]) -> Result<Copied, FallbackReason> {
        if !fault::may_fault() {
            return Err(self.down().reason().unwrap_or(FallbackReason::SignalBlocked));
        }
        match self.suspects.judge(offset, buf.len()) {
            Verdict::Clear => Ok(self.window.copy_out(offset, buf)),
            Verdict::Avoid => Err(FallbackReason::SuspectRegion),
            Verdict::Try => {
                let copied = self.window.copy_out(offset, buf);
                if matches!(copied, Copied::Whole | Copied::Probed | Copied::TailUnproven)
                    && let Some(_state) = self.state.try_lock()
                {
                    self.suspects.cleared(offset, buf.len());
                }
                Ok(copied)
            }
        }
    }

    /// Makes sure of a copy, or tries again with what the system says now. `Err` is why `pread` must serve.
    fn see_through(&self, cell: &ReadCell, offset: u64, buf: &mut [u8], copied: Copied) -> Result<(), FallbackReason> {
        let len = buf.len() as u64;
        match copied {
            Copied::Whole => Ok(()),
            Copied::Probed => {
                cell.count_tail_probe();
                Ok(())
            }
            Copied::TailUnproven => {
                cell.count_tail_stat();
                self.prove_tail(offset, buf)
            }
            Copied::Faulted { .. } => {
                self.recovered(copied, offset, len);
                Err(FallbackReason::Fault)
            }
            Copied::EndFaulted { .. } => {
                self.recovered(copied, offset, len);
                match self.window.copy_out(offset, buf) {
                    // Another thread is at it, or the length has changed again meanwhile.
                    copied @ Copied::EndFaulted { .. } => {
                        self.recovered(copied, offset, len);
                        Err(FallbackReason::Fault)
                    }
                    copied => self.see_through(cell, offset, buf, copied),
                }
            }
            Copied::NotReadable => {
                if let Some(reason) = self.down().reason()
                    && !self.come_back()
                {
                    return Err(reason);
                }
                let file_len_bytes = self.pread.len().unwrap_or(0);
                if offset.checked_add(len).is_none_or(|end| end > file_len_bytes) {
                    // Lower what is published, if it is too high, before the next read finds out by a fault.
                    self.try_resync();
                    return Err(FallbackReason::PastEnd);
                }
                self.try_resync();
                // Whether or not that could be done: the bytes are there.
                match self.window.copy_out_within(file_len_bytes, offset, buf) {
                    Copied::NotReadable => Err(self.down().reason().unwrap_or(FallbackReason::BeyondRange)),
                    copied => self.see_through(cell, offset, buf, copied),
                }
            }
        }
    }

    /// Copies once more, between two questions for the file's length, a block that ends in a zero byte.
    fn prove_tail(&self, offset: u64, buf: &mut [u8]) -> Result<(), FallbackReason> {
        match self.window.copy_out_between(|| self.pread.len().unwrap_or(0), offset, buf) {
            Copied::Whole | Copied::Probed => Ok(()),
            copied @ (Copied::Faulted { .. } | Copied::EndFaulted { .. }) => {
                self.recovered(copied, offset, buf.len() as u64);
                Err(FallbackReason::Fault)
            }
            Copied::TailUnproven | Copied::NotReadable => {
                self.try_resync();
                Err(FallbackReason::CutShort)
            }
        }
    }

    /// A fault was recovered in a read of `len` bytes at `offset`: finds out why, unless another thread is at it.
    fn recovered(&self, copied: Copied, offset: u64, len: u64) {
        self.faults_recovered.fetch_add(1, Relaxed);
        self.check_handler();
        let Some(mut state) = self.state.try_lock() else { return };
        let file_len_bytes = self.resync(&mut state, None);
        let path = self.pread.path().display();
        tracing::debug!(%path, ?copied, file_len_bytes, "recovered from a fault in the map");
        match copied {
            // If the file is shorter now, that was the cause and it is gone. If not, the same place may fault again.
            Copied::Faulted { at_byte } if offset + len <= file_len_bytes => {
                let has_room = self.suspects.suspect(offset + at_byte as u64);
                if !has_room {
                    self.step_down(&mut state, Down::TooManyFaults);
                }
            }
            // If the file still has its last byte, reads do without it from now on.
            Copied::EndFaulted { len_bytes } if len_bytes <= file_len_bytes => self.window.forgo_far_probe(),
            _ => {}
        }
    }

    // ---- The map and its length ----

    /// Maps the file for the first time, or opens the window again.
    fn establish(&self, state: &mut State) -> Result<(), Down> {
        if let Err(error) = fault::install() {
            self.note_refusal(state, &error);
            return Err(Down::MapRefused);
        }
        if !fault::on_top() {
            return Err(Down::HandlerReplaced);
        }
        let file_len_bytes = self.pread.len().unwrap_or(0);
        if self.window.range_bytes() == 0
            && let Err(error) = self.map(state, file_len_bytes)
        {
            self.note_refusal(state, &error);
            return Err(Down::MapRefused);
        }
        self.window.publish(file_len_bytes);
        Ok(())
    }

    /// Makes a map for a file of this length, the longest that the system gives.
    fn map(&self, state: &mut State, file_len_bytes: u64) -> io::Result<()> {
        let mut refused = None;
        for range_bytes in range::candidates(file_len_bytes, self.options.range_bytes) {
            match Mapping::new(self.pread.file(), range_bytes) {
                Ok(mapping) => {
                    self.tell(&mapping, state.advice);
                    self.window.replace(mapping)?;
                    state.maps += 1;
                    tracing::debug!(path = %self.pread.path().display(), range_bytes, "mapped");
                    return Ok(());
                }
                // No such address space: a shorter range may do.
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM)))
    }

    fn tell(&self, mapping: &Mapping, advice: Option<Advice>) {
        let options = MapOptions { advice: advice.unwrap_or(self.options.advice), ..self.options };
        for advice in options.kernel_advice() {
            if let Err(error) = mapping.advise(advice) {
                tracing::debug!(%error, ?advice, "the kernel does not take the advice");
            }
        }
    }

    /// Asks for the file's length, makes a larger map if the file has outgrown the one there is, enters what has just
    /// been `written` into the page table, and publishes what is readable. Returns the length.
    fn resync(&self, state: &mut State, written: Option<Range<u64>>) -> u64 {
        let file_len_bytes = self.pread.len().unwrap_or(0);
        if self.down() != Down::Not {
            return file_len_bytes;
        }
        if file_len_bytes > self.window.range_bytes() && self.remap_retry.is_due() {
            let begin = Instant::now();
            match self.map(state, file_len_bytes) {
                Ok(()) => {
                    let elapsed = begin.elapsed();
                    state.remaps += 1;
                    state.remap_time += elapsed;
                    state.remap_time_max = state.remap_time_max.max(elapsed);
                    self.remap_retry.reset();
                }
                Err(error) => {
                    self.note_refusal(state, &error);
                    self.remap_retry.failed();
                }
            }
        }
        if let Some(written) = written {
            self.window.populate(written);
        }
        self.window.publish(file_len_bytes);
        file_len_bytes
    }

    /// As [`MmapFile::resync`], unless another thread is at it.
    fn try_resync(&self) {
        if let Some(mut state) = self.state.try_lock() {
            self.resync(&mut state, None);
        }
    }

    fn note_refusal(&self, state: &mut State, error: &io::Error) {
        tracing::debug!(path = %self.pread.path().display(), %error, "the system refuses a map");
        state.refusals += 1;
        state.last_refusal = Some(error.to_string());
    }

    // ---- Stepping down and coming back ----

    fn down(&self) -> Down {
        Down::ALL[usize::from(self.down.load(Relaxed))]
    }

    /// Closes the window. Reads that are in it finish.
    fn step_down(&self, state: &mut State, why: Down) {
        self.down.store(why as u8, Relaxed);
        self.window.publish(0);
        self.retry.failed();
        state.step_downs += 1;
        tracing::warn!(path = %self.pread.path().display(), ?why, "the map steps down: pread serves the file");
    }

    /// While the map is down: tries to come back if it is time to.
    fn come_back(&self) -> bool {
        let down = self.down();
        if matches!(down, Down::Unsupported | Down::HandlerDeclined) || !self.retry.is_due() {
            return false;
        }
        let Some(mut state) = self.state.try_lock() else { return false };
        if self.down() == Down::Not {
            return true;
        }
        self.suspects.clear();
        if let Err(why) = self.establish(&mut state) {
            self.down.store(why as u8, Relaxed);
            self.retry.failed();
            return false;
        }
        self.down.store(Down::Not as u8, Relaxed);
        if down != Down::TooManyFaults {
            self.retry.reset();
        }
        state.returns += 1;
        tracing::info!(path = %self.pread.path().display(), was = ?down, "the map is back");
        true
    }

    /// Steps down if someone has put a handler over ours, and notes whether this thread blocks the signal.
    #[cold]
    fn check_handler(&self) {
        fault::ask_mask();
        if fault::on_top() {
            return;
        }
        if let Some(mut state) = self.state.try_lock()
            && self.down() == Down::Not
        {
            self.step_down(&mut state, Down::HandlerReplaced);
        }
    }
}

impl BlockIo for MmapFile {
    #[inline]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() { Ok(()) } else { self.read_counted(self.pread.counters().cell(), offset, buf) }
    }

    /// As [`BlockIo::read_batch`], and while one block is copied the processor fetches the beginning of the next.
    fn read_batch(&self, batch: &mut [BatchRead<'_>]) -> Result<()> {
        read_each(self, batch, |next| self.window.prefetch(next.offset))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.pread.write_at(offset, bytes)?;
        let end = offset + bytes.len() as u64;
        let readable_bytes = self.window.readable_bytes();
        // Readers would find out by themselves; this saves the first of them a system call, and a fault.
        if end > readable_bytes && self.down() == Down::Not {
            self.resync(&mut self.state.lock(), Some(offset.max(readable_bytes)..end));
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        self.pread.len()
    }

    fn set_len(&self, len_bytes: u64) -> Result<()> {
        let mut state = self.state.lock();
        // First for readers, then for the file: those who come from now on are not sent where it will be gone.
        if len_bytes < self.window.readable_bytes() {
            self.window.publish(len_bytes);
        }
        let result = self.pread.set_len(len_bytes);
        self.resync(&mut state, None);
        result
    }

    fn reserve(&self, len_bytes: u64) -> Result<()> {
        let result = self.pread.reserve(len_bytes);
        // After an error too: what was published meanwhile may have been cut back.
        if len_bytes > self.window.readable_bytes() && self.down() == Down::Not {
            self.resync(&mut self.state.lock(), None);
        }
        result
    }

    fn sync(&self, kind: SyncKind) -> Result<()> {
        self.pread.sync(kind)
    }

    fn advise(&self, range: Range<u64>, hint: AccessHint) -> Result<()> {
        hints::advise(self, range, hint)
    }

    fn stats(&self) -> IoStats {
        let counters = self.pread.counters();
        let (tail_probes, tail_stats) = counters.tail_checks();
        let state = self.state.lock();
        let map = MapStats {
            range_bytes: self.window.range_bytes(),
            readable_bytes: self.window.readable_bytes(),
            maps: state.maps,
            remaps: state.remaps,
            remap_time: state.remap_time,
            remap_time_max: state.remap_time_max,
            refusals: state.refusals,
            last_refusal: state.last_refusal.clone(),
            faults_recovered: self.faults_recovered.load(Relaxed),
            tail_probes,
            tail_stats,
            step_downs: state.step_downs,
            returns: state.returns,
            process_page_table_bytes: page_table_bytes(),
        };
        IoStats { map: Some(map), ..counters.snapshot() }
    }
}
