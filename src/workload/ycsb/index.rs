//! The index: where the record of a key is. It is kept in the store, in pages of its own, and in memory as a whole
//! while the store is open.
//!
//! It is a B+tree of two levels. Leaves are sorted runs of keys, as many as a page has room for; each belongs to a page
//! of the store. The level above them is a map from the lowest key of each leaf, and is nowhere but in memory: a leaf
//! says itself which keys it has. So all that the store has to know beside the leaves is which pages they are. That is
//! a list that is only ever added to, in pages that are chained.
//!
//! Changes are made in memory alone. What has changed is written before a checkpoint of the store is cut, with the
//! checkpoint's cookie beside it, so a crash leaves an index that has exactly the records of the last checkpoint.
//!
//! # The bytes
//!
//! | page of a leaf | |
//! |---|---|
//! | 0..4 | `mfyl` |
//! | 4..6 | how many keys there are |
//! | 6..8 | pages of a record |
//! | 8.. | for each key, in their order: its length (1 byte), its bytes, the numbers of its pages (8 bytes each) |
//!
//! | page of the list | |
//! |---|---|
//! | 0..4 | `mfyd` |
//! | 4..8 | how many leaves are listed here |
//! | 8..16 | the next page of the list, or all ones |
//! | 16.. | the pages of leaves, 8 bytes each, in no order |
//!
//! Numbers are little-endian; behind what a page has there are zeros.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use super::error::{Result, YcsbError};
use super::record::Key;
use crate::{PageId, PageRead, Pages};

const LEAF_MAGIC: [u8; 4] = *b"mfyl";
const LIST_MAGIC: [u8; 4] = *b"mfyd";
const LEAF_HEADER_BYTES: usize = 8;
const LIST_HEADER_BYTES: usize = 16;
const NUMBER_BYTES: usize = 8;
/// Stands for no page.
const NONE: u64 = u64::MAX;
/// A leaf has room for so many keys at least, or records are refused.
const KEYS_MIN: usize = 4;
/// Pages that are read at once when the index is opened.
const BATCH_PAGES: usize = 64;

/// Where the index begins in the store, and what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// The first page of the list of leaves.
    pub(super) list: Option<PageId>,
    pub(super) records: u64,
}

/// The index of a store, in memory.
#[derive(Debug)]
pub(super) struct Index {
    page_bytes: usize,
    /// Pages of a record.
    stride: usize,
    leaves: Vec<Leaf>,
    /// By the lowest key that belongs to a leaf. The first leaf has whatever is below the second.
    by_key: BTreeMap<Key, u32>,
    dirty: Vec<u32>,
    list: Vec<ListPage>,
    records: u64,
}

#[derive(Debug, Default)]
struct Leaf {
    keys: Vec<Key>,
    /// Of each key the word behind what all of them begin with: a search looks at these, close together, and at one
    /// or two keys.
    heads: Vec<u64>,
    /// How many bytes all keys begin with alike.
    prefix_bytes: usize,
    pages: Vec<u64>,
    encoded_bytes: usize,
    page: Option<PageId>,
    is_dirty: bool,
}

/// A page of the list, and what is in it.
#[derive(Debug)]
struct ListPage {
    page: PageId,
    leaves: Vec<u64>,
    is_dirty: bool,
}

impl Leaf {
    fn entry_bytes(key: &Key, stride: usize) -> usize {
        1 + key.as_bytes().len() + stride * NUMBER_BYTES
    }

