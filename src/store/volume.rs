//! A store's file, as everything that reads it sees it: where it is, what it is made of, how its bytes are proven.

use std::path::Path;
use std::sync::Arc;

use super::cached::FileCache;
use crate::checksum::Seeds;
use crate::error::{Error, Part, Result};
use crate::format::{
    BlockAddr, Geometry, HEADER_BYTES, SLOT_BYTES, SLOT_COPIES, SLOT_OFFSETS, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS,
    Slot, Superblock, SuperblockProblem,
};
use crate::io::{BatchRead, BlockIo};
use crate::sys::lock::LockFile;
use crate::tree::Nodes;

/// This byte of the file is locked by its one writer. It is far behind any data.
pub(super) const WRITER_BYTE: u64 = 1 << 61;
/// The byte that stands for a generation is that far behind this one. Who reads a checkpoint has its byte locked.
pub(super) const READERS_BYTE: u64 = WRITER_BYTE + 1;

/// How much is read at a time where many blocks are: enough for a device to have plenty to do.
pub(super) const BATCH_BLOCKS: usize = 64;
pub(super) const BATCH_BYTES: u64 = 4 << 20;

/// A file with a superblock.
#[derive(Debug)]
pub(super) struct Volume {
    pub(super) io: Box<dyn BlockIo>,
    pub(super) path: Arc<Path>,
    /// Nothing where the caller brought the I/O.
    pub(super) lock: Option<LockFile>,
    pub(super) superblock: Superblock,
    pub(super) geometry: Geometry,
    pub(super) seeds: Seeds,
    /// Whether what is read is held against its checksum.
    pub(super) verify: bool,
    pub(super) cache: Option<FileCache>,
}

impl Volume {
    pub(super) fn new(
        io: Box<dyn BlockIo>,
        path: Arc<Path>,
        lock: Option<LockFile>,
        superblock: Superblock,
        verify: bool,
    ) -> Self {
        let seeds = Seeds::new(superblock.checksum, &superblock.uuid);
        Volume { io, path, lock, superblock, geometry: superblock.geometry, seeds, verify, cache: None }
    }

    pub(super) fn nodes(&self, part: Part) -> Nodes<'_> {
        Nodes { io: &*self.io, path: &self.path, geometry: self.geometry, seeds: self.seeds, part }
    }

    pub(super) fn corrupt(&self, part: Part, offset: u64, problem: impl Into<String>) -> Error {
        Error::Corrupt { path: self.path.clone(), part, offset, problem: problem.into() }
    }

    /// Reads what must be there: a file that ends too early is a damaged one.
    #[inline]
    pub(super) fn read_at(&self, part: Part, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.io.read_at(offset, buf).map_err(|error| self.explain(part, error))
    }

    #[cold]
    pub(super) fn explain(&self, part: Part, error: Error) -> Error {
        match error {
            Error::PastEnd { offset, wanted_bytes, file_len_bytes } => {
                let problem = format!("expected {wanted_bytes} bytes, but the file ends at {file_len_bytes}");
                self.corrupt(part, offset, problem)
            }
            error => error,
        }
    }

    /// Whether bytes may be returned: they are those of the address, or reads are not verified.
    #[inline]
    pub(super) fn accepts(&self, address: &BlockAddr, bytes: &[u8]) -> bool {
        !self.verify || self.seeds.checksum(address.offset, address.generation, bytes) == address.checksum
    }

    /// Holds bytes against their checksum.
    #[inline]
    pub(super) fn prove(&self, part: Part, address: &BlockAddr, bytes: &[u8]) -> Result<()> {
        let found = self.seeds.checksum(address.offset, address.generation, bytes);
        if found == address.checksum {
            return Ok(());
        }
        let problem = format!("expected checksum {:08x}, found {found:08x}", address.checksum);
        Err(self.corrupt(part, address.offset, problem))
    }

    /// Whether a block can be where an address says.
    fn check_start(&self, address: &BlockAddr) -> Result<()> {
        let unit_bytes = u64::from(self.geometry.unit_bytes);
        if address.offset.is_multiple_of(unit_bytes) && address.offset >= HEADER_BYTES {
            return Ok(());
        }
        let problem = format!("expected a multiple of {unit_bytes} from {HEADER_BYTES} up, found {}", address.offset);
        Err(Error::InvalidAddress { problem })
    }

    /// Whether a block can be where an address says, all of it.
    pub(super) fn check_place(&self, address: &BlockAddr) -> Result<()> {
        let (wanted_bytes, file_len_bytes) = (u64::from(address.len_bytes), self.io.len()?);
        if address.offset.saturating_add(wanted_bytes) > file_len_bytes {
            let offset = address.offset;
            return Err(self.explain(Part::Block, Error::PastEnd { offset, wanted_bytes, file_len_bytes }));
        }
        self.check_start(address)
    }

    /// Reads a block into a buffer of its length.
    pub(super) fn read_block(&self, address: &BlockAddr, buf: &mut [u8]) -> Result<()> {
        self.check_start(address)?;
        check_len(u64::from(address.len_bytes), buf.len())?;
        self.read_cached(Part::Block, address, buf)
    }

    /// Reads blocks as one batch into `buf`, and gives each, or why it cannot be read, to `each`.
    pub(super) fn read_blocks(
        &self,
        blocks: &[BlockAddr],
        buf: &mut Vec<u8>,
        mut each: impl FnMut(&BlockAddr, Result<&[u8]>),
    ) {
        buf.resize(blocks.iter().map(|block| block.len_bytes as usize).sum(), 0);
        let mut rest = buf.as_mut_slice();
        let mut batch = Vec::with_capacity(blocks.len());
        for block in blocks {
            let (bytes, others) = std::mem::take(&mut rest).split_at_mut(block.len_bytes as usize);
            rest = others;
            batch.push(BatchRead { offset: block.offset, buf: bytes });
        }
        // One that fails says nothing of the others: then each is asked for by itself.
        let all_read = self.io.read_batch(&mut batch).is_ok();
        for (block, read) in blocks.iter().zip(batch) {
            let result = if all_read { Ok(()) } else { self.io.read_at(read.offset, read.buf) };
            each(block, result.map(|()| &*read.buf));
        }
    }

    /// Reads a block whose address may be anything.
    pub(super) fn read_block_vec(&self, address: &BlockAddr) -> Result<Vec<u8>> {
        self.check_place(address)?;
        let mut buf = vec![0; address.len_bytes as usize];
        self.read_block(address, &mut buf)?;
        Ok(buf)
    }

    /// Every copy of every slot: its offset, and what it says.
    pub(super) fn slots(&self) -> Result<Vec<(u64, Result<Slot>)>> {
        let mut slots = Vec::new();
        for at in SLOT_OFFSETS {
            for copy in 0..SLOT_COPIES {
                let offset = at + (copy * SLOT_BYTES) as u64;
                let slot = match self.read_slot(offset) {
                    Err(error @ Error::Io { .. }) => return Err(error),
                    slot => slot,
                };
                slots.push((offset, slot));
            }
        }
        Ok(slots)
    }

    fn read_slot(&self, offset: u64) -> Result<Slot> {
        let mut bytes = [0; SLOT_BYTES];
        self.read_at(Part::Slot, offset, &mut bytes)?;
        let slot = Slot::decode(&bytes).map_err(|problem| self.corrupt(Part::Slot, offset, problem))?;
        if slot.uuid != self.superblock.uuid {
            return Err(self.corrupt(Part::Slot, offset, "it belongs to another file"));
        }
        if SLOT_OFFSETS[slot.generation as usize % 2] & !(SLOT_BYTES as u64) != offset & !(SLOT_BYTES as u64) {
            let problem = format!("generation {} belongs into the other slot", slot.generation);
            return Err(self.corrupt(Part::Slot, offset, problem));
        }
        Ok(slot)
    }

    /// The last checkpoint.
    pub(super) fn newest_slot(&self) -> Result<Slot> {
        let mut newest: Option<Slot> = None;
        let mut problem = None;
        for (_, slot) in self.slots()? {
            match slot {
                Ok(slot) if newest.as_ref().is_none_or(|newest| newest.generation < slot.generation) => {
                    newest = Some(slot);
                }
                Ok(_) => {}
                Err(error) => problem = Some(error),
            }
        }
        match (newest, problem) {
            (Some(slot), _) => Ok(slot),
            (None, Some(error)) => Err(error),
            (None, None) => Err(self.corrupt(Part::Slot, SLOT_OFFSETS[0], "expected a checkpoint")),
        }
    }
}

