//! What a store must hold, and how everything that reads one is held against that.
#![allow(dead_code, reason = "every test binary takes what it needs")]

use std::collections::BTreeMap;
use std::sync::Arc;

use mapfall::{BlockAddr, Error, PageId, PageRead, Result, Snapshot, Store};

pub(crate) type Bytes = Arc<[u8]>;

/// The content of a store at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) generation: u64,
    pub(crate) cookie: Vec<u8>,
    pub(crate) pages: BTreeMap<u64, Bytes>,
    pub(crate) blocks: Vec<(BlockAddr, Bytes)>,
    /// Kept checkpoints by name, the oldest first. What they kept themselves is left out.
    pub(crate) kept: Vec<(String, Arc<Model>)>,
}

/// Everything that pages and blocks can be read from.
pub(crate) trait View {
    fn page_bytes(&self) -> usize;
    fn count(&self) -> u64;
    fn ids(&self) -> Vec<Result<PageId>>;
    fn page(&self, page: PageId, buf: &mut [u8]) -> Result<()>;
    fn batch(&self, batch: &mut [PageRead<'_>]) -> Result<()>;
    fn block(&self, address: &BlockAddr, buf: &mut [u8]) -> Result<()>;
}

impl View for Store {
    fn page_bytes(&self) -> usize {
        self.pages().page_bytes()
    }

    fn count(&self) -> u64 {
        self.pages().count()
    }

    fn ids(&self) -> Vec<Result<PageId>> {
        self.pages().iter().collect()
    }

    fn page(&self, page: PageId, buf: &mut [u8]) -> Result<()> {
        self.pages().read(page, buf)
    }

    fn batch(&self, batch: &mut [PageRead<'_>]) -> Result<()> {
        self.pages().read_batch(batch)
    }

    fn block(&self, address: &BlockAddr, buf: &mut [u8]) -> Result<()> {
        self.blocks().read(address, buf)
    }
}

impl View for Snapshot {
    fn page_bytes(&self) -> usize {
        Snapshot::page_bytes(self)
    }

    fn count(&self) -> u64 {
        Snapshot::count(self)
    }

    fn ids(&self) -> Vec<Result<PageId>> {
        self.iter().collect()
    }

    fn page(&self, page: PageId, buf: &mut [u8]) -> Result<()> {
        self.read(page, buf)
    }

    fn batch(&self, batch: &mut [PageRead<'_>]) -> Result<()> {
        self.read_batch(batch)
    }

    fn block(&self, address: &BlockAddr, buf: &mut [u8]) -> Result<()> {
        self.read_block(address, buf)
    }
}

/// For a store that nothing is wrong with.
pub(crate) fn no_errors(what: &str, error: &Error) {
    panic!("{what}: {error}");
}

/// Reads all there is. What can be read must be right; what cannot is `failed`'s to judge.
pub(crate) fn examine(view: &dyn View, model: &Model, failed: &mut dyn FnMut(&str, &Error)) {
    assert_eq!(view.count(), model.pages.len() as u64, "number of live pages");
    let ids = view.ids();
    let errors = ids.iter().filter_map(|id| id.as_ref().err());
    let complete = errors.map(|error| failed("iteration", error)).count() == 0;
    let found: Vec<_> = ids.into_iter().flatten().map(|page| page.0).collect();
    match complete {
        true => assert!(found.iter().eq(model.pages.keys()), "live pages: {found:?}, not {:?}", model.pages.keys()),
        false => assert!(found.iter().all(|page| model.pages.contains_key(page)), "live pages: {found:?}"),
    }

    // A batch first: it must read what was not asked for before.
    let page_bytes = view.page_bytes();
    let mut buf = vec![0xEE; page_bytes * model.pages.len()];
    let mut batch: Vec<_> = model
        .pages
        .keys()
        .zip(buf.chunks_exact_mut(page_bytes))
        .map(|(page, buf)| PageRead { page: PageId(*page), buf })
        .collect();
    match view.batch(&mut batch) {
        Ok(()) => {
            for ((page, expected), found) in model.pages.iter().zip(buf.chunks_exact(page_bytes)) {
                assert!(found == &expected[..], "page {page} of a batch has other bytes");
            }
        }
        Err(Error::Batch { source, .. }) => failed("batch", &source),
        Err(error) => panic!("not the error of a batch: {error}"),
    }

    let mut buf = vec![0xEE; page_bytes];
    let end = model.pages.last_key_value().map_or(0, |(page, _)| *page) + 3;
    for page in 0..end {
        match (view.page(PageId(page), &mut buf), model.pages.get(&page)) {
            (Ok(()), Some(expected)) => assert!(buf == expected[..], "page {page} has other bytes"),
            (Ok(()), None) => panic!("page {page} is not live and was read"),
            (Err(Error::NoSuchPage { .. }), None) => {}
            (Err(error), _) => failed("page", &error),
        }
    }
    for (address, expected) in &model.blocks {
        let mut buf = vec![0xEE; expected.len()];
        match view.block(address, &mut buf) {
            Ok(()) => assert!(buf == expected[..], "block {address} has other bytes"),
            Err(error) => failed("block", &error),
        }
    }
}

/// A whole store that nothing was written to since its last checkpoint.
pub(crate) fn examine_store(store: &Store, model: &Model, failed: &mut dyn FnMut(&str, &Error)) {
    assert_eq!((store.generation(), store.cookie()), (model.generation, model.cookie.clone()));
    examine(store, model, failed);
    examine_kept(store, model, failed);
}

/// The kept checkpoints of a store.
pub(crate) fn examine_kept(store: &Store, model: &Model, failed: &mut dyn FnMut(&str, &Error)) {
    let infos = store.checkpoints();
    let found = infos.iter().map(|info| (&info.name, info.generation, info.pages, &info.cookie));
    let expected = model.kept.iter().map(|(name, kept)| (name, kept.generation, kept.pages.len() as u64, &kept.cookie));
    assert!(found.eq(expected), "kept checkpoints: {infos:?}");
    for (name, kept) in &model.kept {
        let snapshot = store.snapshot_of(name).unwrap();
        assert_eq!(snapshot.name(), Some(&name[..]));
        examine_snapshot(&snapshot, kept, &mut |what, error| failed(&format!("{name:?}: {what}"), error));
    }
}

pub(crate) fn examine_snapshot(snapshot: &Snapshot, model: &Model, failed: &mut dyn FnMut(&str, &Error)) {
    assert_eq!((snapshot.generation(), snapshot.cookie()), (model.generation, &model.cookie[..]));
    examine(snapshot, model, failed);
}
