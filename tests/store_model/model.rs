//! The model, and a store that is held against it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use mapfall::{
    BlockAddr, CheckpointInfo, Error, IoMode, IoOptions, PageId, PageRead, Result, Store, StoreOptions, Verification,
};
use proptest::sample::Index;

use crate::snapshots::{Open, State, Written, content};
use crate::steps::{Opening, Setup, Step};

/// A store and what must be in it.
pub(crate) struct Model {
    pub(crate) path: PathBuf,
    pub(crate) setup: Setup,
    pub(crate) mode: IoMode,
    pub(crate) opening: Opening,
    pub(crate) store: Option<Rc<Store>>,
    pub(crate) now: State,
    pub(crate) dirty: Dirty,
    pub(crate) committed: State,
    pub(crate) generation: u64,
    pub(crate) kept: Vec<(String, u64, State)>,
    pub(crate) snapshots: Vec<Open>,
    pub(crate) blocks: Vec<Written>,
    pub(crate) versions: u64,
    /// No page had this number or a higher one.
    pub(crate) page_limit: u64,
    /// A checkpoint is pending.
    pub(crate) pending: bool,
    /// What that drops.
    pub(crate) dropping: Vec<String>,
}

/// What the next checkpoint will write.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) pages: BTreeSet<u64>,
    /// And whether it is live.
    pub(crate) blocks: BTreeMap<usize, bool>,
    pub(crate) dropped: Vec<String>,
    /// Pages that were moved: others than those, or not.
    pub(crate) moved: u64,
}

pub(crate) fn pick<T: Copy>(from: impl IntoIterator<Item = T>, index: &Index) -> Option<T> {
    let from: Vec<_> = from.into_iter().collect();
    (!from.is_empty()).then(|| *index.get(&from))
}

pub(crate) fn name(number: u8) -> String {
    // One byte and the most there can be, too.
    match number {
        0 => "a".to_owned(),
        1 => "b".repeat(64),
        number => format!("checkpoint {number}, «kept»"),
    }
}

fn no_such_page<T: std::fmt::Debug>(result: Result<T>, page: u64) {
    assert!(matches!(result, Err(Error::NoSuchPage { page: found }) if found == page), "{page}: {result:?}");
}

fn wrong_length<T: std::fmt::Debug>(result: Result<T>, expected: usize, found: usize) {
    match result {
        Err(Error::WrongLength { expected_bytes, found_bytes }) => {
            assert_eq!((expected_bytes, found_bytes), (expected as u64, found as u64));
        }
        other => panic!("{other:?}"),
    }
}

fn was_freed(result: Result<()>) {
    assert!(matches!(result, Err(Error::InvalidAddress { .. })), "{result:?}");
}

impl Model {
    pub(crate) fn options(opening: Opening, mode: IoMode) -> StoreOptions {
        let io = IoOptions::new().mode(mode).direct_fallback(true);
        Store::options().io(io).fit(opening.fit).verification(opening.verification)
    }

    pub(crate) fn create(path: PathBuf, setup: Setup, mode: IoMode) -> Self {
        let opening = setup.opening;
        let options = Self::options(opening, mode).unit_bytes(setup.unit_bytes).page_bytes(setup.page_bytes);
        let store = Some(Rc::new(options.create(&path).unwrap()));
        Model {
            path,
            setup,
            mode,
            opening,
            store,
            now: State::default(),
            dirty: Dirty::default(),
            committed: State::default(),
            generation: 1,
            kept: Vec::new(),
            snapshots: Vec::new(),
            blocks: Vec::new(),
            versions: 0,
            page_limit: 0,
            pending: false,
            dropping: Vec::new(),
        }
    }

    pub(crate) fn store(&self) -> Rc<Store> {
        self.store.clone().unwrap()
    }

    fn page_bytes(&self) -> usize {
        self.setup.page_bytes as usize
    }

    fn page(&self, index: &Index) -> Option<u64> {
        pick(self.now.pages.keys().copied(), index)
    }

    fn block(&self, index: &Index) -> Option<usize> {
        pick(self.now.blocks.iter().copied(), index)
    }

