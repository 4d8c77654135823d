//! Nodes: one page each, slots at its beginning and cells at its end.
//!
//! | bytes | what |
//! |---|---|
//! | 0..2 | `bt` |
//! | 2 | level: 0 is a leaf, the children of a node are one level lower |
//! | 3 | 0 |
//! | 4..6 | how many cells there are |
//! | 6..8 | 0 |
//! | 8.. | a slot for each cell: 2 bytes, where in the page the cell begins; in the order of the keys |
//! | ..end | the cells, the first one last, without gaps |
//!
//! Between the slots and the cells there are zeros. A cell:
//!
//! | bytes | what |
//! |---|---|
//! | 0..2 | length of the key |
//! | 2..4 | length of the payload; the top bit is set where that is the address of a block |
//! | 4.. | the key, then the payload |
//!
//! The payload is, in a leaf, the value or the packed [`BlockAddr`] of a block that has it; elsewhere the 8 bytes of
//! the child's page number. The child of a cell has the keys from the cell's own key up to that of the next cell. The
//! first cell of a node that is no leaf has the empty key, whatever the lowest key below it is. Numbers are
//! little-endian.
//!
//! No cell takes more than a quarter of a page, so a node that is full can be divided into two that are not far from
//! equal. An offset has 16 bits, so pages can be up to 64 KiB.
//!
//! Nothing here panics on what a page says. [`View`] looks only at the cells it is asked for, and proves each when it
//! does; [`Node`] has all of them proven.

use mapfall::{BlockAddr, PACKED_BYTES_MAX, PageId};

use super::error::{Error, Result};

const MAGIC: [u8; 2] = *b"bt";
const HEADER_BYTES: usize = 8;
const SLOT_BYTES: usize = 2;
const CELL_HEADER_BYTES: usize = 4;
const IN_BLOCK: u16 = 1 << 15;

/// What an offset of 16 bits can tell.
pub(crate) const PAGE_BYTES_MAX: usize = 1 << 16;
/// Every node but a leaf has two children at least, and there are less than 2 to the 40 pages.
const LEVEL_MAX: u8 = 40;

/// What a page of a given length can hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    page_bytes: usize,
}

impl Limits {
    pub(crate) fn new(page_bytes: usize) -> Self {
        Limits { page_bytes }
    }

    pub(crate) fn page_bytes(self) -> usize {
        self.page_bytes
    }

    /// For cells and their slots.
    pub(crate) fn capacity_bytes(self) -> usize {
        self.page_bytes - HEADER_BYTES
    }

    /// For one cell and its slot.
    fn cell_bytes_max(self) -> usize {
        self.capacity_bytes() / 4
    }

    /// A key must fit beside the address of a block.
    pub(crate) fn key_bytes_max(self) -> usize {
        self.cell_bytes_max() - cell_bytes(0, PACKED_BYTES_MAX)
    }

    /// Whether a value stands in the leaf.
    pub(crate) fn is_inline(self, key: &[u8], value: &[u8]) -> bool {
        cell_bytes(key.len(), value.len()) <= self.cell_bytes_max()
    }
}

/// What a cell takes, its slot included.
fn cell_bytes(key_bytes: usize, payload_bytes: usize) -> usize {
    SLOT_BYTES + CELL_HEADER_BYTES + key_bytes + payload_bytes
}

/// What a cell has beside its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Value(Vec<u8>),
    Block(BlockAddr),
    Child(PageId),
}

/// A node that can be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    page: PageId,
    bytes: &'a [u8],
    level: u8,
    count: usize,
}

