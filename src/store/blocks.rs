//! Blocks: of any length, and the embedder keeps their addresses.

use std::sync::Arc;

use super::Store;
use super::held;
use super::inner::{BlockChange, Inner};
use super::space::Map;
use crate::cache::CachedBlock;
use crate::error::{Error, Part, Result};
use crate::extent::Extent;
use crate::format::{BlockAddr, HEADER_BYTES};

/// The blocks of a store whose addresses the embedder keeps. Any number of threads may use it at once.
///
/// A block is stored as it is, at a multiple of the allocation unit, with nothing before it. What was written is part
/// of the store from the next checkpoint on; the embedder hands that a cookie by which to find the addresses again.
#[derive(Clone, Debug)]
pub struct Blocks {
    pub(super) inner: Arc<Inner>,
}

impl Store {
    /// The store's blocks.
    #[must_use]
    pub fn blocks(&self) -> Blocks {
        Blocks { inner: self.inner.clone() }
    }
}

impl Blocks {
    /// Writes a block of 1 to `u32::MAX` bytes, and says where.
    ///
    /// # Errors
    ///
    /// [`Error::WrongLength`] for no bytes or too many; [`Error::Io`], also where the disk is full; [`Error::Corrupt`]
    /// where a node of the space map is; [`Error::Poisoned`].
    pub fn write(&self, bytes: &[u8]) -> Result<BlockAddr> {
        let inner = &*self.inner;
        let found_bytes = bytes.len() as u64;
        let len_bytes = u32::try_from(bytes.len())
            .ok()
            .filter(|len| *len > 0)
            .ok_or(Error::WrongLength { expected_bytes: u64::from(u32::MAX).min(found_bytes).max(1), found_bytes })?;
        let units = inner.volume.geometry.units(u64::from(len_bytes));
        let extent = inner.take_space(units, units)?;
        let result = inner.next_sequence().and_then(|generation| {
            let offset = inner.volume.geometry.offset(extent.start);
            let checksum = inner.volume.seeds.checksum(offset, generation, bytes);
            inner.volume.io.write_at(offset, bytes)?;
            Ok(BlockAddr { offset, len_bytes, generation, checksum })
        });
        let mut meta = inner.meta.lock();
        match &result {
            Ok(address) => {
                meta.in_flight_units -= units;
                let change = BlockChange { units, generation: address.generation, live: true };
                meta.blocks.insert(extent.start, change);
                drop(meta);
                inner.volume.note_written(address, bytes);
            }
            Err(_) => inner.return_space(&mut meta, extent),
        }
        result
    }

    /// Fills `buf` with a block.
    ///
    /// # Errors
    ///
    /// [`Error::WrongLength`] where `buf` is not as long as the block; [`Error::InvalidAddress`] where no block can be;
    /// [`Error::Corrupt`] where the bytes in the file are not those that were written, which is also what a block that
    /// was freed becomes; [`Error::Io`].
    pub fn read(&self, address: &BlockAddr, buf: &mut [u8]) -> Result<()> {
        self.inner.volume.read_block(address, buf)
    }

    /// A block's bytes.
    ///
    /// # Errors
    ///
    /// As [`Blocks::read`]. An address that reaches past the end of the file is [`Error::Corrupt`] before any memory is
    /// asked for.
    pub fn read_vec(&self, address: &BlockAddr) -> Result<Vec<u8>> {
        self.inner.volume.read_block_vec(address)
    }

    /// Borrows a block's bytes from the cache, loading them if need be. Without a cache, or where it has no room, they
    /// are read into memory of their own.
    ///
    /// # Errors
    ///
    /// As [`Blocks::read_vec`].
    pub fn pin(&self, address: &BlockAddr) -> Result<CachedBlock<'_>> {
        self.inner.volume.check_place(address)?;
        self.inner.volume.pin(Part::Block, address)
    }

    /// Makes an end of a block. Its space is used again when a checkpoint without it is durable, and no snapshot has
    /// it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidAddress`] where no block can be, and where the block is known to be free already (a mistake that
    /// is not always seen); [`Error::Poisoned`]; [`Error::Io`] or [`Error::Corrupt`] where the space map cannot be
    /// read.
    pub fn free(&self, address: &BlockAddr) -> Result<()> {
        let inner = &*self.inner;
        inner.check_writable()?;
        let geometry = inner.volume.geometry;
        let units = geometry.units(u64::from(address.len_bytes));
        let extent = Extent { start: address.offset / u64::from(geometry.unit_bytes), len: units };
        let invalid = |problem: String| Err(Error::InvalidAddress { problem });
        let mut meta = inner.meta.lock();
        let meta = &mut *meta;
        let whole = address.offset.is_multiple_of(u64::from(geometry.unit_bytes)) && address.offset >= HEADER_BYTES;
        if !whole || extent.end() > meta.space.end() || address.generation >= inner.sequence() {
            return invalid(format!("{address} is of no block of this store"));
        }
        match meta.blocks.get(&extent.start).copied() {
            Some(change) if change.units != units || change.generation != address.generation => {
                invalid(format!("{address} is not the block that is there, of generation {}", change.generation))
            }
            Some(change) if !change.live => invalid(format!("{address} was freed")),
            Some(_) => {
                // No checkpoint has it, so it is free at once.
                meta.blocks.remove(&extent.start);
                inner.free_now(meta, extent);
                inner.volume.forget(address);
                Ok(())
            }
            None => {
                meta.space.load_around(Map { volume: &inner.volume, tree: &meta.committed.space }, extent)?;
                if !meta.held_is_known {
                    for held in held::read(&inner.volume, &meta.committed.held)? {
                        // What is there already was freed since.
                        let _ = meta.leaving.insert(held.extent);
                    }
                    meta.held_is_known = true;
                }
                if meta.space.overlaps(extent) || meta.leaving.insert(extent).is_err() {
                    return invalid(format!("some of {address} was freed"));
                }
                let change = BlockChange { units, generation: address.generation, live: false };
                meta.blocks.insert(extent.start, change);
                inner.volume.forget(address);
                Ok(())
            }
        }
    }
}

impl super::Snapshot {
    /// Fills `buf` with a block that was in the checkpoint: [`Blocks::read`].
    ///
    /// # Errors
    ///
    /// As [`Blocks::read`].
    pub fn read_block(&self, address: &BlockAddr, buf: &mut [u8]) -> Result<()> {
        self.volume().read_block(address, buf)
    }

    /// The bytes of a block that was in the checkpoint: [`Blocks::read_vec`].
    ///
    /// # Errors
    ///
    /// As [`Blocks::read_vec`].
    pub fn read_block_vec(&self, address: &BlockAddr) -> Result<Vec<u8>> {
        self.volume().read_block_vec(address)
    }
}