    /// Where a key is, or where it would be put.
    #[inline]
    fn search(&self, key: &Key) -> Result<usize, usize> {
        let Some(first) = self.keys.first() else { return Err(0) };
        match key.cmp_beginning(first, self.prefix_bytes) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.keys.len()),
            Ordering::Equal => {}
        }
        let head = key.head(self.prefix_bytes);
        let mut at = self.heads.partition_point(|other| *other < head);
        while self.heads.get(at) == Some(&head) {
            match self.keys[at].cmp(key) {
                Ordering::Less => at += 1,
                Ordering::Equal => return Ok(at),
                Ordering::Greater => break,
            }
        }
        Err(at)
    }

    fn make_heads(&mut self) {
        let ends = self.keys.first().zip(self.keys.last());
        self.prefix_bytes = ends.map_or(0, |(first, last)| first.common_bytes(last));
        self.heads.clear();
        self.heads.extend(self.keys.iter().map(|key| key.head(self.prefix_bytes)));
    }

    fn insert(&mut self, at: usize, key: Key, pages: &[u64]) {
        let is_end = at == 0 || at == self.keys.len();
        self.keys.insert(at, key);
        let start = at * pages.len();
        self.pages.splice(start..start, pages.iter().copied());
        self.encoded_bytes += Leaf::entry_bytes(&key, pages.len());
        // Between the ends all begin alike.
        if is_end {
            self.make_heads();
        } else {
            self.heads.insert(at, key.head(self.prefix_bytes));
        }
    }

    /// The upper half goes to a new leaf. Where keys come in their order, only the new one does, so that leaves get
    /// full.
    fn split(&mut self, inserted: usize, stride: usize) -> Leaf {
        let at = if inserted + 1 == self.keys.len() { inserted } else { self.keys.len() / 2 };
        let keys = self.keys.split_off(at);
        let pages = self.pages.split_off(at * stride);
        let encoded_bytes = keys.iter().map(|key| Leaf::entry_bytes(key, stride)).sum();
        self.encoded_bytes -= encoded_bytes;
        let mut upper = Leaf { keys, pages, encoded_bytes, ..Leaf::default() };
        self.make_heads();
        upper.make_heads();
        upper
    }

    fn encode(&self, page_bytes: usize, stride: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(page_bytes);
        bytes.extend(LEAF_MAGIC);
        bytes.extend((self.keys.len() as u16).to_le_bytes());
        bytes.extend((stride as u16).to_le_bytes());
        for (key, pages) in self.keys.iter().zip(self.pages.chunks(stride)) {
            bytes.push(key.as_bytes().len() as u8);
            bytes.extend(key.as_bytes());
            pages.iter().for_each(|page| bytes.extend(page.to_le_bytes()));
        }
        bytes.resize(page_bytes, 0);
        bytes
    }

    /// Nothing in a page panics here: each length is proven before it is used.
    fn decode(page: PageId, bytes: &[u8], stride: usize) -> Result<Leaf> {
        let damaged = |problem: &str| Err(YcsbError::Damaged { page, problem: problem.to_owned() });
        let Some(([m0, m1, m2, m3, c0, c1, s0, s1], mut rest)) = bytes.split_first_chunk() else {
            return damaged("it is too short");
        };
        if [*m0, *m1, *m2, *m3] != LEAF_MAGIC {
            return damaged("expected a leaf, found other bytes");
        }
        if usize::from(u16::from_le_bytes([*s0, *s1])) != stride {
            return damaged("its records have another number of pages");
        }
        let mut leaf = Leaf { page: Some(page), ..Leaf::default() };
        for _ in 0..u16::from_le_bytes([*c0, *c1]) {
            let entry = rest.split_first().and_then(|(len, behind)| {
                let (key, behind) = behind.split_at_checked(usize::from(*len))?;
                let (pages, behind) = behind.split_at_checked(stride * NUMBER_BYTES)?;
                Some((Key::from_bytes(key)?, pages.as_chunks::<NUMBER_BYTES>().0, behind))
            });
            let Some((key, pages, behind)) = entry else { return damaged("a key is not inside the page") };
            if leaf.keys.last().is_some_and(|last| *last >= key) {
                return damaged("its keys are out of order");
            }
            leaf.encoded_bytes += Leaf::entry_bytes(&key, stride);
            leaf.keys.push(key);
            leaf.pages.extend(pages.iter().map(|page| u64::from_le_bytes(*page)));
            rest = behind;
        }
        if leaf.keys.is_empty() {
            return damaged("it has no key");
        }
        leaf.make_heads();
        Ok(leaf)
    }
}

