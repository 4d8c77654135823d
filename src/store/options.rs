//! How a store is made and opened.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::Store;
use super::cached::{FileCache, StoreCache};
use super::inner::Inner;
use super::space::Space;
use super::volume::{Volume, WRITER_BYTE, read_superblocks, superblock};
use crate::checksum::ChecksumKind;
use crate::error::{Error, Operation, Part, Result};
use crate::extent::Fit;
use crate::format::{BlockAddr, Child, Geometry, HEADER_BYTES, Names, SLOT_BYTES, SLOT_OFFSETS, Slot, Superblock};
use crate::io::{BlockIo, SyncKind};
use crate::options::IoOptions;
use crate::sys::lock::LockFile;
use crate::tree::{self, Flow};

/// Whether what is read is held against its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verification {
    /// Every page and block, each time. Damage is an error, never data.
    #[default]
    Always,
    /// No page and no block. The nodes of the store's own trees are verified all the same.
    Off,
}

/// Makes and opens stores.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("store");
/// use mapfall::{IoMode, IoOptions, Store};
///
/// let store = Store::options().page_bytes(8192).io(IoOptions::new().mode(IoMode::Mmap)).create(&path)?;
/// drop(store);
/// let store = Store::options().open(&path)?; // the file knows its page size
/// assert_eq!(store.pages().page_bytes(), 8192);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct StoreOptions {
    io: IoOptions,
    unit_bytes: Option<u32>,
    page_bytes: u32,
    checksum: ChecksumKind,
    uuid: Option<[u8; 16]>,
    verification: Verification,
    fit: Fit,
    cache: Option<StoreCache>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl StoreOptions {
    /// Pages and units of 4 KiB, [`ChecksumKind::Crc32`], verified always, [`Fit::Best`], read by `pread(2)`.
    #[must_use]
    pub fn new() -> Self {
        StoreOptions {
            io: IoOptions::new(),
            unit_bytes: None,
            page_bytes: 4096,
            checksum: ChecksumKind::default(),
            uuid: None,
            verification: Verification::default(),
            fit: Fit::Best,
            cache: None,
        }
    }

    /// How the file is read. Whether it is written and made is set by what is called in the end.
    #[must_use]
    pub fn io(mut self, io: IoOptions) -> Self {
        self.io = io;
        self
    }

    /// For a new store: the allocation unit in bytes, a power of two from 512 to 1 MiB. Default: 4 KiB, or the length
    /// of a page where that is shorter.
    #[must_use]
    pub fn unit_bytes(mut self, unit_bytes: u32) -> Self {
        self.unit_bytes = Some(unit_bytes);
        self
    }

    /// For a new store: the length of a page in bytes, a multiple of the unit from 512 to 1 MiB. Default: 4 KiB.
    #[must_use]
    pub fn page_bytes(mut self, page_bytes: u32) -> Self {
        self.page_bytes = page_bytes;
        self
    }

    /// For a new store: the kind of its checksums.
    #[must_use]
    pub fn checksum(mut self, checksum: ChecksumKind) -> Self {
        self.checksum = checksum;
        self
    }

    /// For a new store: its UUID, for files that are to be the same each time. Default: a random one.
    ///
    /// Of two files with the same UUID, blocks of one may pass for blocks of the other.
    #[must_use]
    pub fn uuid(mut self, uuid: [u8; 16]) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Whether reads are verified.
    #[must_use]
    pub fn verification(mut self, verification: Verification) -> Self {
        self.verification = verification;
        self
    }

    /// Which free extent an allocation takes.
    #[must_use]
    pub fn fit(mut self, fit: Fit) -> Self {
        self.fit = fit;
        self
    }

    /// A cache to read blocks and pages through. Default: none.
    #[must_use]
    pub fn cache(mut self, cache: StoreCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// A volume of the file, with its part of the cache.
    pub(super) fn volume(
        &self,
        io: Box<dyn BlockIo>,
        path: Arc<Path>,
        lock: Option<LockFile>,
        superblock: Superblock,
    ) -> Volume {
        let verify = self.verification == Verification::Always;
        let cache = self.cache.as_ref().map(FileCache::new);
        Volume { cache, ..Volume::new(io, path, lock, superblock, verify) }
    }

    /// Makes a store, and opens it for writing. The file must not exist.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for sizes that cannot be; [`Error::Io`] where the system refuses, the file is there
    /// already for one.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        let superblock = self.superblock()?;
        let io = self.io.clone().write(true).create_new(true).open(path)?;
        let made = lock_for_writing(path).and_then(|lock| {
            let store = self.create_in(io, path.into(), Some(lock), superblock)?;
            sync_directory(path)?;
            Ok(store)
        });
        if made.is_err() {
            // It is ours, and no store.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// Makes a store in I/O of the caller's, which must be empty. Nobody is kept from opening it twice.
    ///
    /// # Errors
    ///
    /// As [`StoreOptions::create`]; [`Error::InvalidOption`] where something is there already.
    pub fn create_io(&self, io: Box<dyn BlockIo>) -> Result<Store> {
        let len_bytes = io.len()?;
        if len_bytes > 0 {
            let (option, expected) = ("create_io", "an empty file");
            return Err(Error::InvalidOption { option, expected, found: format!("{len_bytes} bytes") });
        }
        self.create_in(io, own_io_path(), None, self.superblock()?)
    }

    /// Opens a store for writing. One process does at a time; any number may read checkpoints
    /// ([`StoreOptions::open_snapshot`]).
    ///
    /// What was written after the last checkpoint is not there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Locked`]; [`Error::NotAStore`]; [`Error::Unsupported`]; [`Error::Corrupt`] where neither
    /// slot has a checkpoint or its list of names is damaged.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        let io = self.io.clone().write(true).create(false).open(path)?;
        let lock = lock_for_writing(path)?;
        self.open_in(io, path.into(), Some(lock))
    }

    /// Opens a store for writing; makes it if there is no file.
    ///
    /// # Errors
    ///
    /// As [`StoreOptions::open`] and [`StoreOptions::create`].
    pub fn open_or_create(&self, path: impl AsRef<Path>) -> Result<Store> {
        let path = path.as_ref();
        match self.open(path) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => self.create(path),
            result => result,
        }
    }

    /// Opens a store in I/O of the caller's for writing. Nobody is kept from opening it twice.
    ///
    /// # Errors
    ///
    /// As [`StoreOptions::open`], without [`Error::Locked`].
    pub fn open_io(&self, io: Box<dyn BlockIo>) -> Result<Store> {
        self.open_in(io, own_io_path(), None)
    }

    pub(super) fn read_only_io(&self) -> IoOptions {
        self.io.clone().write(false).create(false).create_new(false)
    }

    fn superblock(&self) -> Result<Superblock> {
        let unit_bytes = self.unit_bytes.unwrap_or(self.page_bytes.min(4096));
        let found = || format!("unit_bytes {unit_bytes}, page_bytes {}", self.page_bytes);
        let geometry = Geometry::new(unit_bytes, self.page_bytes).ok_or_else(|| Error::InvalidOption {
            option: "page_bytes",
            expected: "a unit of a power of two and a page of a multiple of it, each from 512 bytes to 1 MiB",
            found: found(),
        })?;
        Ok(Superblock {
            geometry,
            checksum: self.checksum,
            features_compatible: 0,
            features_read_compatible: 0,
            uuid: self.uuid.unwrap_or_else(|| uuid::Uuid::new_v4().into_bytes()),
        })
    }

    pub(super) fn create_in(
        &self,
        io: Box<dyn BlockIo>,
        path: Arc<Path>,
        lock: Option<LockFile>,
        superblock: Superblock,
    ) -> Result<Store> {
        let slot = empty_slot(&superblock);
        write_header(&*io, &superblock, &slot)?;
        let volume = self.volume(io, path, lock, superblock);
        let space = Space::new(slot.end_units, self.fit, false);
        Ok(Store { inner: Arc::new(Inner::new(Arc::new(volume), slot, Names::default(), space)) })
    }

    fn open_in(&self, io: Box<dyn BlockIo>, path: Arc<Path>, lock: Option<LockFile>) -> Result<Store> {
        let superblock = superblock(&*io, &path)?;
        if superblock.write_obstacles() != 0 {
            let problem = format!("features {:#x} forbid it to write", superblock.write_obstacles());
            return Err(Error::Unsupported { path, problem });
        }
        heal_superblocks(&*io, &superblock)?;
        let volume = Arc::new(self.volume(io, path, lock, superblock));
        let slot = volume.newest_slot()?;
        let names = read_names(&volume, &slot)?;
        settle_slots(&volume, &slot)?;
        let file_units = volume.io.len()? / u64::from(volume.geometry.unit_bytes);
        // Where the map cannot be read, opening the store does not fail for it.
        let end = end_units(&volume, &slot, file_units).unwrap_or(slot.end_units.max(file_units));
        let last = slot.generation;
        let inner = Inner::new(volume.clone(), slot, names, Space::new(end, self.fit, false));
        // They may read what is free now.
        let readers = inner.foreign_readers(last)?;
        if readers.iter().any(|generation| *generation < last) {
            inner.meta.lock().space = Space::new(end, self.fit, true);
        }
        inner.warm_up();
        Ok(Store { inner: Arc::new(inner) })
    }
}

