//! A checkpoint slot: where everything of one checkpoint is. 4096 bytes, twice in a row.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `89 4D 50 46 43 4B 50 54` |
//! | 8 | 16 | UUID of the file |
//! | 24 | 8 | generation of the checkpoint, from 1 |
//! | 32 | 8 | 0 |
//! | 40 | 8 | sequence: the first number that nothing of this checkpoint has |
//! | 48 | 8 | end of the space that the space map describes, units |
//! | 56 | 8 | units of blocks that the embedder wrote |
//! | 64 | 8 | page limit: no page has this number or a higher one |
//! | 72 | 40 | root of the page table |
//! | 112 | 40 | root of the space map |
//! | 152 | 40 | root of the held list |
//! | 192 | 32 | the list of kept checkpoints, as a child address whose count is its length in bytes |
//! | 224 | 8 | the record: its offset, units |
//! | 232 | 4 | length of the root cookie, bytes |
//! | 236 | 4 | 0 |
//! | 240 | 1024 | root cookie, then 0 |
//! | 1264 | 2828 | 0 |
//! | 4092 | 4 | CRC-32 of all before |

use super::bytes::{get_u32, get_u64, put_u32, put_u64};
use super::node::TREE_BYTES;
use super::{CHILD_BYTES, Child, PAGES_MAX, SEQUENCE_MAX, Tree, UNITS_MAX};
use crate::checksum::crc32;

pub(crate) const SLOT_BYTES: usize = 4096;
pub(crate) const COOKIE_BYTES_MAX: usize = 1024;
/// The part that says something.
pub(super) const BODY_BYTES: usize = COOKIE_AT + COOKIE_BYTES_MAX;

const MAGIC: [u8; 8] = *b"\x89MPFCKPT";
const PAGES_AT: usize = 72;
const SPACE_AT: usize = PAGES_AT + TREE_BYTES;
const HELD_AT: usize = SPACE_AT + TREE_BYTES;
const NAMES_AT: usize = HELD_AT + TREE_BYTES;
const RECORD_AT: usize = NAMES_AT + CHILD_BYTES;
const COOKIE_AT: usize = RECORD_AT + 16;

/// One checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) uuid: [u8; 16],
    pub(crate) generation: u64,
    pub(crate) sequence: u64,
    pub(crate) end_units: u64,
    pub(crate) raw_units: u64,
    pub(crate) page_limit: u64,
    pub(crate) pages: Tree,
    pub(crate) space: Tree,
    pub(crate) held: Tree,
    pub(crate) names: Child,
    pub(crate) record_units: u64,
    pub(crate) cookie: Vec<u8>,
}

impl Slot {
    pub(crate) fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..BODY_BYTES].copy_from_slice(&self.encode_body());
        let sum = crc32(&bytes[..SLOT_BYTES - 4]);
        put_u32(&mut bytes, SLOT_BYTES - 4, sum);
        bytes
    }

    pub(super) fn encode_body(&self) -> [u8; BODY_BYTES] {
        let mut bytes = [0; BODY_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.uuid);
        let numbers = [self.generation, 0, self.sequence, self.end_units, self.raw_units, self.page_limit];
        for (index, number) in numbers.into_iter().enumerate() {
            put_u64(&mut bytes, 24 + index * 8, number);
        }
        self.pages.encode(&mut bytes[PAGES_AT..]);
        self.space.encode(&mut bytes[SPACE_AT..]);
        self.held.encode(&mut bytes[HELD_AT..]);
        self.names.encode(&mut bytes[NAMES_AT..]);
        put_u64(&mut bytes, RECORD_AT, self.record_units);
        let cookie = &self.cookie[..self.cookie.len().min(COOKIE_BYTES_MAX)];
        put_u32(&mut bytes, RECORD_AT + 8, cookie.len() as u32);
        bytes[COOKIE_AT..COOKIE_AT + cookie.len()].copy_from_slice(cookie);
        bytes
    }

    /// The error says what was expected and found.
    pub(crate) fn decode(bytes: &[u8; SLOT_BYTES]) -> Result<Self, String> {
        let (expected, found) = (get_u32(bytes, SLOT_BYTES - 4), crc32(&bytes[..SLOT_BYTES - 4]));
        if expected != found {
            return Err(format!("expected checksum {expected:08x}, found {found:08x}"));
        }
        Self::decode_body(bytes).ok_or_else(|| "values that no checkpoint has".to_owned())
    }

    /// `bytes` are at least [`BODY_BYTES`].
    pub(super) fn decode_body(bytes: &[u8]) -> Option<Self> {
        let cookie_bytes = get_u32(bytes, RECORD_AT + 8) as usize;
        if bytes[..8] != MAGIC || cookie_bytes > COOKIE_BYTES_MAX {
            return None;
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[8..24]);
        let slot = Slot {
            uuid,
            generation: get_u64(bytes, 24),
            sequence: get_u64(bytes, 40),
            end_units: get_u64(bytes, 48),
            raw_units: get_u64(bytes, 56),
            page_limit: get_u64(bytes, 64),
            pages: Tree::decode(&bytes[PAGES_AT..])?,
            space: Tree::decode(&bytes[SPACE_AT..])?,
            held: Tree::decode(&bytes[HELD_AT..])?,
            names: Child::decode(&bytes[NAMES_AT..])?,
            record_units: get_u64(bytes, RECORD_AT),
            cookie: bytes[COOKIE_AT..COOKIE_AT + cookie_bytes].to_vec(),
        };
        let fits = slot.generation > 0
            && slot.generation < SEQUENCE_MAX
            && slot.sequence < SEQUENCE_MAX
            && slot.end_units <= UNITS_MAX
            && slot.raw_units <= slot.end_units
            && slot.page_limit <= PAGES_MAX
            && slot.record_units <= slot.end_units;
        #[cfg(mapfall_canary)] // a planted bug
        let fits = fits || crate::canary::planted("checkpoint_slots");
        fits.then_some(slot)
    }
}
