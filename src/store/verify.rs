//! Verification: is everything there, is it what was written, is each unit used once, is nothing lost?

use std::path::Path;

use super::audit::Audit;
use super::options::StoreOptions;
use super::volume::{Volume, read_superblocks};
use super::{Snapshot, Store};
use crate::error::{Error, Part, Result};
use crate::extent::Extent;
use crate::format::{BlockAddr, PageState, SLOT_BYTES};
use crate::io::BlockIo;

/// What is verified.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    contents: bool,
    blocks: Option<Vec<BlockAddr>>,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl VerifyOptions {
    /// Everything that the store knows of itself.
    #[must_use]
    pub fn new() -> Self {
        VerifyOptions { contents: true, blocks: None }
    }

    /// Whether each page and block is read and held against its checksum (the default), or only the store's own
    /// structures.
    #[must_use]
    pub fn contents(mut self, contents: bool) -> Self {
        self.contents = contents;
        self
    }

    /// All blocks of the checkpoint, which only the embedder knows. With them each is verified, and space that is in
    /// use and nobody's is found one by one; without them only their sum is held against what the store counted.
    #[must_use]
    pub fn blocks(mut self, blocks: impl IntoIterator<Item = BlockAddr>) -> Self {
        self.blocks = Some(blocks.into_iter().collect());
        self
    }
}

/// What verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The generation of the checkpoint.
    pub generation: u64,
    /// Live pages.
    pub pages: u64,
    /// Blocks that the caller named.
    pub blocks: u64,
    /// Nodes of the store's trees, those of kept checkpoints included.
    pub nodes: u64,
    /// Kept checkpoints.
    pub kept_checkpoints: u64,
    /// Bytes of pages and blocks held against their checksums.
    pub bytes_verified: u64,
    /// The allocation unit, in bytes.
    pub unit_bytes: u32,
    /// Units of the file, the header's included.
    pub units: u64,
    /// Units of the embedder's blocks.
    pub block_units: u64,
    /// Units that only kept checkpoints have.
    pub held_units: u64,
    /// What is wrong: the first thousand.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problems_total: u64,
    /// What is not as it was written and does no harm: a copy in the header, where another is whole.
    pub notices: Vec<Problem>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems_total == 0
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// In which way.
    pub kind: ProblemKind,
    /// With what.
    pub part: Part,
    /// Where that is in the file, in bytes; 0 where it has no place.
    pub offset: u64,
    /// What was expected and what was found.
    pub text: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Problem { kind, part, offset, text } = self;
        write!(f, "{}: {part} at offset {offset}: {text}", kind.name())
    }
}

/// In which way something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The bytes are not those that were written.
    Damaged,
    /// The system cannot read them.
    Unreadable,
    /// Something refers to a place where nothing can be, or has a number that nothing can have.
    OutOfRange,
    /// Two things are in the same place.
    UsedTwice,
    /// Something is in a place that the space map, or the held list, calls free.
    NotInMap,
    /// A place is in use, and nothing is there.
    Leaked,
}

impl ProblemKind {
    /// The kind in reports and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ProblemKind::Damaged => "damaged",
            ProblemKind::Unreadable => "unreadable",
            ProblemKind::OutOfRange => "out_of_range",
            ProblemKind::UsedTwice => "used_twice",
            ProblemKind::NotInMap => "not_in_map",
            ProblemKind::Leaked => "leaked",
        }
    }
}

impl StoreOptions {
    /// Verifies the last checkpoint of a store, and the kept ones, whether or not it is open for writing elsewhere.
    /// Nothing is written. `progress` is shown the report as it grows.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("store");
    /// # drop(mapfall::Store::options().create(&path)?);
    /// use mapfall::{Store, VerifyOptions};
    ///
    /// let report = Store::options().verify(&path, &VerifyOptions::new(), &mut |_| ())?;
    /// assert!(report.is_clean(), "{:?}", report.problems);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be opened or read at all, [`Error::NotAStore`], [`Error::Unsupported`].
    /// Damage is no error here, but in the report.
    pub fn verify(
        &self,
        path: impl AsRef<Path>,
        options: &VerifyOptions,
        progress: &mut dyn FnMut(&VerifyReport),
    ) -> Result<VerifyReport> {
        report_of(self.open_snapshot(path), options, progress)
    }

    /// Verifies a store in I/O of the caller's, which nobody writes.
    ///
    /// # Errors
    ///
    /// As [`StoreOptions::verify`].
    pub fn verify_io(
        &self,
        io: Box<dyn BlockIo>,
        options: &VerifyOptions,
        progress: &mut dyn FnMut(&VerifyReport),
    ) -> Result<VerifyReport> {
        report_of(self.open_snapshot_io(io), options, progress)
    }
}