impl Index {
    /// An empty one, of records of so many pages.
    ///
    /// # Errors
    ///
    /// [`YcsbError::TooLarge`] where a record has more pages than a page of the index has room for.
    pub(super) fn new(page_bytes: usize, stride: usize) -> Result<Index> {
        let entry_bytes_max = (page_bytes - LEAF_HEADER_BYTES) / KEYS_MIN;
        let max = (entry_bytes_max - 1 - super::record::KEY_BYTES_MAX) / NUMBER_BYTES;
        if stride > max {
            let what = "the pages of a record (take longer pages: --page)";
            return Err(YcsbError::TooLarge { what, max: max as u64, found: stride as u64 });
        }
        let (leaves, by_key, dirty, list) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Index { page_bytes, stride, leaves, by_key, dirty, list, records: 0 })
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`YcsbError::Damaged`], [`YcsbError::Store`].
    pub(super) fn open(pages: &Pages, root: Root, stride: usize) -> Result<Index> {
        let mut index = Index::new(pages.page_bytes(), stride)?;
        let mut next = root.list;
        while let Some(page) = next {
            let mut bytes = vec![0; index.page_bytes];
            pages.read(page, &mut bytes)?;
            let (list_page, behind) = decode_list(page, &bytes)?;
            index.list.push(list_page);
            // Each has a leaf, and no store has as many pages; so a chain that is a ring is noticed.
            if index.list.len() as u64 > pages.count() {
                return Err(YcsbError::Damaged { page, problem: "the list of leaves has no end".to_owned() });
            }
            next = behind;
        }
        let listed: Vec<u64> = index.list.iter().flat_map(|list| list.leaves.iter().copied()).collect();
        let mut buf = vec![0; BATCH_PAGES * index.page_bytes];
        for numbers in listed.chunks(BATCH_PAGES) {
            let bufs = buf.chunks_mut(index.page_bytes);
            let mut batch: Vec<_> =
                numbers.iter().zip(bufs).map(|(page, buf)| PageRead { page: PageId(*page), buf }).collect();
            pages.read_batch(&mut batch)?;
            for read in batch {
                index.adopt(Leaf::decode(read.page, read.buf, stride)?)?;
            }
        }
        index.check(root)?;
        Ok(index)
    }

    /// Takes a leaf that was read.
    fn adopt(&mut self, leaf: Leaf) -> Result<()> {
        self.records += leaf.keys.len() as u64;
        let number = self.leaves.len() as u32;
        let (page, lowest) = (leaf.page, leaf.keys[0]);
        self.leaves.push(leaf);
        match (self.by_key.insert(lowest, number), page) {
            (Some(_), Some(page)) => {
                Err(YcsbError::Damaged { page, problem: "another leaf has the same keys".to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// That what was read belongs together.
    fn check(&self, root: Root) -> Result<()> {
        let mut last: Option<Key> = None;
        for number in self.by_key.values() {
            let leaf = &self.leaves[*number as usize];
            if last.is_some_and(|last| last >= leaf.keys[0]) {
                let page = leaf.page.unwrap_or(PageId(NONE));
                return Err(YcsbError::Damaged { page, problem: "its keys are in another leaf too".to_owned() });
            }
            last = leaf.keys.last().copied();
        }
        if self.records != root.records {
            let problem = format!("expected {} records, found {}", root.records, self.records);
            return Err(YcsbError::Damaged { page: root.list.unwrap_or(PageId(NONE)), problem });
        }
        Ok(())
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn root(&self) -> Root {
        Root { list: self.list.first().map(|list| list.page), records: self.records }
    }

    /// Pages that the store has for it.
    pub(super) fn page_count(&self) -> u64 {
        (self.leaves.len() + self.list.len()) as u64
    }

    /// What it takes of memory, about.
    pub(super) fn memory_bytes(&self) -> u64 {
        let of_leaf = |leaf: &Leaf| {
            size_of_val(&*leaf.keys) + size_of_val(&*leaf.heads) + size_of_val(&*leaf.pages) + size_of::<Leaf>()
        };
        let directory = self.by_key.len() * (size_of::<Key>() + size_of::<u32>());
        (self.leaves.iter().map(of_leaf).sum::<usize>() + directory) as u64
    }

    fn leaf_of(&self, key: &Key) -> Option<u32> {
        let below = self.by_key.range(..=key).next_back();
        below.or_else(|| self.by_key.first_key_value()).map(|(_, number)| *number)
    }

    /// The pages of a key's record.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<&[u64]> {
        let leaf = &self.leaves[self.leaf_of(key)? as usize];
        let at = leaf.search(key).ok()?;
        Some(&leaf.pages[at * self.stride..(at + 1) * self.stride])
    }

    /// Puts a key that is not there yet.
    pub(super) fn insert(&mut self, key: Key, pages: &[u64]) {
        let number = match self.leaf_of(&key) {
            Some(number) => number,
            None => {
                self.leaves.push(Leaf::default());
                self.by_key.insert(key, 0);
                0
            }
        };
        let leaf = &mut self.leaves[number as usize];
        let Err(at) = leaf.search(&key) else { return };
        leaf.insert(at, key, pages);
        // A leaf is known by its lowest key, also where that is lower than any before.
        if self.by_key.first_key_value().is_some_and(|(first, _)| key < *first) {
            self.by_key.pop_first();
            self.by_key.insert(key, number);
        }
        self.records += 1;
        let split = (LEAF_HEADER_BYTES + leaf.encoded_bytes > self.page_bytes).then(|| leaf.split(at, self.stride));
        self.mark(number);
        if let Some(upper) = split {
            let new = self.leaves.len() as u32;
            self.by_key.insert(upper.keys[0], new);
            self.leaves.push(upper);
            self.mark(new);
        }
    }

    fn mark(&mut self, number: u32) {
        let leaf = &mut self.leaves[number as usize];
        if !leaf.is_dirty {
            leaf.is_dirty = true;
            self.dirty.push(number);
        }
    }

    /// Hands the pages of up to `count` records to `each`, in the order of their keys, from the first key that is not
    /// below `from`.
    pub(super) fn scan(&self, from: &Key, count: usize, mut each: impl FnMut(&Key, &[u64])) {
        // The leaf where it would be, and those behind it.
        let first = self.by_key.range(..=from).next_back().map(|(key, _)| *key);
        let leaves = self.by_key.range((first.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded));
        let mut left = count;
        for number in leaves.map(|(_, number)| *number as usize) {
            let leaf = &self.leaves[number];
            let start = leaf.keys.partition_point(|key| key < from);
            for (key, pages) in leaf.keys.iter().zip(leaf.pages.chunks(self.stride)).skip(start) {
                if left == 0 {
                    return;
                }
                each(key, pages);
                left -= 1;
            }
        }
    }

    /// Gives each new leaf a page, and notes it in the list.
    ///
    /// # Errors
    ///
    /// [`YcsbError::Store`] where a page cannot be had. What has one keeps it.
    pub(super) fn assign_pages(&mut self, pages: &Pages) -> Result<()> {
        let capacity = (self.page_bytes - LIST_HEADER_BYTES) / NUMBER_BYTES;
        for at in 0..self.dirty.len() {
            let number = self.dirty[at] as usize;
            if self.leaves[number].page.is_some() {
                continue;
            }
            if self.list.last().is_none_or(|list| list.leaves.len() == capacity) {
                let page = pages.allocate()?;
                if let Some(last) = self.list.last_mut() {
                    last.is_dirty = true;
                }
                self.list.push(ListPage { page, leaves: Vec::new(), is_dirty: true });
            }
            let page = pages.allocate()?;
            self.leaves[number].page = Some(page);
            if let Some(list) = self.list.last_mut() {
                list.leaves.push(page.0);
                list.is_dirty = true;
            }
        }
        Ok(())
    }

    /// The pages that have changed since this was last asked, as they are now. Each leaf has a page. Whoever takes them
    /// writes them, or says [`Index::mark_all`].
    pub(super) fn take_changed(&mut self) -> Vec<(PageId, Vec<u8>)> {
        let mut changed = Vec::with_capacity(self.dirty.len());
        for number in self.dirty.drain(..) {
            let leaf = &mut self.leaves[number as usize];
            leaf.is_dirty = false;
            if let Some(page) = leaf.page {
                changed.push((page, leaf.encode(self.page_bytes, self.stride)));
            }
        }
        for at in 0..self.list.len() {
            let next = self.list.get(at + 1).map_or(NONE, |list| list.page.0);
            let list = &mut self.list[at];
            if std::mem::take(&mut list.is_dirty) {
                changed.push((list.page, encode_list(list, next, self.page_bytes)));
            }
        }
        changed
    }

    /// Nothing of it is known to be written.
    pub(super) fn mark_all(&mut self) {
        (0..self.leaves.len() as u32).for_each(|number| self.mark(number));
        self.list.iter_mut().for_each(|list| list.is_dirty = true);
    }
}

fn encode_list(list: &ListPage, next: u64, page_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(page_bytes);
    bytes.extend(LIST_MAGIC);
    bytes.extend((list.leaves.len() as u32).to_le_bytes());
    bytes.extend(next.to_le_bytes());
    list.leaves.iter().for_each(|leaf| bytes.extend(leaf.to_le_bytes()));
    bytes.resize(page_bytes, 0);
    bytes
}

/// A page of the list, and the next one.
fn decode_list(page: PageId, bytes: &[u8]) -> Result<(ListPage, Option<PageId>)> {
    let damaged = |problem: &str| YcsbError::Damaged { page, problem: problem.to_owned() };
    let header: Option<(&[u8; LIST_HEADER_BYTES], &[u8])> = bytes.split_first_chunk();
    let (header, rest) = header.ok_or_else(|| damaged("it is too short"))?;
    if header[..4] != LIST_MAGIC {
        return Err(damaged("expected a list of leaves, found other bytes"));
    }
    let count = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let (numbers, _) = rest.as_chunks::<NUMBER_BYTES>();
    let leaves = numbers.get(..count).ok_or_else(|| damaged("it lists more leaves than it has room for"))?;
    let leaves = leaves.iter().map(|leaf| u64::from_le_bytes(*leaf)).collect();
    let (next, _) = header[8..].as_chunks::<NUMBER_BYTES>();
    let next = next.first().map_or(NONE, |next| u64::from_le_bytes(*next));
    Ok((ListPage { page, leaves, is_dirty: false }, (next != NONE).then_some(PageId(next))))
}
