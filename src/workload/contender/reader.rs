//! What a pass asks of a contender, and the crate's own paths as contenders.

use crate::workload::error::Result;
use crate::{AutoFile, AutoStats, BatchRead, BlockIo, MmapFile, PreadFile};

/// What a pass without the copy reads of each block; see [`Kind::Skeleton`](crate::workload::pass::Kind::Skeleton).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Its first byte: one system call, as for the whole block.
    OneByte,
    /// The first byte of each of its pages: the faults and TLB misses of the whole block.
    OneBytePerPage,
}

/// Something that reads blocks.
pub trait Reader: Sync {
    /// What stands for a block where nothing is to be copied.
    const PROBE: Probe;

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// Where it cannot be filled.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Fills `blocks` with the blocks at these offsets, one behind the other.
    ///
    /// # Errors
    ///
    /// Where one of them cannot be filled.
    fn read_batch(&self, offsets: &[u64], blocks: &mut [u8], block_bytes: usize) -> Result<()> {
        offsets
            .iter()
            .zip(blocks.chunks_exact_mut(block_bytes))
            .try_for_each(|(offset, block)| self.read(*offset, block))
    }

    /// Reads that did not take the path that the contender is named after.
    fn fallback_reads(&self) -> u64 {
        0
    }

    /// What it has decided so far, if it chooses for its user.
    fn auto_stats(&self) -> Option<AutoStats> {
        None
    }
}

/// Reads as [`BlockIo`] has them: `$file` is the reader, `$io` the implementation in it.
macro_rules! reads_of {
    (|$file:ident| $io:expr) => {
        #[inline]
        fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            let $file = self;
            Ok(BlockIo::read_at($io, offset, buf)?)
        }

        fn read_batch(&self, offsets: &[u64], blocks: &mut [u8], block_bytes: usize) -> Result<()> {
            let $file = self;
            let reads = offsets.iter().zip(blocks.chunks_exact_mut(block_bytes));
            let mut batch: Vec<BatchRead<'_>> = reads.map(|(offset, buf)| BatchRead { offset: *offset, buf }).collect();
            Ok(BlockIo::read_batch($io, &mut batch)?)
        }
    };
}

impl Reader for PreadFile {
    const PROBE: Probe = Probe::OneByte;

    reads_of!(|file| file);
}

/// Of any mode. What a pass without the copy does is not known of it: [`Io::has_skeleton`](super::Io::has_skeleton).
impl Reader for Box<dyn BlockIo> {
    const PROBE: Probe = Probe::OneBytePerPage;

    reads_of!(|file| &**file);
}

impl Reader for MmapFile {
    const PROBE: Probe = Probe::OneBytePerPage;

    reads_of!(|file| file);

    fn fallback_reads(&self) -> u64 {
        self.stats().pread.reads
    }
}

/// What a pass without the copy does depends on what is in the page cache:
/// [`Io::has_skeleton`](super::Io::has_skeleton).
impl Reader for AutoFile {
    const PROBE: Probe = Probe::OneBytePerPage;

    reads_of!(|file| file);

    fn auto_stats(&self) -> Option<AutoStats> {
        self.stats().auto
    }
}
