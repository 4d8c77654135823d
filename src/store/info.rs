//! What a store's file is and where its parts are, for tools and people.

use super::table::{Source, page_address};
use super::verify::header_notices;
use super::volume::WRITER_BYTE;
use super::{CheckpointInfo, PageId, Snapshot, held};
use crate::checksum::ChecksumKind;
use crate::error::{Error, Operation, Part, Result};
use crate::format::{BlockAddr, Child, FORMAT_VERSION, Geometry, PageState, Tree};
use crate::sys::lock::LockFile;

/// What a store's file is, and what it has as of the last checkpoint: [`Snapshot::info`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreInfo {
    /// The version of the file's format.
    pub format_version: u32,
    /// The file's UUID.
    pub uuid: [u8; 16],
    /// The allocation unit, in bytes.
    pub unit_bytes: u32,
    /// How long a page is, in bytes.
    pub page_bytes: u32,
    /// The kind of its checksums.
    pub checksum: ChecksumKind,
    /// The generation of the last checkpoint.
    pub generation: u64,
    /// The number that the first write after the last checkpoint has at least. Every write has a higher one than those
    /// before it.
    pub next_write: u64,
    /// Live pages.
    pub pages: u64,
    /// No page has this number or a higher one.
    pub page_limit: u64,
    /// The embedder's root cookie.
    pub cookie: Vec<u8>,
    /// The checkpoints that are kept, the oldest first.
    pub kept_checkpoints: Vec<CheckpointInfo>,
    /// The length of the file, now.
    pub file_bytes: u64,
    /// The header at the beginning of the file, in whole units.
    pub header_bytes: u64,
    /// Space in use: pages, blocks, the store's own structures, and what only kept checkpoints have. Not the header.
    pub used_bytes: u64,
    /// Space of the embedder's blocks, a part of [`StoreInfo::used_bytes`].
    pub block_bytes: u64,
    /// Extents that only kept checkpoints have. How long they are is [`Snapshot::held_bytes`].
    pub held_extents: u64,
    /// Space of the file that is neither the header's nor in use.
    pub free_bytes: u64,
    /// Whether the store is open for writing, here or elsewhere. Nothing where that cannot be known: the I/O is the
    /// caller's.
    pub is_open_for_writing: Option<bool>,
}

/// Where the parts of a checkpoint are in the file: [`Snapshot::layout`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// The copies of the superblock and of the two slots, in the order of the file.
    pub header: Vec<HeaderCopy>,
    /// The page table of this checkpoint, then the space map and the held list of the last one.
    pub trees: Vec<TreeInfo>,
    /// The list of kept checkpoints, if there are any.
    pub names: Option<BlockAddr>,
    /// Where the last checkpoint's record begins, in bytes, if it has one: the first checkpoint of a file has none.
    pub record_offset: Option<u64>,
}

/// A copy of a part of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderCopy {
    /// [`Part::Superblock`] or [`Part::Slot`].
    pub part: Part,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// The generation of the checkpoint in a slot. Nothing where it has none.
    pub generation: Option<u64>,
    /// What is wrong with it. A slot that was never written has neither this nor a generation.
    pub problem: Option<String>,
}

/// One of the store's trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeInfo {
    /// [`Part::PageTable`], [`Part::SpaceMap`] or [`Part::HeldList`].
    pub part: Part,
    /// Its root node. Nothing where the tree is empty.
    pub root: Option<BlockAddr>,
    /// Levels of nodes, the leaves included. 0 where the tree is empty.
    pub levels: u32,
    /// What it counts: live pages, units in use, held extents.
    pub count: u64,
}

