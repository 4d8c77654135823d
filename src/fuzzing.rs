//! What the fuzz targets reach of the crate's insides: decoders held against their encoders, the free extents, and
//! files with right checksums whatever is in them. Only in tests and in builds with `--cfg fuzzing`.
#![allow(clippy::missing_panics_doc, reason = "what panics has found a bug")]

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests;

use crate::checksum::{ChecksumKind, Seeds, crc32};
use crate::extent::{Extent, Fit, FreeSpace};
use crate::format::{
    CHILD_BYTES, Child, Entry, Geometry, HEADER_BYTES, Names, PAGES_MAX, RECORD_BYTES, Record, SEQUENCE_MAX,
    SLOT_BYTES, SLOT_COPIES, SLOT_OFFSETS, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Slot, Superblock, Tree, UNITS_MAX,
};

/// As many of these bytes as there is room for, then zeros.
fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut whole = [0; N];
    let len = bytes.len().min(N);
    whole[..len].copy_from_slice(&bytes[..len]);
    whole
}

/// With the CRC-32 in the last four bytes that the others have.
fn sealed<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    let sum = crc32(&bytes[..N - 4]);
    bytes[N - 4..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// A superblock of these bytes, as they are and with a right checksum.
pub fn superblock(bytes: &[u8]) {
    let bytes = padded::<SUPERBLOCK_BYTES>(bytes);
    for bytes in [bytes, sealed(bytes)] {
        let Ok(found) = Superblock::decode(&bytes) else { continue };
        let Geometry { unit_bytes, page_bytes } = found.geometry;
        let sizes = [unit_bytes, page_bytes].iter().all(|size| (512..=1 << 20).contains(size));
        assert!(sizes && unit_bytes.is_power_of_two() && page_bytes % unit_bytes == 0, "{:?}", found.geometry);
        assert_eq!(Superblock::decode(&found.encode()), Ok(found));
        assert_eq!(found.encode()[..20], bytes[..20], "another version, or other sizes");
    }
}

/// A slot of these bytes, and the record that would have it beside this superblock.
pub fn slot(bytes: &[u8], superblock: &[u8]) {
    let bytes = padded::<SLOT_BYTES>(bytes);
    for bytes in [bytes, sealed(bytes)] {
        let Ok(found) = Slot::decode(&bytes) else { continue };
        check_slot(&found);
        assert_eq!(Slot::decode(&found.encode()), Ok(found));
    }
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(b"\x89MPFRECD");
    record[8..72].copy_from_slice(&padded::<64>(superblock));
    record[72..RECORD_BYTES - 4].copy_from_slice(&bytes[..RECORD_BYTES - 76]);
    for record in [record, sealed(record)] {
        let Some(found) = Record::decode(&record) else { continue };
        check_slot(&found.slot);
        assert_eq!(Record::decode(&found.encode()), Some(found));
    }
}

fn check_slot(slot: &Slot) {
    assert!(slot.generation > 0 && slot.generation < SEQUENCE_MAX && slot.sequence < SEQUENCE_MAX, "{slot:?}");
    assert!(slot.raw_units <= slot.end_units && slot.end_units <= UNITS_MAX, "{slot:?}");
    assert!(slot.page_limit <= PAGES_MAX && slot.record_units <= slot.end_units, "{slot:?}");
    for tree in [slot.pages, slot.space, slot.held] {
        check_child(&tree.root);
    }
    check_child(&slot.names);
}

fn check_child(child: &Child) {
    assert!(child.offset_units < UNITS_MAX && child.generation < SEQUENCE_MAX && child.count <= UNITS_MAX, "{child:?}");
}

/// A list of kept checkpoints of these bytes.
pub fn names(bytes: &[u8]) {
    let Some(found) = Names::decode(bytes) else { return };
    for name in &found.0 {
        assert_eq!(found.find(&name.name), Some(name), "a name twice");
        check_child(&name.pages.root);
    }
    let encoded = found.encode();
    assert_eq!(encoded.len(), bytes.len());
    assert!(encoded.len() as u64 <= Names::BYTES_MAX);
    assert_eq!(Names::decode(&encoded), Some(found));
}

/// A node of these bytes, as children and as entries of pages.
pub fn node(bytes: &[u8]) {
    for bytes in bytes.chunks_exact(CHILD_BYTES) {
        let Some(child) = Child::decode(bytes) else { continue };
        check_child(&child);
        let mut encoded = [0; CHILD_BYTES];
        child.encode(&mut encoded);
        assert_eq!(encoded, bytes, "{child:?}");
    }
    for bytes in bytes.as_chunks::<16>().0 {
        let word = |at: usize| u64::from_le_bytes(padded(&bytes[at..at + 8]));
        if let Some(entry) = Entry::from_disk([word(0), word(8)]) {
            assert_eq!(entry.to_disk(), [word(0), word(8)]);
        }
    }
}

/// Free extents: ranges are a first unit and how many.
#[derive(Debug, Default)]
pub struct Extents(FreeSpace);

impl Extents {
    /// Whether it was done: nothing of it was free.
    pub fn insert(&mut self, start: u64, len: u64) -> bool {
        self.0.insert(Extent { start, len }).is_ok()
    }

    /// By best fit or by first fit.
    pub fn take_up_to(&mut self, max_len: u64, min_len: u64, best: bool) -> Option<(u64, u64)> {
        let taken = self.0.take_up_to(max_len, min_len, if best { Fit::Best } else { Fit::First })?;
        Some((taken.start, taken.len))
    }

    /// The first that is wholly below a limit.
    pub fn take_below(&mut self, len: u64, limit: u64) -> Option<(u64, u64)> {
        self.0.take_below(len, limit).map(|taken| (taken.start, taken.len))
    }

    /// Whether all of it was free.
    pub fn take_range(&mut self, start: u64, len: u64) -> bool {
        self.0.take_range(Extent { start, len })
    }

    /// Whether some of it is free.
    #[must_use]
    pub fn overlaps(&self, start: u64, len: u64) -> bool {
        self.0.overlaps(Extent { start, len })
    }

    /// The extent that a unit is in.
    #[must_use]
    pub fn around(&self, unit: u64) -> Option<(u64, u64)> {
        self.0.around(unit).map(|found| (found.start, found.len))
    }

    /// How many units, how many extents, and the longest.
    #[must_use]
    pub fn sums(&self) -> (u64, u64, u64) {
        (self.0.total_units(), self.0.extents() as u64, self.0.longest())
    }

    /// All of them, after a look at every counter.
    #[must_use]
    pub fn all(&self) -> Vec<(u64, u64)> {
        assert_eq!(self.0.validate(), Ok(()));
        let all: Vec<_> = self.0.iter().map(|extent| (extent.start, extent.len)).collect();
        assert_eq!(self.0.last().map(|last| (last.start, last.len)), all.last().copied());
        all
    }
}

/// A tree as a slot has it: its root's address (offset in units, generation, checksum, count) and height.
#[derive(Clone, Copy, Debug, Default)]
pub struct Root {
    /// The address.
    pub child: [u64; 4],
    /// Levels above the leaves.
    pub height: u32,
}

/// The numbers of a slot.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "as in the format")]
pub struct Numbers {
    pub generation: u64,
    pub sequence: u64,
    pub end_units: u64,
    pub raw_units: u64,
    pub page_limit: u64,
    pub pages: Root,
    pub space: Root,
    pub held: Root,
    pub names: [u64; 4],
    pub record_units: u64,
    pub cookie: Vec<u8>,
}

/// Makes a store's file in which every checksum is right.
#[derive(Debug)]
pub struct Forge {
    superblock: Superblock,
    seeds: Seeds,
    file: Vec<u8>,
}

impl Forge {
    /// The sizes are brought to ones that can be.
    #[must_use]
    pub fn new(unit_shift: u8, page_units: u8) -> Self {
        let unit_bytes = 512 << (unit_shift % 5);
        let page_bytes = unit_bytes * (1 + u32::from(page_units % 4));
        let geometry = Geometry { unit_bytes, page_bytes };
        let (checksum, uuid) = (ChecksumKind::Crc32, [7; 16]);
        let superblock = Superblock { geometry, checksum, features_compatible: 0, features_read_compatible: 0, uuid };
        let file = vec![0; geometry.offset(geometry.data_start_units()) as usize];
        Forge { superblock, seeds: Seeds::new(checksum, &uuid), file }
    }

    /// How long a node is.
    #[must_use]
    pub fn node_bytes(&self) -> usize {
        self.superblock.geometry.node_bytes()
    }

    /// How long a page is.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.superblock.geometry.page_bytes as usize
    }

    /// How long the file is so far.
    #[must_use]
    pub fn end_units(&self) -> u64 {
        self.file.len() as u64 / u64::from(self.superblock.geometry.unit_bytes)
    }

    /// Appends a block, and returns its address with its length as the count.
    pub fn block(&mut self, bytes: &[u8]) -> [u64; 4] {
        let (offset_units, offset, generation) = (self.end_units(), self.file.len() as u64, 1);
        self.file.extend_from_slice(bytes);
        self.file.resize(self.file.len().next_multiple_of(self.superblock.geometry.unit_bytes as usize), 0);
        let checksum = self.seeds.checksum(offset, generation, bytes);
        [offset_units, generation, u64::from(checksum), bytes.len() as u64]
    }

    /// Appends a page, and returns its entry.
    pub fn page(&mut self, bytes: &[u8]) -> [u64; 2] {
        let [offset_units, generation, checksum, _] = self.block(bytes);
        Entry::stored(offset_units, generation, checksum as u32).to_disk()
    }

    /// The whole file.
    #[must_use]
    pub fn file(mut self, numbers: Numbers) -> Vec<u8> {
        let child = |[offset_units, generation, checksum, count]: [u64; 4]| Child {
            offset_units,
            generation,
            checksum: checksum as u32,
            count,
        };
        let tree = |root: Root| Tree { root: child(root.child), height: root.height };
        let slot = Slot {
            uuid: self.superblock.uuid,
            generation: numbers.generation,
            sequence: numbers.sequence,
            end_units: numbers.end_units,
            raw_units: numbers.raw_units,
            page_limit: numbers.page_limit,
            pages: tree(numbers.pages),
            space: tree(numbers.space),
            held: tree(numbers.held),
            names: child(numbers.names),
            record_units: numbers.record_units,
            cookie: numbers.cookie,
        };
        for offset in SUPERBLOCK_OFFSETS {
            self.file[offset as usize..][..SUPERBLOCK_BYTES].copy_from_slice(&self.superblock.encode());
        }
        let at = SLOT_OFFSETS[slot.generation as usize % 2] as usize;
        for copy in 0..SLOT_COPIES {
            self.file[at + copy * SLOT_BYTES..][..SLOT_BYTES].copy_from_slice(&slot.encode());
        }
        debug_assert!(self.file.len() as u64 >= HEADER_BYTES);
        self.file
    }
}

/// Where the header of every file ends.
pub const DATA_START_BYTES: u64 = HEADER_BYTES;
