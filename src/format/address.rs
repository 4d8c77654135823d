//! The address of a block, as the embedder keeps it: at most [`PACKED_BYTES_MAX`] bytes, usually 13 to 16.
//!
//! Packed: the offset in sectors of 512 bytes, the length less 1, and the generation, each as a LEB128 number (7 bits a
//! byte, lowest first, the top bit set where more follow, no needless bytes), then 4 bytes of checksum.

use std::fmt;

use super::{SEQUENCE_MAX, UNITS_MAX};
use crate::error::{Error, Result};

/// No packed address is longer.
pub const PACKED_BYTES_MAX: usize = 8 + 5 + 8 + 4;

const SECTOR_BYTES: u64 = 512;
/// An offset in sectors: units of up to 1 MiB, 40 bits of them.
const SECTORS_MAX: u64 = UNITS_MAX << 11;

/// Where a block is, and what proves that it is that block: length, generation and checksum.
///
/// The address of a block never changes, and no other block of the file ever has the same.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use mapfall::{BlockAddr, Store};
///
/// let store = Store::options().create(dir.path().join("store"))?;
/// let address = store.blocks().write(b"forty-two")?;
/// let packed = address.pack();
/// assert!(packed.len() < 16);
///
/// let (address, rest) = BlockAddr::unpack(&packed)?;
/// assert!(rest.is_empty());
/// let mut block = vec![0; address.len_bytes() as usize];
/// store.blocks().read(&address, &mut block)?;
/// assert_eq!(block, b"forty-two");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockAddr {
    pub(crate) offset: u64,
    pub(crate) len_bytes: u32,
    pub(crate) generation: u64,
    pub(crate) checksum: u32,
}

impl BlockAddr {
    /// Where the block begins in the file, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How long the block is, in bytes: from 1 up.
    #[must_use]
    pub fn len_bytes(&self) -> u32 {
        self.len_bytes
    }

    /// The number of the write that made it. Later writes have higher numbers.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The address in as few bytes as it fits into, for the embedder to store.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        let mut packed = Vec::with_capacity(PACKED_BYTES_MAX);
        self.pack_into(&mut packed);
        packed
    }

    /// Appends the packed address.
    pub fn pack_into(&self, packed: &mut Vec<u8>) {
        for mut number in [self.offset / SECTOR_BYTES, u64::from(self.len_bytes - 1), self.generation] {
            while number >= 0x80 {
                packed.push(number as u8 | 0x80);
                number >>= 7;
            }
            packed.push(number as u8);
        }
        packed.extend_from_slice(&self.checksum.to_le_bytes());
    }

    /// The address that `packed` begins with, and the bytes behind it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidAddress`] where the bytes are none. Whether a store has such a block is seen when it is read.
    pub fn unpack(packed: &[u8]) -> Result<(Self, &[u8])> {
        let mut rest = packed;
        let sectors = take_number(&mut rest, SECTORS_MAX, "offset")?;
        let len_less_1 = take_number(&mut rest, u64::from(u32::MAX), "length")?;
        let generation = take_number(&mut rest, SEQUENCE_MAX, "generation")?;
        let Some((checksum, rest)) = rest.split_first_chunk::<4>() else {
            return Err(invalid(format!("expected 4 bytes of checksum, found {}", rest.len())));
        };
        let checksum = u32::from_le_bytes(*checksum);
        let len_bytes = len_less_1 as u32 + 1;
        Ok((BlockAddr { offset: sectors * SECTOR_BYTES, len_bytes, generation, checksum }, rest))
    }
}

fn invalid(problem: String) -> Error {
    Error::InvalidAddress { problem }
}

/// A LEB128 number below `limit`.
fn take_number(rest: &mut &[u8], limit: u64, what: &str) -> Result<u64> {
    let mut number = 0;
    for (index, byte) in rest.iter().enumerate().take(8) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let needless = index > 0 && *byte == 0;
            #[cfg(mapfall_canary)] // a planted bug
            let needless = needless && !crate::canary::planted("address");
            if needless || number >= limit {
                return Err(invalid(format!("expected {what} below {limit} without needless bytes, found {number}")));
            }
            *rest = &rest[index + 1..];
            return Ok(number);
        }
    }
    Err(invalid(format!("expected {what}, found {} bytes without its end", rest.len().min(8))))
}

impl fmt::Debug for BlockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BlockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlockAddr { offset, len_bytes, generation, checksum } = self;
        write!(f, "{offset}+{len_bytes}#{generation}:{checksum:08x}")
    }
}