impl<'a> View<'a> {
    /// `level`: what the node must be, where that is known.
    pub(crate) fn new(page: PageId, bytes: &'a [u8], level: Option<u8>) -> Result<Self> {
        let damaged = |problem: String| Err(Error::Damaged { page, problem });
        let Some(([magic0, magic1, found_level, 0, count0, count1, 0, 0], _)) = bytes.split_first_chunk() else {
            return damaged("expected a header, found other bytes".to_owned());
        };
        if [*magic0, *magic1] != MAGIC {
            return damaged(format!("expected {MAGIC:?}, found {:?}", [magic0, magic1]));
        }
        if let Some(level) = level.filter(|level| level != found_level) {
            return damaged(format!("expected level {level}, found {found_level}"));
        }
        let count = usize::from(u16::from_le_bytes([*count0, *count1]));
        let fits = HEADER_BYTES + count * SLOT_BYTES <= bytes.len();
        if !fits || *found_level > LEVEL_MAX || count == 0 && *found_level > 0 {
            return damaged(format!("{count} cells at level {found_level}"));
        }
        Ok(View { page, bytes, level: *found_level, count })
    }

    pub(crate) fn page(&self) -> PageId {
        self.page
    }

    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn u16_at(&self, at: usize) -> Option<u16> {
        self.bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
    }

    /// Key, payload, and whether that is in a block.
    fn parts(&self, index: usize) -> Result<(&'a [u8], &'a [u8], bool)> {
        let parts = || {
            let at = usize::from(self.u16_at(HEADER_BYTES + index * SLOT_BYTES)?);
            let (key_bytes, payload) = (self.u16_at(at)?, self.u16_at(at + 2)?);
            let cell = self.bytes.get(at + CELL_HEADER_BYTES..)?;
            let (key, rest) = cell.split_at_checked(usize::from(key_bytes))?;
            Some((key, rest.get(..usize::from(payload & !IN_BLOCK))?, payload & IN_BLOCK != 0))
        };
        parts().ok_or_else(|| self.damaged(format!("cell {index} is not inside the page")))
    }

    fn damaged(&self, problem: String) -> Error {
        Error::Damaged { page: self.page, problem }
    }

    pub(crate) fn key(&self, index: usize) -> Result<&'a [u8]> {
        self.parts(index).map(|(key, ..)| key)
    }

    pub(crate) fn payload(&self, index: usize) -> Result<Payload> {
        let (_, payload, in_block) = self.parts(index)?;
        let decoded = match (self.level, in_block) {
            (0, false) => Some(Payload::Value(payload.to_vec())),
            (0, true) => {
                let address = BlockAddr::unpack(payload).ok().filter(|(_, rest)| rest.is_empty());
                address.map(|(address, _)| Payload::Block(address))
            }
            (_, false) => payload.try_into().ok().map(|page| Payload::Child(PageId(u64::from_le_bytes(page)))),
            (_, true) => None,
        };
        decoded.ok_or_else(|| self.damaged(format!("cell {index} has a payload that level {} has not", self.level)))
    }

    /// Where the key is, or where it would be put.
    pub(crate) fn search(&self, key: &[u8]) -> Result<Result<usize, usize>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle)?.cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(Ok(middle)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(Err(low))
    }

    /// Which child has the key.
    pub(crate) fn child_index(&self, key: &[u8]) -> Result<usize> {
        Ok(self.search(key)?.unwrap_or_else(|next| next.saturating_sub(1)))
    }
}

/// A key and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) key: Vec<u8>,
    pub(crate) payload: Payload,
}

impl Cell {
    pub(crate) fn child(key: Vec<u8>, page: PageId) -> Self {
        Cell { key, payload: Payload::Child(page) }
    }

    fn len_bytes(&self) -> usize {
        let payload_bytes = match &self.payload {
            Payload::Value(value) => value.len(),
            Payload::Block(address) => address.pack().len(),
            Payload::Child(_) => size_of::<u64>(),
        };
        cell_bytes(self.key.len(), payload_bytes)
    }
}

/// A node that is being changed. It may have more in it than fits into a page, until it is split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) level: u8,
    /// By ascending keys.
    pub(crate) cells: Vec<Cell>,
}

