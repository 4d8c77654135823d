//! Checkpoints: a cut, which takes what changed, and a commit, which makes it durable while reads and writes go on.
//!
//! # Stages of a commit, and what a crash at each leaves
//!
//! 1. Nodes, the list of names and the record are written into free space. A crash: the last checkpoint, whole.
//! 2. `fdatasync`: they are on the device, and so are all pages and blocks written before the cut. A crash: the same.
//! 3. The slot that the last checkpoint is not in is written, both of its copies. A crash: whichever copy is whole says
//!    that all it refers to was on the device before; if none is, the last checkpoint.
//! 4. `fdatasync`: acknowledged. What this checkpoint does not have anymore becomes free.
//!
//! A failure in stage 1 undoes the cut: what changed is still to be written. After a failure in a later stage nobody
//! can know what is on the device, and the store takes no more writes.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::Store;
use super::commit::{Committed, commit};
use super::inner::{BlockChange, Inner, Meta};
use crate::error::{Error, Result};
use crate::extent::Extent;
use crate::format::{COOKIE_BYTES_MAX, Entry, NAME_BYTES_MAX, NAMES_MAX};

/// What a checkpoint is to have beside the pages and blocks.
#[derive(Clone, Debug, Default)]
pub struct CheckpointOptions {
    pub(super) cookie: Option<Vec<u8>>,
    pub(super) name: Option<String>,
    pub(super) pack: bool,
}

impl CheckpointOptions {
    /// A root cookie is at most so long.
    pub const COOKIE_BYTES_MAX: usize = COOKIE_BYTES_MAX;
    /// A name is at most so long, in bytes of UTF-8.
    pub const NAME_BYTES_MAX: usize = NAME_BYTES_MAX;
    /// At most so many checkpoints are kept.
    pub const KEPT_MAX: usize = NAMES_MAX;

    /// No name, and the cookie of the last checkpoint.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The root cookie: up to 1024 bytes of the embedder's own, to find its way from when the store is opened. Without
    /// this, the cookie of the last checkpoint.
    #[must_use]
    pub fn cookie(mut self, cookie: &[u8]) -> Self {
        self.cookie = Some(cookie.to_vec());
        self
    }

    /// Keeps the checkpoint under a name of 1 to 64 bytes until [`Store::drop_checkpoint`].
    #[must_use]
    pub fn keep_as(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }
}

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Its generation: one more than the last checkpoint's, or the last one's if nothing had changed.
    pub generation: u64,
    /// Pages written, allocated or freed since the last one.
    pub pages_changed: u64,
    /// Nodes of the store's trees that were written.
    pub nodes_written: u64,
    /// Bytes written for it, the pages and blocks themselves not included.
    pub bytes_written: u64,
    /// Units that became free, or will when no snapshot has them anymore.
    pub units_freed: u64,
    /// How long writers had to wait for the cut, in ns, at most.
    pub cut_ns: u64,
    /// How long writers had to wait at the end of the commit, in ns, at most.
    pub publish_ns: u64,
    /// How long the commit took, in ns.
    pub commit_ns: u64,
}

/// A checkpoint whose content is fixed, and which is not durable yet.
///
/// What is written from now on is not part of it. Dropped without [`PendingCheckpoint::commit`] it is undone: the next
/// checkpoint has what it would have had.
#[derive(Debug)]
#[must_use = "a checkpoint is nothing before it is committed"]
pub struct PendingCheckpoint<'a> {
    inner: &'a Inner,
    cut: Option<Cut>,
    cut_took: Duration,
}

/// What changed, as of the cut.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) changes: BTreeMap<u64, Entry>,
    pub(super) blocks: BTreeMap<u64, BlockChange>,
    pub(super) dropped: Vec<String>,
    pub(super) node_generation: u64,
    pub(super) page_limit: u64,
    pub(super) cookie: Vec<u8>,
    pub(super) name: Option<String>,
    /// Nodes that end behind this unit are written anew, further down.
    pub(super) move_nodes_from: Option<u64>,
}

