//! A B+tree of byte strings on the pages and blocks of a store: what an embedder of this crate looks like.
//!
//! | file | what it has |
//! |---|---|
//! | `tree` | the tree: its lock, its checkpoints |
//! | `node` | the bytes of a node |
//! | `edit` | one change: splits, merges, and all pages of it at once |
//! | `read` | going down, ranges, snapshots |
//! | `check` | looking at all of it |
//! | `root` | the root cookie |
//! | `error` | what can go wrong |
//!
//! A node is a page, and a value that does not fit into a quarter of a page is a block. The store keeps page numbers
//! stable and never writes over anything that a checkpoint has, so the tree writes nodes in place, needs no log, and
//! has snapshots for nothing.
//!
//! # What holds at a checkpoint
//!
//! A checkpoint of the store has what was written before its cut. Changes hold the tree's lock from the first page or
//! block they make to the last one they free, and a cut is made with that lock held. So a checkpoint has whole changes
//! only, and no page or block that its tree does not refer to.

#[path = "check.rs"]
mod check;
#[path = "edit.rs"]
mod edit;
#[path = "error.rs"]
mod error;
#[path = "node.rs"]
mod node;
#[path = "read.rs"]
mod read;
#[path = "root.rs"]
mod root;

use std::ops::RangeBounds;

use mapfall::{CheckpointOptions, CheckpointReport, PageId, Store};
use parking_lot::{Mutex, RwLock};

use check::check;
use edit::{Edit, Garbage};
pub(crate) use error::{Error, Result};
use node::{Limits, Node, PAGE_BYTES_MAX};
pub(crate) use read::TreeSnapshot;
use read::{Bounds, LeafEntries, Leaves, Live, Range, Source as _, get, leaf_entries};
use root::Root;

/// A tree that is open for writing.
///
/// Any number of threads may use it: many read, or one writes. What was written is durable after the next
/// [`Tree::checkpoint`].
#[derive(Debug)]
pub(crate) struct Tree {
    store: Store,
    live: Live,
    state: RwLock<State>,
    /// Held through a checkpoint, so that no second one waits for the first with the other lock held.
    checkpoint: Mutex<()>,
}

#[derive(Debug)]
struct State {
    root: Root,
    /// To be freed.
    garbage: Vec<Garbage>,
}

impl Tree {
    /// The tree of a store, or a new one if the store is new.
    ///
    /// # Errors
    ///
    /// [`Error::NotATree`] where there is something else in the store, or its pages are longer than 64 KiB;
    /// [`Error::Store`].
    pub(crate) fn open(store: Store) -> Result<Self> {
        let live = Live { pages: store.pages(), blocks: store.blocks() };
        if live.page_bytes() > PAGE_BYTES_MAX {
            let problem = format!("expected pages of at most {PAGE_BYTES_MAX} bytes, found {}", live.page_bytes());
            return Err(Error::NotATree { problem });
        }
        let cookie = store.cookie();
        let root = match cookie.is_empty() && live.pages.count() == 0 {
            true => new_tree(&live)?,
            false => Root::decode(&cookie)?,
        };
        let state = RwLock::new(State { root, garbage: Vec::new() });
        Ok(Tree { store, live, state, checkpoint: Mutex::new(()) })
    }

    /// The store that the tree is in.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Its root and what it counts, as of now.
    pub(crate) fn root(&self) -> Root {
        self.state.read().root
    }

    /// No key is longer.
    pub(crate) fn key_bytes_max(&self) -> usize {
        Limits::new(self.live.page_bytes()).key_bytes_max()
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where a node is none; [`Error::Store`].
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let state = self.state.read();
        get(&self.live, state.root.page, key)
    }

    /// Puts a value under a key, instead of the one that was there. Says whether there was one.
    ///
    /// # Errors
    ///
    /// [`Error::KeyTooLong`]; [`Error::Damaged`]; [`Error::Store`], for a value of more than `u32::MAX` bytes too.
    pub(crate) fn insert(&self, key: &[u8], value: &[u8]) -> Result<bool> {
        let max_bytes = self.key_bytes_max();
        if key.len() > max_bytes {
            return Err(Error::KeyTooLong { found_bytes: key.len(), max_bytes });
        }
        self.set(key, Some(value))
    }