/// The end of the space to use. The file may have been cut off behind what is in use since the checkpoint, or it may
/// have grown.
fn end_units(volume: &Volume, slot: &Slot, file_units: u64) -> Result<u64> {
    if file_units >= slot.end_units {
        return Ok(file_units);
    }
    let nodes = volume.nodes(Part::SpaceMap);
    let mut last = None;
    // What is in use before the file's end changes nothing.
    tree::walk(nodes, &slot.space, file_units / volume.geometry.leaf_units(), &mut |node| {
        if node.height == 0 && node.child.count > 0 {
            last = Some((node.child, node.first_leaf));
        }
        Ok(Flow::Down)
    })?;
    let Some((child, leaf)) = last else { return Ok(file_units.max(volume.geometry.data_start_units())) };
    let words = nodes.read_leaf(&child)?;
    let bits = words.iter().rposition(|word| *word != 0).map_or(0, |index| {
        let end = 64 - words[index].leading_zeros();
        index as u64 * 64 + u64::from(end)
    });
    let used = leaf.saturating_mul(volume.geometry.leaf_units()).saturating_add(bits);
    Ok(file_units.max(used.min(slot.end_units)))
}

/// The first checkpoint: nothing.
pub(super) fn empty_slot(superblock: &Superblock) -> Slot {
    Slot {
        uuid: superblock.uuid,
        generation: 1,
        sequence: 1,
        end_units: superblock.geometry.data_start_units(),
        ..Slot::default()
    }
}