impl Store {
    /// Makes all that was written so far durable, as one. Reads and writes go on meanwhile.
    ///
    /// It waits for a checkpoint that is under way, so a thread that has a [`PendingCheckpoint`] must commit or drop
    /// that first. If nothing has changed it does nothing.
    ///
    /// # Errors
    ///
    /// As [`Store::begin_checkpoint`] and [`PendingCheckpoint::commit`].
    pub fn checkpoint(&self, options: CheckpointOptions) -> Result<CheckpointReport> {
        self.begin_checkpoint(options)?.commit()
    }

    /// Fixes what the next checkpoint will have: what was written before, and nothing that is written later.
    ///
    /// What was allocated and written before is kept whether or not anything refers to it. So an embedder whose writes
    /// belong together does not call this between them. Its writers wait for this call only, which takes a time that
    /// does not depend on the size of the store or on how much changed, once a checkpoint that is under way has ended.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a cookie or a name of the wrong length or one name too many,
    /// [`Error::CheckpointExists`], [`Error::Poisoned`].
    pub fn begin_checkpoint(&self, options: CheckpointOptions) -> Result<PendingCheckpoint<'_>> {
        let inner = &*self.inner;
        inner.check_writable()?;
        check_options(&options)?;
        let mut meta = inner.lock_between_checkpoints();
        let start = Instant::now();
        if let Some(name) = &options.name {
            if meta.names.find(name).is_some() && !meta.dropped.contains(name) {
                return Err(Error::CheckpointExists { name: name.clone() });
            }
            let kept = meta.names.0.len() - meta.dropped.len();
            if kept >= NAMES_MAX {
                return Err(invalid("keep_as", "at most 1000 kept checkpoints", format!("{kept}")));
            }
        }
        let cookie = options.cookie.unwrap_or_else(|| meta.committed.cookie.clone());
        let unchanged = meta.changes.is_empty()
            && meta.blocks.is_empty()
            && meta.dropped.is_empty()
            && cookie == meta.committed.cookie
            && options.name.is_none()
            && !options.pack;
        if unchanged {
            return Ok(PendingCheckpoint { inner, cut: None, cut_took: start.elapsed() });
        }
        let move_nodes_from = if options.pack { Some(inner.packed_units(&mut meta)?) } else { None };
        // The number of all its nodes. What is written from now on has higher ones.
        let node_generation = inner.next_sequence()?;
        meta.checkpoint_runs = true;
        let cut = Cut {
            node_generation,
            changes: std::mem::take(&mut meta.changes),
            blocks: std::mem::take(&mut meta.blocks),
            // Until they are gone nobody can drop them again.
            dropped: meta.dropped.clone(),
            page_limit: inner.table.limit(),
            cookie,
            name: options.name,
            move_nodes_from,
        };
        Ok(PendingCheckpoint { inner, cut: Some(cut), cut_took: start.elapsed() })
    }

    /// Lets go of a kept checkpoint with the next checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchCheckpoint`], [`Error::Poisoned`].
    pub fn drop_checkpoint(&self, name: &str) -> Result<()> {
        self.inner.check_writable()?;
        let mut meta = self.inner.meta.lock();
        if meta.names.find(name).is_none() || meta.dropped.iter().any(|dropped| dropped == name) {
            return Err(Error::NoSuchCheckpoint { name: name.to_owned() });
        }
        meta.dropped.push(name.to_owned());
        Ok(())
    }
}

