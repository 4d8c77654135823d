//! Reading a tree: the one that is being written, or one of a checkpoint.

use std::ops::{Bound, RangeBounds};

use mapfall::{BlockAddr, Blocks, PageId, Pages, Snapshot};

use super::check::check;
use super::error::{Error, Result};
use super::node::{Payload, View};
use super::root::Root;

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Where nodes and values are read from.
pub(crate) trait Source {
    fn page_bytes(&self) -> usize;
    fn read_page(&self, page: PageId, buf: &mut [u8]) -> mapfall::Result<()>;
    fn read_block(&self, address: &BlockAddr, buf: &mut [u8]) -> mapfall::Result<()>;
}

/// A store that is open for writing, as it is now.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) pages: Pages,
    pub(crate) blocks: Blocks,
}

impl Source for Live {
    fn page_bytes(&self) -> usize {
        self.pages.page_bytes()
    }

    fn read_page(&self, page: PageId, buf: &mut [u8]) -> mapfall::Result<()> {
        self.pages.read(page, buf)
    }

    fn read_block(&self, address: &BlockAddr, buf: &mut [u8]) -> mapfall::Result<()> {
        self.blocks.read(address, buf)
    }
}

impl Source for Snapshot {
    fn page_bytes(&self) -> usize {
        self.page_bytes()
    }

    fn read_page(&self, page: PageId, buf: &mut [u8]) -> mapfall::Result<()> {
        self.read(page, buf)
    }

    fn read_block(&self, address: &BlockAddr, buf: &mut [u8]) -> mapfall::Result<()> {
        self.read_block(address, buf)
    }
}

/// Goes down to the leaf where a key belongs, and leaves that in `buf`. `visit` is shown each node above it and which
/// child is taken.
///
/// A child is one level lower than its parent, or an error. So this ends, whatever the pages say.
pub(crate) fn descend<'a>(
    source: &dyn Source,
    root: PageId,
    key: &[u8],
    buf: &'a mut [u8],
    mut visit: impl FnMut(&View<'_>, usize) -> Result<()>,
) -> Result<View<'a>> {
    let (mut page, mut level) = (root, None);
    loop {
        source.read_page(page, buf)?;
        let view = View::new(page, buf, level)?;
        if view.level() == 0 {
            break;
        }
        let index = view.child_index(key)?;
        visit(&view, index)?;
        if let Payload::Child(child) = view.payload(index)? {
            level = Some(view.level() - 1);
            page = child;
        }
    }
    View::new(page, buf, Some(0))
}

/// The value, wherever it is.
pub(crate) fn value(source: &dyn Source, payload: Payload) -> Result<Vec<u8>> {
    match payload {
        Payload::Value(value) => Ok(value),
        Payload::Block(address) => {
            let mut value = vec![0; address.len_bytes() as usize];
            source.read_block(&address, &mut value)?;
            Ok(value)
        }
        Payload::Child(page) => Err(Error::Damaged { page, problem: "a child in a leaf".to_owned() }),
    }
}

pub(crate) fn get(source: &dyn Source, root: PageId, key: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut buf = vec![0; source.page_bytes()];
    let leaf = descend(source, root, key, &mut buf, |_, _| Ok(()))?;
    match leaf.search(key)? {
        Ok(index) => value(source, leaf.payload(index)?).map(Some),
        Err(_) => Ok(None),
    }
}

/// Bounds of a range of keys.
pub(crate) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// What a leaf has within bounds.
#[derive(Debug, Default)]
pub(crate) struct LeafEntries {
    entries: Vec<Entry>,
    /// All keys behind this leaf are this or above.
    next: Option<Vec<u8>>,
}

/// The entries of the first leaf that may have some.
pub(crate) fn leaf_entries(source: &dyn Source, root: PageId, bounds: &Bounds) -> Result<LeafEntries> {
    let from = match &bounds.0 {
        Bound::Included(key) | Bound::Excluded(key) => key.as_slice(),
        Bound::Unbounded => &[],
    };
    let mut buf = vec![0; source.page_bytes()];
    let mut next: Option<Vec<u8>> = None;
    let leaf = descend(source, root, from, &mut buf, |view, index| {
        if index + 1 < view.count() {
            next = Some(view.key(index + 1)?.to_vec());
        }
        Ok(())
    })?;
    if next.as_ref().is_some_and(|next| next.as_slice() <= from) {
        // Else a scan would go round in circles.
        return Err(Error::Damaged { page: leaf.page(), problem: "the keys above it are out of order".to_owned() });
    }
    let mut entries = Vec::new();
    for index in leaf.search(from)?.unwrap_or_else(|next| next)..leaf.count() {
        let key = leaf.key(index)?.to_vec();
        if bounds.contains(&key) {
            entries.push((key, value(source, leaf.payload(index)?)?));
        }
    }
    Ok(LeafEntries { entries, next })
}

/// What a range is read from, leaf by leaf.
pub(crate) trait Leaves {
    fn leaf_entries(&self, bounds: &Bounds) -> Result<LeafEntries>;
}

/// Entries in the order of their keys. After an error it ends.
///
/// A leaf is read at a time, and found by going down from the root: leaves have no links among them that a split or a
/// merge would have to keep.
pub(crate) struct Range<'a> {
    leaves: &'a dyn Leaves,
    /// What was not read yet.
    bounds: Option<Bounds>,
    entries: std::vec::IntoIter<Entry>,
}

impl<'a> Range<'a> {
    pub(crate) fn new(leaves: &'a dyn Leaves, range: impl RangeBounds<Vec<u8>>) -> Self {
        let bounds = Some((range.start_bound().cloned(), range.end_bound().cloned()));
        Range { leaves, bounds, entries: Vec::new().into_iter() }
    }
}

impl Iterator for Range<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            let bounds = self.bounds.take()?;
            match self.leaves.leaf_entries(&bounds) {
                Ok(leaf) => {
                    self.entries = leaf.entries.into_iter();
                    let next = leaf.next.filter(|next| (Bound::Unbounded, bounds.1.as_ref()).contains(next));
                    self.bounds = next.map(|next| (Bound::Included(next), bounds.1));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The tree of a checkpoint. Any number of threads may use it, whatever the writer does meanwhile.
#[derive(Debug)]
pub(crate) struct TreeSnapshot {
    snapshot: Snapshot,
    root: Root,
}

impl TreeSnapshot {
    /// # Errors
    ///
    /// [`Error::NotATree`].
    pub(crate) fn new(snapshot: Snapshot) -> Result<Self> {
        let root = Root::decode(snapshot.cookie())?;
        Ok(TreeSnapshot { snapshot, root })
    }

    pub(crate) fn root(&self) -> Root {
        self.root
    }

    /// Looks at every node and value of the checkpoint: [`super::Tree::check`].
    pub(crate) fn check(&self) -> Result<Root> {
        check(&self.snapshot, self.root, self.snapshot.count())
    }

    /// As [`super::Tree::get`].
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        get(&self.snapshot, self.root.page, key)
    }

    /// The entries of a range of keys, in their order: those of the checkpoint.
    pub(crate) fn range(&self, range: impl RangeBounds<Vec<u8>>) -> Range<'_> {
        Range::new(self, range)
    }
}

impl Leaves for TreeSnapshot {
    fn leaf_entries(&self, bounds: &Bounds) -> Result<LeafEntries> {
        leaf_entries(&self.snapshot, self.root.page, bounds)
    }
}