/// As many blocks as are read in one batch.
pub(super) fn take_some(blocks: &mut impl Iterator<Item = BlockAddr>) -> Vec<BlockAddr> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    while some.len() < BATCH_BLOCKS && bytes < BATCH_BYTES {
        let Some(block) = blocks.next() else { break };
        bytes += u64::from(block.len_bytes);
        some.push(block);
    }
    some
}

pub(super) fn check_len(expected_bytes: u64, found: usize) -> Result<()> {
    let found_bytes = found as u64;
    if expected_bytes == found_bytes { Ok(()) } else { Err(Error::WrongLength { expected_bytes, found_bytes }) }
}

/// The copies of the superblock: each offset, and what stands there.
pub(super) fn read_superblocks(io: &dyn BlockIo) -> Result<Vec<(u64, Result<Superblock, SuperblockProblem>)>> {
    let file_len_bytes = io.len()?;
    let mut copies = Vec::new();
    for offset in SUPERBLOCK_OFFSETS {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let decoded = if offset + SUPERBLOCK_BYTES as u64 > file_len_bytes {
            Err(SuperblockProblem::Damaged(format!("the file ends at {file_len_bytes}")))
        } else {
            io.read_at(offset, &mut bytes)?;
            Superblock::decode(&bytes)
        };
        copies.push((offset, decoded));
    }
    Ok(copies)
}

/// The superblock, or why the file cannot be opened.
pub(super) fn superblock(io: &dyn BlockIo, path: &Arc<Path>) -> Result<Superblock> {
    let mut copies = read_superblocks(io)?;
    if let Some((_, Ok(superblock))) = copies.iter().find(|(_, copy)| copy.is_ok()) {
        let file_len_bytes = io.len()?;
        if file_len_bytes < HEADER_BYTES {
            // The last checkpoint may be in what is gone.
            let problem = format!("expected a header of {HEADER_BYTES} bytes, but the file ends at {file_len_bytes}");
            return Err(Error::Corrupt { path: path.clone(), part: Part::Slot, offset: SLOT_OFFSETS[0], problem });
        }
        return Ok(*superblock);
    }
    // The copy that says most about what the file is.
    copies.sort_by_key(|(_, copy)| match copy {
        Err(SuperblockProblem::Newer(_)) => 0,
        Err(SuperblockProblem::Damaged(_)) => 1,
        _ => 2,
    });
    let path = path.clone();
    Err(match copies.swap_remove(0) {
        (_, Err(SuperblockProblem::Newer(problem))) => Error::Unsupported { path, problem },
        (offset, Err(SuperblockProblem::Damaged(problem))) if io.len()? >= HEADER_BYTES => {
            Error::Corrupt { path, part: Part::Superblock, offset, problem }
        }
        (_, Err(SuperblockProblem::Damaged(problem))) => Error::NotAStore { path, problem },
        _ => Error::NotAStore { path, problem: "it does not begin as one".to_owned() },
    })
}