impl PendingCheckpoint<'_> {
    /// Makes the checkpoint durable.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where something cannot be written (a full disk, say) or [`Error::Corrupt`] where a node of the
    /// last checkpoint is: then the checkpoint is undone, the store goes on, and the next one has what this one would
    /// have had. Where the system fails to make it durable the error is the same, and the store takes no more writes:
    /// [`Error::Poisoned`] is what they get.
    pub fn commit(mut self) -> Result<CheckpointReport> {
        let start = Instant::now();
        let Some(cut) = self.cut.take() else {
            let generation = self.inner.meta.lock().committed.generation;
            return Ok(CheckpointReport { generation, ..CheckpointReport::default() });
        };
        let span = tracing::debug_span!("checkpoint", path = %self.inner.volume.path.display());
        let _entered = span.enter();
        match commit(self.inner, &cut) {
            Ok(committed) => {
                let report = CheckpointReport {
                    cut_ns: super::nanoseconds(self.cut_took),
                    pages_changed: cut.changes.len() as u64,
                    ..committed.report
                };
                let report = publish(self.inner, committed, report, &cut, start)?;
                self.inner.note_durable(&cut.changes);
                Ok(report)
            }
            Err(error) => {
                tracing::warn!(%error, "a checkpoint failed");
                match self.inner.check_writable() {
                    Ok(()) => undo(self.inner, cut),
                    // Its slot may be on the device. So nothing that it has may be used for anything else.
                    Err(_) => end(self.inner, self.inner.meta.lock()),
                }
                Err(error)
            }
        }
    }
}

impl Drop for PendingCheckpoint<'_> {
    fn drop(&mut self) {
        if let Some(cut) = self.cut.take() {
            undo(self.inner, cut);
        }
    }
}

/// Makes a durable checkpoint the last one, in memory.
fn publish(
    inner: &Inner,
    committed: Committed,
    mut report: CheckpointReport,
    cut: &Cut,
    start: Instant,
) -> Result<CheckpointReport> {
    let mut meta = inner.meta.lock();
    let locked = Instant::now();
    report.generation = committed.slot.generation;
    meta.committed = committed.slot;
    let (generation, sequence) = (meta.committed.generation, meta.committed.sequence);
    meta.sequences.insert(generation, sequence);
    meta.names = committed.names;
    meta.dropped.retain(|name| !cut.dropped.contains(name));
    drop(meta);
    report.publish_ns = super::nanoseconds(locked.elapsed());
    let released = inner.release(committed.freed);
    let mut meta = inner.meta.lock();
    let trimmed = meta.space.trim(&inner.volume, cut.move_nodes_from.is_some());
    end(inner, meta);
    report.commit_ns = super::nanoseconds(start.elapsed());
    tracing::debug!(?report, "a checkpoint is durable");
    // It is durable whatever these say.
    for result in [released, trimmed] {
        if let Err(error) = result {
            tracing::warn!(%error, "space was not given back");
        }
    }
    Ok(report)
}

/// Puts what was cut back to what is still to be written.
fn undo(inner: &Inner, cut: Cut) {
    let mut meta = inner.meta.lock();
    let meta_ref = &mut *meta;
    for (page, entry) in cut.changes {
        match meta_ref.changes.entry(page) {
            btree_map::Entry::Vacant(place) => {
                place.insert(entry);
            }
            // Replaced since, and no checkpoint will ever have it.
            btree_map::Entry::Occupied(_) => inner.free_entry(meta_ref, entry),
        }
    }
    for (start, block) in cut.blocks {
        if meta_ref.blocks.get(&start).is_some_and(|change| !change.live) {
            meta_ref.blocks.remove(&start);
            let extent = Extent { start, len: block.units };
            meta_ref.leaving.take_range(extent);
            inner.free_now(meta_ref, extent);
        } else {
            meta_ref.blocks.insert(start, block);
        }
    }
    end(inner, meta);
}

fn end(inner: &Inner, mut meta: MutexGuard<'_, Meta>) {
    meta.checkpoint_runs = false;
    drop(meta);
    inner.checkpoint_ended.notify_all();
}

fn check_options(options: &CheckpointOptions) -> Result<()> {
    let cookie_bytes = options.cookie.as_ref().map_or(0, Vec::len);
    if cookie_bytes > COOKIE_BYTES_MAX {
        return Err(invalid("cookie", "at most 1024 bytes", format!("{cookie_bytes} bytes")));
    }
    let name_bytes = options.name.as_ref().map_or(1, String::len);
    if !(1..=NAME_BYTES_MAX).contains(&name_bytes) {
        return Err(invalid("keep_as", "a name of 1 to 64 bytes", format!("{name_bytes} bytes")));
    }
    Ok(())
}

fn invalid(option: &'static str, expected: &'static str, found: String) -> Error {
    Error::InvalidOption { option, expected, found }
}