    fn new_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    /// Does one step, and holds everything against the model.
    pub(crate) fn step(&mut self, step: &Step) {
        let store = self.store();
        match step {
            Step::Checkpoint(ask) => self.checkpoint(&store, ask, &[], true),
            Step::Pending(ask, steps, commit) => self.checkpoint(&store, ask, steps, *commit),
            Step::CheckpointRefused(what) => self.checkpoint_refused(&store, *what),
            Step::DropCheckpoint(number) => self.drop_checkpoint(&store, &name(*number)),
            Step::Crash(opening) => {
                drop(store);
                self.crash(*opening);
            }
            Step::SecondWriter => self.second_writer(),
            Step::Verify => self.verify(&store),
            Step::Snapshot { name: number, by_path, mode, eager } => {
                self.open_snapshot(&store, number.map(name), by_path.then_some(*mode), *eager);
            }
            Step::CloseSnapshot(index) => {
                if let Some(at) = pick(0..self.snapshots.len(), index) {
                    self.snapshots.swap_remove(at).check(&self.blocks);
                }
            }
            step => {
                self.page_step(&store, step);
                self.block_step(&store, step);
            }
        }
        self.check();
    }

    fn page_step(&mut self, store: &Store, step: &Step) {
        let (pages, page_bytes) = (store.pages(), self.page_bytes());
        match step {
            Step::Allocate(count) => {
                for _ in 0..*count {
                    let page = pages.allocate().unwrap().0;
                    assert!(page <= self.page_limit, "{page} leaves out numbers from {}", self.page_limit);
                    self.page_limit = self.page_limit.max(page + 1);
                    assert_eq!(self.now.pages.insert(page, 0), None, "{page} was live");
                    self.dirty.pages.insert(page);
                }
            }
            Step::Write(index) => self.write_batch(store, std::slice::from_ref(index)),
            Step::WriteBatch(batch) => self.write_batch(store, batch),
            Step::WriteBatchWithMissing(batch) => {
                let missing = self.missing_page();
                let bytes = content(u64::MAX, page_bytes);
                let there = batch.iter().filter_map(|index| self.page(index));
                let batch: Vec<_> = there.chain([missing]).map(|page| (PageId(page), &*bytes)).collect();
                no_such_page(pages.write_batch(&batch), missing);
            }
            Step::WriteWrongLength(index, len) => {
                if let Some(page) = self.page(index).filter(|_| *len != page_bytes) {
                    let bytes = vec![1; page_bytes];
                    let batch = [(PageId(page), &*bytes), (PageId(page), &vec![1; *len])];
                    wrong_length(pages.write_batch(&batch), page_bytes, *len);
                    wrong_length(pages.write(PageId(page), &vec![1; *len]), page_bytes, *len);
                }
            }
            Step::ReadBatch(batch) => self.read_batch(store, batch, None),
            Step::ReadBatchWithErrors(batch, at) => self.read_batch(store, batch, Some(at.index(batch.len() + 1))),
            Step::ReadWrongLength(index, len) => {
                if let Some(page) = self.page(index).filter(|_| *len != page_bytes) {
                    wrong_length(pages.read(PageId(page), &mut vec![0; *len]), page_bytes, *len);
                }
            }
            Step::Compact(pages_max) => {
                let mut compaction = store.compaction().unwrap();
                while compaction.step(*pages_max).unwrap() {}
                self.dirty.moved += compaction.progress().pages_moved;
            }
            Step::Free(index) => self.free(store, std::slice::from_ref(index)),
            Step::FreeMany(batch) => self.free(store, batch),
            Step::Missing(page) if !self.now.pages.contains_key(page) => {
                let (id, mut buf) = (PageId(*page), vec![0; page_bytes]);
                no_such_page(pages.read(id, &mut buf), *page);
                no_such_page(pages.write(id, &buf), *page);
                no_such_page(pages.free(id), *page);
            }
            _ => {}
        }
    }

    fn missing_page(&self) -> u64 {
        (0..).find(|page| !self.now.pages.contains_key(page)).unwrap()
    }

