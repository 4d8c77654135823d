//! The bytes of a store's file, and the values that they stand for. No I/O here, and no decoder that can panic.
//!
//! DESIGN.md has the tables. All numbers are little-endian.

mod address;
mod entry;
mod names;
mod node;
mod record;
mod slot;
mod superblock;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests;

pub use address::{BlockAddr, PACKED_BYTES_MAX};
pub(crate) use entry::{Entry, NOT_LOADED, PageState};
pub(crate) use names::{NAME_BYTES_MAX, NAMES_MAX, Name, Names};
pub(crate) use node::{CHILD_BYTES, Child, Tree};
pub(crate) use record::{RECORD_BYTES, Record};
pub(crate) use slot::{COOKIE_BYTES_MAX, SLOT_BYTES, Slot};
pub(crate) use superblock::{FORMAT_VERSION, SUPERBLOCK_BYTES, Superblock, SuperblockProblem};

/// Where the copies of the superblock are.
pub(crate) const SUPERBLOCK_OFFSETS: [u64; 2] = [0, 4096];
/// Where the slots are. Each has its two copies side by side. Generation `g` is in slot `g % 2`.
pub(crate) const SLOT_OFFSETS: [u64; 2] = [8192, 16384];
/// How often each slot is there.
pub(crate) const SLOT_COPIES: usize = 2;
/// Where the header ends.
pub(crate) const HEADER_BYTES: u64 = 24576;
/// An offset in units has 40 bits.
pub(crate) const UNITS_MAX: u64 = 1 << 40;
/// A write's number has 56 bits.
pub(crate) const SEQUENCE_MAX: u64 = 1 << 56;
/// Pages are numbered from 0 to below this.
pub(crate) const PAGES_MAX: u64 = 1 << 40;

/// The sizes that a file is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Space is given out in these. A power of two.
    pub(crate) unit_bytes: u32,
    /// A multiple of the unit.
    pub(crate) page_bytes: u32,
}

impl Geometry {
    pub(crate) const UNIT_BYTES: std::ops::RangeInclusive<u32> = 512..=1 << 20;
    pub(crate) const PAGE_BYTES: std::ops::RangeInclusive<u32> = 512..=1 << 20;

    /// Nothing where the sizes cannot be.
    pub(crate) fn new(unit_bytes: u32, page_bytes: u32) -> Option<Self> {
        let fits = Self::UNIT_BYTES.contains(&unit_bytes)
            && unit_bytes.is_power_of_two()
            && Self::PAGE_BYTES.contains(&page_bytes)
            && page_bytes.is_multiple_of(unit_bytes);
        fits.then_some(Geometry { unit_bytes, page_bytes })
    }

    /// How long a node of a tree is.
    pub(crate) fn node_bytes(self) -> usize {
        self.unit_bytes.max(4096) as usize
    }

    pub(crate) fn node_units(self) -> u64 {
        self.units(self.node_bytes() as u64)
    }

    pub(crate) fn page_units(self) -> u64 {
        u64::from(self.page_bytes / self.unit_bytes)
    }

    /// Words of a leaf.
    pub(crate) fn leaf_words(self) -> u64 {
        self.node_bytes() as u64 / 8
    }

    /// Pages of a leaf of the page table.
    pub(crate) fn leaf_pages(self) -> u64 {
        self.leaf_words() / 2
    }

    /// Units of a leaf of the space map.
    pub(crate) fn leaf_units(self) -> u64 {
        self.leaf_words() * 64
    }

    /// Extents of a leaf of the held list.
    pub(crate) fn leaf_held(self) -> u64 {
        self.leaf_words() / 4
    }

    /// Units that hold this many bytes.
    pub(crate) fn units(self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.unit_bytes))
    }

    pub(crate) fn offset(self, units: u64) -> u64 {
        units * u64::from(self.unit_bytes)
    }

    /// The first unit behind the header.
    pub(crate) fn data_start_units(self) -> u64 {
        self.units(HEADER_BYTES)
    }
}

/// Numbers at places of a byte slice that is long enough by construction.
pub(crate) mod bytes {
    pub(crate) fn get_u32(bytes: &[u8], at: usize) -> u32 {
        let mut number = [0; 4];
        number.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(number)
    }

    pub(crate) fn get_u64(bytes: &[u8], at: usize) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(number)
    }

    pub(crate) fn put_u32(bytes: &mut [u8], at: usize, number: u32) {
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    pub(crate) fn put_u64(bytes: &mut [u8], at: usize, number: u64) {
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
}