    /// Takes a key and its value away. Says whether it was there.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], [`Error::Store`].
    pub(crate) fn remove(&self, key: &[u8]) -> Result<bool> {
        self.set(key, None)
    }

    fn set(&self, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
        let mut state = self.state.write();
        let mut edit = Edit::new(&self.live, state.root);
        let result = edit.set(key, value).and_then(|found| edit.write().map(|()| found));
        if result.is_ok() {
            state.root = edit.root;
            state.garbage.append(&mut edit.replaced);
        } else {
            state.garbage.append(&mut edit.made);
        }
        // What cannot be freed now stays in the list, and the checkpoint says why.
        let _ = self.free_garbage(&mut state);
        result
    }

    fn free_garbage(&self, state: &mut State) -> Result<()> {
        while let Some(garbage) = state.garbage.last() {
            match garbage {
                Garbage::Page(page) => self.live.pages.free(*page)?,
                Garbage::Block(address) => self.live.blocks.free(address)?,
            }
            state.garbage.pop();
        }
        Ok(())
    }

    /// The entries of a range of keys, in their order.
    ///
    /// A leaf is read at a time, and its entries are of one moment. Others may change the tree between two leaves; a
    /// snapshot is of one moment as a whole. Bounds that are the wrong way round have nothing between them.
    pub(crate) fn range(&self, range: impl RangeBounds<Vec<u8>>) -> Range<'_> {
        Range::new(self, range)
    }

    /// Looks at every node and every value, and returns the root with what was counted.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where a node is none or not where its keys belong, where the root has counted otherwise, and
    /// where the store has other pages than the nodes; [`Error::Store`].
    pub(crate) fn check(&self) -> Result<Root> {
        let state = self.state.read();
        let unused = state.garbage.iter().filter(|garbage| matches!(garbage, Garbage::Page(_))).count();
        check(&self.live, state.root, self.live.pages.count() - unused as u64)
    }

    /// Makes all that was written so far durable, and keeps it under a name if there is one. Reads and writes wait for
    /// the cut only.
    ///
    /// # Errors
    ///
    /// [`Error::Store`], [`mapfall::Error::CheckpointExists`] among others; also where something that the tree does not
    /// need anymore cannot be freed.
    pub(crate) fn checkpoint(&self, name: Option<&str>) -> Result<CheckpointReport> {
        let _one_at_a_time = self.checkpoint.lock();
        let mut state = self.state.write();
        self.free_garbage(&mut state)?;
        let mut options = CheckpointOptions::new().cookie(&state.root.encode());
        if let Some(name) = name {
            options = options.keep_as(name);
        }
        let pending = self.store.begin_checkpoint(options)?;
        drop(state);
        Ok(pending.commit()?)
    }

    /// The tree of the last checkpoint.
    ///
    /// # Errors
    ///
    /// [`Error::NotATree`] before the first one.
    pub(crate) fn snapshot(&self) -> Result<TreeSnapshot> {
        TreeSnapshot::new(self.store.snapshot())
    }

    /// The tree of a checkpoint that was kept under a name.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] with [`mapfall::Error::NoSuchCheckpoint`].
    pub(crate) fn snapshot_of(&self, name: &str) -> Result<TreeSnapshot> {
        TreeSnapshot::new(self.store.snapshot_of(name)?)
    }
}

impl Leaves for Tree {
    fn leaf_entries(&self, bounds: &Bounds) -> Result<LeafEntries> {
        let state = self.state.read();
        leaf_entries(&self.live, state.root.page, bounds)
    }
}

/// A leaf with nothing in it.
fn new_tree(live: &Live) -> Result<Root> {
    let mut edit = Edit::new(live, Root { page: PageId(0), entries: 0, value_blocks: 0 });
    edit.root.page = edit.allocate()?;
    edit.put(edit.root.page, &Node { level: 0, cells: Vec::new() });
    edit.write()?;
    Ok(edit.root)
}