impl Node {
    pub(crate) fn decode(view: &View<'_>) -> Result<Self> {
        let limits = Limits::new(view.bytes.len());
        let mut node = Node { level: view.level, cells: Vec::with_capacity(view.count) };
        let mut len_bytes = 0;
        for index in 0..view.count {
            let cell = Cell { key: view.key(index)?.to_vec(), payload: view.payload(index)? };
            // So that what is proven of lengths below holds for any page.
            len_bytes += cell.len_bytes();
            let key_fits = cell.key.len() <= limits.key_bytes_max();
            if !key_fits || cell.len_bytes() > limits.cell_bytes_max() || len_bytes > limits.capacity_bytes() {
                return Err(view.damaged(format!("cell {index} takes more than there can be")));
            }
            let ascends = node.cells.last().is_none_or(|last| last.key < cell.key);
            if !ascends || index == 0 && view.level > 0 && !cell.key.is_empty() {
                return Err(view.damaged(format!("the key of cell {index} is out of order")));
            }
            node.cells.push(cell);
        }
        Ok(node)
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.cells.iter().map(Cell::len_bytes).sum()
    }

    /// The page. The node must fit into it.
    pub(crate) fn encode(&self, limits: Limits) -> Vec<u8> {
        let mut bytes = vec![0; limits.page_bytes];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = self.level;
        bytes[4..6].copy_from_slice(&small(self.cells.len()));
        let mut end = limits.page_bytes;
        for (index, cell) in self.cells.iter().enumerate() {
            let (payload, in_block) = match &cell.payload {
                Payload::Value(value) => (value.clone(), 0),
                Payload::Block(address) => (address.pack(), IN_BLOCK),
                Payload::Child(page) => (page.0.to_le_bytes().to_vec(), 0),
            };
            let [low, high] = small(payload.len());
            let payload_bytes = [low, high | in_block.to_le_bytes()[1]];
            let encoded = [&small(cell.key.len()), &payload_bytes, cell.key.as_slice(), &payload].concat();
            let start = end - encoded.len();
            bytes[start..end].copy_from_slice(&encoded);
            bytes[HEADER_BYTES + index * SLOT_BYTES..][..SLOT_BYTES].copy_from_slice(&small(start));
            end = start;
        }
        bytes
    }

    /// Two nodes as equal in length as can be, and the key that the second one begins with in their parent.
    ///
    /// Where this one takes more than a page, no more than two quarters more, and no cell more than a quarter, each of
    /// the two has two cells at least and fits into a page.
    pub(crate) fn split(mut self) -> (Node, Vec<u8>, Node) {
        let all_bytes = self.len_bytes();
        let mut left_bytes = 0;
        let mut at = 0;
        for cell in &self.cells {
            let next_bytes = left_bytes + cell.len_bytes();
            if all_bytes.abs_diff(2 * next_bytes) > all_bytes.abs_diff(2 * left_bytes) {
                break;
            }
            left_bytes = next_bytes;
            at += 1;
        }
        let mut right = Node { level: self.level, cells: self.cells.split_off(at) };
        let separator = match (self.cells.last(), right.cells.first_mut()) {
            (_, Some(first)) if self.level > 0 => std::mem::take(&mut first.key),
            (Some(last), Some(first)) => separator(&last.key, &first.key),
            _ => Vec::new(),
        };
        (self, separator, right)
    }

    /// What [`Node::split`] divided, or other neighbours.
    pub(crate) fn join(mut self, separator: Vec<u8>, mut right: Node) -> Node {
        if let Some(first) = right.cells.first_mut().filter(|_| self.level > 0) {
            first.key = separator;
        }
        self.cells.append(&mut right.cells);
        self
    }
}

/// The shortest key that is above `low` and not above `high`.
fn separator(low: &[u8], high: &[u8]) -> Vec<u8> {
    let common = low.iter().zip(high).take_while(|(low, high)| low == high).count();
    high[..high.len().min(common + 1)].to_vec()
}

/// A count or an offset in a page.
fn small(number: usize) -> [u8; 2] {
    debug_assert!(number < PAGE_BYTES_MAX, "{number} in a page of at most {PAGE_BYTES_MAX} bytes");
    (number as u16).to_le_bytes()
}