/// Writes all but the superblock, and makes that durable; then the superblock, so that a file that has one is a store.
pub(super) fn write_header(io: &dyn BlockIo, superblock: &Superblock, slot: &Slot) -> Result<()> {
    // A slot that has no space behind it could not be written on a full disk.
    io.reserve(superblock.geometry.offset(slot.end_units).max(HEADER_BYTES))?;
    let copy = slot.encode();
    io.write_at(SLOT_OFFSETS[slot.generation as usize % 2], &[copy, copy].concat())?;
    io.sync(SyncKind::Data)?;
    for offset in crate::format::SUPERBLOCK_OFFSETS {
        io.write_at(offset, &superblock.encode())?;
    }
    io.sync(SyncKind::All)
}

/// Writes a copy of the superblock that is damaged anew.
fn heal_superblocks(io: &dyn BlockIo, superblock: &Superblock) -> Result<()> {
    for (offset, copy) in read_superblocks(io)? {
        if copy.as_ref() != Ok(superblock) {
            tracing::warn!(offset, "a copy of the superblock was damaged, and is written anew");
            io.write_at(offset, &superblock.encode())?;
        }
    }
    Ok(())
}

/// Makes the last checkpoint durable, and the copies of both slots whole or empty.
///
/// Whoever wrote it may have died before it was on the device, or have been told that it is not; then what is read is
/// only in the system's memory, where a failed sync may have left it without any intent to write it. If space of the
/// checkpoint before was used again, and then this one was lost, there would be none.
///
/// And where a checkpoint did not come to its end, a part of its slot may be left. If that were overwritten in part
/// too, the sectors that both have alike could make it whole, when what it refers to is long overwritten.
fn settle_slots(volume: &Volume, last: &Slot) -> Result<()> {
    let own = SLOT_OFFSETS[last.generation as usize % 2];
    let mut first_is_whole = false;
    for (offset, copy) in volume.slots()? {
        if offset == own {
            first_is_whole = copy.is_ok_and(|copy| copy == *last);
        } else if offset != own + SLOT_BYTES as u64 && copy.is_err() {
            volume.io.write_at(offset, &[0; SLOT_BYTES])?;
        }
    }
    // Never over the only copy that is whole, and the other when this one is on the device.
    let second = own + SLOT_BYTES as u64;
    for offset in if first_is_whole { [second, own] } else { [own, second] } {
        volume.io.write_at(offset, &last.encode())?;
        volume.io.sync(SyncKind::Data)?;
    }
    Ok(())
}

pub(super) fn read_names(volume: &Volume, slot: &Slot) -> Result<Names> {
    let child = slot.names;
    if child.is_none() {
        return Ok(Names::default());
    }
    let corrupt = |problem: String| volume.corrupt(Part::Names, volume.geometry.offset(child.offset_units), problem);
    if child.count > Names::BYTES_MAX {
        return Err(corrupt(format!("expected at most {} bytes, found {}", Names::BYTES_MAX, child.count)));
    }
    let mut bytes = crate::error::zeroed(child.count)?;
    let offset = volume.geometry.offset(child.offset_units);
    volume.read_at(Part::Names, offset, &mut bytes)?;
    let Child { generation, checksum, .. } = child;
    volume.prove(Part::Names, &BlockAddr { offset, len_bytes: bytes.len() as u32, generation, checksum }, &bytes)?;
    Names::decode(&bytes).ok_or_else(|| corrupt("expected names, found other values".to_owned()))
}

/// How I/O of the caller's is named in errors.
fn own_io_path() -> Arc<Path> {
    Path::new("(own I/O)").into()
}

fn lock_for_writing(path: &Path) -> Result<LockFile> {
    let lock = lock_file(path, true)?;
    match lock.try_exclusive(WRITER_BYTE) {
        Ok(true) => Ok(lock),
        Ok(false) => Err(Error::Locked { path: path.into() }),
        Err(source) => Err(lock_error(path, source)),
    }
}

pub(super) fn lock_file(path: &Path, write: bool) -> Result<LockFile> {
    let opened = File::options().read(true).write(write).open(path);
    opened.map(LockFile::new).map_err(|source| lock_error(path, source))
}

pub(super) fn lock_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { operation: Operation::Lock, path: path.into(), offset: 0, len_bytes: 0, source }
}

/// Makes the name of a new file durable.
fn sync_directory(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(|source| Error::Io {
        operation: Operation::Sync,
        path: parent.into(),
        offset: 0,
        len_bytes: 0,
        source,
    })
}
