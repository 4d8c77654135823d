//! One change of a tree: all of its pages are made first, then written at once, and what they replace is freed last.
//!
//! Every node but the root is a third full or more, as near as the lengths of keys allow. A node that takes more than
//! its page is split. One that takes less than a third is joined with a neighbour: into one page where they fit, else
//! the two are divided anew. Either changes the parent, which may then be too long or too short in its turn.

use mapfall::{BlockAddr, PageId};

use super::error::Result;
use super::node::{Cell, Limits, Node, Payload, View};
use super::read::{Live, Source, descend};
use super::root::Root;

/// Something of the store's that the tree has no use for anymore.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Garbage {
    Page(PageId),
    Block(BlockAddr),
}

/// A change in the making.
#[derive(Debug)]
pub(crate) struct Edit<'a> {
    live: &'a Live,
    limits: Limits,
    /// The root as it will be.
    pub(crate) root: Root,
    dirty: Vec<(PageId, Vec<u8>)>,
    /// Garbage if the change fails.
    pub(crate) made: Vec<Garbage>,
    /// Garbage if it succeeds.
    pub(crate) replaced: Vec<Garbage>,
}

impl<'a> Edit<'a> {
    pub(crate) fn new(live: &'a Live, root: Root) -> Self {
        let limits = Limits::new(live.page_bytes());
        Edit { live, limits, root, dirty: Vec::new(), made: Vec::new(), replaced: Vec::new() }
    }

    /// Puts a value under a key, or takes the key away, up to the last step: [`Edit::write`]. Says whether the key was
    /// there.
    pub(crate) fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
        let mut path = Vec::new();
        let mut buf = vec![0; self.limits.page_bytes()];
        let leaf = descend(self.live, self.root.page, key, &mut buf, |view, index| {
            path.push((view.page(), index));
            Ok(())
        })?;
        let found = leaf.search(key)?;
        let mut node = Node::decode(&leaf)?;
        let new = match value {
            Some(value) => Some(Cell { key: key.to_vec(), payload: self.payload(key, value)? }),
            None => None,
        };
        self.root.entries += u64::from(new.is_some());
        match found {
            Ok(index) => {
                self.root.entries = self.root.entries.saturating_sub(1);
                if let Payload::Block(address) = node.cells[index].payload {
                    self.replaced.push(Garbage::Block(address));
                    self.root.value_blocks = self.root.value_blocks.saturating_sub(1);
                }
                node.cells.splice(index..=index, new);
            }
            Err(_) if new.is_none() => return Ok(false),
            Err(index) => {
                node.cells.splice(index..index, new);
            }
        }
        self.put_up(path, leaf.page(), node)?;
        Ok(found.is_ok())
    }

    fn payload(&mut self, key: &[u8], value: &[u8]) -> Result<Payload> {
        if self.limits.is_inline(key, value) {
            return Ok(Payload::Value(value.to_vec()));
        }
        let address = self.live.blocks.write(value)?;
        self.made.push(Garbage::Block(address));
        self.root.value_blocks += 1;
        Ok(Payload::Block(address))
    }

    /// Puts a node that has changed, and those above it as far as they change with it.
    fn put_up(&mut self, mut path: Vec<(PageId, usize)>, mut page: PageId, mut node: Node) -> Result<()> {
        while let Some((parent_page, index)) = path.pop() {
            if (self.limits.capacity_bytes() / 3..=self.limits.capacity_bytes()).contains(&node.len_bytes()) {
                self.put(page, &node);
                return Ok(());
            }
            let mut parent = self.node(parent_page, node.level + 1)?;
            self.settle(&mut parent, index, page, node)?;
            (page, node) = (parent_page, parent);
        }
        if self.fits(&node) {
            self.put_root(page, &node);
            return Ok(());
        }
        // It becomes the first child of a new root.
        self.root.page = self.allocate()?;
        let mut root = Node { level: node.level + 1, cells: vec![Cell::child(Vec::new(), page)] };
        self.settle(&mut root, 0, page, node)?;
        self.put_root(self.root.page, &root);
        Ok(())
    }

    /// A root with one child is not needed.
    fn put_root(&mut self, page: PageId, root: &Node) {
        match root.cells.as_slice() {
            [Cell { payload: Payload::Child(child), .. }] => {
                self.root.page = *child;
                self.replaced.push(Garbage::Page(page));
            }
            _ => self.put(page, root),
        }
    }

    /// Puts a child that is too long or too short, so that it is neither.
    fn settle(&mut self, parent: &mut Node, index: usize, page: PageId, node: Node) -> Result<()> {
        if !self.fits(&node) {
            let (left, separator, right) = node.split();
            let right_page = self.allocate()?;
            self.put(page, &left);
            self.put(right_page, &right);
            parent.cells.insert(index + 1, Cell::child(separator, right_page));
            return Ok(());
        }
        let right_index = index.max(1);
        let other_index = if index == 0 { 1 } else { index - 1 };
        let Some(Payload::Child(other_page)) = parent.cells.get(other_index).map(|cell| cell.payload.clone()) else {
            self.put(page, &node);
            return Ok(());
        };
        let other = self.node(other_page, node.level)?;
        let (left_page, left, right_page, right) = match index {
            0 => (page, node, other_page, other),
            _ => (other_page, other, page, node),
        };
        let separator = std::mem::take(&mut parent.cells[right_index].key);
        let joined = left.join(separator, right);
        if self.fits(&joined) {
            self.put(left_page, &joined);
            self.replaced.push(Garbage::Page(right_page));
            parent.cells.remove(right_index);
        } else {
            let (left, separator, right) = joined.split();
            self.put(left_page, &left);
            self.put(right_page, &right);
            parent.cells[right_index].key = separator;
        }
        Ok(())
    }

    fn fits(&self, node: &Node) -> bool {
        node.len_bytes() <= self.limits.capacity_bytes()
    }

    fn node(&self, page: PageId, level: u8) -> Result<Node> {
        let mut buf = vec![0; self.limits.page_bytes()];
        self.live.read_page(page, &mut buf)?;
        Node::decode(&View::new(page, &buf, Some(level))?)
    }

    pub(crate) fn allocate(&mut self) -> Result<PageId> {
        let page = self.live.pages.allocate()?;
        self.made.push(Garbage::Page(page));
        Ok(page)
    }

    pub(crate) fn put(&mut self, page: PageId, node: &Node) {
        self.dirty.push((page, node.encode(self.limits)));
    }

    /// Writes all pages of the change, or none.
    pub(crate) fn write(&self) -> Result<()> {
        let batch: Vec<_> = self.dirty.iter().map(|(page, bytes)| (*page, bytes.as_slice())).collect();
        Ok(self.live.pages.write_batch(&batch)?)
    }
}