    fn write_batch(&mut self, store: &Store, batch: &[Index]) {
        let found: Vec<_> = batch.iter().filter_map(|index| self.page(index)).collect();
        let versions: Vec<_> = found.iter().map(|page| (*page, self.new_version())).collect();
        let bytes: Vec<_> = versions.iter().map(|(_, version)| content(*version, self.page_bytes())).collect();
        let batch: Vec<_> = found.iter().zip(&bytes).map(|(page, bytes)| (PageId(*page), &**bytes)).collect();
        match *batch {
            [(page, bytes)] => store.pages().write(page, bytes).unwrap(),
            _ => store.pages().write_batch(&batch).unwrap(),
        }
        self.dirty.pages.extend(&found);
        self.now.pages.extend(versions);
    }

    /// With a page that is missing and one of the wrong length at a place, if there is to be an error.
    fn read_batch(&self, store: &Store, batch: &[Index], error_at: Option<usize>) {
        let page_bytes = self.page_bytes();
        let there = |index: &Index| self.page(index).map(|page| (page, page_bytes));
        let mut wanted: Vec<_> = batch.iter().filter_map(there).collect();
        let error_at = error_at.map(|at| at.min(wanted.len()));
        if let Some(at) = error_at {
            wanted.splice(at..at, [(self.missing_page(), page_bytes), (0, page_bytes - 1)]);
        }
        let mut bufs: Vec<_> = wanted.iter().map(|(_, len)| vec![0xEE; *len]).collect();
        let page_read = |(wanted, buf): (&(u64, usize), _)| PageRead { page: PageId(wanted.0), buf };
        let mut reads: Vec<_> = wanted.iter().zip(bufs.iter_mut().map(|buf| &mut buf[..])).map(page_read).collect();
        match (store.pages().read_batch(&mut reads), error_at) {
            (Ok(()), None) => {}
            (Err(Error::Batch { index, source }), Some(at)) => {
                assert_eq!(index, at);
                no_such_page(Err::<(), _>(*source), wanted[at].0);
            }
            (result, _) => panic!("{result:?}"),
        }
        for ((page, len), buf) in wanted.iter().zip(&bufs) {
            if let Some(version) = self.now.pages.get(page).filter(|_| *len == page_bytes) {
                assert!(*buf == content(*version, *len), "page {page}");
            }
        }
    }

    fn free(&mut self, store: &Store, batch: &[Index]) {
        for index in batch {
            if let Some(page) = self.page(index) {
                store.pages().free(PageId(page)).unwrap();
                no_such_page(store.pages().free(PageId(page)), page);
                no_such_page(store.pages().read(PageId(page), &mut vec![0; self.page_bytes()]), page);
                self.now.pages.remove(&page);
                self.dirty.pages.insert(page);
            }
        }
    }

