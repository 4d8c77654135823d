//! What operations are done to: a table in a store, or the bare I/O layer.

use crate::{BatchRead, BlockIo, CheckpointReport, IoStats, StoreCacheStats, SyncKind};

use super::chooser::Inserts;
use super::error::{Result, YcsbError};
use super::record::{Key, Layout};
use super::table::{SCAN_RECORDS, Scratch, Table};

/// What operations are done to.
#[derive(Debug)]
pub enum Target {
    /// Records in the pages of a store, found by their keys.
    Table(Box<Table>),
    /// Records one behind another in a file, each at its number: what the I/O layer does without a store.
    Bare(Bare),
}

/// Records one behind another in a file. Keys are only their numbers, and a scan is by number.
#[derive(Debug)]
pub struct Bare {
    io: Box<dyn BlockIo>,
    layout: Layout,
    /// The file may be longer than what is whole of it: a record can be written before the one in front of it.
    inserts: Box<Inserts>,
}

impl Bare {
    /// Of a file that has such records.
    ///
    /// # Errors
    ///
    /// [`YcsbError::Store`] where the file's length cannot be had.
    pub fn new(io: Box<dyn BlockIo>, layout: Layout) -> Result<Bare> {
        let records = io.len()? / layout.record_bytes() as u64;
        Ok(Bare { io, layout, inserts: Box::new(Inserts::new(records)) })
    }

    fn offset(&self, number: u64) -> u64 {
        number.saturating_mul(self.layout.record_bytes() as u64)
    }

    fn records(&self) -> u64 {
        self.inserts.end()
    }

    fn insert(&self, number: u64, record: &[u8]) -> Result<()> {
        self.io.write_at(self.offset(number), record)?;
        if number >= self.records() {
            self.inserts.done(number);
        }
        Ok(())
    }

    fn read(&self, number: u64, record: &mut Vec<u8>) -> Result<bool> {
        record.resize(self.layout.record_bytes(), 0);
        match self.io.read_at(self.offset(number), record) {
            Ok(()) => Ok(true),
            Err(crate::Error::PastEnd { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Target {
    /// What the records are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        match self {
            Target::Table(table) => table.layout(),
            Target::Bare(bare) => &bare.layout,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn records(&self) -> u64 {
        match self {
            Target::Table(table) => table.records(),
            Target::Bare(bare) => bare.records(),
        }
    }

    /// What the file's I/O did so far.
    #[must_use]
    pub fn io_stats(&self) -> IoStats {
        match self {
            Target::Table(table) => table.store().io_stats(),
            Target::Bare(bare) => bare.io.stats(),
        }
    }

    /// What a cache did so far, if there is one.
    #[must_use]
    pub fn cache_stats(&self) -> Option<StoreCacheStats> {
        match self {
            Target::Table(table) => table.store().cache_stats(),
            Target::Bare(_) => None,
        }
    }

    /// Makes everything so far durable.
    ///
    /// # Errors
    ///
    /// [`YcsbError::Store`].
    pub fn checkpoint(&self) -> Result<Option<CheckpointReport>> {
        match self {
            Target::Table(table) => table.checkpoint().map(Some),
            Target::Bare(bare) => Ok(bare.io.sync(SyncKind::Data).map(|()| None)?),
        }
    }

    pub(super) fn read(&self, number: u64, key: &Key, scratch: &mut Scratch) -> Result<bool> {
        match self {
            Target::Table(table) => table.read(key, scratch),
            Target::Bare(bare) => bare.read(number, &mut scratch.record),
        }
    }

    /// Writes all of a record.
    pub(super) fn replace(&self, number: u64, key: &Key, scratch: &mut Scratch) -> Result<bool> {
        match self {
            Target::Table(table) => table.replace(key, scratch),
            Target::Bare(bare) if number < bare.records() => {
                bare.io.write_at(bare.offset(number), &scratch.record)?;
                Ok(true)
            }
            Target::Bare(_) => Ok(false),
        }
    }

    /// Changes a field of a record: a store reads the record and writes it; a bare file has the field written in place.
    pub(super) fn write_field(
        &self,
        number: u64,
        key: &Key,
        field: u32,
        bytes: &[u8],
        scratch: &mut Scratch,
    ) -> Result<bool> {
        match self {
            Target::Table(table) => {
                let place = table.layout().field(field);
                table.change(key, scratch, |record| record[place].copy_from_slice(bytes))
            }
            Target::Bare(bare) if number < bare.records() => {
                bare.io.write_at(bare.offset(number) + bare.layout.field(field).start as u64, bytes)?;
                Ok(true)
            }
            Target::Bare(_) => Ok(false),
        }
    }

    pub(super) fn insert(&self, number: u64, key: &Key, scratch: &mut Scratch) -> Result<()> {
        match self {
            Target::Table(table) => table.insert(key, scratch),
            Target::Bare(bare) => bare.insert(number, &scratch.record),
        }
    }

    /// Copies records out from one on, in the order of the keys (of the numbers, in a bare file), and shows them as
    /// they come: [`Table::scan`]. Says how many there were.
    pub(super) fn scan(
        &self,
        number: u64,
        key: &Key,
        count: u64,
        scratch: &mut Scratch,
        mut show: impl FnMut(&[Key], &[u8], usize),
    ) -> Result<u64> {
        match self {
            Target::Table(table) => table.scan(key, count, scratch, show),
            Target::Bare(bare) => {
                let end = bare.records().min(number.saturating_add(count));
                let record_bytes = bare.layout.record_bytes();
                let mut next = number;
                while next < end {
                    let numbers = next..end.min(next + SCAN_RECORDS as u64);
                    next = numbers.end;
                    scratch.scanned.clear();
                    scratch.scanned.extend(numbers.clone().map(|number| Key::of(&bare.layout, number)));
                    scratch.scan.resize(record_bytes * scratch.scanned.len(), 0);
                    let bufs = scratch.scan.chunks_mut(record_bytes);
                    let read = |(number, buf)| BatchRead { offset: bare.offset(number), buf };
                    bare.io.read_batch(&mut numbers.zip(bufs).map(read).collect::<Vec<_>>())?;
                    show(&scratch.scanned, &scratch.scan, record_bytes);
                }
                Ok(end.saturating_sub(number))
            }
        }
    }
}

/// What an error is called in figures: the name of its kind.
pub(super) fn error_kind(error: &YcsbError) -> String {
    let shown = match error {
        YcsbError::Store(crate::Error::Batch { source, .. }) => format!("{source:?}"),
        YcsbError::Store(error) => format!("{error:?}"),
        error => format!("{error:?}"),
    };
    shown.chars().take_while(char::is_ascii_alphanumeric).collect()
}
