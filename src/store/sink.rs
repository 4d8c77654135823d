//! Where a checkpoint's nodes go: free space in long pieces, written in long pieces.

use super::checkpoint::Cut;
use super::inner::Inner;
use super::space::{Map, Purpose};
use crate::error::Result;
use crate::extent::Extent;
use crate::format::Child;
use crate::tree::NodeSink;

/// So many units are taken at once, where there are as many in one piece.
const UNITS_AHEAD: u64 = 64;
const BUFFER_BYTES: usize = 1 << 20;

/// Nodes on their way to the file.
pub(super) struct Sink<'a> {
    inner: &'a Inner,
    /// Whether everything goes as low as can be.
    pack: bool,
    /// Every node's.
    generation: u64,
    /// Taken, and not placed yet.
    ahead: Extent,
    /// Where the nodes are that were placed.
    pub(super) placed: Vec<Extent>,
    /// Nodes of the last checkpoint that this one does not have.
    pub(super) replaced: Vec<Child>,
    /// Places that were decided on before.
    pub(super) planned: std::vec::IntoIter<u64>,
    buffer: Vec<u8>,
    buffer_offset: u64,
    pub(super) nodes_written: u64,
    pub(super) bytes_written: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(inner: &'a Inner, cut: &Cut) -> Self {
        Sink {
            inner,
            pack: cut.move_nodes_from.is_some(),
            generation: cut.node_generation,
            ahead: Extent { start: 0, len: 0 },
            placed: Vec::new(),
            replaced: Vec::new(),
            planned: Vec::new().into_iter(),
            buffer: Vec::new(),
            buffer_offset: 0,
            nodes_written: 0,
            bytes_written: 0,
        }
    }

    /// Space for one node, noted as placed.
    pub(super) fn plan(&mut self) -> Result<Extent> {
        self.place_units(self.inner.volume.geometry.node_units())
    }

    /// Space in one piece, noted as placed.
    pub(super) fn place_units(&mut self, units: u64) -> Result<Extent> {
        if self.ahead.len < units {
            self.give_back_ahead();
            let most = if self.pack { units } else { units.max(UNITS_AHEAD) };
            self.ahead = self.take(most, units)?;
        }
        let extent = Extent { start: self.ahead.start, len: units };
        self.ahead.start += units;
        self.ahead.len -= units;
        self.placed.push(extent);
        Ok(extent)
    }

    fn take(&mut self, most: u64, least: u64) -> Result<Extent> {
        let mut meta = self.inner.meta.lock();
        let meta = &mut *meta;
        let map = Map { volume: &self.inner.volume, tree: &meta.committed.space };
        meta.space.take_up_to(map, most, least, Purpose::Checkpoint { pack: self.pack })
    }

    pub(super) fn give_back_ahead(&mut self) {
        let ahead = std::mem::replace(&mut self.ahead, Extent { start: 0, len: 0 });
        if ahead.len > 0 {
            self.inner.free_now(&mut self.inner.meta.lock(), ahead);
        }
    }

    /// Gives everything back: the checkpoint failed.
    pub(super) fn abandon(mut self) {
        self.give_back_ahead();
        let mut meta = self.inner.meta.lock();
        for extent in self.placed {
            self.inner.free_now(&mut meta, extent);
        }
    }

    /// Adds bytes to what is to be written.
    pub(super) fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let follows = self.buffer_offset + self.buffer.len() as u64 == offset;
        if !follows || self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
            self.buffer_offset = offset;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.inner.volume.io.write_at(self.buffer_offset, &self.buffer)?;
            self.bytes_written += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl NodeSink for Sink<'_> {
    fn place(&mut self) -> Result<(u64, u64)> {
        let start = match self.planned.next() {
            Some(start) => start,
            None => self.plan()?.start,
        };
        Ok((start, self.generation))
    }

    fn write(&mut self, offset_units: u64, bytes: &[u8]) -> Result<()> {
        self.nodes_written += 1;
        self.append(self.inner.volume.geometry.offset(offset_units), bytes)
    }

    fn replaced(&mut self, old: Child) {
        self.replaced.push(old);
    }
}
