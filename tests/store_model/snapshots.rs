//! The model's snapshots, and the state that one must have.

use std::collections::{BTreeMap, BTreeSet};

use mapfall::{BlockAddr, Error, PageId, Snapshot};

/// What is in a store, or in a checkpoint of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Live pages, and what was last written to each; 0 for nothing.
    pub(crate) pages: BTreeMap<u64, u64>,
    /// Live blocks, by their place in the list of all that were ever written.
    pub(crate) blocks: BTreeSet<usize>,
    pub(crate) cookie: Vec<u8>,
}

/// A block that was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) address: BlockAddr,
    pub(crate) version: u64,
}

impl Written {
    pub(crate) fn content(&self) -> Vec<u8> {
        content(self.version, self.address.len_bytes() as usize)
    }
}

/// The bytes of a version. 0 is what was never written.
pub(crate) fn content(version: u64, len: usize) -> Vec<u8> {
    let word = |index: u64| (version.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index.wrapping_mul(version)).to_le_bytes();
    let mut bytes: Vec<_> = (0..len.div_ceil(8) as u64).flat_map(word).collect();
    bytes.truncate(len);
    bytes
}

/// A snapshot that is open.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) snapshot: Snapshot,
    pub(crate) state: State,
    pub(crate) generation: u64,
    pub(crate) name: Option<String>,
    /// It has the store open.
    pub(crate) of_store: bool,
    pub(crate) eager: bool,
}

impl Open {
    pub(crate) fn check(&self, blocks: &[Written]) {
        let (snapshot, state) = (&self.snapshot, &self.state);
        assert_eq!(snapshot.generation(), self.generation);
        assert_eq!(snapshot.name(), self.name.as_deref());
        assert_eq!(snapshot.cookie(), state.cookie);
        assert_eq!(snapshot.count(), state.pages.len() as u64);
        let found: Vec<_> = snapshot.iter().map(|page| page.unwrap().0).collect();
        assert!(found.iter().eq(state.pages.keys()), "generation {}: {found:?}", self.generation);
        let mut buf = vec![0xEE; snapshot.page_bytes()];
        for (page, version) in &state.pages {
            snapshot.read(PageId(*page), &mut buf).unwrap();
            assert!(buf == content(*version, buf.len()), "page {page} of generation {}", self.generation);
        }
        let missing = (0..).find(|page| !state.pages.contains_key(page)).unwrap();
        for page in [missing, 1 << 40, u64::MAX] {
            let result = snapshot.read(PageId(page), &mut buf);
            assert!(matches!(result, Err(Error::NoSuchPage { page: found }) if found == page), "{page}: {result:?}");
        }
        for block in state.blocks.iter().map(|block| &blocks[*block]) {
            let mut buf = vec![0xEE; block.address.len_bytes() as usize];
            snapshot.read_block(&block.address, &mut buf).unwrap();
            assert!(buf == block.content(), "block {} of generation {}", block.address, self.generation);
        }
    }
}