impl Store {
    /// Verifies the last checkpoint and the kept ones, while reads and writes go on.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be read at all.
    pub fn verify(&self, options: &VerifyOptions, progress: &mut dyn FnMut(&VerifyReport)) -> Result<VerifyReport> {
        report_of(Ok(self.snapshot()), options, progress)
    }

    /// Recomputes what is in use, and says what does not add up with what is free. For tests: nobody may write
    /// meanwhile, and everything is gone through.
    ///
    /// # Errors
    ///
    /// What does not add up, the first thing.
    #[doc(hidden)]
    pub fn validate(&self) -> Result<(), String> {
        let inner = &*self.inner;
        let mut guard = inner.lock_between_checkpoints();
        let meta = &mut *guard;
        let volume = &*inner.volume;
        let tree = meta.committed.space;
        let map = super::space::Map { volume, tree: &tree };
        meta.space.load_all(map).map_err(|error| error.to_string())?;
        meta.space.free().validate()?;
        if meta.in_flight_units != 0 {
            return Err(format!("{} units are in flight", meta.in_flight_units));
        }
        let (slot, end) = (meta.committed.clone(), meta.space.end());
        let mut progress = |_: &VerifyReport| ();
        let mut audit = Audit::new(volume, &slot, end, false, &mut progress);
        audit.checkpoint(&meta.names);
        let deferred = meta.deferred.iter().map(|freed| (freed.extent, "deferred"));
        let free = meta.space.free().iter().chain(meta.space.quarantined()).map(|extent| (extent, "free"));
        let page_units = volume.geometry.page_units();
        let pages = meta.changes.values().filter_map(|entry| match entry.state() {
            PageState::Stored { offset_units, .. } => Some((Extent { start: offset_units, len: page_units }, "page")),
            _ => None,
        });
        let blocks = meta.blocks.iter().filter(|(_, change)| change.live);
        let blocks = blocks.map(|(start, change)| (Extent { start: *start, len: change.units }, "block"));
        for (extent, what) in deferred.chain(free).chain(pages).chain(blocks) {
            audit.claimed.claim(extent).map_err(|unit| format!("{what} {extent:?}: unit {unit} has another use"))?;
        }
        if let Some(problem) = audit.report.problems.first() {
            return Err(problem.to_string());
        }
        let mut all = super::units::Units::default();
        all.claim(Extent { start: 0, len: end }).map_err(|unit| unit.to_string())?;
        let others: u64 = all.without(&audit.claimed, 0, end).map(|extent| extent.len).sum();
        if others != slot.raw_units {
            return Err(format!("{others} units are nobody's, blocks have {}", slot.raw_units));
        }
        let live_pages = meta.live_pages;
        drop(guard);
        let mut found = 0;
        for page in self.pages().iter() {
            found += page.map(|_| 1).map_err(|error| error.to_string())?;
        }
        if found != live_pages {
            return Err(format!("{found} pages are live, {live_pages} were counted"));
        }
        Ok(())
    }
}

fn report_of(
    snapshot: Result<Snapshot>,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(&VerifyReport),
) -> Result<VerifyReport> {
    let snapshot = match snapshot {
        Ok(snapshot) => snapshot,
        Err(Error::Corrupt { part, offset, problem, .. }) => {
            let problem = Problem { kind: ProblemKind::Damaged, part, offset, text: problem };
            return Ok(VerifyReport { problems: vec![problem], problems_total: 1, ..VerifyReport::default() });
        }
        Err(error) => return Err(error),
    };
    let (volume, slot) = (snapshot.volume(), snapshot.slot());
    let mut audit = Audit::new(volume, slot, slot.end_units, options.contents, progress);
    audit.report.notices = header_notices(volume)?;
    audit.checkpoint(snapshot.names());
    for block in options.blocks.iter().flatten() {
        audit.block(block);
    }
    audit.compare(options.blocks.is_some());
    Ok(audit.report)
}

/// Damaged copies of the superblock and the slots. That the checkpoint can be read shows that others are whole; a crash
/// while a slot is written leaves some, too.
pub(super) fn header_notices(volume: &Volume) -> Result<Vec<Problem>> {
    let mut notices = Vec::new();
    for (offset, copy) in read_superblocks(&*volume.io)? {
        if copy.as_ref() != Ok(&volume.superblock) {
            let text = "it is not the copy that it should be".to_owned();
            notices.push(Problem { kind: ProblemKind::Damaged, part: Part::Superblock, offset, text });
        }
    }
    for (offset, slot) in volume.slots()? {
        let mut bytes = [0; SLOT_BYTES];
        if let Err(Error::Corrupt { problem, .. }) = slot
            // A slot that was never written is nothing to tell of.
            && volume.io.read_at(offset, &mut bytes).is_ok()
            && bytes != [0; SLOT_BYTES]
        {
            notices.push(Problem { kind: ProblemKind::Damaged, part: Part::Slot, offset, text: problem });
        }
    }
    Ok(notices)
}
