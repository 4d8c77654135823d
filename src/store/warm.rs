//! The warm set: which blocks of a store are in the cache, kept in a file so that the next process begins with them.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `mfwarm01` |
//! | 16 | UUID of the store |
//! | 8 | how many blocks, little-endian like all that follows |
//! | 24 each | offset (8), generation (8), length (4), checksum (4) |
//! | 4 | CRC-32 of all before |
//!
//! It is only a hint: each block is proven when it is read.

use std::fs;
use std::path::Path;

use super::Store;
use super::inner::Inner;
use super::volume::take_some;
use crate::error::{Error, Operation, Part, Result};
use crate::format::{BlockAddr, HEADER_BYTES};
use crate::io::{BlockIo, SyncKind};
use crate::options::IoOptions;

const MAGIC: &[u8; 8] = b"mfwarm01";
const HEAD_BYTES: usize = 8 + 16 + 8;
const ENTRY_BYTES: usize = 24;
/// So long a file is read whatever the cache's budget is.
const EMPTY_CACHE_BYTES_MAX: u64 = 1 << 20;

fn encode(uuid: &[u8; 16], blocks: &[BlockAddr]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + blocks.len() * ENTRY_BYTES + 4);
    bytes.extend(MAGIC);
    bytes.extend(uuid);
    bytes.extend((blocks.len() as u64).to_le_bytes());
    for block in blocks {
        bytes.extend(block.offset.to_le_bytes());
        bytes.extend(block.generation.to_le_bytes());
        bytes.extend(block.len_bytes.to_le_bytes());
        bytes.extend(block.checksum.to_le_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// The blocks of a warm set of this store, or what is wrong with it.
fn decode(uuid: &[u8; 16], bytes: &[u8]) -> Result<Vec<BlockAddr>, String> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
    let head = body.get(..HEAD_BYTES).ok_or("it is too short")?;
    if head[..8] != *MAGIC {
        return Err("it does not begin as a warm set".to_owned());
    }
    if head[8..24] != *uuid {
        return Err("it is of another store".to_owned());
    }
    let (expected, found) = (crc32fast::hash(body), u32::from_le_bytes(*crc));
    if expected != found {
        return Err(format!("expected checksum {expected:08x}, found {found:08x}"));
    }
    let (entries, rest) = body[HEAD_BYTES..].as_chunks::<ENTRY_BYTES>();
    let count = head.last_chunk().map_or(0, |count| u64::from_le_bytes(*count));
    if count != entries.len() as u64 || !rest.is_empty() {
        return Err(format!("expected {count} blocks, found {} bytes", body.len() - HEAD_BYTES));
    }
    let word = |entry: &[u8; ENTRY_BYTES], at| entry[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let of = |entry| {
        let (offset, generation, rest) = (word(entry, 0), word(entry, 8), word(entry, 16));
        BlockAddr { offset, generation, len_bytes: rest as u32, checksum: (rest >> 32) as u32 }
    };
    Ok(entries.iter().map(of).collect())
}

impl Inner {
    fn save_warm_set(&self, path: &Path) -> Result<u64> {
        let mut blocks = self.volume.cache.as_ref().map(super::cached::FileCache::addresses).unwrap_or_default();
        blocks.sort_unstable_by_key(|block| block.offset);
        let bytes = encode(&self.volume.superblock.uuid, &blocks);
        let mut new_name = path.as_os_str().to_owned();
        new_name.push(".new");
        let new_path = Path::new(&new_name);
        // What stands there was left by someone who did not come to the end, or was put there: it is not written to.
        let _ = fs::remove_file(new_path);
        let file = IoOptions::new().write(true).create_new(true).open_pread(new_path)?;
        let failed = |source| Error::Io {
            operation: Operation::Write,
            path: path.into(),
            offset: 0,
            len_bytes: bytes.len() as u64,
            source,
        };
        let written = file
            .write_at(0, &bytes)
            .and_then(|()| file.sync(SyncKind::Data))
            .and_then(|()| fs::rename(new_path, path).map_err(failed));
        if let Err(error) = written {
            let _ = fs::remove_file(new_path);
            return Err(error);
        }
        Ok(blocks.len() as u64)
    }

    /// The file's bytes, if there are no more of them than a set of this cache's can have.
    fn read_warm_set(&self, path: &Path) -> Result<Vec<u8>> {
        let file = IoOptions::new().open_pread(path)?;
        let len_bytes = file.len()?;
        let budget_bytes = self.volume.cache.as_ref().map_or(0, |cache| cache.cache.budget_max_bytes());
        let blocks_max = budget_bytes / u64::from(self.volume.geometry.unit_bytes);
        let bytes_max = (HEAD_BYTES + 4) as u64 + blocks_max.saturating_mul(ENTRY_BYTES as u64);
        if len_bytes > bytes_max.max(EMPTY_CACHE_BYTES_MAX) {
            let problem = format!("expected at most {bytes_max} bytes for this cache, found {len_bytes}");
            return Err(Error::Corrupt { path: path.into(), part: Part::WarmSet, offset: 0, problem });
        }
        let mut bytes = crate::error::zeroed(len_bytes)?;
        file.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    fn load_warm_set(&self, path: &Path) -> Result<u64> {
        let bytes = self.read_warm_set(path)?;
        let blocks = decode(&self.volume.superblock.uuid, &bytes).map_err(|problem| Error::Corrupt {
            path: path.into(),
            part: Part::WarmSet,
            offset: 0,
            problem,
        })?;
        let Some(cache) = &self.volume.cache else { return Ok(0) };
        let unit_bytes = u64::from(self.volume.geometry.unit_bytes);
        let (longest_bytes, file_len_bytes) = (cache.cache.longest_block_bytes(), self.volume.io.len()?);
        let mut blocks = blocks.into_iter().filter(|block| {
            let end = block.offset.saturating_add(block.len_bytes.into());
            let can_be = block.offset.is_multiple_of(unit_bytes) && block.offset >= HEADER_BYTES;
            can_be && end <= file_len_bytes && u64::from(block.len_bytes) <= longest_bytes
        });
        let mut read = 0;
        let mut buf = Vec::new();
        loop {
            let some = take_some(&mut blocks);
            if some.is_empty() {
                return Ok(read);
            }
            self.volume.read_blocks(&some, &mut buf, |block, bytes| {
                // Verified whatever reads are: the space may have been used again.
                let proven = bytes.is_ok_and(|bytes| {
                    self.volume.prove(Part::Block, block, bytes).is_ok() && cache.cache.insert(&cache.key(block), bytes)
                });
                read += u64::from(proven);
            });
        }
    }

    /// When the store was opened.
    pub(super) fn warm_up(&self) {
        let Some(path) = self.volume.cache.as_ref().and_then(|cache| cache.warm_up.as_deref()) else { return };
        match self.load_warm_set(path) {
            Ok(blocks) => tracing::debug!(blocks, "the cache was warmed up"),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "the cache was not warmed up"),
        }
    }

    /// When it is closed.
    pub(super) fn save_for_warm_up(&self) {
        let Some(path) = self.volume.cache.as_ref().and_then(|cache| cache.warm_up.as_deref()) else { return };
        if let Err(error) = self.save_warm_set(path) {
            tracing::warn!(%error, "the warm set was not saved");
        }
    }
}

impl Store {
    /// Notes in a file which blocks of this store are in its cache: how many. The file is replaced as a whole, by one
    /// that only its owner may read or write; it is written beside it, as `.new`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save_warm_set(&self, path: impl AsRef<Path>) -> Result<u64> {
        self.inner.save_warm_set(path.as_ref())
    }

    /// Reads the blocks that [`Store::save_warm_set`] noted into the cache: how many. Those that are not in the store
    /// any more are passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::NotARegularFile`]; [`Error::Corrupt`] where the file is no warm set of this store, or
    /// longer than one of its cache can be; [`Error::OutOfMemory`].
    pub fn load_warm_set(&self, path: impl AsRef<Path>) -> Result<u64> {
        self.inner.load_warm_set(path.as_ref())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    #[test]
    fn a_warm_set_is_whole_or_refused() {
        let uuid = [7; 16];
        let block = |n: u64| BlockAddr { offset: n * 4096, len_bytes: 9, generation: n << 40, checksum: 3 << 30 };
        let blocks: Vec<_> = (1..5).map(block).collect();
        let bytes = encode(&uuid, &blocks);
        assert_eq!(decode(&uuid, &bytes).unwrap(), blocks);
        assert_eq!(decode(&uuid, &encode(&uuid, &[])).unwrap(), []);
        assert!(decode(&[8; 16], &bytes).unwrap_err().contains("another store"));
        for cut in 0..bytes.len() {
            assert!(decode(&uuid, &bytes[..cut]).is_err(), "cut off at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&uuid, &flipped).is_err(), "bit {bit}");
        }
    }
}