impl Snapshot {
    /// What the file is and has, as of the last checkpoint when this snapshot was opened, whichever it reads.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("store");
    /// use mapfall::Store;
    ///
    /// let store = Store::options().page_bytes(8192).create(&path)?;
    /// let info = Store::options().open_snapshot(&path)?.info()?;
    /// assert_eq!((info.page_bytes, info.pages), (8192, 0));
    /// assert_eq!(info.is_open_for_writing, Some(true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system does not tell the file's length or its locks.
    pub fn info(&self) -> Result<StoreInfo> {
        let (volume, slot) = (self.volume(), self.slot());
        let geometry = volume.geometry;
        let file_bytes = volume.io.len()?;
        let header_bytes = geometry.offset(geometry.data_start_units());
        let used_bytes = geometry.offset(slot.space.root.count);
        let is_open_for_writing = match &volume.lock {
            _ if self.is_of_open_store() => Some(true),
            None => None,
            Some(lock) => Some(has_writer(lock).map_err(|source| Error::Io {
                operation: Operation::Lock,
                path: volume.path.clone(),
                offset: WRITER_BYTE,
                len_bytes: 1,
                source,
            })?),
        };
        Ok(StoreInfo {
            format_version: FORMAT_VERSION,
            uuid: slot.uuid,
            unit_bytes: geometry.unit_bytes,
            page_bytes: geometry.page_bytes,
            checksum: volume.superblock.checksum,
            generation: slot.generation,
            next_write: slot.sequence,
            pages: slot.pages.root.count,
            page_limit: slot.page_limit,
            cookie: slot.cookie.clone(),
            kept_checkpoints: self.names().0.iter().map(CheckpointInfo::of).collect(),
            file_bytes,
            header_bytes,
            used_bytes,
            block_bytes: geometry.offset(slot.raw_units),
            held_extents: slot.held.root.count,
            free_bytes: file_bytes.saturating_sub(header_bytes + used_bytes),
            is_open_for_writing,
        })
    }

    /// Space that only kept checkpoints have, in bytes. The list of it is read from the file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::Corrupt`] where a node of the held list is.
    pub fn held_bytes(&self) -> Result<u64> {
        let units = held::read(self.volume(), &self.slot().held)?.iter().fold(0, |sum: u64, freed| {
            // Extents that a damaged list repeats may add up to more than a file can have.
            sum.saturating_add(freed.extent.len)
        });
        Ok(units.saturating_mul(u64::from(self.volume().geometry.unit_bytes)))
    }

    /// Where the parts of this checkpoint are. For debugging: where something is may change with the next version of
    /// this crate.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the header cannot be read.
    pub fn layout(&self) -> Result<Layout> {
        let (volume, slot) = (self.volume(), self.slot());
        let geometry = volume.geometry;
        let notices = header_notices(volume)?;
        let problem = |offset| {
            let notice = notices.iter().find(|notice| notice.offset == offset);
            notice.map(|notice| notice.text.clone())
        };
        let mut header = Vec::new();
        for offset in crate::format::SUPERBLOCK_OFFSETS {
            header.push(HeaderCopy { part: Part::Superblock, offset, generation: None, problem: problem(offset) });
        }
        for (offset, slot) in volume.slots()? {
            let generation = slot.ok().map(|slot| slot.generation);
            header.push(HeaderCopy { part: Part::Slot, offset, generation, problem: problem(offset) });
        }
        let tree = |part, tree: Tree| TreeInfo {
            part,
            root: address(geometry, &tree.root, geometry.node_bytes() as u64),
            levels: if tree.root.is_none() { 0 } else { tree.height + 1 },
            count: tree.root.count,
        };
        Ok(Layout {
            header,
            trees: vec![
                tree(Part::PageTable, self.tree()),
                tree(Part::SpaceMap, slot.space),
                tree(Part::HeldList, slot.held),
            ],
            names: address(geometry, &slot.names, slot.names.count),
            record_offset: (slot.record_units > 0).then(|| geometry.offset(slot.record_units)),
        })
    }

    /// Where a page's bytes are, or nothing where it was never written. For debugging: the page may be elsewhere in the
    /// next checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPage`]; [`Error::Io`] or [`Error::Corrupt`] where a node of the page table cannot be read.
    pub fn page_location(&self, page: PageId) -> Result<Option<BlockAddr>> {
        let volume = self.volume();
        match self.table().entry(volume, self, page.0)?.state() {
            PageState::Absent => Err(Error::NoSuchPage { page: page.0 }),
            PageState::Zeros => Ok(None),
            PageState::Stored { offset_units, sequence, checksum } => {
                Ok(Some(page_address(volume, offset_units, sequence, checksum)))
            }
        }
    }
}

/// A node's place as an address of so many bytes.
fn address(geometry: Geometry, child: &Child, len_bytes: u64) -> Option<BlockAddr> {
    let len_bytes = u32::try_from(len_bytes).ok()?;
    let Child { offset_units, generation, checksum, .. } = *child;
    (!child.is_none()).then(|| BlockAddr { offset: geometry.offset(offset_units), len_bytes, generation, checksum })
}

/// Whether someone else has the store open for writing.
pub(super) fn has_writer(lock: &LockFile) -> std::io::Result<bool> {
    Ok(!lock.locked_by_others(WRITER_BYTE..WRITER_BYTE + 1)?.is_empty())
}