    fn block_step(&mut self, store: &Store, step: &Step) {
        let blocks = store.blocks();
        match step {
            Step::WriteBlock(len) => {
                let version = self.new_version();
                let address = blocks.write(&content(version, *len)).unwrap();
                assert_eq!(address.len_bytes() as usize, *len);
                assert_eq!(BlockAddr::unpack(&address.pack()).unwrap(), (address, &[][..]));
                self.add_block(Written { address, version });
            }
            Step::MoveBlockDown(index) => {
                let Some(block) = self.block(index) else { return };
                let Written { address, version } = self.blocks[block];
                if let Some(moved) = blocks.move_down(&address).unwrap() {
                    assert!(moved.offset() < address.offset() && moved.len_bytes() == address.len_bytes());
                    self.remove_block(block);
                    self.add_block(Written { address: moved, version });
                }
            }
            Step::WriteBlockOfNothing => wrong_length(blocks.write(&[]), 1, 0),
            Step::ReadBlockWrongLength(index, len) => {
                let address = self.block(index).map(|block| self.blocks[block].address);
                if let Some(address) = address.filter(|address| address.len_bytes() as usize != *len) {
                    let expected = address.len_bytes() as usize;
                    wrong_length(blocks.read(&address, &mut vec![0; *len]), expected, *len);
                    for open in &self.snapshots {
                        wrong_length(open.snapshot.read_block(&address, &mut vec![0; *len]), expected, *len);
                    }
                }
            }
            Step::FreeHeldBlock(index) => {
                let kept = self.kept.iter().map(|(_, _, state)| state);
                let states = kept.chain(self.snapshots.iter().map(|open| &open.state)).chain([&self.committed]);
                let held: BTreeSet<_> = states.flat_map(|state| &state.blocks).collect();
                if let Some(block) = pick(held.into_iter().filter(|block| !self.now.blocks.contains(block)), index) {
                    was_freed(blocks.free(&self.blocks[*block].address));
                }
            }
            Step::FreeBlock(index) => self.free_block(store, index, false),
            Step::FreeBlockTwice(index) => self.free_block(store, index, true),
            Step::ReadFreedBlock(index) => {
                let freed = (0..self.blocks.len()).filter(|block| !self.now.blocks.contains(block));
                if let Some(block) = pick(freed, index).map(|block| self.blocks[block]) {
                    let mut buf = vec![0; block.address.len_bytes() as usize];
                    match blocks.read(&block.address, &mut buf) {
                        Ok(()) => assert!(buf == block.content() || self.opening.verification == Verification::Off),
                        Err(Error::Corrupt { part, offset, .. }) => {
                            assert_eq!((part, offset), (mapfall::Part::Block, block.address.offset()));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            _ => {}
        }
    }

    fn free_block(&mut self, store: &Store, index: &Index, twice: bool) {
        let Some(block) = self.block(index) else { return };
        let address = self.blocks[block].address;
        store.blocks().free(&address).unwrap();
        if twice {
            was_freed(store.blocks().free(&address));
        }
        self.remove_block(block);
    }

    fn add_block(&mut self, block: Written) {
        assert!(block.address.offset().is_multiple_of(u64::from(self.setup.unit_bytes)));
        assert!(self.blocks.iter().all(|other| other.address != block.address), "{} again", block.address);
        self.now.blocks.insert(self.blocks.len());
        self.dirty.blocks.insert(self.blocks.len(), true);
        self.blocks.push(block);
    }

    fn remove_block(&mut self, block: usize) {
        self.now.blocks.remove(&block);
        if self.dirty.blocks.remove(&block).is_none() {
            self.dirty.blocks.insert(block, false);
        }
    }

    /// Holds the store and the eager snapshots against the model.
    fn check(&self) {
        let store = self.store();
        let pages = store.pages();
        assert_eq!(store.generation(), self.generation);
        assert_eq!(store.cookie(), self.committed.cookie);
        let info = |(name, generation, state): &(String, u64, State)| CheckpointInfo {
            name: name.clone(),
            generation: *generation,
            pages: state.pages.len() as u64,
            cookie: state.cookie.clone(),
        };
        assert_eq!(store.checkpoints(), self.kept.iter().map(info).collect::<Vec<_>>());
        assert_eq!((pages.count(), pages.page_bytes()), (self.now.pages.len() as u64, self.page_bytes()));
        let found: Vec<_> = pages.iter().map(|page| page.unwrap().0).collect();
        assert!(found.iter().eq(self.now.pages.keys()), "{found:?}");
        let mut buf = vec![0xEE; self.page_bytes()];
        for (page, version) in &self.now.pages {
            pages.read(PageId(*page), &mut buf).unwrap();
            assert!(buf == content(*version, buf.len()), "page {page}");
        }
        for block in self.now.blocks.iter().map(|block| &self.blocks[*block]) {
            let mut buf = vec![0xEE; block.address.len_bytes() as usize];
            store.blocks().read(&block.address, &mut buf).unwrap();
            assert!(buf == block.content(), "block {}", block.address);
        }
        if !self.pending {
            store.validate().unwrap();
        }
        self.snapshots.iter().filter(|open| open.eager).for_each(|open| open.check(&self.blocks));
    }

    /// Every kept checkpoint, and everything once more in another life of the store.
    pub(crate) fn end(mut self) {
        self.crash(self.opening);
        self.check();
        self.verify(&self.store());
        for number in 0..4 {
            self.open_snapshot(&self.store(), Some(name(number)), None, false);
        }
        self.snapshots.iter().for_each(|open| open.check(&self.blocks));
    }
}
