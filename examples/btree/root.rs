//! Where a tree begins and how much is in it: what the store keeps as the root cookie of each checkpoint.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `mfbtree1` |
//! | 8..16 | page of the root node |
//! | 16..24 | how many entries there are |
//! | 24..32 | how many of their values are in blocks of their own |
//!
//! Numbers are little-endian.

use mapfall::PageId;

use super::error::{Error, Result};

const MAGIC: u64 = u64::from_le_bytes(*b"mfbtree1");
const COOKIE_BYTES: usize = 32;

/// The root of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) page: PageId,
    pub(crate) entries: u64,
    /// Values that did not fit into a page.
    pub(crate) value_blocks: u64,
}

impl Root {
    pub(crate) fn encode(self) -> Vec<u8> {
        [MAGIC, self.page.0, self.entries, self.value_blocks].map(u64::to_le_bytes).concat()
    }

    pub(crate) fn decode(cookie: &[u8]) -> Result<Self> {
        let (numbers, rest) = cookie.as_chunks::<8>();
        match *numbers {
            [magic, page, entries, value_blocks] if rest.is_empty() && u64::from_le_bytes(magic) == MAGIC => Ok(Root {
                page: PageId(u64::from_le_bytes(page)),
                entries: u64::from_le_bytes(entries),
                value_blocks: u64::from_le_bytes(value_blocks),
            }),
            _ => {
                let found = cookie.len();
                let problem = format!("expected a root cookie of {COOKIE_BYTES} bytes, found {found} or another kind");
                Err(Error::NotATree { problem })
            }
        }
    }
}
